"""A file as a stream of bytes, wherever it is: a path, an http(s) URL, or any other URL that fsspec knows.

A busy server and a broken connection are tried again, politely (jittered backoff, Retry-After), by byte range from where the
stream was: a WARC file of Common Crawl has about 1 GB. A file that was replaced meanwhile is refused. A server that says it is busy
is left alone by all who share a `Pace`.
"""

import contextlib
import email.utils
import http.client
import importlib.metadata
import io
import os
import random
import re
import string
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import quote

import fsspec

from tasks.web.rate_limit import MAX_WAIT_SECONDS, RateLimiter
from tasks.web.urls import ascii_host

BLOCK_BYTES = 64 * 1024
NUM_TRIES = 8
BACKOFF_SECONDS = 0.5  # before the second try, then doubled each time
TIMEOUT_SECONDS = 60.0
BUSY_STATUS = (408, 425, 429, 500, 502, 503, 504)
NO_HEAD_STATUS = (403, 405, 501)  # a signed URL may be signed for GET alone
CONTENT_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")
BUSY_WORDS = re.compile(rb"slow ?down|too many requests|rate.?limit|throttl", re.I)  # S3 and its like also say 403


def open_file(url: str, rate_limiter: RateLimiter | None = None) -> IO[bytes]:
    """A file to be read once, front to back, no faster than `pace` where it is not a local one.

    Reading raises ValueError where the file is not there for us, ConnectionError where the last try failed.
    """
    if "://" not in url:
        return Path(url).open("rb")
    return io.BufferedReader(Download(url, _open_http if is_http(url) else _open_fsspec, rate_limiter), BLOCK_BYTES)


def is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def head(url: str) -> tuple[int | None, str]:
    """Size in bytes, where the server says it, and ETag of an http(s) file. Raises as reading does."""
    tries = Tries(url, 4)
    asked: dict[str, str] = {"method": "HEAD"}
    while True:
        try:
            with _request(url, **asked) as response:
                return _extent(response)[1], response.headers.get("ETag", "")
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            if isinstance(error, urllib.error.HTTPError) and error.code in NO_HEAD_STATUS and "method" in asked:
                asked = {"Range": "bytes=0-0"}
            else:
                tries.failed(error, 0)


@dataclass
class Tries:
    """How often reading `url` has failed in a row."""

    url: str
    max_failures: int = NUM_TRIES
    rate_limiter: RateLimiter | None = None
    num_failures: int = 0

    def failed(self, error: Exception, offset: int) -> None:
        """Sleep before the next try. Raises ValueError where no other would help, ConnectionError after the last."""
        is_busy = _is_busy(error)
        if not is_busy and _is_final(error):
            raise ValueError(f"{self.url} cannot be read ({error}): check the address, and who may read it") from error
        self.num_failures += 1
        if self.num_failures >= self.max_failures:
            raise ConnectionError(
                f"{self.url} failed at byte {offset}, {self.num_failures} times in a row, the last with: {error}; "
                "run the same command again later, what is finished is kept"
            ) from error
        backoff_seconds = BACKOFF_SECONDS * 2 ** (self.num_failures - 1) * random.uniform(0.5, 1.5)
        wait_seconds = min(max(backoff_seconds, _retry_after_seconds(error)), MAX_WAIT_SECONDS)
        if is_busy and self.rate_limiter:
            self.rate_limiter.pause(wait_seconds)
        time.sleep(wait_seconds)


def _is_busy(error: Exception) -> bool:
    """Whether a server says that it is asked too often, or cannot answer now."""
    if not isinstance(error, urllib.error.HTTPError):
        return False
    with contextlib.suppress(OSError, http.client.HTTPException):
        return error.code in BUSY_STATUS or (error.code == 403 and BUSY_WORDS.search(error.read(4096)) is not None)
    return False


def _is_final(error: Exception) -> bool:
    finals = (urllib.error.HTTPError, http.client.InvalidURL, UnicodeError, FileNotFoundError, PermissionError)
    return isinstance(error, finals)


def _retry_after_seconds(error: Exception) -> float:
    """What a server asks for in Retry-After, in seconds or as a date."""
    value = error.headers.get("Retry-After", "") if isinstance(error, urllib.error.HTTPError) else ""
    if value.isdigit():
        return float(value)
    with contextlib.suppress(ValueError):
        return email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    return 0.0


