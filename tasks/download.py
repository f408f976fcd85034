"""A file as a stream of bytes, wherever it is: a path, an http(s) URL, or any other URL that fsspec knows.

A busy server and a broken connection are tried again, politely (jittered backoff, Retry-After), by byte range from where the
stream was: a WARC file of Common Crawl has about 1 GB. A server that says it is busy is left alone by all who share a `Pace`.
"""

import contextlib
import email.utils
import http.client
import importlib.metadata
import io
import os
import random
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec

from tasks.pace import MAX_WAIT_SECONDS, Pace

BLOCK_BYTES = 64 * 1024
NUM_TRIES = 8
BACKOFF_SECONDS = 0.5  # before the second try, then doubled each time
TIMEOUT_SECONDS = 60.0
BUSY_STATUS = (408, 425, 429, 500, 502, 503, 504)
BUSY_WORDS = re.compile(rb"slow ?down|too many requests|rate.?limit|throttl", re.I)  # S3 and its like also say 403


def open_file(url: str, pace: Pace | None = None) -> IO[bytes]:
    """A file to be read once, front to back, no faster than `pace` where it is not a local one.

    Reading raises ValueError where the file is not there for us, ConnectionError where the last try failed.
    """
    if "://" not in url:
        return Path(url).open("rb")
    return io.BufferedReader(Download(url, _open_http if is_http(url) else _open_fsspec, pace), BLOCK_BYTES)


def is_http(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


def head(url: str) -> tuple[int | None, str]:
    """Size in bytes, where the server says it, and ETag of an http(s) file. Raises as reading does."""
    tries = Tries(url, 4)
    while True:
        try:
            with _request(url, method="HEAD") as response:
                size = response.headers.get("Content-Length")
                return None if size is None else int(size), response.headers.get("ETag", "")
        except (OSError, http.client.HTTPException) as error:
            tries.failed(error, 0)


@dataclass
class Tries:
    """How often reading `url` has failed in a row."""

    url: str
    max_failures: int = NUM_TRIES
    pace: Pace | None = None
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
        if is_busy and self.pace:
            self.pace.pause(wait_seconds)
        time.sleep(wait_seconds)


def _is_busy(error: Exception) -> bool:
    """Whether a server says that it is asked too often, or cannot answer now."""
    if not isinstance(error, urllib.error.HTTPError):
        return False
    with contextlib.suppress(OSError, http.client.HTTPException):
        return error.code in BUSY_STATUS or (error.code == 403 and BUSY_WORDS.search(error.read(4096)) is not None)
    return False


def _is_final(error: Exception) -> bool:
    finals = (urllib.error.HTTPError, http.client.InvalidURL, FileNotFoundError, PermissionError)
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
    """A file from the offset on that was asked for; `size` is that of the whole file in bytes, where it is known."""

    stream: Any
    size: int | None


class Download(io.RawIOBase):
    """A remote file as one stream; `open_at(url, offset)` opens it anew where it broke."""

    def __init__(self, url: str, open_at: Callable[[str, int], Body], pace: Pace | None = None) -> None:
        self.url = url
        self.open_at = open_at
        self.pace = pace
        self.body: Body | None = None
        self.offset = 0
        self.tries = Tries(url, pace=pace)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                data = self._read(len(buffer))
                break
            except (OSError, http.client.HTTPException) as error:
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
            if self.pace:
                self.pace.request()
            self.body = self.open_at(self.url, self.offset)
        data: bytes = self.body.stream.read(size)
        if self.pace:
            self.pace.received(len(data))
        if not data and self.body.size is not None and self.offset < self.body.size:
            raise ConnectionError(f"the connection ended at byte {self.offset} of {self.body.size}")
        return data


def _open_http(url: str, offset: int) -> Body:
    response = _request(url, **({"Range": f"bytes={offset}-"} if offset else {}))
    length = response.headers.get("Content-Length")
    if response.status == 206:
        return Body(response, None if length is None else offset + int(length))
    for start in range(0, offset, BLOCK_BYTES):  # a server that knows no ranges sends it all again
        response.read(min(BLOCK_BYTES, offset - start))
    return Body(response, None if length is None else int(length))


def _request(url: str, method: str = "GET", **headers: str) -> Any:
    headers |= {"User-Agent": user_agent(), "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310 - its callers looked at the scheme
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310


def user_agent() -> str:
    """Who asks, for whoever runs the server; CRAWL2CHAT_CONTACT is an address where the asker can be reached."""
    contact = os.environ.get("CRAWL2CHAT_CONTACT", "")
    purpose = f"reads web archives as training data; {contact}".removesuffix("; ")
    return f"crawl2chat/{importlib.metadata.version('crawl2chat')} ({purpose})"


def _open_fsspec(url: str, offset: int) -> Body:
    stream = fsspec.open(url, "rb").open()
    stream.seek(offset)
    return Body(stream, getattr(stream, "size", None))
