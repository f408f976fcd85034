"""What a stage tells, told to Prefect: log lines, progress, tables and pages as artifacts of the flow run. Data never is.

Artifacts are written by key, so that the UI keeps a history of each over the runs.
"""

import re
import time
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.logging import get_run_logger

from tasks.artifacts.manifest import Manifest
from tasks.artifacts.step import Step
from tasks.execution.reporter import Reporter, Row

PROGRESS_SECONDS = 5.0  # between two writes of the progress artifact


class PrefectReporter(Reporter):
    """Listens to one stage inside its flow run."""

    def __init__(self) -> None:
        self.progress_id: UUID | None = None
        self.progress_time = 0.0
        self.logger = get_run_logger()

    def log(self, stage: str, message: str) -> None:
        self.logger.info(message)

    def progress(self, stage: str, done: float, total: float, unit: str, values: dict[str, float]) -> None:
        if time.monotonic() - self.progress_time < PROGRESS_SECONDS and done < total:
            return
        self.progress_time = time.monotonic()
        percent = 100.0 * done / max(total, 1)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        description = f"{done:.0f} of {total:.0f} {unit}; {shown}"
        if self.progress_id is None:
            created = create_progress_artifact(percent, key=f"{_key(stage)}-progress", description=description)
            assert isinstance(created, UUID)
            self.progress_id = created
        else:
            update_progress_artifact(self.progress_id, progress=percent, description=description)

    def table(self, stage: str, name: str, rows: Sequence[Row], description: str) -> None:
        create_table_artifact(table=list(rows), key=f"{_key(stage)}-{_key(name)}", description=description)

    def markdown(self, stage: str, name: str, text: str, description: str) -> None:
        create_markdown_artifact(markdown=text, key=f"{_key(stage)}-{_key(name)}", description=description)

    def finished(self, step: Step[Any], manifest: Manifest, is_skipped: bool) -> None:
        told = "is up to date: nothing to do" if is_skipped else "is finished"
        self.logger.info("artifact %s %s", manifest.id, told)
        if not step.is_source:
            rows: list[Row] = [
                {"name": name, "value": value} for name, value in (manifest.counts | manifest.metrics).items()
            ]
            create_table_artifact(table=rows, key=f"{_key(step.stage)}-counts", description=f"{manifest.id}, {told}")


def _key(text: str) -> str:
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")