@dataclass
class Body:
    """A file from the offset on that was asked for; `size` (in bytes) and `etag` are those of the whole, where they are known."""

    stream: Any
    size: int | None
    etag: str = ""

    def is_same_file(self, other: "Body") -> bool:
        """Whether nothing that is known of both says that they are parts of different files."""
        known = zip((self.size, self.etag), (other.size, other.etag), strict=True)
        return all(ours == theirs for ours, theirs in known if ours and theirs)


class Download(io.RawIOBase):
    """A remote file as one stream; `open_at(url, offset)` opens it anew where it broke."""

    def __init__(self, url: str, open_at: Callable[[str, int], Body], rate_limiter: RateLimiter | None = None) -> None:
        self.url = url
        self.open_at = open_at
        self.rate_limiter = rate_limiter
        self.body: Body | None = None
        self.first: Body | None = None
        self.offset = 0
        self.tries = Tries(url, rate_limiter=rate_limiter)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                data = self._read(len(buffer))
                break
            except (OSError, http.client.HTTPException, UnicodeError) as error:
                self.close_body()
                self.tries.failed(error, self.offset)
        if data:
            self.tries.num_failures = 0
        self.offset += len(data)
        buffer[: len(data)] = data
        return len(data)

    def close_body(self) -> None:
        if self.body is not None:
            self.body.stream.close()
            self.body = None

    def close(self) -> None:
        self.close_body()
        super().close()

    def _read(self, size: int) -> bytes:
        if self.body is None:
            if self.rate_limiter:
                self.rate_limiter.request()
            self.body = self.open_at(self.url, self.offset)
            self.first = self.first or self.body
            if not self.body.is_same_file(self.first):
                raise ValueError(
                    f"{self.url} was replaced while it was read, at byte {self.offset}: run the same command again"
                )
        data: bytes = self.body.stream.read(size)
        if self.rate_limiter:
            self.rate_limiter.received(len(data))
        if not data and self.body.size is not None and self.offset < self.body.size:
            raise ConnectionError(f"the connection ended at byte {self.offset} of {self.body.size}")
        return data


def _open_http(url: str, offset: int) -> Body:
    response = _request(url, **({"Range": f"bytes={offset}-"} if offset else {}))
    start, size = _extent(response)
    if start > offset:
        raise ConnectionError(f"the server was asked for byte {offset} and sent what begins at byte {start}")
    for place in range(start, offset, BLOCK_BYTES):  # a server that knows no ranges sends it all again
        response.read(min(BLOCK_BYTES, offset - place))
    return Body(response, size, response.headers.get("ETag", ""))


def _extent(response: Any) -> tuple[int, int | None]:
    """Where in the file an answer begins, and the size of the whole in bytes, where the server says it."""
    size, start = response.headers.get("Content-Length", ""), "0"
    if response.status == 206:
        told = response.headers.get("Content-Range", "")
        if not (match := CONTENT_RANGE.match(told)):
            raise ConnectionError(
                f"the server sent a part of the file and calls it {told!r}, not bytes FIRST-LAST/SIZE"
            )
        start, size = match.groups()
    return int(start), int(size) if size.isdecimal() else None


def _request(url: str, method: str = "GET", **headers: str) -> Any:
    headers |= {"User-Agent": user_agent(), "Accept-Encoding": "identity"}
    request = urllib.request.Request(ascii_url(url), headers=headers, method=method)  # noqa: S310 - its callers looked at the scheme
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310


def ascii_url(url: str) -> str:
    """A URL as browsers send it: beyond ASCII, the host as the name servers know it, else UTF-8 with percent signs."""
    scheme, _, rest = url.partition("://")
    host = re.split("[/?#]", rest, maxsplit=1)[0]
    return f"{scheme}://{ascii_host(host)}{quote(rest[len(host) :], safe=string.punctuation + ' ')}"


def user_agent() -> str:
    """Who asks, for whoever runs the server; CRAWL2CHAT_CONTACT is an address where the asker can be reached."""
    contact = os.environ.get("CRAWL2CHAT_CONTACT", "")
    purpose = f"reads web archives as training data; {contact}".removesuffix("; ")
    return f"crawl2chat/{importlib.metadata.version('crawl2chat')} ({purpose})"


def _open_fsspec(url: str, offset: int) -> Body:
    stream = fsspec.open(url, "rb").open()
    stream.seek(offset)
    return Body(stream, getattr(stream, "size", None))
