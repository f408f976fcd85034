"""The background sender: nothing it is given raises or waits, whatever the server does; order, replacement and one warning."""

import logging
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.schemas.actions import LogCreate
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows import background_sender
from flows.background_sender import BackgroundSender
from tests.support.prefect_servers import free_port, wait_for


@pytest.fixture
def warnings(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    caplog.set_level(logging.WARNING, logger="crawl2chat")
    return lambda: [record.getMessage() for record in caplog.records if record.name == "crawl2chat"]


@pytest.fixture
def sender(monkeypatch: pytest.MonkeyPatch) -> Iterator[BackgroundSender]:
    """Of a server that does not matter: the calls do not use the client."""
    monkeypatch.setattr(background_sender, "FIRST_PAUSE_SECONDS", 0.01)
    monkeypatch.setattr(background_sender, "MAX_PAUSE_SECONDS", 0.02)
    monkeypatch.setattr(background_sender, "EXIT_SECONDS", 0.1)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        made = BackgroundSender()
    yield made
    made._finish()


def status_error(code: int) -> PrefectHTTPStatusError:
    request = httpx.Request("POST", "http://127.0.0.1/api/artifacts/")
    return PrefectHTTPStatusError("refused", request=request, response=httpx.Response(code, request=request))


class Failing:
    """A call that raises its errors one after the other, then succeeds."""

    def __init__(self, *errors: Exception) -> None:
        self.errors, self.num_calls = list(errors), 0

    def __call__(self, _: Any) -> None:
        self.num_calls += 1
        if self.errors:
            raise self.errors.pop(0)


def test_sender_sends_calls_in_order(sender: BackgroundSender) -> None:
    done: list[int] = []
    for number in range(20):
        sender.send(lambda _, number=number: done.append(number))
    assert sender.flush(60)
    assert done == list(range(20))


@pytest.mark.parametrize(
    "error",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("cut"),
        ConnectionResetError(),
        *map(status_error, (408, 429, 500, 502, 503, 504)),
    ],
    ids=repr,
)
def test_sender_repeats_what_an_absent_or_busy_server_did_not_take(
    sender: BackgroundSender, warnings: Callable[[], list[str]], error: Exception
) -> None:
    call = Failing(error, error)
    sender.send(call)
    wait_for(lambda: call.num_calls == 3, "the call is repeated")
    assert wait_for(lambda: sender.flush(60), "everything is sent")
    assert not warnings()


@pytest.mark.parametrize("error", [status_error(404), status_error(422), KeyError("id"), AssertionError()], ids=repr)
def test_sender_drops_what_the_server_refuses_with_one_warning(
    sender: BackgroundSender, warnings: Callable[[], list[str]], error: Exception
) -> None:
    calls = [Failing(error), Failing(error), Failing()]
    for call in calls:
        sender.send(call)
    assert sender.flush(60)
    assert [call.num_calls for call in calls] == [1, 1, 1]
    assert len(warnings()) == 1
    assert "some reports are missing in Prefect's UI" in warnings()[0]


def test_sender_keeps_the_newest_report_of_a_key_while_the_server_is_away(sender: BackgroundSender) -> None:
    is_back = threading.Event()
    done: list[int] = []

    def report(number: int) -> Callable[[Any], None]:
        def call(_: Any) -> None:
            if not is_back.is_set():
                raise httpx.ConnectError("refused")
            done.append(number)

        return call

    for number in range(1000):
        sender.send(report(number), "tiny-progress")
    is_back.set()
    assert wait_for(lambda: sender.flush(60), "everything is sent")
    assert done[-1] == 999
    assert len(done) < 1000


@pytest.mark.parametrize(("num_waiting", "kept"), [(0, [0, 1, 2]), (3, [1, 2]), (5, [])])
def test_lines_that_find_no_room_are_the_oldest(
    sender: BackgroundSender, monkeypatch: pytest.MonkeyPatch, num_waiting: int, kept: list[int]
) -> None:
    monkeypatch.setattr(background_sender, "MAX_LOG_LINES", 5)
    lines: list[Any] = [LogCreate.model_construct(message=str(number)) for number in range(8)]
    with sender._changed:  # keeps the thread from sending them
        sender._lines = deque(lines[3 : 3 + num_waiting], maxlen=5)
        sender._put_back(lines[:3])
        left = [int(line.message) for line in sender._lines]
        sender._lines.clear()
    assert left == [*kept, *range(3, 3 + num_waiting)]


def test_sender_never_raises_or_blocks_while_the_server_is_away(
    warnings: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_sender, "EXIT_SECONDS", 0.5)
    with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{free_port()}/api"}):
        sender = BackgroundSender()
    for number in range(background_sender.MAX_LOG_LINES + 1000):
        line = {
            "name": "crawl2chat",
            "level": 20,
            "message": str(number),
            "timestamp": datetime.now(UTC),
            "flow_run_id": uuid4(),
        }
        sender.log(LogCreate.model_construct(**line))
    wait_for(lambda: sender._is_failing, "the sender sees that the server is away")
    assert not sender.flush(60)
    assert len(sender._lines) <= background_sender.MAX_LOG_LINES
    sender._finish()
    assert len(warnings()) == 1


def test_flush_gives_a_server_that_never_answers_its_seconds_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background_sender, "REQUEST_SECONDS", 60.0)
    monkeypatch.setattr(background_sender, "EXIT_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{silent.getsockname()[1]}/api"}):
            sender = BackgroundSender()
        sender.send(lambda client: client.request("POST", "/artifacts/", json={}))
        wait_for(lambda: sender._is_sending, "the request is made")
        assert not sender.flush(0.1)
        assert sender._is_sending  # the request continues in its thread
        sender._finish()


def test_one_connection_serves_all_that_waits_and_none_after_an_error(sender: BackgroundSender) -> None:
    clients: list[Any] = []
    waits, errors = threading.Event(), [httpx.ConnectError("broken")]

    def use(client: Any) -> None:
        clients.append(client)
        assert waits.wait(60)
        if len(clients) == 3 and errors:
            raise errors.pop()

    for _ in range(5):
        sender.send(use)
    waits.set()
    wait_for(lambda: len(clients) == 6, "the call that failed is made again")
    assert len({id(client) for client in clients[:3]}) == 1
    assert len({id(client) for client in clients[3:]}) == 1
    assert clients[2]._closed
    assert clients[2] is not clients[3]
    wait_for(lambda: clients[-1]._closed, "the connection is closed")
