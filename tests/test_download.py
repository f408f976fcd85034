"""Reading over a network that fails: the bytes are those of the file, and what cannot be had is said."""

import os
from pathlib import Path

import fsspec
import pytest
from archives import BadServer, serving

from tasks import download
from tasks.download import open_file


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)


@pytest.fixture
def data(tmp_path: Path) -> bytes:
    data = os.urandom(1_000_000)
    (tmp_path / "file.gz").write_bytes(data)
    return data


def read(server: BadServer) -> bytes:
    with open_file(f"{server.url}/file.gz") as stream:
        return stream.read()


@pytest.mark.parametrize("knows_ranges", [True, False], ids=["ranges", "no ranges"])
def test_a_busy_server_and_broken_connections_change_nothing(tmp_path: Path, data: bytes, knows_ranges: bool) -> None:
    with serving(tmp_path, knows_ranges) as server:
        server.faults["/file.gz"] = ["busy", "break", "busy", "break"]
        assert read(server) == data
    ranges = [wanted for _, _, wanted, _ in server.requests]
    assert ranges[:2] == [None, None]
    assert ranges[2] == "bytes=500000-"  # it goes on from where it was
    assert all("crawl2chat" in agent for *_, agent in server.requests)


def test_it_gives_up_with_the_place(tmp_path: Path, data: bytes) -> None:
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = ["break", *["busy"] * 20]
        with pytest.raises(ConnectionError, match=r"file\.gz failed at byte 500000, 8 times in a row.*503"):
            read(server)


def test_progress_is_patience_again(tmp_path: Path, data: bytes) -> None:
    """Each connection brings half of the rest: many breaks in one file, none twice at the same place."""
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = ["break"] * 15
        assert read(server) == data


def test_a_file_that_is_not_there_is_not_asked_for_again(tmp_path: Path) -> None:
    with serving(tmp_path) as server, pytest.raises(ValueError, match=r"file\.gz cannot be read .*404"):
        read(server)
    assert len(server.requests) == 1


def test_retry_after_is_kept(tmp_path: Path, data: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr("time.sleep", waited.append)
    monkeypatch.setattr(download, "_retry_after_seconds", lambda error: 7.0)
    with serving(tmp_path) as server:
        server.faults["/file.gz"] = ["busy"]
        assert read(server) == data
    assert 7.0 in waited


@pytest.mark.parametrize(
    ("value", "seconds"), [("120", 120.0), ("Fri, 01 Jan 2100 00:00:00 GMT", 1e9), ("soon", 0.0), ("", 0.0)]
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float) -> None:
    from email.message import Message
    from urllib.error import HTTPError

    headers = Message()
    headers["Retry-After"] = value
    asked = download._retry_after_seconds(HTTPError("http://x", 503, "busy", headers, None))
    assert asked == seconds or asked > seconds > 0


def test_other_filesystems_are_read_the_same_way() -> None:
    filesystem = fsspec.filesystem("memory")
    filesystem.pipe_file("/download/file.gz", b"content")
    with open_file("memory://download/file.gz") as stream:
        assert stream.read() == b"content"
