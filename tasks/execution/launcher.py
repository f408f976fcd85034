"""How a training process group starts: as a group of its own, watched through the metrics file it writes.

Reads the metrics JSON Lines that rank 0 appends to, writes the group's output to a log file. One rank is started as a plain
process, several through torchrun on this machine, or through DeepSpeed's launcher on those of the hostfile that
CRAWL2CHAT_HOSTFILE names (`HOST slots=RANKS` a line; this needs pdsh, ssh without a password, and code and store at the same
paths everywhere). Cancelling the stage ends the group with SIGTERM, on which it saves, then SIGKILL; the
death of the stage's own process ends it too (PR_SET_PDEATHSIG), so that no rank trains on unseen.
"""

import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.5
GRACE_SECONDS = 25.0  # Prefect kills a cancelled run after 30
PR_SET_PDEATHSIG = 1
TAIL_LINES = 3
ERROR = re.compile(r"^(?:\[rank\d+\]: )?((?:\w+\.)*\w*(?:Error|Exception|Interrupt): .*)$", re.MULTILINE)

FIRST_KILLED = re.compile(r"^Root Cause.*? rank +: (\d+).*?: Signal \d+ \((\w+)\) received", re.M | re.S)

ENVIRONMENT = {
    # Threads that spin while they wait take the cores from whatever else runs, the other ranks among it. For a while, which is
    # what GNU's library can be told, it pays: a third on two threads, and it costs nothing beside a busy process.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "1000",
    "TOKENIZERS_PARALLELISM": "false",
    # Else glibc gives the memory of every large tensor back, and the kernel clears it anew: an eighth of a step on a CPU.
    "MALLOC_MMAP_THRESHOLD_": str(2**32),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
}

Metrics = dict[str, Any]


def launch(
    module: str, run_file: Path, *, num_ranks: int, metrics_file: Path, on_metrics: Callable[[Metrics], None]
) -> None:
    """Run `python -m module run_file` on `num_ranks` processes to its end, `on_metrics` called with each new line of metrics.

    Raises RuntimeError with the error of a rank where it fails.
    """
    log_file = run_file.with_suffix(".log")
    metrics_file.touch()
    with log_file.open("ab") as log, metrics_file.open() as metrics:
        process = subprocess.Popen(
            _command(module, run_file, num_ranks),
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=_environment(num_ranks),
            start_new_session=True,
            preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no locks are touched
        )
        try:
            while process.poll() is None:
                time.sleep(POLL_SECONDS)
                _follow(metrics, on_metrics)
            _follow(metrics, on_metrics)
        finally:
            _end(process)
    if process.returncode != 0:
        told = cause(log_file.read_text(errors="replace"))
        raise RuntimeError(f"{module} ended with status {process.returncode}: {told} (the whole of it: {log_file})")


def cause(log: str) -> str:
    """What ended the rank that failed first: the others fail of its absence, torchrun of theirs. Else the log's last words."""
    if killed := FIRST_KILLED.search(log):
        return f"rank {killed[1]} was ended by {killed[2]}, by hand or for want of memory"
    errors = [error for error in ERROR.findall(log) if not error.startswith("torch.distributed")]
    return errors[0] if errors else " / ".join(log.splitlines()[-TAIL_LINES:])


def _command(module: str, run_file: Path, num_ranks: int) -> list[str]:
    if num_ranks == 1:
        return [sys.executable, "-m", module, str(run_file)]
    if hosts := os.environ.get("CRAWL2CHAT_HOSTFILE"):
        deepspeed = ["-m", "deepspeed.launcher.runner", "--hostfile", hosts, "--no_local_rank", "--module"]
        return [sys.executable, *deepspeed, module, str(run_file)]
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    return [sys.executable, *torchrun, "-m", module, str(run_file)]


def _environment(num_ranks: int) -> dict[str, str]:
    threads = max(1, len(os.sched_getaffinity(0)) // num_ranks)
    return {**ENVIRONMENT, "OMP_NUM_THREADS": str(threads), **os.environ}


def die_with_parent() -> None:
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def _follow(metrics: Any, on_metrics: Callable[[Metrics], None]) -> None:
    """Every whole line that was appended since the last call."""
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
