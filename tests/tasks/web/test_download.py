"""Downloads over a network that fails: the bytes are those of the file, or the error says what cannot be read and why."""

import io
import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace

import fsspec
import pytest

from tasks.web import download, rate_limit
from tasks.web.download import head, open_file
from tasks.web.http_client import StatusError, ascii_url, retry_after_seconds, user_agent
from tasks.web.rate_limit import RateLimiter
from tests.support.archives import BadServer, serving


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)


def sleep_by(sleep: Callable[[float], object], module: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the module alone sleep so: other threads of this process, which other tests left, sleep too."""
    monkeypatch.setattr(module, "time", SimpleNamespace(**vars(time) | {"sleep": sleep}))


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    data = os.urandom(1_000_000)
    (tmp_path / "file.gz").write_bytes(data)
    return data


def read(server: BadServer, rate_limiter: RateLimiter | None = None) -> bytes:
    with open_file(f"{server.url}/file.gz", rate_limiter) as stream:
        return stream.read()


@pytest.mark.parametrize("knows_ranges", [True, False], ids=["ranges", "no ranges"])
def test_download_survives_a_busy_server_and_broken_connections(
    tmp_path: Path, data: bytes, knows_ranges: bool
) -> None:
    with serving(tmp_path, knows_ranges) as server:
        server.faults["/file.gz"] = ["busy", "break", "busy", "break"]
        assert read(server) == data
    ranges = [wanted for _, _, wanted, _ in server.requests]
    assert ranges[:2] == [None, None]
    assert ranges[2] == "bytes=500000-"  # it resumes where it was
    assert all("crawl2chat" in agent for *_, agent in server.requests)


def test_part_that_begins_elsewhere_is_requested_again(tmp_path: Path, data: bytes) -> None:
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = ["break", "astray"]
        assert read(server) == data
        assert len(server.requests) == 3


@pytest.mark.parametrize("knows_ranges", [True, False], ids=["ranges", "no ranges"])
def test_file_replaced_during_the_download_is_refused(tmp_path: Path, data: bytes, knows_ranges: bool) -> None:
    with serving(tmp_path, knows_ranges) as server:
        server.faults["/file.gz"] = ["break"]
        with open_file(f"{server.url}/file.gz") as stream:
            stream.read(1000)
            (tmp_path / "file.gz").write_bytes(data[::-1])
            with pytest.raises(ValueError, match=r"file\.gz was replaced while it was read, at byte 500000: run"):
                stream.read()


def test_head_returns_size_and_etag_if_the_server_refuses_head(tmp_path: Path, data: bytes) -> None:
    with serving(tmp_path) as server:
        found = head(f"{server.url}/file.gz")
    for knows_ranges in (True, False):
        with serving(tmp_path, knows_ranges, knows_head=False) as server:
            assert head(f"{server.url}/file.gz") == found == (len(data), found[1])


def test_url_beyond_ascii_is_sent_as_browsers_send_it(tmp_path: Path) -> None:
    (tmp_path / "übung 1.gz").write_bytes(b"content")
    with serving(tmp_path) as server:
        assert open_file(f"{server.url}/übung%201.gz").read() == b"content"
    assert ascii_url("http://münchen.de:80/ü?ß=%20#é") == ("http://xn--mnchen-3ya.de:80/%C3%BC?%C3%9F=%20#%C3%A9")


def test_download_gives_up_with_the_offset(tmp_path: Path, data: bytes) -> None:
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = ["break", *["busy"] * 20]
        with pytest.raises(ConnectionError, match=r"file\.gz failed at byte 500000, 8 times in a row.*503"):
            read(server)


def test_progress_resets_the_number_of_tries(tmp_path: Path, data: bytes) -> None:
    """Each connection brings half of the rest: many breaks in one file, none twice at the same place."""
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = ["break"] * 15
        assert read(server) == data


def test_missing_file_is_requested_once(tmp_path: Path) -> None:
    with serving(tmp_path) as server, pytest.raises(ValueError, match=r"file\.gz cannot be read .*404"):
        read(server)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "url",
    ["http://site..example/", "http://site.example/\udcfc", "http://site.example:port/", "http://[::1/", "http:///a"],
)
def test_invalid_url_is_not_tried_again(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sleep_by(lambda seconds: pytest.fail("it waits"), download, monkeypatch)
    with pytest.raises(ValueError, match=r"cannot be read .*: check the address"):
        open_file(url).read()


@pytest.mark.parametrize(
    ("retry_after", "seconds"), [("7", 7.0), ("1000000", 300.0), ("9" * 5000, 300.0), ("²", 0.001)]
)
def test_download_waits_as_long_as_the_server_asks(
    tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch, retry_after: str, seconds: float
) -> None:
    waited: list[float] = []
    sleep_by(waited.append, download, monkeypatch)
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = [f"busy {retry_after}"]
        assert read(server) == data
    assert max(waited) == pytest.approx(seconds, rel=0.5 if seconds < 1 else 0)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        *(("120", 120.0), (" 120 ", 120.0), ("0", 0.0), ("301", 300.0), ("1" * 5000, 300.0), ("Fri, 01 Jan 2100 00:00:00 GMT", 300.0)),
        *(("Fri, 01 Jan 2100 00:00:00 -0000", 300.0), ("Fri, 01 Jan 1999 00:00:00 GMT", 0.0), ("Fri, 99 Jan 2100 99:00:00 GMT", 0.0)),
        *((value, 0.0) for value in ("soon", "", "²", "-5", "1e3", "1.5", "0x10", "inf", "nan", "٣", "1 2", "Fri, 01 Jan 99999999 0:0:0")),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_up_to_a_limit(value: str, seconds: float) -> None:
    error = StatusError(503, "busy", {"Retry-After": value}, b"")
    assert retry_after_seconds(error, 300.0) == seconds


def test_other_filesystems_are_read_the_same_way() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/download/file.gz", b"content")
    with open_file("memory://download/file.gz") as stream:
        assert stream.read() == b"content"


def test_large_file_of_another_filesystem_costs_no_memory(tmp_path: Path) -> None:
    import tracemalloc

    (tmp_path / "large").write_bytes(bytes(50_000_000))
    tracemalloc.start()
    with open_file(f"local://{tmp_path}/large") as stream:
        num_bytes = sum(len(block) for block in iter(lambda: stream.read(65_536), b""))
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert num_bytes == 50_000_000
    assert peak_bytes < 15_000_000


class Fragile(io.BytesIO):
    """A file of a filesystem whose connections break."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() and not self.tell() % 130_000:
            raise TimeoutError("read timed out")
        return super().read(min(size or 0, 130_000 - self.tell() % 130_000))


def test_broken_reads_of_another_filesystem_resume(data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []

    def open_fragile(url: str, offset: int) -> download.Body:
        opened.append(offset)
        stream = Fragile(data) if len(opened) % 2 else io.BytesIO(data)
        stream.seek(offset)
        return download.Body(stream, len(data))

    monkeypatch.setattr(download, "_open_fsspec", open_fragile)
    with open_file("fragile://bucket/file") as stream:
        assert stream.read() == data
    assert opened == [0, 130_000]


def test_user_agent_names_the_contact(monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_agent().startswith("crawl2chat/0")
    monkeypatch.setenv("CRAWL2CHAT_CONTACT", "mailto:crawl@site.example")
    assert user_agent().endswith("; mailto:crawl@site.example)")


def test_workers_share_the_request_rate(tmp_path: Path, data: bytes) -> None:
    rate_limiter = RateLimiter(tmp_path / "state" / "rate_limit", requests_per_second=20)
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = ["break"] * 4
        with ThreadPoolExecutor(6) as workers:
            assert set(workers.map(lambda _: read(server, rate_limiter), range(6))) == {data}
    assert len(server.times) == 10
    gaps = [after - before for before, after in zip(server.times, server.times[1:], strict=False)]
    assert sum(gaps) > 8 / 20


def claim(rate_limiter: RateLimiter) -> float:
    rate_limiter.request()
    return time.time()


def test_processes_share_a_rate_limit(tmp_path: Path) -> None:
    rate_limiter = RateLimiter(tmp_path / "rate_limit", requests_per_second=20)
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as workers:
        times = sorted(workers.map(claim, [rate_limiter] * 10))
    assert times[-1] - times[0] > 8 / 20


@pytest.mark.parametrize("fault", ["busy 1", "slow down"])
def test_busy_server_is_left_alone_by_all_workers(
    tmp_path: Path, data: bytes, fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 1.0)
    rate_limiter = RateLimiter(tmp_path / "rate_limit")
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = [fault]
        first = threading.Thread(target=read, args=(server, rate_limiter))
        first.start()
        while rate_limiter._claim_request() <= 0:
            time.sleep(0.01)
        assert read(server, rate_limiter) == data
        first.join()
    assert min(server.times[1:]) - server.times[0] > 0.45


def test_forbidden_file_is_requested_once(tmp_path: Path, data: bytes) -> None:
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = ["refuse"]
        with pytest.raises(ValueError, match="403"):
            read(server)
    assert len(server.requests) == 1


def test_bytes_are_read_no_faster_than_the_limit(tmp_path: Path, data: bytes) -> None:
    rate_limiter = RateLimiter(tmp_path / "rate_limit", bytes_per_second=2_000_000)
    with serving(tmp_path) as server:
        start = time.monotonic()
        assert read(server, rate_limiter) == data
    assert time.monotonic() - start > 0.45


def test_clock_that_was_set_back_does_not_stop_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rate_limiter = RateLimiter(tmp_path / "rate_limit")
    rate_limiter.pause(1e9)
    waited: list[float] = []

    def sleep(seconds: float) -> None:
        waited.append(seconds)
        rate_limiter.path.unlink()

    sleep_by(sleep, rate_limit, monkeypatch)
    rate_limiter.request()
    assert waited[0] < 400
