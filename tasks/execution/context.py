"""What a stage function receives besides its config and inputs: a folder to write to, and ways to report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifacts.manifest import STATE
from tasks.artifacts.step import Step
from tasks.execution.lease import Lease
from tasks.execution.reporter import REPORTERS, Row, logger
from tasks.execution.shared_work import SharedWork


@dataclass(frozen=True)
class StageContext:
    """What a stage function receives besides its config and inputs: where to write, and how to report.

    `folder` becomes the artifact; `state` lies in it and is kept until the stage is finished. `lease` is the right to write there;
    a stage function that a test calls by itself has none.
    """

    step: Step[Any]
    folder: Path
    lease: Lease | None = None
    shared_work: SharedWork | None = None  # of a remote store: where other machines find what this run has finished

    @property
    def state(self) -> Path:
        """The folder of what a stage needs to resume. Raises LeaseLost where another run works there now."""
        # Checked on each use, since what is written here is what a run that took over resumes from.
        self.check_lease()
        path = self.folder / STATE
        # Made when it is first asked for: a stage without shards or checkpoints leaves no folder.
        path.mkdir(parents=True, exist_ok=True)
        return path

    def check_lease(self) -> None:
        """Raises LeaseLost where another run has taken this one over. Call it before a write that is not the commit."""
        if self.lease:
            self.lease.check()

    def log(self, message: str) -> None:
        """Log one line."""
        logger.info("%s: %s", self.step.stage, message, extra={"stage": self.step.stage})
        # The logger first: a reporter may be slow or gone, and the line is then still there.
        for reporter in REPORTERS.get():
            reporter.log(self.step.stage, message)

    def progress(self, done: float, total: float, unit: str, **values: float) -> None:
        """Report that `done` of `total` in `unit` ("documents", "steps") are finished; `values` are shown next to it by name.

        Stages call it every half second or so, which makes it the place where a run that lost its lease stops: raises LeaseLost.
        """
        # Every half second is often enough: a lease is lost after 48 s without a renewal at the earliest.
        self.check_lease()
        for reporter in REPORTERS.get():
            reporter.progress(self.step.stage, done, total, unit, values)

    def table(self, name: str, rows: Sequence[Row], description: str) -> None:
        """Report a table."""
        for reporter in REPORTERS.get():
            reporter.table(self.step.stage, name, rows, description)

    def markdown(self, name: str, text: str, description: str) -> None:
        """Report a page of Markdown."""
        for reporter in REPORTERS.get():
            reporter.markdown(self.step.stage, name, text, description)
