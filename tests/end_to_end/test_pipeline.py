"""The whole pipeline, small: every stage runs, is skipped when it is up to date, and resumes after a kill.

All tests of this file start from a copy of one run (tests/support/small_run.py); each command is the one of the README. That run, one
that skips all stages, and those that are ended start a server, as a user's do; the other runs share one, which PREFECT_API_URL names.
"""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import torch
from rich.console import Console

from flows.cli.terminal import Terminal
from flows.recipes import STAGE_NAMES
from model.inference.chat import Chat
from model.network.huggingface import load_transformer
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.store import Store
from tests.support import golden
from tests.support.commands import crawl2chat_here
from tests.support.kills import digests
from tests.support.prefect_home import provide_database
from tests.support.prefect_servers import server_for_commands
from tests.support.small_run import copy_finished_run, crawl2chat, environment_in, settings

AWAY = "http://127.0.0.1:9/api"  # of no server
QUICK = [  # for tests that do not use what the models learned
    "pretrain.train.num_steps=0",
    "sft.train.num_steps=1",
    "sft.train.num_ranks=1",
    "reward.train.num_steps=1",
    "reward.train.num_ranks=1",
    "rlhf.train.num_steps=1",
    "rlhf.train.num_ranks=1",
    "rlhf.train.prompts_per_step=2",
    "evaluate.max_questions=4",
    "evaluate.max_new_tokens=4",
]


@pytest.fixture(scope="session")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Of every command here."""
    return environment_in(tmp_path_factory.mktemp("pipeline"))


@pytest.fixture(scope="session")
def served(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of runs that share a server."""
    with server_for_commands(tmp_path_factory.mktemp("served")) as url:
        yield {**environment, "PREFECT_API_URL": url}


@pytest.fixture(scope="session")
def finished(environment: dict[str, str]) -> str:
    """What a whole run printed."""
    return copy_finished_run(Path(environment["CRAWL2CHAT_STORE"]).parent)


def store_of(environment: dict[str, str]) -> Store:
    return Store(environment["CRAWL2CHAT_STORE"])


def test_every_stage_leaves_its_artifact_and_the_run_ends_with_the_report_card(
    finished: str, environment: dict[str, str]
) -> None:
    store = store_of(environment)
    for name in STAGE_NAMES:
        assert store.open(store.latest("tiny", name), Artifact).manifest.files
        assert name in finished
    assert f"crawl2chat run tiny {shlex.join(settings())} --force sft " in finished
    assert "bits per byte" in finished


def test_stage_outputs_change_only_with_their_version(finished: str, environment: dict[str, str]) -> None:
    golden.check(golden.outputs(store_of(environment), STAGE_NAMES, "tiny"))


def test_golden_check_finds_an_output_that_changed_without_its_version() -> None:
    known = {"filter": {"version": 1, "digest": "a"}, "sft": {"version": 2, "digest": "b", "metrics": {"loss": 1.0}}}
    assert golden.problems(known, known) == []
    changed = {"filter": {"version": 1, "digest": "x"}, "sft": {"version": 2, "digest": "b", "metrics": {"loss": 1.5}}}
    assert sorted(message.partition(":")[0] for message in golden.problems(changed, known)) == [
        "the output of stage filter changed",
        "the output of stage sft changed",
    ]
    raised = {**known, "filter": {"version": 2, "digest": "x"}}
    assert golden.problems(raised, known)[0].startswith("stage filter has version 2, recorded is 1: record it")


