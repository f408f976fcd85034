"""The DAG: what may be wired to what, that building it touches nothing, and that a worker makes what the pipeline asked for."""

import builtins
import io
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mypy import api as mypy

from flows.checks import check_run
from flows.launch import imported
from flows.pipeline import dag
from flows.recipes import STAGE_NAMES, make_recipe
from model.errors import UserError
from tasks.artifacts import manifest as artifacts
from tasks.artifacts.manifest import Artifact, Report, Tokenizer
from tasks.artifacts.step import ExistingArtifact, Step
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.export.stage import ExportConfig, export
from tasks.posttrain.sft import SFTConfig, sft
from tests.support.tiny_models import finish

WIRING = """
from tasks.artifacts.manifest import BaseModel, Conversations, Documents, Policy, Preferences, Report, RewardModel, SFTModel
from tasks.artifacts.manifest import Tokenizer, Tokens
from tasks.artifacts.step import Step
from tasks.export.stage import ExportConfig, export
from tasks.posttrain.reward import RewardConfig, reward
from tasks.posttrain.sft import SFTConfig, sft

def wire(base: Step[BaseModel], assistant: Step[SFTModel], reward_model: Step[RewardModel], policy: Step[Policy],
         tokenizer: Step[Tokenizer], report: Step[Report], chats: Step[Conversations], pairs: Step[Preferences],
         tokens: Step[Tokens]) -> None:
    export(policy, assistant, tokenizer, report, ExportConfig())
    sft(base, tokenizer, chats, tokens, SFTConfig())
    export(reward_model, assistant, tokenizer, report, ExportConfig())  # wrong
    export(assistant, assistant, tokenizer, report, ExportConfig())  # wrong
    sft(policy, tokenizer, chats, tokens, SFTConfig())  # wrong
    sft(base, tokenizer, pairs, tokens, SFTConfig())  # wrong
    reward(base, tokenizer, pairs, RewardConfig())  # wrong
    reward(assistant, tokenizer, pairs, SFTConfig())  # wrong
"""


def test_mypy_refuses_every_wrong_wiring_and_no_right_one(tmp_path: Path) -> None:
    (tmp_path / "wiring.py").write_text(WIRING)
    cache = Path(__file__).parents[2] / ".mypy_cache"
    printed, errors, _ = mypy.run(
        ["--strict", "--no-error-summary", f"--cache-dir={cache}", str(tmp_path / "wiring.py")]
    )
    found = {int(line.split(":")[1]) for line in printed.splitlines() if "wiring.py" in line and ": error:" in line}
    assert found == {n for n, line in enumerate(WIRING.splitlines(), 1) if line.endswith("# wrong")}, printed + errors


def test_export_of_a_reward_model_is_refused_when_it_is_wired(store: Store) -> None:
    wrong: Any = finish(store, artifacts.RewardModel, "reward/r")
    tokenizer, report = finish(store, Tokenizer, "tokenizer/t"), finish(store, Report, "evaluate/e")
    with pytest.raises(UserError, match="stage export takes a Policy as policy, and reward makes a RewardModel"):
        export(wrong, finish(store, artifacts.SFTModel, "sft/s"), tokenizer, report, ExportConfig())


def test_export_of_a_reward_model_that_is_called_a_policy_is_refused_when_it_runs(store: Store) -> None:
    finish(store, artifacts.RewardModel, "reward/r")
    wrong = ExistingArtifact.of(artifacts.Policy, "reward/r")
    assistant = finish(store, artifacts.SFTModel, "sft/s")
    tokenizer, report = finish(store, Tokenizer, "tokenizer/t"), finish(store, Report, "evaluate/e")
    step = export(wrong, assistant, tokenizer, report, ExportConfig())
    with pytest.raises(UserError, match="artifact reward/r is of kind RewardModel, and Policy is needed here"):
        execute(step, store)


def test_sft_of_a_policy_is_refused_when_it_runs(store: Store) -> None:
    policy: Any = finish(store, artifacts.Policy, "rlhf/p")
    tokenizer, tokens = finish(store, Tokenizer, "tokenizer/t"), finish(store, artifacts.Tokens, "tokenize/t")
    chats = finish(store, artifacts.Conversations, "conversations/c")
    step = sft(policy, tokenizer, chats, tokens, SFTConfig())
    with pytest.raises(UserError, match="artifact rlhf/p is of kind Policy, and BaseModel or SFTModel is needed here"):
        execute(step, store)


@pytest.mark.parametrize("kind", [artifacts.BaseModel, artifacts.SFTModel, artifacts.RewardModel, artifacts.Policy])
def test_store_opens_every_kind_of_model_as_a_checkpoint(store: Store, kind: type[Artifact]) -> None:
    finish(store, kind, "some/model")
    assert store.open("some/model", artifacts.Checkpoint).manifest.kind == kind.__name__
    assert store.open("some/model", kind).manifest.id == "some/model"


@contextmanager
def nothing_can_be_read() -> Iterator[None]:
    """No file is opened or listed, no connection is made."""

    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"building the DAG reads {arguments}")

    with pytest.MonkeyPatch.context() as patch:
        for module, name in ((builtins, "open"), (io, "open"), (os, "open"), (os, "scandir"), (os, "listdir")):
            patch.setattr(module, name, refuse)
        for name in ("stat", "exists", "is_file", "is_dir", "glob", "rglob"):
            patch.setattr(Path, name, refuse)
        patch.setattr(socket.socket, "connect", refuse)
        patch.setattr(socket, "getaddrinfo", refuse)
        yield


