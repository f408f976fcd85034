"""A Prefect server that is away or slow while a stage runs: the stage finishes, its artifact is committed, its reports arrive."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.prefect_servers import LocalPrefect, kill, wait_for

pytestmark = pytest.mark.timeout(1200)

AWAY_SECONDS = 80.0  # longer than the 62 s in which Prefect's own client repeats a request by default

# A stage that reports until the file END is there, run by a flow as the stages' flows run theirs.
SCRIPT = """
import sys, time
from pathlib import Path
from flows.prefect_server import prepare_environment
prepare_environment()
from prefect import flow
from flows.stage_run import run_step
from model.config import Config
from tasks.artifacts.manifest import Report
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store

folder = Path(sys.argv[1])

def stage(ctx, config):
    (folder / "started").touch()
    number = 0
    while not (folder / "END").exists():
        number += 1
        ctx.log(f"line {number}")
        ctx.progress(number, 10_000, "steps", loss=1.0)
        ctx.table("rows", [{"number": number}], "rows")
        ctx.markdown("page", f"page {number}", "page")
        time.sleep(0.2)
    (ctx.folder / "report.md").write_text("done")
    (folder / "lines").write_text(str(number))
    return Outcome({"lines": number})

@flow(name="stage")
def run(recipe: str = "tiny"):
    return run_step(Step("stage", 1, Report, Config(), {}, stage), recipe, Store.default())

run()
"""


@pytest.fixture
def prefect(tmp_path: Path) -> Iterator[LocalPrefect]:
    local = LocalPrefect(tmp_path)
    try:
        local.start_server()
        yield local
    finally:
        local.stop()


def start_stage(prefect: LocalPrefect) -> subprocess.Popen[bytes]:
    with (prefect.folder / "stage.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(prefect.folder)],
            env=prefect.environment, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    prefect.processes.append(process)
    wait_for((prefect.folder / "started").exists, "the stage has started")
    return process


def log_of(prefect: LocalPrefect) -> str:
    return (prefect.folder / "stage.log").read_text()


def is_committed(prefect: LocalPrefect) -> bool:
    return any((prefect.folder / "store" / "stage").glob("*/manifest.json"))


def only_run(prefect: LocalPrefect) -> dict[str, object]:
    (run,) = prefect.call("POST", "/flow_runs/filter", {})
    return run  # type: ignore[no-any-return]


def test_stage_continues_while_the_server_is_away_and_its_reports_arrive_later(prefect: LocalPrefect) -> None:
    process = start_stage(prefect)
    prefect.kill_server()
    time.sleep(AWAY_SECONDS)  # the outage itself is what is tested
    assert process.poll() is None, log_of(prefect)
    prefect.start_server()
    (prefect.folder / "END").touch()
    assert process.wait(600) == 0, log_of(prefect)
    run = only_run(prefect)
    assert run["state"]["type"] == "COMPLETED"  # type: ignore[index]
    number = int((prefect.folder / "lines").read_text())
    lines = [line for line in prefect.logs(str(run["id"])) if line.startswith("line ")]
    assert lines == [f"line {line}" for line in range(1, len(lines) + 1)]
    assert len(lines) >= min(number, 190)  # the server shows at most 200 lines a request, others among them
    shown = prefect.artifacts(str(run["id"]))
    assert shown["stage-page"]["data"] == f"page {number}"
    assert {"stage-counts", "stage-inputs", "stage-progress", "stage-rows"} <= shown.keys()
    assert "some reports are missing" not in log_of(prefect)


def test_stage_that_ends_while_the_server_is_away_is_committed(prefect: LocalPrefect) -> None:
    process = start_stage(prefect)
    prefect.kill_server()
    (prefect.folder / "END").touch()
    wait_for(lambda: is_committed(prefect), "the artifact is committed")
    prefect.start_server()
    assert process.wait(600) == 0, log_of(prefect)
    assert only_run(prefect)["state"]["type"] == "COMPLETED"  # type: ignore[index]


def test_stage_continues_while_the_server_accepts_and_never_answers(prefect: LocalPrefect) -> None:
    """A stopped server: the kernel takes the connections, and nobody answers."""

    process = start_stage(prefect)
    assert prefect.server is not None
    os.killpg(prefect.server.pid, signal.SIGSTOP)
    try:
        (prefect.folder / "END").touch()
        wait_for(lambda: is_committed(prefect), "the artifact is committed")
    finally:
        os.killpg(prefect.server.pid, signal.SIGCONT)
    assert process.wait(600) == 0, log_of(prefect)
    assert only_run(prefect)["state"]["type"] == "COMPLETED"  # type: ignore[index]
    kill(process)
