"""Processes that start at once: forked from one that has imported what they need, which takes a new process seconds.

`python -m tests.support.forker MODULE [MODULE ...]` imports modules, and forks a process for each request, which runs the first one's `main`
as the main program does. A forked process is one with the main function, the signals and the environment of a new one. How the commands
themselves start is tested in tests/end_to_end and tests/tasks/execution.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
POLL_SECONDS = 0.01
PATIENCE_SECONDS = 900.0  # a bound on hangs


class Forker:
    """The process that others are forked from, and what is known of them: exit statuses as subprocess has them."""

    def __init__(self, module: str, *others: str, environment: Mapping[str, str] = {}) -> None:
        """`others`: modules that it imports later. `environment`: what the modules have to see when they are imported."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.forker", module, *others],
            env={**os.environ, **environment, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
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

    def fork(self, arguments: Sequence[str], log: Path, environment: Mapping[str, str] = {}) -> "Forked":
        """Start a process with its own session. What it prints is appended to `log`; `environment` is added to the forker's."""
        assert self.process.stdin is not None
        with self.changed:
            self.num_requests += 1
            request = {
                "number": self.num_requests,
                "arguments": list(arguments),
                "log": str(log),
                "environment": dict(environment),
            }
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            assert self.changed.wait_for(lambda: request["number"] in self.pids or self.has_ended(), PATIENCE_SECONDS)
            return Forked(self, self.pids[self.num_requests], log)

    def has_ended(self) -> bool:
        return self.process.poll() is not None

    def close(self) -> None:
        """End it; it ends all that were forked."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


class Forked:
    """A forked process, with the methods of subprocess.Popen that tests need."""

    def __init__(self, forker: Forker, pid: int, log: Path) -> None:
        self.forker, self.pid, self.log = forker, pid, log

    def poll(self) -> int | None:
        """The exit status; None while it runs."""
        with self.forker.changed:
            return self.forker.statuses.get(self.pid)

    def wait(self, seconds: float = PATIENCE_SECONDS) -> int:
        """The exit status, when it has ended. Fails with its log after `seconds`."""
        with self.forker.changed:
            self.forker.changed.wait_for(lambda: self.pid in self.forker.statuses, seconds)
        status = self.poll()
        assert status is not None, self.log.read_text()
        return status

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it, if it lives, and to what it has started in its session."""
        # By its id, too: until it has its session, the group is not there.
        for kill in (os.killpg, os.kill) if self.poll() is None else ():
            with contextlib.suppress(ProcessLookupError):
                kill(self.pid, number)


def _run(module: Any, request: dict[str, Any]) -> None:
    """In the forked process: what `python -m MODULE` does with the request's arguments and environment."""
    status = 1
    try:
        os.setsid()
        os.environ.update(request["environment"])
        with Path(request["log"]).open("ab") as log:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.argv = [module.__name__, *request["arguments"]]
        module.main()
        status = 0
    except SystemExit as ended:
        status = int(ended.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def serve(*names: str) -> None:
    """Fork a process for each line of the input, and report starts and ends, until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # DeepSpeed prints when it is imported
    module, *_ = map(importlib.import_module, names)
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
                    _run(module, request)
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
    serve(*sys.argv[1:])
