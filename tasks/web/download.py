"""A file as a stream of bytes, wherever it is: a path, an http(s) URL, or any other URL that fsspec knows.

Downloads resume. A WARC file of Common Crawl has about 1 GB, so a busy server and a broken connection are tried again (tenacity:
jittered backoff, Retry-After) from the byte where the stream was, by range. A file that was replaced meanwhile is refused, and so is a
server that sends less than MIN_BYTES_PER_SECOND again and again. A server that says it is busy is left alone by all who share a
`RateLimiter`.

Errors name the URL without credentials and signatures (tasks/redaction.py).
"""

import io
import random
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, TypeVar

import fsspec
import httpx
import tenacity

from model.errors import UserError
from tasks.redaction import redact_text, redact_url
from tasks.web.http_client import StatusError, is_busy, is_transient, request, retry_after_seconds
from tasks.web.rate_limit import MAX_WAIT_SECONDS, RateLimiter

BLOCK_BYTES = 64 * 1024
NUM_TRIES = 8
NUM_HEAD_TRIES = 4
BACKOFF_SECONDS = 0.5  # before the second try, then doubled each time
# As curl's --speed-limit and --speed-time: over a window of waiting for the network, else the connection counts as broken
MIN_BYTES_PER_SECOND = 1_000
RATE_WINDOW_SECONDS = 60.0
NUM_SLOW_WINDOWS = 3  # in a row, then the file counts as not to be had
NO_HEAD_STATUS = (403, 405, 501)  # a signed URL may be signed for GET alone
CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)")
Result = TypeVar("Result")
ERRORS = (OSError, httpx.HTTPError, httpx.InvalidURL, UnicodeError)


def open_file(url: str, rate_limiter: RateLimiter | None = None) -> IO[bytes]:
    """A file to be read once, front to back; a remote one no faster than `rate_limiter` allows.

    Reading raises UserError where the file does not exist or may not be read, ConnectionError where the last try failed.
    """
    if "://" not in url:
        return Path(url).open("rb")
    return io.BufferedReader(Download(url, _open_http if is_http(url) else _open_fsspec, rate_limiter), BLOCK_BYTES)


def is_http(url: str) -> bool:
    """Whether `url` is an http or https URL."""
    return url.lower().startswith(("http://", "https://"))


def head(url: str) -> tuple[int | None, str]:
    """Size in bytes, None where the server does not say it, and ETag of an http(s) file. Raises as reading does."""

    def ask() -> tuple[int | None, str]:
        # Where HEAD is refused, the answer to a GET of the first byte has the same headers.
        try:
            return _extent_and_etag(url, "HEAD")
        except StatusError as error:
            if error.status not in NO_HEAD_STATUS:
                raise
        return _extent_and_etag(url, "GET", Range="bytes=0-0")

    return Tries(url, NUM_HEAD_TRIES).call(ask, lambda: 0)


def _extent_and_etag(url: str, method: str, **headers: str) -> tuple[int | None, str]:
    answer = request(url, method, **headers)
    try:
        return _extent(answer.status, answer.headers)[1], answer.headers.get("ETag", "")
    finally:
        answer.close()


