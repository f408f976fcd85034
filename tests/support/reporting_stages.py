"""A stage that reports to a Prefect server until it is asked to end, in a process, and what the server has of it afterwards."""

import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.support.prefect_servers import LocalPrefect, wait_for

# The stage reports until the file END is there, run by a flow as the stages' flows run theirs.
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


class ReportingStage:
    """The process of the stage, with its store in `folder`. Its report `page` holds the number of its last log line."""

    def __init__(self, prefect: LocalPrefect, folder: Path, **environment: str) -> None:
        self.prefect, self.folder = prefect, folder
        self.earlier = {run["id"] for run in self.all_runs()}
        with (self.folder / "stage.log").open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(self.folder)],
                env={**prefect.environment, "CRAWL2CHAT_STORE": str(folder / "store"), **environment},
                stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        prefect.processes.append(self.process)
        wait_for((self.folder / "started").exists, "the stage has started")

    def let_end(self) -> None:
        """Let the stage end. Its process may still report."""
        (self.folder / "END").touch()

    def wait(self) -> None:
        """Wait until the process has ended, and check that it succeeded."""
        assert self.process.wait(600) == 0, self.log()

    def log(self) -> str:
        return (self.folder / "stage.log").read_text()

    def is_running(self) -> bool:
        return self.process.poll() is None

    def is_committed(self) -> bool:
        return any((self.folder / "store" / "stage").glob("*/manifest.json"))

    def run(self) -> dict[str, Any]:
        """The flow run, which is the only one since."""
        (run,) = [run for run in self.all_runs() if run["id"] not in self.earlier]
        return run

    def all_runs(self) -> list[dict[str, Any]]:
        return self.prefect.call("POST", "/flow_runs/filter", {})  # type: ignore[no-any-return]

    def check_reports(self) -> int:
        """Check that the server has every report, and has the run as completed. Returns the number of log lines."""
        run = self.run()
        assert run["state"]["type"] == "COMPLETED", run["state"]
        number = int((self.folder / "lines").read_text())
        lines = {line for line in self.prefect.logs(run["id"]) if line.startswith("line ")}
        # A set: a batch that the server took and could not acknowledge any more is sent twice.
        assert lines == {f"line {line}" for line in range(1, number + 1)}
        shown = self.prefect.artifacts(run["id"])
        assert shown["stage-page"]["data"] == f"page {number}"
        assert {"stage-counts", "stage-inputs", "stage-progress", "stage-rows"} <= shown.keys()
        assert "some reports are missing" not in self.log()
        return number
