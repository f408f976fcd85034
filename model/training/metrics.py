"""The metrics of a training run by step: JSON Lines, TensorBoard files and, if configured, Weights & Biases.

Writes metrics.jsonl and, next to it, the folder tensorboard/. A run is sent to Weights & Biases where WANDB_PROJECT is set, which
needs the package wandb and its login.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from model.files import read_lines, write_lines
from model.processes import check_lease

Metrics = dict[str, Any]


@contextmanager
def clocked(metrics: Metrics, name: str) -> Iterator[None]:
    """Add the seconds that the block takes to `metrics[name]`."""
    started = time.monotonic()
    # Not in a finally: a block that raises ends the step, whose metrics are then dropped.
    yield
    metrics[name] = metrics.get(name, 0.0) + time.monotonic() - started


class MetricsLog:
    """Metrics by step, appended as JSON Lines.

    A step that is taken again after a kill gets a second line, which replaces the first; `compact` leaves one line a step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        # Exists from the start, so that a run of 0 steps has a log too.
        path.touch()
        # Every rank does this, before the first step: rank 0 alone appends, and only after a step that all ranks took part in.
        text = path.read_bytes()
        # A line that a kill cut off would make the file unreadable, and the next line would be appended to it.
        os.truncate(path, text.rfind(b"\n") + 1)
        self.trackers: list[Any] | None = None

    def append(self, metrics: Metrics) -> None:
        """Write the metrics of a step, which has the key `step`."""
        check_lease()
        # Opened for each line: a reader sees every finished step, and a kill loses at most the current one.
        with self.path.open("a") as file:
            file.write(json.dumps(metrics) + "\n")
        if self.trackers is None:  # opened late: TensorBoard must know at which step the run resumes
            self.trackers = [TensorBoard(self.path.parent / "tensorboard", metrics["step"])]
            if os.environ.get("WANDB_PROJECT"):
                self.trackers.append(WeightsAndBiases(self.path.parent))
        for tracker in self.trackers:
            tracker.log(metrics)

    def lines(self, until_step: int) -> list[Metrics]:
        """The last line of every step up to and with `until_step`, in order."""
        # A dict keeps the last line of each step.
        kept = {line["step"]: line for line in read_lines(self.path) if line["step"] <= until_step}
        return sorted(kept.values(), key=lambda line: line["step"])

    def compact(self) -> list[Metrics]:
        """Close the log with the last line of every step. Returns these lines."""
        kept = self.lines(until_step=2**63)
        write_lines(self.path, kept)
        for tracker in self.trackers or []:
            tracker.close()
        return kept


class TensorBoard:
    """Scalars by step. What a killed run wrote after its checkpoint is purged."""

    def __init__(self, folder: Path, first_step: int) -> None:
        # Imported here: only rank 0 of a training run needs it.
        from torch.utils.tensorboard import SummaryWriter

        # purge_step hides, of the files that are in the folder already, the scalars from that step on; it deletes nothing.
        self.writer: Any = SummaryWriter(str(folder), purge_step=first_step)

    def log(self, metrics: Metrics) -> None:
        """Add every metric of a step as a scalar."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        # In one event: with `add_scalar`, one for each, a step of 15 metrics cost 0.7 ms, and now 0.1 ms.
        scalars = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items() if name != "step"]
        self.writer._get_file_writer().add_summary(Summary(value=scalars), metrics["step"])
        # Otherwise a thread writes every two minutes: a stop, a rollback or a kill would lose the steps since then, which are not
        # taken again if a checkpoint was saved.
        self.writer.flush()

    def close(self) -> None:
        """Write what is buffered and close the file."""
        self.writer.close()


class WeightsAndBiases:
    """Scalars by step, in one run of Weights & Biases that a resumed run continues."""

    def __init__(self, folder: Path) -> None:
        import wandb

        # The output folder's name is the run's id, so that a resumed process continues the same run.
        self.run = wandb.init(dir=str(folder), id=folder.name, resume="allow")

    def log(self, metrics: Metrics) -> None:
        """Send every metric of a step to Weights & Biases."""
        # Weights & Biases ignores a step below its newest, with a warning:
        # after a rollback it keeps the first values of those steps.
        self.run.log({name: value for name, value in metrics.items() if name != "step"}, step=metrics["step"])

    def close(self) -> None:
        """Finish the run and wait until it is uploaded."""
        self.run.finish()