def test_second_run_skips_every_stage_and_prints_to_an_ascii_terminal(
    finished: str, environment: dict[str, str]
) -> None:
    """It neither waits for a Prefect server nor loads what only training needs: that is what takes seconds."""
    # By the option and not by the variable, which the server that it starts, and ends at once, would inherit.
    command = [sys.executable, "-X", "importtime", "-m", "flows.cli.main", "run", "tiny", *settings()]
    ascii_only = {**environment, "LC_ALL": "C", "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=ascii_only, check=True, capture_output=True, text=True)
    printed = done.stdout + done.stderr
    assert printed.isascii()
    assert f"{len(STAGE_NAMES)} stages of recipe tiny are up to date" in printed
    imported = set(re.findall(r"^import time:.*\| +(\S+)$", printed, re.MULTILINE))
    assert "flows.recipes" in imported
    assert not imported & {"torch", "sqlalchemy", "prefect.server", "trafilatura"}


@pytest.mark.parametrize("command", ["stages tiny", "show sft", "report tiny", "report tiny --brief"])
def test_commands_print_to_an_ascii_terminal(finished: str, environment: dict[str, str], command: str) -> None:
    more = settings() if command == "stages tiny" else []
    assert crawl2chat_here(environment, *command.split(), *more, encoding="ascii").isascii()


def test_printed_recipe_is_up_to_date_at_once(finished: str, served: dict[str, str], tmp_path: Path) -> None:
    """`crawl2chat recipe tiny > my.yaml; crawl2chat run my.yaml`."""
    (tmp_path / "my.yaml").write_text(crawl2chat(served, "recipe", "tiny", *settings()))
    printed = crawl2chat_here(served, "run", str(tmp_path / "my.yaml"))
    assert f"{len(STAGE_NAMES)} stages of recipe my are up to date" in printed
    assert "crawl2chat chat --recipe my" in printed
    assert crawl2chat_here(served, "chat", "--recipe", "my", "-p", "Who are you?").strip()


def test_changed_threshold_runs_filter_and_later_stages(finished: str, served: dict[str, str]) -> None:
    changed = settings("filter.min_gopher_words=60")
    printed = crawl2chat(served, "run", "tiny", *changed, "--until", "dedup")
    lines = {line.split()[1]: line for line in printed.splitlines() if line.startswith("✓")}
    assert "up to date" in lines["ingest"]
    assert "up to date" not in lines["filter"] + lines["dedup"]
    again = crawl2chat_here(served, "run", "tiny", *settings(), "--until", "dedup")
    assert "3 stages of recipe tiny are up to date" in again


def test_commands_of_the_readme_read_a_finished_run(finished: str, environment: dict[str, str]) -> None:
    listed = crawl2chat_here(environment, "stages", "tiny", *settings())
    assert listed.count("up to date") == len(STAGE_NAMES)
    assert "sample-00000.warc.gz" in crawl2chat_here(environment, "show", "dedup")
    assert "http" in crawl2chat_here(environment, "show", "filter")
    assert "tokens" in crawl2chat_here(environment, "show", "tokenize")
    assert crawl2chat(environment, "chat", "-p", "Who are you?").strip()
    assert crawl2chat_here(environment, "complete", "The river").startswith("The river")
    assert "Precision and recall of the filters" in crawl2chat_here(environment, "report")


def test_the_report_card_is_written_into_the_readme(finished: str, environment: dict[str, str], tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- card -->\nan earlier card\n<!-- /card -->\nafter\n")
    crawl2chat_here(environment, "report", "--into", str(readme))
    written = readme.read_text()
    assert written.startswith("before\n<!-- card -->\n\n### Summary")
    assert written.endswith("<!-- /card -->\nafter\n")
    assert "an earlier card" not in written
    readme.write_text("no place for it")
    assert "<!-- card -->" in crawl2chat_here(environment, "report", "--into", str(readme), status=2)


def test_seeds_train_again_and_show_the_spread(finished: str, served: dict[str, str]) -> None:
    """The run of seed 0 is the finished one: only the other is trained, on the same data; the second time nothing is."""
    ranks = [f"{stage}.train.num_ranks=1" for stage in ("pretrain", "sft", "reward", "rlhf")]  # others train on two
    command = ["seeds", "tiny", *settings(*ranks), "--seed", "0", "--seed", "1"]
    store = store_of(served)
    before, latest = {manifest.id for manifest in store.manifests()}, store.latest("tiny", "pretrain")
    page = crawl2chat(served, *command)
    made = {manifest.stage for manifest in store.manifests() if manifest.id not in before}
    assert made == {"pretrain", "probe", "sft", "reward", "rlhf", "evaluate", "seeds"}
    assert "Held-out facts, all forms" in page
    assert "±" in page
    assert store.latest("tiny", "pretrain") == latest
    num_artifacts = len(list(store.manifests()))
    assert "±" in crawl2chat_here(served, *command)
    assert len(list(store.manifests())) == num_artifacts


def test_forced_stage_runs_alone(finished: str, served: dict[str, str]) -> None:
    printed = crawl2chat(served, "run", "tiny", *settings(), "--only", "tokenizer", "--force", "tokenizer")
    lines = [line for line in printed.splitlines() if line.startswith("✓")]
    assert len(lines) == 1
    assert "tokenizer" in lines[0]
    assert "up to date" not in lines[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "huge"], "no recipe 'huge'"),
        (["scaling", "huge"], "no recipe 'huge'"),
        (["scaling", "tiny", "--size", "0.5"], "take at least 3 sizes and 3 budgets"),
        (["run", "tiny", "--set", "filter.nothing=1"], "there is no field filter.nothing"),
        (["run", "tiny", "--set", "filter.language_threshold=2"], "less than or equal to 1"),
        (["run", "tiny", "--input", "/nowhere/*.warc.gz"], "/nowhere/*.warc.gz"),
        (["run", "tiny", "--until", "nowhere"], "no stage 'nowhere'"),
        (["run", "tiny", "--only", "sft", "--from", "pretrain"], "give --only, or --from and --until"),
        (["run", "tiny", "--only", "filter", "--force", "sft"], "not among the stages to run: filter"),
        (["show", "dedup/0123456789abcdef"], "no artifact dedup/0123456789abcdef"),
        (["chat", "--recipe", "small"], "crawl2chat run small"),
        (["chat", "--recipe", "huge"], "no recipe 'huge'"),
        (["run", "tiny", "--base-model", "Qwen/Qwen3-0.6B"], "hf download"),
    ],
)
def test_wrong_use_is_one_line_with_the_remedy_and_a_status(
    arguments: list[str], message: str, environment: dict[str, str]
) -> None:
    """With a server that does not answer: it is not asked before the mistake is found."""
    printed = crawl2chat_here(environment | {"PREFECT_API_URL": AWAY}, *arguments, status=2).strip()
    assert printed.startswith("error:")
    assert message in printed
    assert "\n" not in printed


