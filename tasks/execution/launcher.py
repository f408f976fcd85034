"""How a training process group starts: in a new session, followed through the metrics file that it writes.

Reads the metrics, JSON Lines that rank 0 appends to; writes the group's output to a log file. One rank is started as a plain
process, several through torchrun on this machine, or through DeepSpeed's launcher on those of the hostfile that
CRAWL2CHAT_HOSTFILE names (`HOST slots=RANKS` a line; this needs pdsh, ssh without a password, and code and store at the same
paths everywhere). Cancelling the stage ends the group with SIGTERM, on which it saves, then SIGKILL. The death of the stage's own
process, or the loss of its lease, ends every rank, see model/processes.py: no rank trains on unseen.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tasks.execution.lease import Lease

POLL_SECONDS = 0.5
GRACE_SECONDS = 25.0  # Prefect kills a cancelled run after 30
TAIL_LINES = 3
MAX_ERROR_CHARACTERS = 2_000

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

    Raises RuntimeError with the error of the rank that failed first, LeaseLost where another run has taken over `lease`.
    """
    log_file, error_file = run_file.with_suffix(".log"), run_file.with_suffix(".error.json")
    error_file.unlink(missing_ok=True)
    metrics_file.touch()
    with log_file.open("ab") as log, metrics_file.open() as metrics:
        process = subprocess.Popen(
            _command(module, run_file, num_ranks, lease),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(num_ranks) | {"TORCHELASTIC_ERROR_FILE": str(error_file)},
            start_new_session=True,  # Ctrl-C reaches the ranks only through the stage, which gives them time to save
        )
        try:
            # Polled, because three things are watched at once: the group, its metrics and the lease.
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
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
        raise RuntimeError(f"{module} ended with status {process.returncode}: {reason} (full log: {log_file})")


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


def _command(module: str, run_file: Path, num_ranks: int, lease: Lease | None) -> list[str]:
    guarded = ["model.training.ranks", *(["--lease", str(lease.file.path), lease.file.token] if lease else [])]
    # Guarded before anything else is imported: torch takes seconds, in which the stage may be killed.
    start = [sys.executable, "-m", *guarded]
    if num_ranks == 1:
        return [*start, module, str(run_file)]
    if hosts := os.environ.get("CRAWL2CHAT_HOSTFILE"):
        deepspeed = ["deepspeed.launcher.runner", "--hostfile", hosts, "--no_local_rank", "--module"]
        return [*start, *deepspeed, *guarded, module, str(run_file)]
    # --standalone picks a free port, so that two runs on one machine do not meet.
    torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    return [*start, *torchrun, "-m", *guarded, module, str(run_file)]


def _environment(num_ranks: int) -> dict[str, str]:
    # The cores that this process may use, which in a container are fewer than os.cpu_count() returns.
    threads = max(1, len(os.sched_getaffinity(0)) // num_ranks)
    return {**ENVIRONMENT, "OMP_NUM_THREADS": str(threads), **os.environ}


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