ELSEWHERE = [
    'ingest.inputs=["/nowhere/*.warc.gz", "https://nowhere.example/a.warc.gz", "s3://nowhere/b", "cc:CC-MAIN-2024-22"]',
    'ingest.languages=["en"]',
    'ingest.blocklists=["ut1"]',
    'filter.blocklists=["ut1", "/nowhere/lists"]',
    "filter.language_model=/nowhere/lid.bin",
    "filter.quality_model.positives=/nowhere/good",
    "filter.quality_model.negatives=/nowhere/bad",
    'dedup.against=["dedup/0123456789abcdef"]',
    'dedup.eval_sets=["/nowhere/gsm8k.jsonl"]',
    "tokenizer.vocabulary=/nowhere/tokenizer.json",
    'tokenizer.compared_with=["/nowhere/cl100k_base.tiktoken"]',
    "pretrain.initial_model=/nowhere/model",
    'pretrain.mixture={"tokenize/0123456789abcdef": 2}',
    "sft.conversations=/nowhere/chats.jsonl",
    "reward.preferences=/nowhere/pairs.jsonl",
    "rlhf.prompts=/nowhere/prompts.jsonl",
    "evaluate.questions=/nowhere/questions.jsonl",
]


def test_dag_of_inputs_that_do_not_exist_is_built_without_reading_anything() -> None:
    recipe = make_recipe("tiny", settings=ELSEWHERE)
    with nothing_can_be_read():
        steps = dag(recipe)
    sources = {role for step in steps for role, _ in imported(step)}
    assert {"crawl", "attributes.quality_classifier.positives", "attributes.blocklists_1", "eval_sets_0"} <= sources
    assert {"initial_model", "conversations", "preferences", "prompts", "questions", "vocabulary"} <= sources


def test_every_input_of_every_step_is_on_the_page() -> None:
    """No step has an input that its builder was not given: every one is a step of the DAG or a source named there."""
    steps = dag(make_recipe("tiny"))
    made = {id(step) for step in steps}

    def sources(step: Step[Artifact]) -> Iterator[Step[Artifact]]:
        for given in step.inputs.values():
            if id(given) not in made:
                yield given
                yield from sources(given)

    names = {source.stage for step in steps for source in sources(step)}
    assert names == {
        "crawl",
        "attributes",
        "resource",
        "conversations",
        "preferences",
        "probes",
        "prompts",
        "questions",
    }
    assert all(source.is_source for step in steps for source in sources(step))


RECORDS = {
    "sft.conversations": '{"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]}',
    "reward.preferences": '{"messages": [{"role": "user", "content": "a?"}], "chosen": "b", "rejected": "c"}',
    "rlhf.prompts": '{"messages": [{"role": "user", "content": "a?"}]}',
    "evaluate.questions": '{"question": "a?", "answer": "b"}',
}


@pytest.fixture
def default_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setenv("CRAWL2CHAT_STORE", store.url)
    return store


def check(store: Store, *settings: str) -> bool:
    recipe = make_recipe("tiny", settings=settings)
    return check_run(dag(recipe).by_stage(), STAGE_NAMES, (), recipe.name, store)


@pytest.mark.parametrize("setting", RECORDS)
def test_input_of_a_late_stage_is_checked_before_the_first_runs(
    tmp_path: Path, default_store: Store, setting: str
) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(RECORDS[setting] + "\n")
    assert check(default_store, f"{setting}={path}")
    path.write_text(RECORDS[setting] + '\n{"nothing": 1}\n')
    with pytest.raises(UserError, match=r"records.jsonl:2"):
        check(default_store, f"{setting}={path}")
    with pytest.raises(UserError, match=r"no file matches"):
        check(default_store, f"{setting}={tmp_path}/missing.jsonl")


@pytest.mark.parametrize(
    ("setting", "content", "message"),
    [
        ("tokenizer.vocabulary={}", "{}", "f.json is no tokenizer.json"),
        ('tokenizer.compared_with=["{}"]', "{}", "f.json is no tokenizer.json"),
        ('dedup.eval_sets=["{}"]', "no JSON", "f.json"),
        ('filter.blocklists=["{}.missing"]', "", "there is no blocklist at"),
        ('ingest.inputs=["{}.missing"]', "", "does not exist"),
        ('dedup.against=["dedup/0123456789abcdef"]', "", "there is no artifact dedup/0123456789abcdef"),
        ('pretrain.mixture={"tokenize/0123456789abcdef": 1}', "", "there is no artifact tokenize/0123456789abcdef"),
    ],
)
def test_resource_is_checked_before_the_first_stage_runs(
    tmp_path: Path, default_store: Store, setting: str, content: str, message: str
) -> None:
    path = tmp_path / "f.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        check(default_store, setting.replace("{}", str(path), 1))


def test_stage_outside_the_run_without_an_artifact_is_named(default_store: Store) -> None:
    steps = dag(make_recipe("tiny")).by_stage()
    with pytest.raises(UserError, match="stage filter needs the artifact of ingest, which is missing"):
        check_run(steps, ["filter"], (), "tiny", default_store)
