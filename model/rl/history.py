"""The validations of a run, and the weights of its best step.

Writes, next to the run's checkpoints, `validations.jsonl` with the reward and the gold score of every held-out prompt, and best/step-00000040.safetensors;
reads them when the run is resumed. What is decided from them is in model/rl/watch.py, a function of the validations alone: a resumed run
decides as an undisturbed one.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from torch import Tensor

from model.files import read_lines, write_lines
from model.rl.watch import Diagnosis, Validation, diagnose
from model.training.early_stopping import StepWeights


class History:
    """The validations so far. `kinds`: of the held-out prompts."""

    def __init__(self, folder: Path, kinds: Sequence[str], num_planned: int) -> None:
        self.file = folder / "validations.jsonl"
        self.best = StepWeights(folder / "best")
        self.kinds, self.num_planned = list(kinds), num_planned
        self.validations: list[Validation] = []

    def resume(self, first: Validation, done: int) -> None:
        """Take the validations up to step `done` as those so far; `first` is the SFT model's."""
        lines = read_lines(self.file) if self.file.exists() else []
        values = (
            Validation(line["step"], np.array(line["rewards"], float), np.array(line["gold"], float)) for line in lines
        )
        self.validations = [first, *(one for one in values if 0 < one.step <= done)]

    def add(self, validation: Validation, *, is_written: bool) -> None:
        """Add a validation; one rank writes the file."""
        self.validations.append(validation)
        if is_written:
            # Rewritten whole: a step that is taken again after a kill replaces its earlier line.
            write_lines(self.file, map(as_json, self.validations))

    def diagnosis(self, until: int | None = None) -> Diagnosis:
        """The diagnosis of the validations up to step `until`, or of all."""
        known = [one for one in self.validations if until is None or one.step <= until]
        return diagnose(known if self.kinds else [], self.kinds, self.num_planned)

    def save(self, weights: dict[str, Tensor], resumes_at: int) -> None:
        """Write the weights of the newest validation. `resumes_at`: the step of the oldest checkpoint, from which a run may resume."""
        self.best.save(self.validations[-1].step, weights, self.diagnosis(resumes_at).best_step)


def as_json(validation: Validation) -> dict[str, object]:
    """A line of the file. None stands for NaN, which JSON lacks."""
    gold = [None if np.isnan(score) else score for score in validation.gold.tolist()]
    return {"step": validation.step, "rewards": validation.rewards.tolist(), "gold": gold}
