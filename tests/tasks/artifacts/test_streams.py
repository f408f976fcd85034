"""An object that is read in ranges, from a server that breaks connections, refuses, or has another object than the one wanted."""

import os
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tasks.artifacts import objects as objects_module
from tasks.artifacts import streams
from tasks.artifacts.object_servers import open_objects
from tasks.artifacts.streams import Refused, copy_by_ranges

RANGE_BYTES = 2**16
CONTENT = os.urandom(5 * RANGE_BYTES + 123)


class Server(ThreadingHTTPServer):
    """Serves CONTENT. `faults` are taken from the end, one a request: a status to answer with, or "cut" for half an answer."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.faults: list[int | str] = []
        self.ranges: list[str] = []
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_address[1]}/object"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        with self.server.lock:
            self.server.ranges.append(wanted)
            fault = self.server.faults.pop() if self.server.faults else 206
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
        first, last = map(int, wanted.removeprefix("bytes=").split("-"))
        part = CONTENT[first : last + 1]
        self.send_response(206 if fault == "cut" else int(fault))
        self.send_header("Content-Range", f"bytes {first}-{first + len(part) - 1}/{len(CONTENT)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        sent = part[: len(part) // 2] if fault == "cut" else part
        self.wfile.write(sent[:-1])
        with self.server.lock:  # before the end: whoever has read it makes the next request at once
            self.server.at_once -= 1
        self.wfile.write(sent[-1:])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(autouse=True)
def small_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "RANGE_BYTES", RANGE_BYTES)
    monkeypatch.setattr(streams, "BUFFER_BYTES", 1000)
    monkeypatch.setattr(objects_module, "RETRY_SECONDS", 20.0)


@pytest.fixture
def repeated() -> Callable[[Callable[[], None]], None]:
    """As an object store repeats a request."""
    return open_objects("memory://streams")._call


def copy(server: Server, path: Path, repeated: Callable[[Callable[[], None]], None], num_bytes: int) -> None:
    copy_by_ranges(lambda: server.url, path, num_bytes, repeated)


def test_object_is_read_in_ranges_that_follow_each_other(
    server: Server, tmp_path: Path, repeated: Callable[[Callable[[], None]], None]
) -> None:
    copy(server, tmp_path / "copy", repeated, len(CONTENT))
    assert (tmp_path / "copy").read_bytes() == CONTENT
    starts = sorted(int(wanted.removeprefix("bytes=").partition("-")[0]) for wanted in server.ranges)
    assert starts == list(range(0, len(CONTENT), RANGE_BYTES))
    assert server.most_at_once <= streams.NUM_CONNECTIONS


def test_range_whose_connection_broke_or_whose_server_was_busy_is_read_again(
    server: Server, tmp_path: Path, repeated: Callable[[Callable[[], None]], None]
) -> None:
    server.faults = ["cut", 503, 206, 429, "cut"]
    copy(server, tmp_path / "copy", repeated, len(CONTENT))
    assert (tmp_path / "copy").read_bytes() == CONTENT
    assert len(server.ranges) == 6 + 4  # the other ranges are not


@pytest.mark.parametrize("status", [200, 403, 404, 416])
def test_answer_that_is_no_range_is_refused(
    server: Server, tmp_path: Path, repeated: Callable[[Callable[[], None]], None], status: int
) -> None:
    server.faults = [status] * 100
    num_bytes = len(CONTENT) + (status == 200)  # a server that ignores ranges names another size, or none
    with pytest.raises(Refused):
        copy(server, tmp_path / "copy", repeated, num_bytes)


@pytest.mark.parametrize("difference", [-1, 1])
def test_object_of_another_size_is_refused(
    server: Server, tmp_path: Path, repeated: Callable[[Callable[[], None]], None], difference: int
) -> None:
    with pytest.raises(Refused, match="no range of"):
        copy(server, tmp_path / "copy", repeated, len(CONTENT) + difference)


def test_streams_of_all_objects_are_bounded(
    server: Server, tmp_path: Path, repeated: Callable[[Callable[[], None]], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "_streams", threading.BoundedSemaphore(2))
    paths = [tmp_path / str(number) for number in range(4)]
    streams.in_parallel(lambda path: copy(server, path, repeated, len(CONTENT)), paths)
    assert all(path.read_bytes() == CONTENT for path in paths)
    assert server.most_at_once <= 2
