"""The ranks of a training run, forked from a process that has imported torch and DeepSpeed: a group as torchrun starts it.

The launcher and torchrun themselves are tested in tests/tasks/execution and tests/end_to_end.
"""

import signal
import time
from pathlib import Path

from model.config import TrainRun
from tasks.execution.launcher import INTERRUPTED
from tests.support.forker import PATIENCE_SECONDS, Forked, Forker
from tests.support.prefect_servers import free_port


class Ranks:
    """The ranks of a run. As torchrun does, it ends all when one fails. Its forker is one of model.training.loop."""

    def __init__(self, forker: Forker, run: TrainRun) -> None:
        self.forker = forker
        self.log = Path(run.output) / "ranks.log"
        run_file = Path(run.output) / "run.json"
        run_file.write_text(run.model_dump_json())
        num = run.train.num_ranks
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(num)}
        group["LOCAL_WORLD_SIZE"] = str(num)
        self.ranks: list[Forked] = [
            forker.fork(
                [str(run_file)], self.log, {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if num > 1 else {}
            )
            for rank in range(num)
        ]

    def poll(self) -> int | None:
        """None while a rank runs; else the first status that is not 0, or 0."""
        statuses = [rank.poll() for rank in self.ranks]
        if set(statuses) - {None, 0, INTERRUPTED}:
            self.send(signal.SIGKILL)
        if None in statuses:
            return None
        return next(filter(None, statuses), 0)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The status that `poll` returns at the end."""
        deadline = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline and not self.forker.has_ended(), self.log.read_text()
            with self.forker.changed:
                self.forker.changed.wait(1.0)
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal to each rank that lives."""
        for rank in self.ranks:
            rank.send(number)

    def succeed(self) -> None:
        """Wait for the end of all ranks, which has to be a good one."""
        assert self.wait() == 0, self.log.read_text()
