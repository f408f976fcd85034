"""One small run of the whole pipeline, on a sample web of a few hundred pages: made once a test session, and copied.

It is what a user gets of `crawl2chat run tiny`, with a server that it starts and ends, on two ranks; no model learns much of its few
steps. Writes into the folder that the environment variable SHARED names (tests/conftest.py); of several workers of the suite the
first to need it makes it, and the others wait.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from filelock import FileLock

from tests.support.prefect_home import SHARED, provide_database

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy")
SMALL = [
    "ingest.sample.num_articles=160",
    "ingest.sample.num_files=3",
    "tokenizer.vocab_size=600",
    "pretrain.model.width=32",
    "pretrain.model.num_layers=2",
    "pretrain.model.num_heads=2",
    "pretrain.model.num_kv_heads=2",
    "pretrain.model.head_width=16",
    "pretrain.model.ff_width=64",
    "pretrain.train.num_steps=12",
    "pretrain.train.batch_tokens=512",
    "pretrain.train.sequence_tokens=64",
    "pretrain.train.microbatch_sequences=8",
    "pretrain.train.checkpoint_every_steps=4",
    "probe.max_questions=60",
    "probe.num_samples=2",
    "probe.max_new_tokens=8",
    "sft.num_conversations=200",
    "sft.train.num_steps=4",
    "sft.train.batch_tokens=1024",
    "reward.num_pairs=100",
    "reward.train.num_steps=3",
    "reward.train.batch_tokens=1024",
    "rlhf.num_prompts=40",
    "rlhf.train.num_steps=2",
    "rlhf.train.max_new_tokens=8",
    "evaluate.max_questions=20",
    "evaluate.max_preferences=20",
    "evaluate.num_trials=4",
]


def settings(*more: str) -> list[str]:
    """The options of a run."""
    return [word for setting in (*SMALL, *more) for word in ("--set", setting)]


def environment_in(folder: Path) -> dict[str, str]:
    """Of commands with a store and a home of Prefect in `folder`. A proxy that is dead and a long folder of temporary files disturb none."""
    # A Unix socket's address has at most 108 bytes, which a socket in this folder exceeds.
    temporary = folder / ("temporary-" * 12)[: 120 - len(str(folder))].rstrip("-")
    temporary.mkdir(parents=True)
    return {
        **os.environ,
        "CRAWL2CHAT_STORE": str(folder / "store"),
        "PREFECT_HOME": str(provide_database(folder / "prefect")),
        "COLUMNS": "160",
        **dict.fromkeys(PROXIES, "http://127.0.0.1:9"),
        "TMPDIR": str(temporary),
    }


def crawl2chat(environment: Mapping[str, str], *arguments: str, status: int = 0) -> str:
    """What the command prints. It has to end with `status`."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *arguments],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=1200,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def copy_finished_run(folder: Path) -> str:
    """Copy the finished run's `store` and home of Prefect, `prefect`, into a folder, and return what the run printed."""
    made = Path(os.environ[SHARED]) / "small-run"
    with FileLock(f"{made}.lock"):
        if not made.exists():
            partial = made.with_name("partial-run")
            shutil.rmtree(partial, ignore_errors=True)  # of a run that failed
            printed = crawl2chat(environment_in(partial), "run", "tiny", *settings())
            (partial / "printed").write_text(printed, encoding="utf-8")
            partial.rename(made)
    for name in ("store", "prefect"):
        shutil.copytree(made / name, folder / name, dirs_exist_ok=True)
    return (made / "printed").read_text(encoding="utf-8")
