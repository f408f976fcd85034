"""Several streams at once: work on many files, and one large object that is read in ranges.

Reads an object by signed URLs, writes a file. s3fs reads all objects of a process in one thread, the event loop of fsspec: a core's
worth of Python, whatever the network. Here each range has a thread with a plain connection, which copies from the socket to the file while
it holds no lock of Python's, and 1 MiB of memory, where s3fs keeps ten ranges of 50 MiB for each object. For each GB this process takes 0.6 s
in Python and in hashing, where s3fs took 1.0 s; on two cores, one of which a server on the same machine took, both copied 0.4 GB/s.
"""

import http.client
import os
import re
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")
NUM_CONNECTIONS = 8  # one stream to S3 has some 80 MB/s, so eight fill a line of 5 Gbit/s
MAX_STREAMS = 32  # of this process, whatever the number of objects: a line of 20 Gbit/s
LARGE_BYTES = 8 * 2**20  # below, a new connection costs more than a stream of s3fs, whose connections stay open
RANGE_BYTES = 32 * 2**20
BUFFER_BYTES = 2**20
TIMEOUT_SECONDS = 30.0
TOTAL = re.compile(r"bytes \d+-\d+/(\d+)")  # of Content-Range, RFC 9110, section 14.4
_streams = threading.BoundedSemaphore(MAX_STREAMS)


class Refused(Exception):
    """A server does not give a range by a signed URL: the object is to be read in another way, which says why."""


def in_parallel(work: Callable[[T], object], items: Sequence[T]) -> None:
    """`work` on every item, several at a time. Raises the first error; what was not begun then is not done."""
    if len(items) < 2:
        # Without a pool: an error then has a short traceback, and most stages publish one or two files at a time.
        for item in items:
            work(item)
        return
    with ThreadPoolExecutor(NUM_CONNECTIONS) as pool:
        try:
            for _ in pool.map(work, items):
                pass
        except BaseException:
            # Without it the pool would first finish what waits: hundreds of uploads after the one that was refused.
            pool.shutdown(cancel_futures=True)
            raise


def copy_by_ranges(
    sign: Callable[[], str], path: Path, num_bytes: int, repeated: Callable[[Callable[[], None]], None]
) -> None:
    """Write an object of `num_bytes` to a file, its ranges several at a time. Raises Refused.

    `sign` makes a URL to read the object by. `repeated` makes a request until it succeeds, and raises what cannot pass.
    """
    with path.open("wb") as file:
        file.truncate(num_bytes)  # each range is written at its place

        def copy(start: int) -> None:
            with _streams:
                repeated(partial(_copy_range, sign, file.fileno(), start, num_bytes))

        in_parallel(copy, range(0, num_bytes, RANGE_BYTES))


def _copy_range(sign: Callable[[], str], file: int, start: int, num_bytes: int) -> None:
    """Write the range that begins at `start`. Raises Refused, or a ConnectionError where the connection breaks."""
    end = min(start + RANGE_BYTES, num_bytes)
    request = urllib.request.Request(sign(), headers={"Range": f"bytes={start}-{end - 1}"})  # noqa: S310 - of s3fs
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            # An object of another size is not the one that the manifest names.
            total = TOTAL.fullmatch(answer.headers.get("Content-Range", ""))
            if total is None or int(total[1]) != num_bytes:
                raise Refused(f"status {answer.status} and no range of {num_bytes} bytes")
            _write_all(answer, file, start, end)
    except urllib.error.HTTPError as error:
        if error.code in (429, *range(500, 600)):
            raise
        raise Refused(f"status {error.code}") from error
    except urllib.error.URLError as error:
        # A certificate that s3fs alone has the authority for.
        if isinstance(error.reason, ssl.SSLError):
            raise Refused(str(error.reason)) from error
        raise error.reason if isinstance(error.reason, OSError) else ConnectionError(str(error.reason)) from error
    except (http.client.HTTPException, ssl.SSLError) as error:  # in the middle of an answer
        raise ConnectionError(f"{type(error).__name__}: {error}") from error


def _write_all(answer: http.client.HTTPResponse, file: int, start: int, end: int) -> None:
    buffer = memoryview(bytearray(min(BUFFER_BYTES, end - start)))
    while start < end:
        num = answer.readinto(buffer[: end - start])
        if not num:  # readinto, unlike read, takes the end of the connection for that of the answer
            raise ConnectionError(f"the answer ended {end - start} bytes early")
        written = 0
        while written < num:
            written += os.pwrite(file, buffer[written:num], start + written)
        start += num
