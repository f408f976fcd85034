"""The course of every training run: resume, take steps, validate, log, save, stop. What a step learns from is a subclass's.

Reads and writes the checkpoints of a run, and writes into its output folder

    metrics.jsonl      one JSON object a step, while the run goes
    model.safetensors  the weights after the last step, with config.json
    summary.json       the results: counts are integers, measures are floats

A `Trainer` holds what a run consists of: engine, checkpoints, metrics. A new way to learn (preference optimization, PPO) subclasses
it and writes `train_step`, `validate`, `max_tokens` and `summary`; model/training/loop.py and model/rl/grpo.py are examples. Every rank runs the
same trainer, and all methods are called on all ranks in the same order.
"""

import json
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from model.files import replacing
from model.network.huggingface import save_weights
from model.processes import check_lease
from model.training.checkpoints import Checkpoints
from model.training.engine import Engine, leave_ranks
from model.training.metrics import Metrics, MetricsLog, clocked

# The shell's convention for a process that ended by a signal.
INTERRUPTED = 128 + signal.SIGTERM


class Schedule(Protocol):
    """How many steps a run takes, and what happens every so many of them (0: never)."""

    @property
    def num_steps(self) -> int:
        """Optimizer steps, or rounds of rollouts, of the whole run."""
        ...

    @property
    def eval_every_steps(self) -> int:
        """Steps between validations."""
        ...

    @property
    def checkpoint_every_steps(self) -> int:
        """Steps between checkpoints."""
        ...


class Trainer(ABC):
    """A run on its engine. Every rank has one."""

    engine: Engine
    log: MetricsLog
    started: float  # time.monotonic() before the first step of this process

    def __init__(self, schedule: Schedule, checkpoints: Checkpoints, output: Path, stop: threading.Event) -> None:
        """`stop`: set to end the run after the step it is in, with a checkpoint. A subclass sets `engine`.

        All ranks have joined, and read nothing that a run resumes from before this: their nodes may get it here.
        """
        self.schedule = schedule
        self.checkpoints = checkpoints
        self.output = output
        self.stop = stop
        checkpoints.fetch(output)
        self.seconds: Metrics = {}  # of phases after a step's line was written: they go into the next line

    @property
    def model(self) -> Any:
        """The model whose weights are the result."""
        return self.engine.module

    @property
    def engines(self) -> dict[str, Engine]:
        """All engines of the run: the one of the result has an empty name. A checkpoint holds them all."""
        return {"": self.engine}

    @abstractmethod
    def train_step(self, step: int) -> Metrics:
        """Take optimizer step `step` (from 0)."""

    @abstractmethod
    def validate(self) -> Metrics:
        """Measure the model on held-out data; empty without any."""

    @abstractmethod
    def max_tokens(self) -> int:
        """The longest sequence that the model was trained on."""

    def token_ids(self) -> dict[str, int]:
        """The ids of special tokens that the model's config.json names."""
        return {}

    @abstractmethod
    def summary(self, last: Metrics) -> Metrics:
        """The counts and measures of the finished run. `last`: the metrics of its last step."""

    def train(self) -> None:
        """Train from the newest checkpoint to the end. Raises SystemExit where `stop` is set on some rank."""
        # A run that was killed in `finish` is here with all its steps done: the loop is empty, and the weights are written again.
        first_step = self.checkpoints.load(self.engines)
        self.resume(first_step)
        for step in range(first_step, self.schedule.num_steps):
            if self.is_over():
                break
            self.take_step(step)
        self.finish()

    def is_over(self) -> bool:
        """Whether the run ends before its last step."""
        return False

    def result(self) -> dict[str, Tensor]:
        """The weights of the finished run, by name; all ranks gather them."""
        return self.engine.full_weights(self.model)

    def resume(self, first_step: int) -> None:
        """Get ready for the first step, which is `first_step`. A subclass adds what it keeps of the steps before."""
        # Opened here, not in __init__: after a rollback the run resumes with a new log on the same file.
        self.log = MetricsLog(self.output / "metrics.jsonl")
        self.started = time.monotonic()
        self.seconds = {}

    def take_step(self, step: int) -> None:
        """One step, and what is due after it."""
        done, is_last = step + 1, step + 1 == self.schedule.num_steps
        # Validation, samples and checkpoint of the step before: they were timed after its line was written.
        metrics = self.train_step(step) | self.seconds
        self.seconds = {}
        # The last step always has a validation: the summary reports it.
        if is_last or is_due(done, self.schedule.eval_every_steps):
            with clocked(self.seconds, "phase/validation_seconds"):
                metrics |= self.validate()
        # Written before the checkpoint: a kill in between repeats the step, and the log keeps its last line.
        self.record(done, metrics)
        # Summed over ranks: SIGTERM reaches them at different times, and all must stop after the same step.
        is_stopping = self.engine.total(float(self.stop.is_set())) > 0 and not is_last
        if is_last or is_stopping or is_due(done, self.schedule.checkpoint_every_steps):
            with clocked(self.seconds, "phase/checkpoint_seconds"):
                self.checkpoints.save(self.engines, done)
        if is_stopping:
            raise SystemExit(INTERRUPTED)

    def record(self, done: int, metrics: Metrics) -> None:
        """Write the metrics of the step after which `done` are done. Raises LeaseLost where another run has taken over the folder."""
        check_lease()
        if self.engine.rank == 0:
            # One file for all ranks: losses and counts are summed over ranks already.
            self.log.append({"step": done, **metrics})

    def finish(self) -> None:
        """Write the weights and, last, the summary. Raises LeaseLost where another run has taken over the folder."""
        check_lease()
        # All ranks gather, rank 0 writes.
        weights = self.result()
        if self.engine.rank != 0:
            return
        save_weights(self.output, self.model, weights, self.max_tokens(), self.token_ids())
        lines = self.log.compact()
        # A run of 0 steps has no line.
        summary = self.summary(lines[-1] if lines else {})
        # Last: its presence means that the weights are complete.
        with replacing(self.output / "summary.json") as temporary:
            temporary.write_text(json.dumps(summary, indent=1) + "\n")


def is_due(done: int, every: int) -> bool:
    """Whether something that happens every so many steps (0: never) happens after `done` of them."""
    return every > 0 and done % every == 0


def run_rank(train: Callable[[Path, threading.Event], None]) -> None:
    """The main function of a rank: `train(run_file, stop)` with the file that the command line names, then the end of the process.

    SIGTERM sets `stop`.
    """
    stop = threading.Event()
    # The handler only sets a flag: a checkpoint in the middle of a step would be inconsistent.
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    train(Path(sys.argv[1]), stop)
    leave_ranks()