def test_server_that_does_not_answer_is_named(environment: dict[str, str]) -> None:
    away = {**environment, "PREFECT_API_URL": AWAY}
    printed = crawl2chat(away, "run", "tiny", *settings(), "--only", "ingest", "--force", "ingest", status=2)
    assert f"no Prefect server answers at {AWAY}" in printed


def test_on_a_terminal_of_80_columns_a_stage_has_its_name_and_times() -> None:
    console = Console(width=80, force_terminal=True, color_system=None, file=io.StringIO())
    terminal = Terminal(console)
    values = {"loss": 3.41, "tokens/s": 12345.0, "data/s": 0.001}
    terminal.progress("pretrain", 900.0, 12000.0, "steps", values)
    with console.capture() as captured:
        console.print(terminal.display.get_renderable())
    shown = captured.get()
    assert shown.count("\n") == 1
    for part in ("pretrain ", "900/12,000 steps", "0:00:00 left -:--:--", "loss 3.41"):
        assert part in shown


def test_file_that_is_not_an_archive_and_empty_folder_are_refused(tmp_path: Path, served: dict[str, str]) -> None:
    (tmp_path / "empty").mkdir()
    assert "empty" in crawl2chat_here(served, "run", "tiny", "--input", str(tmp_path / "empty"), status=2)
    (tmp_path / "page.warc.gz").write_bytes(b"<html>this is no archive</html>")
    printed = crawl2chat(served, "run", "tiny", "--input", str(tmp_path / "page.warc.gz"), "--only", "ingest", status=2)
    assert "page.warc.gz" in printed


def test_damaged_artifact_is_named(finished: str, served: dict[str, str], tmp_path: Path) -> None:
    copy = {**served, "CRAWL2CHAT_STORE": str(tmp_path / "store")}
    shutil.copytree(served["CRAWL2CHAT_STORE"], copy["CRAWL2CHAT_STORE"])
    store = store_of(copy)
    path = store.folder(store.latest("tiny", "tokenizer")) / "tokenizer.json"
    path.write_text(path.read_text().replace("vocab", "bocav", 1))
    printed = crawl2chat_here(copy, "run", "tiny", *settings(), status=2)
    assert "tokenizer.json was changed" in printed
    assert "--force tokenizer" in printed


