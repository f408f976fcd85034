"""The agent of a training on one machine: starts its ranks, and ends all when one fails. It imports no torch.

    python -m model.training.ranks [--lease FILE TOKEN] model.training.local_ranks NUM_RANKS [--lease FILE TOKEN] MODULE RUN_FILE

Reads the errors that ranks record, writes that of the rank which failed first to the file that TORCHELASTIC_ERROR_FILE names. torchrun does
the same, and starts the ranks of several nodes (model/training/agent.py); it imports torch before it starts the first one, which each
training of a run would wait for. Here the ranks meet at a file in a temporary folder, and so at no port that another process could take.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from model.training.ranks import record_killed_rank

GRACE_SECONDS = 30.0  # as torchrun gives: a rank saves on SIGTERM
POLL_SECONDS = 0.05
MEETING = "CRAWL2CHAT_MEETING"  # the variable with the URL at which a rank meets the others, see `engine.join_ranks`


class Group:
    """The ranks of one training. `command`: what follows `python -m model.training.ranks`."""

    def __init__(self, num_ranks: int, command: list[str], folder: Path) -> None:
        self.folder = folder
        self.failures: dict[int, tuple[int, float]] = {}  # by rank: how it ended, as subprocess has it, and when
        self.is_stopping = False
        signal.signal(signal.SIGTERM, self._stop)
        # -u: a rank that is killed has printed what it had to.
        start = [sys.executable, "-u", "-m", "model.training.ranks", *command]
        self.ranks = [
            subprocess.Popen(start, env=os.environ | self._environment(rank, num_ranks)) for rank in range(num_ranks)
        ]

    def _environment(self, rank: int, num_ranks: int) -> dict[str, str]:
        """The variables of torchrun, so that a module sees no difference."""
        return {
            **{name: str(rank) for name in ("RANK", "LOCAL_RANK")},
            **{name: str(num_ranks) for name in ("WORLD_SIZE", "LOCAL_WORLD_SIZE")},
            "TORCHELASTIC_ERROR_FILE": str(self._error_file(rank)),
            MEETING: f"file://{self.folder}/meeting?rank={rank}&world_size={num_ranks}",
        }

    def _error_file(self, rank: int) -> Path:
        return self.folder / f"{rank}.json"

    def _stop(self, *_: object) -> None:
        self.is_stopping = True

    def wait(self) -> int:
        """Wait for the end of all. Returns the exit status of the rank that failed first, or 0."""
        deadline = None
        while None in [rank.poll() for rank in self.ranks]:
            self._collect()
            if deadline is None and (self.failures or self.is_stopping):
                deadline = time.monotonic() + GRACE_SECONDS
                self._send(signal.SIGTERM)
            elif deadline is not None and time.monotonic() > deadline:
                self._send(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        self._collect()
        status = next((status for status, _ in self.failures.values()), 0)
        return status if status >= 0 else 128 - status  # the shell's convention for a signal

    def _collect(self) -> None:
        for rank, process in enumerate(self.ranks):
            if process.returncode and rank not in self.failures:
                self.failures[rank] = (process.returncode, time.monotonic())

    def _send(self, number: signal.Signals) -> None:
        for process in self.ranks:
            process.send_signal(number)  # of one that has ended nothing is sent to

    def record_error(self, path: Path) -> None:
        """Copy the error that was recorded first, the others are of its absence; write that of a rank which was killed."""
        recorded = [file for rank in self.failures if (file := self._error_file(rank)).exists()]
        if recorded:
            shutil.copyfile(min(recorded, key=lambda file: file.stat().st_mtime_ns), path)
        record_killed_rank(self.failures, path)


def main() -> None:
    """Run the ranks that the command line names to their end, and end as they did."""
    with tempfile.TemporaryDirectory(prefix="crawl2chat-ranks-") as folder:
        group = Group(int(sys.argv[1]), sys.argv[2:], Path(folder))
        status = group.wait()
        if group.failures and (path := os.environ.get("TORCHELASTIC_ERROR_FILE")):
            group.record_error(Path(path))
    sys.exit(status)


if __name__ == "__main__":
    main()
