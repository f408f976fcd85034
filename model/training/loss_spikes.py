"""Loss spikes: which step is bad, and which batches a run skips because of it.

Reads and writes JSON Lines of numbers, the skipped batches. A step is bad if its loss or the norm of its gradient is not
finite, or if its loss is more than `spike_nats` above the median of the WINDOW steps before (once there are as many). The run then returns
to its newest checkpoint, or its beginning, and never takes the batch of that step again: the batch of step s is the s-th of
those not skipped. After `max_rollbacks` of them it stops. PaLM's trainers did the same by hand, skipping 200 to 500 batches
(Chowdhery et al. 2022, section 5.1); one is enough where a single batch is at fault, and the next bad one is skipped in turn.
"""

import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from model.files import read_lines, write_lines

WINDOW = 50


class BadStep(Exception):
    """A step whose result must not be used. `batch` is the number of its batch."""

    def __init__(self, step: int, batch: int, problem: str) -> None:
        super().__init__(problem)
        self.step, self.batch = step, batch


def step_problem(loss_nats: float, gradient_norm: float, before: Sequence[float], spike_nats: float) -> str:
    """What is wrong with a step, given the losses of the steps before; empty if nothing is."""
    # The norm too: the backward pass can overflow where the loss is finite, and the weights are then NaN from the next step on.
    if not (math.isfinite(loss_nats) and math.isfinite(gradient_norm)):
        return f"loss {loss_nats:.4g}, gradient norm {gradient_norm:.4g}"
    # The first steps fall steeply: no median of them says what is usual.
    if spike_nats and len(before) >= WINDOW:
        # The median: earlier spikes below the bound would raise a mean.
        usual = statistics.median(before[-WINDOW:])
        if loss_nats > usual + spike_nats:
            return f"loss {loss_nats:.4g} nats, where {usual:.4g} was usual"
    return ""


class SkippedBatches:
    """The numbers of the batches that a run skips, kept in the file `path`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.batches: list[int] = read_lines(path) if path.exists() else []

    def add(self, batch: int, is_written: bool) -> None:
        """Skip `batch` from now on. Every rank calls it, one of them writes."""
        # In order of their numbers, not of time: `batch_of` passes over
        # them once, and a later rollback may skip an earlier batch.
        self.batches = sorted([*self.batches, batch])
        if is_written:
            write_lines(self.path, self.batches)

    def batch_of(self, step: int) -> int:
        """The number of the batch that step `step` (from 0) takes."""
        # With batches 2 and 3 skipped, steps 0 1 2 3 take batches 0 1 4 5: all others once, in order, and none twice.
        batch = step
        # Each skipped batch at or below the current number moves it up by one.
        for skipped in self.batches:  # ascending
            batch += skipped <= batch
        return batch