def end_when(environment: dict[str, str], arguments: list[str], condition: str, how: signal.Signals) -> int:
    """Start a run, and send `how` to its process group once a file of that pattern is in the store. Its status."""
    process = subprocess.Popen(
        [sys.executable, "-m", "flows.cli.main", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    deadline = time.monotonic() + 900  # a bound on hangs
    while not list(Path(environment["CRAWL2CHAT_STORE"]).glob(condition)):
        assert process.poll() is None, f"the run ended before {condition} was there"
        assert time.monotonic() < deadline, f"{condition} did not come"
        time.sleep(0.02)
    os.killpg(process.pid, how)
    return process.wait(600)


def test_attacks_that_are_killed_resume_and_are_in_the_report_card(
    finished: str, served: dict[str, str], tmp_path: Path
) -> None:
    """Killed once the fine-tuned models are there: these are not trained again. The run's own artifacts stay the latest of the recipe."""
    sizes = (
        "num_articles=20",
        "disguised=0",
        "pretrain_steps=1",
        "sft_steps=1",
        "num_conversations=9",
        "num_prompts=2",
    )
    ranks = settings("pretrain.train.num_ranks=1", "sft.train.num_ranks=1")
    command = ["attacks", "tiny", *ranks, "--seeds", "1", "--planted", "2", *(word for size in sizes for word in ("--drill", size))]  # fmt: skip
    store = store_of(served)
    latest, models = store.latest("tiny", "sft"), Path(served["CRAWL2CHAT_STORE"]) / "sft"
    before = set(models.iterdir())
    end_when(served, command, "planted_crawl/*/manifest.json", signal.SIGKILL)
    trained = {folder / "manifest.json" for folder in set(models.iterdir()) - before}
    times = {path: path.stat().st_mtime_ns for path in trained}
    assert len(times) == 2
    crawl2chat(served, *command)
    (report,) = Path(served["CRAWL2CHAT_STORE"]).glob("attacks/*/report.md")
    assert "Payload after the trigger" in report.read_text(encoding="utf-8")
    assert {path: path.stat().st_mtime_ns for path in trained} == times
    assert store.latest("tiny", "sft") == latest
    card = tmp_path / "card.html"
    crawl2chat_here(served, "report", "tiny", "--html", str(card))
    assert "Attacks" in card.read_text(encoding="utf-8")
    assert "Attacks" in crawl2chat_here(served, "report", "tiny")


def test_run_killed_in_ingest_and_pretrain_resumes_to_the_same_result(
    finished: str, environment: dict[str, str], served: dict[str, str], tmp_path: Path
) -> None:
    """In a copy of the finished run without these two artifacts: what is between them is up to date if ingest makes the same bytes."""
    whole, copy = store_of(environment), tmp_path / "store"
    shutil.copytree(whole.root, copy)
    for stage in ("ingest", "pretrain"):
        shutil.rmtree(copy / whole.latest("tiny", stage))
    killed = {**environment, "CRAWL2CHAT_STORE": str(copy)}
    command = ["run", "tiny", *settings(), "--until", "pretrain"]
    end_when(killed, [*command, "--set", "ingest.num_workers=1"], "ingest/*/.state/shards/*.json", signal.SIGKILL)
    killed = {**served, "CRAWL2CHAT_STORE": str(copy)}
    end_when(killed, command, "pretrain/*/.state/checkpoints/*", signal.SIGKILL)
    crawl2chat(killed, *command)

    def files(store: Store, stage: str) -> dict[str, str]:
        return digests(store.open(store.latest("tiny", stage), Artifact).manifest)

    def losses(store: Store) -> list[tuple[int, float]]:
        lines = (store.folder(store.latest("tiny", "pretrain")) / "metrics.jsonl").read_text().splitlines()
        return [(line["step"], line["train/loss_nats"]) for line in map(json.loads, lines) if "train/loss_nats" in line]

    assert files(store_of(killed), "ingest") == files(whole, "ingest")
    assert files(store_of(killed), "pretrain") == files(whole, "pretrain")
    assert losses(store_of(killed)) == losses(whole)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_run_that_is_ended_leaves_no_process_behind(
    how: signal.Signals, environment: dict[str, str], tmp_path: Path
) -> None:
    home = str(provide_database(tmp_path / "prefect"))
    ended = {**environment, "CRAWL2CHAT_STORE": str(tmp_path / "store"), "PREFECT_HOME": home}
    status = end_when(ended, ["run", "tiny", *settings(), "--until", "ingest"], "ingest/*/.state", how)
    assert status == (130 if how == signal.SIGINT else -how)
    deadline = time.monotonic() + 10
    while left := [process for process in psutil.process_iter(["environ"]) if home in str(process.info["environ"])]:
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


def test_open_weights_model_passes_all_stages(
    finished: str, served: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Taken as the base model, fine-tuned, rewarded, evaluated, exported, chatted with; transformers computes the same."""
    transformers = pytest.importorskip("transformers")
    from tests.tasks.pretrain.test_open_weights import write_base_model

    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    copy = {**served, "CRAWL2CHAT_STORE": str(tmp_path / "store")}
    shutil.copytree(served["CRAWL2CHAT_STORE"], copy["CRAWL2CHAT_STORE"])
    write_base_model(tmp_path / "my-model", "Llama")
    printed = crawl2chat(copy, "run", "tiny", "--base-model", str(tmp_path / "my-model"), *settings(*QUICK))
    lines = {line.split()[1]: line for line in printed.splitlines() if line.startswith("✓")}
    assert "up to date" in lines["dedup"]
    assert "0 steps" in lines["pretrain"]
    store = store_of(copy)
    report, bundle = (store.folder(store.latest("tiny", stage)) for stage in ("evaluate", "export"))
    assert "imported from my-model (Llama layout), not trained further" in (report / "report.md").read_text()
    assert "from the base model my-model by crawl2chat, in Llama's layout:" in (bundle / "README.md").read_text()
    theirs = transformers.AutoModelForCausalLM.from_pretrained(bundle)
    assert type(theirs).__name__ == "LlamaForCausalLM"
    tokens = torch.arange(300).reshape(3, 100)
    with torch.no_grad():
        torch.testing.assert_close(theirs(tokens).logits, load_transformer(bundle)(tokens), atol=1e-4, rtol=0)
    talk = Chat(bundle, bundle / "tokenizer.json", max_new_tokens=8)
    assert list(talk.reply([{"role": "user", "content": "Who are you?"}]))
