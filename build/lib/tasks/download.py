"""A file as a stream of bytes, wherever it is: a path, an http(s) URL, or any other URL that fsspec knows.

A busy server and a broken connection are tried again, politely (jittered backoff, Retry-After), by byte range from where the
stream was: a WARC file of Common Crawl has about 1 GB.
"""

import contextlib
import email.utils
import http.client
import io
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import fsspec

BLOCK_BYTES = 64 * 1024
NUM_TRIES = 8
BACKOFF_SECONDS = 0.5  # before the second try, then doubled each time
MAX_WAIT_SECONDS = 300.0
TIMEOUT_SECONDS = 60.0
BUSY_STATUS = (408, 425, 429, 500, 502, 503, 504)
USER_AGENT = "crawl2chat (reads web archives as training data)"


def open_file(url: str) -> IO[bytes]:
    """A file to be read once, front to back.

    Reading raises ValueError where the file is not there for us, ConnectionError where the last try failed.
    """
    if "://" not in url:
        return Path(url).open("rb")
    return io.BufferedReader(Download(url, _open_http if is_http(url) else _open_fsspec), BLOCK_BYTES)


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
    num_failures: int = 0

    def failed(self, error: Exception, offset: int) -> None:
        """Sleep before the next try. Raises ValueError where no other would help, ConnectionError after the last."""
        if _is_final(error):
            raise ValueError(f"{self.url} cannot be read ({error}): check the address, and who may read it") from error
        self.num_failures += 1
        if self.num_failures >= self.max_failures:
            raise ConnectionError(
                f"{self.url} failed at byte {offset}, {self.num_failures} times in a row, the last with: {error}; "
                "run the same command again later, what is finished is kept"
            ) from error
        backoff_seconds = BACKOFF_SECONDS * 2 ** (self.num_failures - 1) * random.uniform(0.5, 1.5)
        time.sleep(min(max(backoff_seconds, _retry_after_seconds(error)), MAX_WAIT_SECONDS))


def _is_final(error: Exception) -> bool:
    if isinstance(error, urllib.error.HTTPError):
        return error.code not in BUSY_STATUS
    return isinstance(error, (FileNotFoundError, PermissionError))


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

    def __init__(self, url: str, open_at: Callable[[str, int], Body]) -> None:
        self.url = url
        self.open_at = open_at
        self.body: Body | None = None
        self.offset = 0
        self.tries = Tries(url)

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
            self.body = self.open_at(self.url, self.offset)
        data: bytes = self.body.stream.read(size)
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
    headers |= {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    request = urllib.request.Request(url, headers=headers, method=method)  # noqa: S310 - its callers looked at the scheme
    return urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)  # noqa: S310


def _open_fsspec(url: str, offset: int) -> Body:
    stream = fsspec.open(url, "rb").open()
    stream.seek(offset)
    return Body(stream, getattr(stream, "size", None))