@dataclass(frozen=True)
class Tries:
    """How often a call for `url` is tried in a row."""

    url: str
    num_tries: int = NUM_TRIES
    rate_limiter: RateLimiter | None = None

    def call(self, function: Callable[[], Result], offset: Callable[[], int]) -> Result:
        """What `function` returns. Raises UserError where another try would not help, ConnectionError after the last, with `offset`."""
        retrying = tenacity.Retrying(
            stop=tenacity.stop_after_attempt(self.num_tries),
            retry=tenacity.retry_if_exception(is_transient),
            wait=self._wait_seconds,
            sleep=time.sleep,
            reraise=True,
        )
        try:
            return retrying(function)
        except UserError:
            raise
        except ERRORS as error:
            url, reason = redact_url(self.url), redact_text(str(error) or type(error).__name__)
            if not is_transient(error):
                raise UserError(f"{url} cannot be read ({reason}): check the address, and who may read it") from error
            raise ConnectionError(
                f"{url} failed at byte {offset()}, {self.num_tries} times in a row, the last with: {reason}; "
                "run the same command again later, what is finished is kept"
            ) from error

    def _wait_seconds(self, state: tenacity.RetryCallState) -> float:
        """Seconds until the next try. If the server is busy, all who share the rate limiter wait as long."""
        error = state.outcome.exception() if state.outcome else None
        if error is None:
            return 0.0
        # Doubled and random (Brooker, "Exponential Backoff and Jitter", 2015), and at least what the server asks for.
        backoff_seconds: float = BACKOFF_SECONDS * 2 ** (state.attempt_number - 1) * random.uniform(0.5, 1.5)
        wait_seconds = min(max(backoff_seconds, retry_after_seconds(error, MAX_WAIT_SECONDS)), MAX_WAIT_SECONDS)
        # One worker's answer holds for all of them, or each would learn it by another refused request.
        if is_busy(error) and self.rate_limiter:
            self.rate_limiter.pause(wait_seconds)
        return wait_seconds


