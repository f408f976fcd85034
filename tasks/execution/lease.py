"""Leases: one runner per artifact folder at a time."""

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tasks.execution.reporter import logger

LEASE_SECONDS = 60.0


@contextlib.contextmanager
def lease(folder: Path, log: Callable[[str], None] = logger.info) -> Iterator[None]:
    """Hold `folder` against other runners: waits for one that renews its lease, which is told, takes over one that does not."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lease"
    if not _take(path):
        log("another run is at this stage: waiting for it")
        while not _take(path):
            time.sleep(1.0)
    is_over = threading.Event()
    renewer = threading.Thread(target=_renew, args=(path, is_over), daemon=True)
    renewer.start()
    try:
        yield
    finally:
        is_over.set()
        renewer.join()
        path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    try:
        with path.open("x") as stream:
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, stream)
        return True
    except FileExistsError:
        if _is_abandoned(path):
            logger.info("taking over %s from a runner that is gone", path)
            path.unlink(missing_ok=True)
            return _take(path)
        return False


def _is_abandoned(path: Path) -> bool:
    try:
        holder = json.loads(path.read_text() or "{}")
        age_seconds = time.time() - path.stat().st_mtime
    except (FileNotFoundError, json.JSONDecodeError):
        return False  # just given up, or being written: look again
    is_dead = holder.get("host") == socket.gethostname() and not Path(f"/proc/{holder.get('pid')}").exists()
    return age_seconds > LEASE_SECONDS or is_dead


def _renew(path: Path, is_over: threading.Event) -> None:
    while not is_over.wait(LEASE_SECONDS / 6):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
