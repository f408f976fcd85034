"""What a stage reports, shown by Prefect: log lines, progress, tables and pages as artifacts of the flow run. Data never is.

Writes artifacts by key, so that the UI keeps a history of each over the runs. Everything is sent in the background
(flows/background_sender.py): no report raises, and none waits for the server.
"""

import json
import logging
import math
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactCreate, LogCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort
from prefect.context import FlowRunContext, TaskRunContext
from prefect.logging import get_run_logger
from prefect.utilities.urls import url_for

from flows.background_sender import BackgroundSender
from flows.run_page import cost, cpu_seconds, repeat_command
from flows.run_place import Place, write_place
from tasks.artifacts.manifest import Manifest
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.reporter import Reporter, Row

PROGRESS_SECONDS = 5.0  # between two writes of the progress artifact


class PrefectReporter(Reporter):
    """Reports one stage to the flow run, or the task run, in which this is made."""

    def __init__(self) -> None:
        # Read here, in the thread of the run: the sender's thread has no run context when it sends later.
        flow, task = FlowRunContext.get(), TaskRunContext.get()
        self.flow_run_id: UUID | None = flow.flow_run.id if flow and flow.flow_run else None
        self.task_run_id: UUID | None = task.task_run.id if task else None
        run = flow.flow_run if flow else None
        # A run of a deployment may have a parent too, in another process.
        self.is_subflow = bool(run and run.parent_task_run_id and not run.deployment_id)
        self.logger = get_run_logger()
        self.progress_id: UUID | None = None
        self.progress_time = 0.0
        self.sender = BackgroundSender()
        self.cpu_seconds = cpu_seconds()
        if self.flow_run_id and (place := Place.here()):
            self.sender.send(partial(write_place, self.flow_run_id, place))

    def log(self, stage: str, message: str) -> None:
        """Log the line in the flow run."""
        self._log(message)

    def progress(self, stage: str, done: float, total: float, unit: str, values: dict[str, float]) -> None:
        """Update the run's progress artifact, in percent, at most every PROGRESS_SECONDS and at the end."""
        # The end is always written: a bar that stops at 97% looks like a stage that hangs.
        if time.monotonic() - self.progress_time < PROGRESS_SECONDS and done < total:
            return
        self.progress_time = time.monotonic()
        # A total of 0 (no documents left) is no division by zero.
        percent = 100.0 * done / max(total, 1)
        shown = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        description = f"{done:.0f} of {total:.0f} {unit}; {shown}"
        key = f"{artifact_key(stage)}-progress"
        # The key replaces a progress that still waits: of an hour without a server one figure is left, the newest.
        self.sender.send(partial(self._write_progress, key, percent, description), key)

    def table(self, stage: str, name: str, rows: Sequence[Row], description: str) -> None:
        """Write a table artifact with the key STAGE-NAME."""
        self._write("table", f"{artifact_key(stage)}-{artifact_key(name)}", _json_table(rows), description)

    def markdown(self, stage: str, name: str, text: str, description: str) -> None:
        """Write a Markdown artifact with the key STAGE-NAME."""
        self._write("markdown", f"{artifact_key(stage)}-{artifact_key(name)}", text, description)

    def started(self, step: Step[Any], recipe: str, state: str) -> None:
        """Write a page of what the stage reads: every input's artifact, with a link to the run that made it, and how to repeat the run.

        `state`: new, resumed ...
        """
        self._log(f"{step.id}, recipe {recipe}: {state}")
        inputs = {role: source.id for role, source in step.inputs.items()}
        key = f"{artifact_key(step.stage)}-inputs"
        # Read here: the sender's thread is in no flow run.
        heading, command = f"{step.id}: {state}", repeat_command(step)
        self.sender.send(partial(self._write_inputs, key, heading, inputs, f"recipe {recipe}", command), key)

    def finished(self, step: Step[Any], manifest: Manifest, is_skipped: bool) -> None:
        """Log the outcome, and write a table of the counts and metrics unless the artifact is of a source."""
        outcome = "is up to date: nothing to do" if is_skipped else "is finished"
        self._log(f"artifact {manifest.id} {outcome}")
        # A source is made on the way to a stage; a table of its counts under the stage's run would be read as the
        # stage's.
        if step.is_source:
            return
        figures = manifest.counts | manifest.metrics
        # A column for each figure would make a table of one row and dozens of columns.
        rows: list[Row] = [{"name": name, "value": value} for name, value in figures.items()]
        self._write("table", f"{artifact_key(step.stage)}-counts", _json_table(rows), f"{manifest.id}, {outcome}")
        if not is_skipped:
            key = f"{artifact_key(step.stage)}-cost"
            self.sender.send(partial(self._write_cost, key, manifest, cpu_seconds() - self.cpu_seconds), key)

    def close(self) -> None:
        """Give a server that answers some seconds to take what waits; what it does not take is sent later, in the background.

        A subflow waits for nothing: this process lives on, and the next stage need not wait for the pages of this one.
        """
        if not self.is_subflow:
            self.sender.flush()
        self.sender.close()

    def _log(self, message: str) -> None:
        """Print a line as Prefect does, and send it ourselves: Prefect's own handler drops lines when the server is away for a minute."""
        self.logger.info(message, extra={"send_to_api": False})
        if self.flow_run_id:
            line = {"name": "crawl2chat", "level": logging.INFO, "message": message, "timestamp": datetime.now(UTC)}
            runs = {"flow_run_id": self.flow_run_id, "task_run_id": self.task_run_id}
            self.sender.log(LogCreate.model_validate(line | runs))

    def _write(self, kind: str, key: str, data: Any, description: str) -> None:
        self.sender.send(partial(self._create, kind, key, data, description), key)

    def _create(self, kind: str, key: str, data: Any, description: str, client: SyncPrefectClient) -> UUID:
        """By a request, not by `create_artifact`, which emits an event as well: with one every 5 s they would fill the database."""
        fields = {"key": key, "type": kind, "data": data, "description": description}
        runs = {"flow_run_id": self.flow_run_id, "task_run_id": self.task_run_id}
        artifact = ArtifactCreate.model_validate(fields | runs)
        response = client.request("POST", "/artifacts/", json=artifact.model_dump(mode="json", exclude_unset=True))
        return UUID(response.json()["id"])

    def _write_progress(self, key: str, percent: float, description: str, client: SyncPrefectClient) -> None:
        if self.progress_id is None:
            # Runs in the sender's thread alone, so that no two calls create it.
            self.progress_id = self._create("progress", key, percent, description, client)
        else:
            change = {"data": percent, "description": description}
            client.request("PATCH", "/artifacts/{id}", path_params={"id": self.progress_id}, json=change)

    def _write_cost(self, key: str, manifest: Manifest, seconds: float, client: SyncPrefectClient) -> None:
        # In the sender's thread: a store that cannot be read must not fail a stage whose artifact is there.
        rows = cost(manifest, Store.default(), seconds)
        self._create("table", key, _json_table(rows), f"What {manifest.id} cost", client)

    def _write_inputs(
        self, key: str, heading: str, inputs: dict[str, str], recipe: str, command: str, client: SyncPrefectClient
    ) -> None:
        lines = [f"`{heading}`, {recipe}", ""]
        for role, artifact_id in inputs.items():
            url = _url_of_maker(artifact_id, client)
            shown = f"[{artifact_id}]({url})" if url else f"`{artifact_id}`"
            lines.append(f"- {role}: {shown}")
        if not inputs:
            lines.append("- no artifact: this stage reads what its settings name")
        # Indented, and not in a fence: what a person typed may hold one.
        lines += ["", "To repeat this run:", "", f"    {' '.join(command.splitlines())}"]
        self._create("markdown", key, "\n".join(lines), heading, client)


def _url_of_maker(artifact_id: str, client: SyncPrefectClient) -> str | None:
    """The address of the flow run that reported an artifact last, where this server knows it."""
    key = f"{artifact_key(artifact_id.partition('/')[0])}-counts"
    by_key = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    # By key and newest first: the fingerprint is in the description alone, by which Prefect does not filter. An
    # artifact beyond the last hundred of its stage has no link, which is all that is lost.
    for found in client.read_artifacts(artifact_filter=by_key, sort=ArtifactSort.CREATED_DESC, limit=100):
        if (found.description or "").startswith(f"{artifact_id},") and found.flow_run_id:
            return str(url_for("flow-run", found.flow_run_id))
    return None


def _json_table(rows: Sequence[Row]) -> str:
    """The rows as the JSON text that Prefect's tables are stored as; what JSON has no number for is null."""

    def finite(value: Any) -> Any:
        # json.dumps would write NaN, which no browser parses.
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return json.dumps([{name: finite(value) for name, value in row.items()} for row in rows])


def artifact_key(text: str) -> str:
    """Text as the key of a Prefect artifact: lower-case letters, digits and dashes."""
    # The server refuses a key with any other character.
    return re.sub("[^a-z0-9]+", "-", text.lower()).strip("-")
