"""When training goes wrong: which step is bad, and what is done about it.

Reads and writes JSON Lines of numbers, the batches that are left out. A step is bad where its loss or the norm of its gradient
is not finite, or its loss lies more than `spike_nats` above the median of the WINDOW steps before (once there are as many). The
run then goes back to its newest checkpoint, or its beginning, and never takes the batch of that step again: the batch of step s
is the s-th of those that are left. After `max_rollbacks` of them it stops. PaLM's trainers did the same by hand (Chowdhery et
al. 2022, section 5.1).
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from model.files import read_lines, write_lines

WINDOW = 50


class BadStep(Exception):
    """A step whose result is not to be used. `batch` is the number of its batch."""

    def __init__(self, step: int, batch: int, trouble: str) -> None:
        super().__init__(trouble)
        self.step, self.batch = step, batch


def step_problem(loss_nats: float, gradient_norm: float, before: Sequence[float], spike_nats: float) -> str:
    """What is wrong with a step, after the losses of the steps before; nothing where all is well."""
    if not (math.isfinite(loss_nats) and math.isfinite(gradient_norm)):
        return f"loss {loss_nats:.4g}, gradient norm {gradient_norm:.4g}"
    if spike_nats and len(before) >= WINDOW:
        usual = statistics.median(before[-WINDOW:])
        if loss_nats > usual + spike_nats:
            return f"loss {loss_nats:.4g} nats, where {usual:.4g} was usual"
    return ""


class SkippedBatches:
    """The batches that a run leaves out, kept in the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: list[int] = read_lines(path) if path.exists() else []

    def add(self, batch: int, is_written: bool) -> None:
        """Leave `batch` out from now on. Every rank calls it, one of them writes."""
        self.batches = sorted([*self.batches, batch])
        if is_written:
            write_lines(self.path, self.batches)

    def batch_of(self, step: int) -> int:
        """The number of the batch that step `step` (from 0) takes."""
        batch = step
        for left_out in self.batches:
            batch += left_out <= batch
        return batch
