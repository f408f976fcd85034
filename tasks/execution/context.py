"""What a stage function receives besides its config and inputs: a folder to write to, and ways to report."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.artifacts.manifest import STATE
from tasks.artifacts.step import Step
from tasks.execution.reporter import REPORTERS, Row, logger


@dataclass(frozen=True)
class StageContext:
    """What a stage function is given beside its inputs: where to write, and how to tell what it does.

    `folder` becomes the artifact; `state` lies in it and is kept until the stage is finished.
    """

    step: Step[Any]
    folder: Path

    @property
    def state(self) -> Path:
        path = self.folder / STATE
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, message: str) -> None:
        logger.info("%s: %s", self.step.stage, message)
        for listener in REPORTERS.get():
            listener.log(self.step.stage, message)

    def progress(self, done: float, total: float, unit: str, **values: float) -> None:
        """`done` of `total` in `unit` ("documents", "steps"); `values` are shown beside it by name."""
        for listener in REPORTERS.get():
            listener.progress(self.step.stage, done, total, unit, values)

    def table(self, name: str, rows: Sequence[Row], description: str) -> None:
        """A table a person wants to look at."""
        for listener in REPORTERS.get():
            listener.table(self.step.stage, name, rows, description)

    def markdown(self, name: str, text: str, description: str) -> None:
        """A page of Markdown a person wants to look at."""
        for listener in REPORTERS.get():
            listener.markdown(self.step.stage, name, text, description)
