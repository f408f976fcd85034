"""Early stopping: the weights of the validation with the lowest loss, and when the run ends because no lower one comes (Prechelt 1998).

Writes step-00000123.safetensors for each validation that was better than all before it. The best one so far follows from the metrics
log, so that a run that is resumed decides as an undisturbed one would. A file stays as long as some checkpoint may resume to a step at
which it is the best.
"""

import math
from collections.abc import Iterable
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from model.errors import UserError
from model.files import replacing
from model.training.metrics import Metrics

MEASURE = "validation/loss_nats"


class StepWeights:
    """The weights of steps that were the best when they were taken, a file each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, weights: dict[str, Tensor], needed_from: int) -> None:
        """Write the weights of a step, and delete those of steps before `needed_from`."""
        with replacing(self.file(step)) as temporary:
            save_file(weights, temporary)
        for old in self.folder.glob("step-*.safetensors"):
            if old < self.file(needed_from):
                old.unlink()

    def load(self, step: int) -> dict[str, Tensor]:
        """The weights of a step. Raises UserError where their file is missing."""
        file = self.file(step)
        if not file.exists():
            raise UserError(
                f"there is no {file}, the weights of the best validation: delete {file.parent} to train again"
            )
        return load_file(file)

    def file(self, step: int) -> Path:
        """The weights after a step; names sort as steps."""
        return self.folder / f"step-{step:08d}.safetensors"


class EarlyStopping:
    """The best validation of a run so far. With a patience of 0 it does nothing."""

    def __init__(self, folder: Path, patience: int) -> None:
        self.folder = folder
        self.files = StepWeights(folder)
        self.patience = patience
        self.best: Metrics = {}  # the metrics of the best step
        self.num_worse = 0  # validations since the best

    @property
    def is_over(self) -> bool:
        """Whether the run ends here."""
        return 0 < self.patience <= self.num_worse

    def resume(self, lines: Iterable[Metrics]) -> None:
        """Take the steps of a log as those so far."""
        self.best, self.num_worse = {}, 0
        for line in lines:
            self.is_better(line)

    def is_better(self, metrics: Metrics) -> bool:
        """Count the validation of a step, if it had one, and whether its weights are the best so far."""
        if not self.patience or MEASURE not in metrics:
            return False
        # A loss of NaN is no better than any.
        if metrics[MEASURE] < self.best.get(MEASURE, math.inf):
            self.best, self.num_worse = metrics, 0
            return True
        self.num_worse += 1
        return False

    def save(self, weights: dict[str, Tensor], needed_from: int) -> None:
        """Write the weights of the best step, and delete those of steps before `needed_from`."""
        self.files.save(self.best["step"], weights, needed_from)

    def weights(self) -> dict[str, Tensor]:
        """The weights of the best step. Raises UserError where their file is missing."""
        return self.files.load(self.best["step"])
