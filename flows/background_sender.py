"""Sends reports to the Prefect server from a thread, so that a server that is away or slow never stops the work that is reported.

Reads nothing from the server. A report waits in memory until the server has taken it. While the server does not answer, the newest
report of each key replaces the older one, log lines beyond `MAX_LOG_LINES` push out the oldest, and the thread tries again with a
growing pause. What the server refuses, and what still waits `EXIT_SECONDS` after the process wants to end, is dropped. One warning in
all says that something was dropped.
"""

import atexit
import contextlib
import contextvars
import itertools
import threading
import time
from collections import deque
from collections.abc import Callable

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import LogCreate
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.execution.reporter import logger

REQUEST_SECONDS = 10.0  # for one request; a server that accepts and never answers is then tried again
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 0.5, 15.0
FLUSH_SECONDS = 10.0  # how long the end of a stage waits for a server that answers
EXIT_SECONDS = 5.0  # how long the end of the process waits
# 10,000 lines are a few MB of memory. 200 lines make a request of some 50 kB.
MAX_LOG_LINES, LOG_BATCH = 10_000, 200
# Time-out, too early, too many requests, and whatever is wrong on the server's side: the same report may pass later.
# Any other 4xx is about the report itself, which would be refused for ever and block those behind it.
RETRIED_STATUS = frozenset({408, 425, 429, *range(500, 600)})

Call = Callable[[SyncPrefectClient], object]


class BackgroundSender:
    """A queue of reports and the thread that sends them. Its methods never raise and never wait for the server but for `flush`."""

    def __init__(self) -> None:
        self._calls: dict[object, Call] = {}  # in order; a key is there once
        self._lines: deque[LogCreate] = deque(maxlen=MAX_LOG_LINES)
        self._changed = threading.Condition()
        self._numbers = itertools.count()
        self._is_sending = self._is_failing = self._is_closed = self._is_exiting = self._has_warned = False
        self._client: SyncPrefectClient | None = None  # of the thread alone, while there is something to send
        context = contextvars.copy_context()  # the server's address may be set for this context alone
        # A daemon, so that the interpreter does not join it before atexit: `_finish` gives it its last seconds.
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="reports", daemon=True)
        self._thread.start()
        atexit.register(self._finish)

    def send(self, call: Call, key: object = None) -> None:
        """Let the thread make `call`; a waiting call of the same key is replaced. Without a key every call is made."""
        with self._changed:
            # A replaced call keeps its place in the order, as a dict's key does.
            self._calls[next(self._numbers) if key is None else key] = call
            self._changed.notify_all()

    def log(self, line: LogCreate) -> None:
        """Let the thread send a log line, with others in one request."""
        with self._changed:
            # The deque drops its oldest line without a sign.
            if len(self._lines) == MAX_LOG_LINES:
                self._warn("more than %d log lines wait for the Prefect server", MAX_LOG_LINES)
            self._lines.append(line)
            self._changed.notify_all()

    def flush(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until the server has everything, while it answers and at most `seconds`. Returns whether it has."""
        deadline = time.monotonic() + seconds
        with self._changed:
            # A server that has failed once is not waited for: a stage that is done must not be held up by what only
            # shows it.
            while not self._is_empty() and not self._is_failing and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            return self._is_empty()

    def close(self) -> None:
        """Let the thread end when the server has everything; it keeps trying until the process ends."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _is_empty(self) -> bool:
        return not (self._calls or self._lines or self._is_sending)

    def _finish(self) -> None:
        """At the exit of the process: the last chance of what still waits."""
        deadline = time.monotonic() + EXIT_SECONDS
        with self._changed:
            self._is_closed = self._is_exiting = True
            self._changed.notify_all()
            while not self._is_empty() and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)
            if not self._is_empty():
                self._warn("the Prefect server does not answer")

    def _run(self) -> None:
        pause = FIRST_PAUSE_SECONDS
        # This thread has its own retries, which `flush` and the end of the process can see and cut short.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            while True:
                with self._changed:
                    while not (self._calls or self._lines):
                        if self._is_closed:
                            atexit.unregister(self._finish)
                            return
                        self._changed.wait()
                    self._is_sending = True
                is_sent = self._try_next()
                if not (self._calls or self._lines):
                    self._disconnect()
                with self._changed:
                    self._is_sending, self._is_failing = False, not is_sent
                    self._changed.notify_all()
                    pause = FIRST_PAUSE_SECONDS if is_sent else min(2 * pause, MAX_PAUSE_SECONDS)
                    if not is_sent:
                        self._wait_out(pause)

    def _wait_out(self, seconds: float) -> None:
        """Pause between two tries; new reports do not shorten it, the end of the process does."""
        # At exit there are EXIT_SECONDS in all: the pause that grew during an outage would use them up.
        deadline = time.monotonic() + (FIRST_PAUSE_SECONDS if self._is_exiting else seconds)
        was_exiting = self._is_exiting
        while (left := deadline - time.monotonic()) > 0 and self._is_exiting == was_exiting:
            self._changed.wait(left)

    def _try_next(self) -> bool:
        """Send the log lines that wait, else the first call. False: the server did not answer, and it waits again."""
        with self._changed:
            # Lines first: they are many, and the order among them matters, while a progress artifact is soon replaced
            # anyway.
            lines = [self._lines.popleft() for _ in range(min(LOG_BATCH, len(self._lines)))]
            key = None if lines else next(iter(self._calls))
            call: Call = (lambda client: client.create_logs(lines)) if lines else self._calls.pop(key)
        try:
            call(self._connected())
            return True
        except Exception as error:  # whatever a report does wrong, the work that it reports continues
            self._disconnect()  # a connection that an outage broke is not used again
            if not _may_be_retried(error):
                self._warn("the Prefect server refused a report: %s", str(error).partition("\n")[0])
                return True
        with self._changed:
            if lines:
                self._put_back(lines)
            elif key not in self._calls:
                # To the front again, unless a newer report of the same key came while this one was being sent.
                self._calls = {key: call, **self._calls}
        return False

    def _connected(self) -> SyncPrefectClient:
        """The client, made in this thread and context. One for all that waits: each loads certificates, 20 ms of CPU time."""
        if self._client is None:
            self._client = get_client(httpx_settings={"timeout": REQUEST_SECONDS}, sync_client=True).__enter__()
        return self._client

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None:
            with contextlib.suppress(Exception):
                client.__exit__(None, None, None)

    def _put_back(self, lines: list[LogCreate]) -> None:
        """Put lines that were not sent to the front again, in order. Where lines that came meanwhile left no room, the oldest go."""
        num_kept = min(MAX_LOG_LINES - len(self._lines), len(lines))
        if num_kept < len(lines):
            self._warn("more than %d log lines wait for the Prefect server", MAX_LOG_LINES)
        # Not lines[-num_kept:], which is all of them for 0; extendleft would then push out the newest lines at the other end.
        self._lines.extendleft(reversed(lines[len(lines) - num_kept :]))

    def _warn(self, reason: str, *values: object) -> None:
        if not self._has_warned:
            self._has_warned = True
            logger.warning(f"some reports are missing in Prefect's UI, the work itself is complete: {reason}", *values)


def _may_be_retried(error: Exception) -> bool:
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code in RETRIED_STATUS
    return isinstance(error, httpx.HTTPError | OSError)
