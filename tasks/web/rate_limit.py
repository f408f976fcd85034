"""Limits requests and bytes per second, over all workers of a stage together.

Reads and writes a small file under a lock: when the next request may be sent, when the next byte may be read, and until when all
workers wait because the server is busy. There is no coordinating process, so none can fail.
"""

import contextlib
import fcntl
import random
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TIMES = struct.Struct("ddd")  # replaced under the lock; a file that a killed process left cut off counts as empty
MAX_WAIT_SECONDS = 300.0  # of one sleep, also where a clock was set back and the times of the file lie far ahead


@dataclass
class Times:
    """Seconds since 1970."""

    next_request: float = 0.0
    next_byte: float = 0.0
    paused_until: float = 0.0


@dataclass(frozen=True)
class RateLimiter:
    """The limits of all processes that share the file `path`; 0 means no limit."""

    path: Path
    requests_per_second: float = 0.0
    bytes_per_second: float = 0.0

    def request(self) -> None:
        """Wait until a request may be sent."""
        # Random, so that workers that wait for one moment do not all wake at it.
        while (wait := self._claim_request()) > 0:
            time.sleep(min(wait, MAX_WAIT_SECONDS) * random.uniform(1, 1.1))

    def received(self, num_bytes: int) -> None:
        """Wait as long as so many bytes may take."""
        if not self.bytes_per_second:
            return
        with self._times() as times:
            now = time.time()
            # Bytes that were not used while nobody read are not saved up: the limit holds for every second.
            times.next_byte = max(times.next_byte, now) + num_bytes / self.bytes_per_second
            wait = times.next_byte - now
        time.sleep(min(wait, MAX_WAIT_SECONDS))

    def pause(self, seconds: float) -> None:
        """Let nobody send a request for a while."""
        with self._times() as times:
            times.paused_until = max(times.paused_until, time.time() + seconds)

    def _claim_request(self) -> float:
        """Take the turn, or how long to wait before it is tried again."""
        with self._times() as times:
            # The time of day: monotonic clocks of two machines, or of two boots of one, cannot be compared.
            now = time.time()
            wait = max(times.next_request, times.paused_until) - now
            if wait <= 0 and self.requests_per_second:
                times.next_request = now + 1 / self.requests_per_second
        return wait

    @contextlib.contextmanager
    def _times(self) -> Iterator[Times]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            stored = file.read(TIMES.size)
            times = Times(*TIMES.unpack(stored)) if len(stored) == TIMES.size else Times()
            yield times
            # Opened to append, a file is written at its end: cut to nothing, that is its start.
            file.truncate(0)
            file.write(TIMES.pack(times.next_request, times.next_byte, times.paused_until))
