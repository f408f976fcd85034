"""Ranks that start at once: forked from a process that has imported torch and DeepSpeed, which takes a new process four CPU seconds.

A forked rank is a process with the main function, the signals and the torch.distributed group of one that torchrun starts. The launcher
and torchrun themselves are tested in tests/tasks/execution and tests/end_to_end.
"""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from model.config import TrainRun
from tasks.execution.launcher import INTERRUPTED

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.01
PATIENCE_SECONDS = 900.0  # a bound on hangs


class Forker:
    """The process that ranks are forked from, and what is known of them: exit statuses as subprocess has them."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.ranks"],
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.changed = threading.Condition()
        self.pids: dict[int, int] = {}  # by number of the request
        self.statuses: dict[int, int] = {}  # by process
        self.num_requests = 0
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            kind, first, second = line.split()
            with self.changed:
                (self.pids if kind == "started" else self.statuses)[int(first)] = int(second)
                self.changed.notify_all()

    def fork(self, arguments: list[str], log: Path, environment: dict[str, str]) -> int:
        """Start a rank. Returns its process."""
        assert self.process.stdin is not None
        with self.changed:
            self.num_requests += 1
            request = {"number": self.num_requests, "arguments": arguments, "log": str(log), "environment": environment}
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            assert self.changed.wait_for(lambda: request["number"] in self.pids or self.has_ended(), PATIENCE_SECONDS)
            return self.pids[request["number"]]

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        """End it; it ends all ranks."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


class Ranks:
    """The ranks of a run. As torchrun does, it ends all when one fails."""

    def __init__(self, forker: Forker, run: TrainRun) -> None:
        from tests.support.prefect_servers import free_port  # here, so that the forker does not import Prefect

        self.forker = forker
        self.log = Path(run.output) / "ranks.log"
        run_file = Path(run.output) / "run.json"
        run_file.write_text(run.model_dump_json())
        num = run.train.num_ranks
        group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(num)}
        group["LOCAL_WORLD_SIZE"] = str(num)
        self.pids = [
            forker.fork(
                [str(run_file)], self.log, {**group, "RANK": str(rank), "LOCAL_RANK": str(rank)} if num > 1 else {}
            )
            for rank in range(num)
        ]

    def poll(self) -> int | None:
        """None while a rank runs; else the first status that is not 0, or 0."""
        with self.forker.changed:
            statuses = [self.forker.statuses.get(pid) for pid in self.pids]
        if set(statuses) - {None, 0, INTERRUPTED}:
            self.send(signal.SIGKILL)
        if None in statuses:
            return None
        return next(filter(None, statuses), 0)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        deadline = time.monotonic() + seconds
        while (status := self.poll()) is None:
            assert time.monotonic() < deadline and not self.forker.has_ended(), self.log.read_text()
            with self.forker.changed:
                self.forker.changed.wait(1.0)
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal to each rank that lives."""
        for pid in self.pids:
            if pid not in self.forker.statuses:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def succeed(self) -> None:
        """Wait for the end of all ranks, which has to be a good one."""
        assert self.wait() == 0, self.log.read_text()


def _run(request: dict[str, Any]) -> None:
    """In the forked process: what `python -m model.training.loop` does with the request's arguments and environment."""
    from model.training.loop import main

    status = 1
    try:
        os.environ.update(request["environment"])
        with Path(request["log"]).open("ab") as log:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = ["model.training.loop", *request["arguments"]]
        main()
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def serve() -> None:
    """Fork a rank for each line of the input, and report starts and ends, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # DeepSpeed prints when it is imported
    import model.training.loop  # noqa: F401 - what it imports is what a rank need not

    living: set[int] = set()
    buffered = b""
    while True:
        ready, _, _ = select.select([0], [], [], POLL_SECONDS if living else None)
        if ready:
            if not (read := os.read(0, 65536)):
                break
            *lines, buffered = (buffered + read).split(b"\n")
            for line in lines:
                request = json.loads(line)
                if (pid := os.fork()) == 0:
                    _run(request)
                living.add(pid)
                print("started", request["number"], pid, file=answers, flush=True)
        for pid in list(living):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                living.remove(pid)
                print("ended", pid, os.waitstatus_to_exitcode(status), file=answers, flush=True)
    for pid in living:
        os.kill(pid, signal.SIGKILL)


if __name__ == "__main__":
    serve()