class Stream(Protocol):
    """What a body is read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        ...

    def close(self) -> None:
        """Close the connection."""


@dataclass
class Body:
    """A file from the asked offset on; `size` (in bytes) and `etag` are those of the whole, where they are known."""

    stream: Stream
    size: int | None
    etag: str = ""
    filesystem: Any = None  # an archive closes its files when nothing refers to it any more

    def is_same_file(self, other: "Body") -> bool:
        """Whether nothing that is known of both says that they are parts of different files."""
        known = zip((self.size, self.etag), (other.size, other.etag), strict=True)
        return all(ours == theirs for ours, theirs in known if ours and theirs)


@dataclass
class RateWindow:
    """What arrived while a stream was waited for. Time that the reader spends elsewhere does not count."""

    seconds: float = 0.0
    num_bytes: int = 0

    def add(self, seconds: float, num_bytes: int) -> float | None:
        """Count one read. The bytes per second of the window if that is over, and a new one begins."""
        self.seconds += seconds
        self.num_bytes += num_bytes
        if self.seconds < RATE_WINDOW_SECONDS:
            return None
        rate = self.num_bytes / self.seconds
        self.seconds, self.num_bytes = 0.0, 0
        return rate


class Download(io.RawIOBase):
    """A remote file as one stream; `open_at(url, offset)` opens it again where it broke."""

    def __init__(self, url: str, open_at: Callable[[str, int], Body], rate_limiter: RateLimiter | None = None) -> None:
        self.url = url
        self.open_at = open_at
        self.rate_limiter = rate_limiter
        self.body: Body | None = None
        self.first: Body | None = None
        self.offset = 0
        self.num_slow_windows = 0
        self.window = RateWindow()
        self.tries = Tries(url, rate_limiter=rate_limiter)

    def readable(self) -> bool:
        """Always true: a raw stream must say so to be buffered."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` from the network; the number of bytes, 0 at the end. Raises as `open_file` says."""
        data = self.tries.call(lambda: self._read(len(buffer)), lambda: self.offset)
        self.offset += len(data)
        buffer[: len(data)] = data
        return len(data)

    def close_body(self) -> None:
        """Close the connection; the next read opens another."""
        if self.body is not None:
            self.body.stream.close()
            self.body = None

    def close(self) -> None:
        """Close the stream and its connection."""
        self.close_body()
        super().close()

    def _read(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end. An error closes the connection, so that the next try opens another."""
        try:
            body = self._opened()
            start = time.monotonic()
            data = body.stream.read(size)
            self._check_rate(time.monotonic() - start, len(data))
            # Some servers close a connection in the middle without an error; only the size shows that the file is not at its end.
            if not data and body.size is not None and self.offset < body.size:
                raise ConnectionError(f"the connection ended at byte {self.offset} of {body.size}")
        except Exception:
            self.close_body()
            raise
        if self.rate_limiter:
            self.rate_limiter.received(len(data))
        return data

    def _opened(self) -> Body:
        """The open body. Raises UserError if the file is another than the one that the stream began with."""
        if self.body is None:
            if self.rate_limiter:
                self.rate_limiter.request()
            self.body = self.open_at(self.url, self.offset)
            self.window = RateWindow()
            self.first = self.first or self.body
            if not self.body.is_same_file(self.first):
                raise UserError(
                    f"{redact_url(self.url)} was replaced while it was read, at byte {self.offset}: run the same command again"
                )
        return self.body

    def _check_rate(self, seconds: float, num_bytes: int) -> None:
        """Raises ConnectionError after a window in which next to nothing arrived, and UserError after several in a row."""
        rate = self.window.add(seconds, num_bytes)
        if rate is None:
            return
        if rate >= MIN_BYTES_PER_SECOND:
            self.num_slow_windows = 0
            return
        self.num_slow_windows += 1
        reason = f"the server sends {rate:.0f} bytes a second, less than {MIN_BYTES_PER_SECOND:,}"
        if self.num_slow_windows >= NUM_SLOW_WINDOWS:
            raise UserError(
                f"{redact_url(self.url)} is too slow at byte {self.offset}: {reason}; "
                "run the same command again later, or take the file from elsewhere"
            )
        raise ConnectionError(reason)


def _open_http(url: str, offset: int) -> Body:
    try:
        answer = request(url, **({"Range": f"bytes={offset}-"} if offset else {}))
    except StatusError as error:
        if error.status == 416 and error.headers.get("Content-Range", "").strip() == f"bytes */{offset}":
            return Body(io.BytesIO(), offset)  # the connection broke after the last byte
        raise
    try:
        start, size = _extent(answer.status, answer.headers)
        # A server may ignore a range, or send another part of it (RFC 9110, sections 14.2 and 15.3.7).
        if start > offset:
            raise ConnectionError(f"the server was asked for byte {offset} and sent what begins at byte {start}")
        while start < offset:  # a server that knows no ranges sends it all again
            skipped = len(answer.read(min(BLOCK_BYTES, offset - start)))
            if not skipped:
                raise ConnectionError(f"the file ends at byte {start}, before byte {offset} where the stream was")
            start += skipped
    except BaseException:
        answer.close()
        raise
    return Body(answer, size, answer.headers.get("ETag", ""))


def _extent(status: int, headers: Mapping[str, str]) -> tuple[int, int | None]:
    """Where in the file an answer begins, and the size of the whole in bytes, None where the server does not say it."""
    if status != 206:
        return 0, _size(headers.get("Content-Length", ""))
    stated = headers.get("Content-Range", "")
    match = CONTENT_RANGE.fullmatch(stated.strip())
    if match is None:
        raise ConnectionError(
            f"the server sent a part of the file and calls it {stated[:100]!r}, not bytes FIRST-LAST/SIZE"
        )
    first, last, size = int(match[1]), int(match[2]), _size(match[3])
    if first > last or (size is not None and last >= size):
        raise ConnectionError(f"the server sent a part of the file that cannot be: {stated[:100]!r}")
    return first, size


def _size(text: str) -> int | None:
    """A number of bytes; None where the text is not a number, or has more digits than any file's (18 digits are an exabyte)."""
    return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None


def _open_fsspec(url: str, offset: int) -> Body:
    filesystem, path = fsspec.core.url_to_fs(url)
    stream = filesystem.open(
        path, "rb"
    )  # fsspec.open(url).open() closes an archive such as zip:// when it goes out of scope
    if offset:
        stream.seek(offset)
    return Body(stream, getattr(stream, "size", None), filesystem=filesystem)
