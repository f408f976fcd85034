"""How a training process group starts: in a new session, followed through the metrics file that it writes.

Reads the metrics, JSON Lines that rank 0 appends to; writes the group's output to a log file. One rank is started as a plain
process, several through model/training/local_ranks.py. Where the environment describes several nodes (model/nodes.py), this machine is the
first of them and starts its ranks through model/training/agent.py; each other node calls `join`. Cancelling the stage ends the
group with SIGTERM, on which it saves, then SIGKILL. The death of the stage's own process, or the loss of its lease, ends every rank, see
model/processes.py: no rank trains on unseen.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, Never

from model.errors import WRONG_USE, UserError
from model.files import FULL_DISK
from model.nodes import Node, await_first, check_first, this_node
from tasks.execution.lease import Lease

POLL_SECONDS = 0.5
GRACE_SECONDS = 25.0  # Prefect kills a cancelled run after 30
TAIL_LINES = 3
MAX_ERROR_CHARACTERS = 2_000
INTERRUPTED = 128 + signal.SIGTERM  # exit status, by the shell's convention

ENVIRONMENT = {
    # Threads that spin while they wait take the cores from whatever else runs, other ranks among it. To spin for a short while, an
    # option that GNU's library alone has, pays: a third of the time on two threads, and it costs nothing next to a busy process.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "1000",
    "TOKENIZERS_PARALLELISM": "false",
    # Without these glibc returns the memory of every large tensor, and the kernel clears it again: an eighth of a step on a CPU.
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

Metrics = dict[str, Any]


def launch(
    module: str,
    run_file: Path,
    *,
    num_ranks: int,
    metrics_file: Path,
    on_metrics: Callable[[Metrics], None],
    lease: Lease | None = None,
) -> None:
    """Run `python -m module run_file` on `num_ranks` processes to its end; `on_metrics` is called with each new line of metrics.

    Raises RuntimeError with the error of the rank that failed first, OSError where that is of a full disk, LeaseLost where another run has
    taken over `lease`, UserError where this machine and the others do not meet as the environment says.
    """
    node = this_node()
    if node:
        check_first(node, num_ranks)
    log_file, error_file = run_file.with_suffix(".log"), run_file.with_suffix(".error.json")
    error_file.unlink(missing_ok=True)
    metrics_file.touch()
    with log_file.open("ab") as log, metrics_file.open() as metrics:
        process = subprocess.Popen(
            _command(module, run_file, num_ranks, lease, node),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(node.ranks_per_node if node else num_ranks) | {"TORCHELASTIC_ERROR_FILE": str(error_file)},
            start_new_session=True,  # Ctrl-C reaches the ranks only through the stage, which gives them time to save
        )
        try:
            # Polled, because three things are watched at once: the group, its metrics and the lease.
            while not _has_ended(process, POLL_SECONDS):
                if lease:
                    lease.check()
                _follow(metrics, on_metrics)
            _follow(metrics, on_metrics)
        finally:
            _end(process)
    if process.returncode != 0:
        if lease:
            lease.check()  # a group that ended because it lost the lease
        reason = error_of(error_file) or _signal_of(process.returncode) or last_lines(log_file)
        if node and process.returncode == WRONG_USE:
            raise UserError(reason.removeprefix("UserError: "))
        _raise(reason, f"{module} ended with status {process.returncode}: {reason} (full log: {log_file})")


def _raise(reason: str, message: str) -> Never:
    """Raise the error of a rank: OSError where its disk is full, which is for the user to mend, else RuntimeError."""
    found = re.match(r"OSError: \[Errno (\d+)\]", reason)
    if found and int(found[1]) in FULL_DISK:
        raise OSError(int(found[1]), message)
    raise RuntimeError(message)


def join(node: Node) -> None:
    """Run this node's ranks of the stage that the first node runs, to the end of its training. They print to this process's output.

    Raises UserError where the first node is not found, RuntimeError where this training fails or the first node is lost.
    """
    print(f"waiting up to {node.join_seconds} s for the first node at {node.endpoint}", file=sys.stderr, flush=True)
    await_first(node)
    with tempfile.TemporaryDirectory() as folder:
        error_file = Path(folder, "error.json")
        process = subprocess.Popen(
            [sys.executable, "-m", "model.training.ranks", "model.training.agent"],
            stdin=subprocess.DEVNULL,
            env=_environment(node.ranks_per_node) | {"TORCHELASTIC_ERROR_FILE": str(error_file)},
            start_new_session=True,
        )
        # A node that is taken away is asked by SIGTERM: all ranks then save together before this one ends.
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            process.wait()
        finally:
            _end(process)
            signal.signal(signal.SIGTERM, before)
        reason = error_of(error_file) or _signal_of(process.returncode) or f"status {process.returncode}"
    if process.returncode == WRONG_USE:
        raise UserError(reason.removeprefix("UserError: "))
    if process.returncode != 0:
        raise RuntimeError(f"the ranks of node {node.rank} ended: {reason.removeprefix('RuntimeError: ')}")


def _interrupt(number: int, frame: FrameType | None) -> Never:
    sys.exit(INTERRUPTED)


def error_of(file: Path) -> str:
    """The error that torch elastic's `record` has written: of several ranks, that of the first that failed."""
    try:
        message = json.loads(file.read_text(encoding="utf-8", errors="replace"))["message"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""
    # torch nests the message of an exception; model/training/ranks.py writes that of a killed rank as a text.
    text = message.get("message", "") if isinstance(message, dict) else message
    return " ".join(str(text).split())[:MAX_ERROR_CHARACTERS]


def _signal_of(status: int) -> str:
    """How one rank ended that could not record it."""
    if status >= 0:
        return ""
    reason = " (manually or out of memory)" if status == -signal.SIGKILL else ""
    return f"rank 0 was killed by {signal.Signals(-status).name}{reason}"


def last_lines(log_file: Path) -> str:
    """The last lines of a log, of which only the end is read."""
    with log_file.open("rb") as log:
        # A log may have grown for days; the reason of an end stands at its end.
        log.seek(max(0, log_file.stat().st_size - 10_000))
        return " / ".join(log.read().decode(errors="replace").splitlines()[-TAIL_LINES:])


def _command(module: str, run_file: Path, num_ranks: int, lease: Lease | None, node: Node | None) -> list[str]:
    held = ["--lease", str(lease.file.path), lease.file.token] if lease else []
    # Guarded before anything else is imported: torch takes seconds, in which the stage may be killed.
    start = [sys.executable, "-m", "model.training.ranks", *held]
    if node:
        return [*start, "model.training.agent", *held, module, str(run_file)]
    if num_ranks == 1:
        return [*start, module, str(run_file)]
    return [*start, "model.training.local_ranks", str(num_ranks), *held, module, str(run_file)]


def _environment(num_ranks: int) -> dict[str, str]:
    """For `num_ranks` ranks on this machine."""
    # The cores that this process may use, which in a container are fewer than os.cpu_count() returns.
    threads = max(1, len(os.sched_getaffinity(0)) // num_ranks)
    return {**ENVIRONMENT, "OMP_NUM_THREADS": str(threads), **os.environ}


def _has_ended(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Wait up to `seconds` for the end of a process; one that ends is noticed at once."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _follow(metrics: Any, on_metrics: Callable[[Metrics], None]) -> None:
    """Report every whole line that was appended since the last call."""
    # A line without its end is still being written: it is read again by the next call.
    while True:
        position = metrics.tell()
        line = metrics.readline()
        if not line.endswith("\n"):
            metrics.seek(position)
            return
        on_metrics(json.loads(line))


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
