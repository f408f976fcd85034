"""Clients that mean no good: each gets one clear message with a status of 4xx, and nothing of them stays behind."""

import asyncio
import json
import logging
import random
import socket
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from model.errors import UserError
from model.serve import app as app_module
from model.serve import connections
from model.serve.app import create_app
from model.serve.errors import ApiError, invalid
from model.serve.guard import Limits, hostname, is_nested_deeper
from model.serve.served import ServedModel
from model.serve.server import check_address
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.routes import feedback_router
from tests.support.cost import grows_linearly
from tests.support.hostile_requests import CHAT, COMPLETION, POSTS, fault, mutated, requests, send
from tests.support.served_models import running, serve_small

LIMITS = Limits(body_bytes=50_000, body_seconds=1.0, nesting=12)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> ServedModel:
    return serve_small(tmp_path_factory.mktemp("model"), max_running=8, max_waiting=300, num_threads=1)


@pytest.fixture(scope="module")
def url(served: ServedModel, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    routers = [feedback_router(tmp_path_factory.mktemp("feedback") / "feedback.db", Guidelines.read())]
    with running(create_app([served], limits=LIMITS, routers=routers)) as url:
        yield url


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=30) as client:
        yield client


def check_refusal(answer: httpx.Response, status: int = 0) -> str:
    """The one line of a refusal."""
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text[:200])
    assert status in (0, answer.status_code)
    error = answer.json()["error"]
    message: str = error["message"]
    assert message
    assert "\n" not in message.strip()
    assert len(message) < 600
    assert set(error) == {"message", "type", "param", "code"}
    return message


def wait_until_idle(served: ServedModel, seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while served.engine.active or served.engine.waiting:
        assert time.monotonic() < deadline, "requests of nobody are still running"
        time.sleep(0.005)
    assert sorted(served.engine.rows.free) == list(range(served.engine.slots.num_rows))


def test_hostile_requests_are_answered_or_refused(
    url: str, served: ServedModel, caplog: pytest.LogCaptureFixture
) -> None:
    """A seeded part of tests/benchmarks/hostile_clients.py, by several clients at once."""
    port = httpx.URL(url).port
    assert port
    queue = requests(500, 16, body_seconds=LIMITS.body_seconds)
    statuses: Counter[int] = Counter()

    async def work() -> None:
        for request in queue:
            answer = await send(port, request)
            statuses[answer.status] += 1
            assert fault(request, answer) == "", request.content[:500]

    async def work_together() -> None:
        await asyncio.gather(*(work() for _ in range(8)))

    asyncio.run(work_together())
    assert statuses[200] > 20
    assert statuses[400] > 100
    wait_until_idle(served)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_mutated_requests_are_answered_or_refused(client: httpx.Client, served: ServedModel) -> None:
    draws = random.Random(16)
    statuses: Counter[int] = Counter()
    for _ in range(600):
        path, body = draws.choice(POSTS[:5])
        answer = client.post(path, content=mutated(body, draws), headers=JSON)
        statuses[answer.status_code] += 1
        if answer.status_code >= 400:
            check_refusal(answer)
    assert statuses[200] > 25
    assert statuses[400] > 150
    wait_until_idle(served)


def test_body_that_is_too_large_is_refused(client: httpx.Client) -> None:
    large = json.dumps({"prompt": "x" * 60_000})
    assert "50000 bytes" in check_refusal(client.post("/v1/completions", content=large, headers=JSON), 413)

    def pieces() -> Iterator[bytes]:  # without a content-length
        yield b'{"prompt": "'
        for _ in range(100):
            yield b"x" * 1000

    check_refusal(client.post("/v1/completions", content=pieces(), headers=JSON), 413)


JSON = {"content-type": "application/json"}


def test_body_that_does_not_arrive_is_refused(url: str) -> None:
    host, port = httpx.URL(url).host, httpx.URL(url).port
    with socket.create_connection((host, port or 0)) as connection:
        head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
        connection.sendall(head.encode())
        connection.settimeout(10)
        assert b" 408 " in connection.recv(1000).splitlines()[0]


def test_head_that_does_not_arrive_is_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 2.0)
    host, port = httpx.URL(url).host, httpx.URL(url).port or 0

    def answer_to(*pieces: bytes) -> bytes:
        """All that is sent back until the server closes the connection."""
        with socket.create_connection((host, port)) as connection:
            connection.settimeout(20)
            received = b""
            for piece in pieces:
                connection.sendall(piece)
                received = connection.recv(1000) if piece.endswith(b"\r\n\r\n") else received
            return received + b"".join(iter(lambda: connection.recv(1000), b""))

    with ThreadPoolExecutor() as threads:
        new = threads.submit(answer_to, b"GET /health HTTP/1.1\r\nHost: loc")
        used = threads.submit(answer_to, b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET /hea")
        unused = threads.submit(answer_to)
    assert b"The head of the request did not arrive" in new.result()
    assert [status in used.result() for status in (b" 200 ", b" 400 ")] == [True, True]
    assert unused.result() == b""


def test_text_that_would_take_seconds_to_tokenize_is_refused(tmp_path: Path) -> None:
    limits = Limits()
    served = serve_small(tmp_path, num_threads=1)
    text = "猫" * (served.max_text_bytes // 3 + 1)
    bodies = {
        "/v1/completions": {"prompt": text},
        "/v1/chat/completions": {"messages": [{"role": "user", "content": text}], "truncate": True},
        "/tokenize": {"prompt": text},
    }
    with running(create_app([served], limits=limits)) as url, httpx.Client(base_url=url, timeout=60) as client:
        for path, body in bodies.items():
            answer = client.post(path, json=body)
            assert "shorten it" in check_refusal(answer, 400)
            assert answer.json()["error"]["code"] == "context_length_exceeded"
        messages = [{"role": "user", "content": "x" * 500}, {"role": "assistant", "content": "y"}] * 400
        body = {"messages": [*messages, CHAT["messages"][0]], "truncate": True, "max_tokens": 2}
        assert "left out" in client.post("/v1/chat/completions", json=body).json()["notice"]


@pytest.mark.parametrize("body", ['{"prompt": ' + "[" * 500 + "]" * 500 + "}", "[" * 40_000, '{"a":' * 9000])
def test_deep_json_is_refused(client: httpx.Client, body: str) -> None:
    assert "nested deeper" in check_refusal(client.post("/v1/completions", content=body, headers=JSON), 400)


def test_nesting_counts_no_brackets_in_strings() -> None:
    assert not is_nested_deeper(json.dumps({"a": '[[[[[["\\' * 20}).encode(), 3)
    assert is_nested_deeper(b'{"a":"\\"", "b":[[[1]]]}', 3)


def test_nesting_of_a_string_without_an_end_is_found_in_linear_time() -> None:
    short, long = (b'"' + b'\\"' * num for num in (20_000, 200_000))
    assert grows_linearly(lambda body: is_nested_deeper(body, 3), short, long, 10)


@pytest.mark.parametrize(
    "body",
    [
        {"repetition_penalty": 1e-300},
        {"repetition_penalty": 1e-33, "temperature": 1e-6},
        {"guided_json": {"anyOf": [{"type": "string", "maxLength": length} for length in range(100, 500)]}},
    ],
)
def test_request_that_would_fail_the_others_is_refused_alone(client: httpx.Client, body: dict[str, Any]) -> None:
    check_refusal(client.post("/v1/completions", json={"prompt": "x", "max_tokens": 8} | body), 400)


@pytest.mark.parametrize(
    ("path", "head"), [("/v1/completions", {"prompt": "x"}), ("/v1/chat/completions", {"messages": CHAT["messages"]})]
)
def test_choice_without_an_end_token_fails_no_request(client: httpx.Client, path: str, head: dict[str, Any]) -> None:
    body = head | {"guided_choice": ["a"], "ignore_eos": True, "max_tokens": 8}
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    [choice] = answer.json()["choices"]
    assert (choice["text"] if "text" in choice else choice["message"]["content"]) == "a"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/tokenize", {"messages": [0] * 20_000}),
        ("/v1/chat/completions", {"messages": [0] * 20_000}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [0] * 20_000}]}),
        ("/v1/chat/completions", {"messages": [{"role": "assistant", "tool_calls": [0] * 20_000}]}),
        ("/v1/chat/completions", {"messages": CHAT["messages"], "server_tools": [0] * 20_000}),
        ("/v1/completions", {"prompt": "x", "logit_bias": {f"x{number}": 0 for number in range(4000)}}),
        ("/v1/completions", {"prompt": "x"} | {f"x{number}": 0 for number in range(4000)}),
    ],
)
def test_many_wrong_values_make_few_errors(
    client: httpx.Client, path: str, body: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []

    def counted(details: Any) -> ApiError:
        counts.append(len(details))
        return invalid(details)

    monkeypatch.setattr(app_module, "invalid", counted)
    check_refusal(client.post(path, json=body), 400)
    assert counts[0] <= 3


@pytest.mark.parametrize("call", [{"function": 3}, {"function": None}, {"function": ["name"]}, {"name": 3}])
def test_tool_call_that_is_none_is_refused(client: httpx.Client, call: dict[str, Any]) -> None:
    messages = [{"role": "assistant", "content": "hi", "tool_calls": [call]}]
    for path in ("/v1/chat/completions", "/tokenize"):
        assert "tool call" in check_refusal(client.post(path, json={"messages": messages}), 400)


@pytest.mark.parametrize(
    "setting",
    [
        {"response_format": {"type": "json_object"}},
        {"guided_json": {}},
        {"presence_penalty": 1},
        {"frequency_penalty": 1},
        {"max_tokens": 0},
    ],
)
def test_beam_search_refuses_what_it_does_not_do(client: httpx.Client, setting: dict[str, Any]) -> None:
    answer = client.post("/v1/completions", json={"prompt": "x", "use_beam_search": True} | setting)
    assert "goes without" in check_refusal(answer, 400)


def test_listed_vocabularies_can_be_used(client: httpx.Client) -> None:
    names = [vocabulary["name"] for vocabulary in client.get("/vocabularies").json()["data"]]
    assert names == ["own:policy"]
    answer = client.post("/tokenize", json={"prompt": "the sky", "vocabulary": names[0]})
    assert answer.json()["tokens"] == client.post("/tokenize", json={"prompt": "the sky"}).json()["tokens"]


def test_form_and_text_bodies_are_refused(client: httpx.Client) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", ""):
        check_refusal(
            client.post("/v1/completions", content=json.dumps(COMPLETION), headers={"content-type": kind}), 415
        )


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://localhost:1"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"host": "evil.example"},
        {"host": "localhost.evil.example"},
        {"host": "127.0.0.1.nip.io:80"},
        {"host": "[::ffff"},
        {"host": ""},
    ],
)
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/completions"), ("GET", "/v1/models")])
def test_request_of_another_site_is_refused(
    client: httpx.Client, method: str, path: str, headers: dict[str, str]
) -> None:
    answer = client.request(method, path, json=COMPLETION if method == "POST" else None, headers=headers)
    # An empty or malformed Host header is refused by the HTTP library itself.
    if headers.get("host") in ("", "[::ffff") and "error" not in answer.text:
        assert answer.status_code == 400
        return
    assert "access-control-allow-origin" not in answer.headers
    check_refusal(answer, 403)


def test_request_of_this_site_is_answered(client: httpx.Client, url: str) -> None:
    headers = {"origin": url, "sec-fetch-site": "same-origin"}
    assert client.post("/tokenize", json={"prompt": "hello"}, headers=headers).status_code == 200
    for host in ("localhost", "127.0.0.1:8000", "[::1]:80"):
        assert client.get("/health", headers={"host": host}).status_code == 200


def test_preflight_of_another_site_is_not_allowed(client: httpx.Client) -> None:
    answer = client.options(
        "/v1/completions", headers={"origin": "https://evil.example", "access-control-request-method": "POST"}
    )
    assert "access-control-allow-origin" not in answer.headers
    assert answer.status_code == 403


def test_hostname_of_a_header() -> None:
    assert [hostname(host) for host in ("LOCALHOST:80", "[::1]:8000", "a@localhost", "x:y:z", "")] == [
        "localhost", "::1", "localhost", "x", ""
    ]  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "/page/../app.py",
        "/page/%2e%2e/app.py",
        "/page/..%2fapp.py",
        "/page//etc/passwd",
        "/page/%00",
        "/docs",
        "/openapi.json",
    ],
)
def test_no_file_but_the_pages_is_sent(client: httpx.Client, path: str) -> None:
    check_refusal(client.get(path), 404)


def test_page_may_load_nothing_from_elsewhere(client: httpx.Client) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_key_is_asked_for_everywhere_but_for_the_page(tmp_path: Path) -> None:
    served = serve_small(tmp_path, num_threads=1)
    with running(create_app([served], api_key="schlüssel", hosts=None)) as url, httpx.Client(base_url=url) as client:
        for path in ("/", "/health", "/page/style.css"):
            assert client.get(path).status_code == 200
        for key in ("", "Bearer", "Bearer wrong", "Basic abc", "Bearer schlüssel2"):
            headers = {"authorization": key.encode()}
            for path in ("/v1/models", "/metrics", "/tokenizer_info", "/vocabularies"):
                check_refusal(client.get(path, headers=headers), 401)
            check_refusal(client.post("/v1/completions", json=COMPLETION, headers=headers), 401)
        headers = {"authorization": "Bearer schlüssel".encode(), "host": "any.example"}
        assert client.get("/v1/models", headers=headers).status_code == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.2", "example.org", ""])
def test_other_address_needs_a_key(host: str) -> None:
    with pytest.raises(UserError, match="--api-key"):
        check_address(host, None)
    check_address(host, "key")
    check_address("127.0.0.1", None)


def test_two_hundred_clients_that_hang_up_leave_nothing_running(url: str, served: ServedModel) -> None:
    host, port = httpx.URL(url).host, httpx.URL(url).port or 0
    before, requests = (served.engine.counts[name] for name in ("generated_tokens", "requests"))
    connections: list[socket.socket] = []
    for number in range(200):
        is_chat = number % 2 == 0
        body = {"max_tokens": 100, "stream": number % 3 > 0, "ignore_eos": True}
        body |= (
            {"messages": CHAT["messages"]}
            if is_chat
            else {"prompt": f"client number {number}", "n": 2 if number % 5 == 0 else 1}
        )
        content = json.dumps(body).encode()
        path = "/v1/chat/completions" if is_chat else "/v1/completions"
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
        connection = socket.create_connection((host, port))
        connection.sendall(head.encode() + content)
        connections.append(connection)
    deadline = time.monotonic() + 20
    while served.engine.counts["requests"] - requests < 150:
        assert time.monotonic() < deadline, dict(served.engine.counts)
        time.sleep(0.001)
    for connection in connections:
        connection.close()
    wait_until_idle(served)
    # All of them to the end would have been 200 x 100 tokens and more.
    assert served.engine.counts["generated_tokens"] - before < 15_000
    assert served.engine.counts["cancelled"] > 50


def test_full_queue_is_429_and_later_requests_are_answered(tmp_path: Path) -> None:
    served = serve_small(tmp_path, max_running=1, max_waiting=2, num_threads=1)
    with running(create_app([served])) as url, httpx.Client(base_url=url, timeout=30) as client:
        answer = client.post("/v1/completions", json={"prompt": "a", "n": 30})
        assert "wait" in check_refusal(answer, 429)
        assert answer.headers["retry-after"]
        check_refusal(client.post("/v1/completions", json={"prompt": "a", "n": 30, "stream": True}), 429)
        assert client.post("/v1/completions", json={"prompt": "a"}).status_code == 200


def test_no_log_has_a_prompt_in_it(client: httpx.Client, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "violet-elephant"
    client.post("/v1/chat/completions", json=CHAT | {"messages": [{"role": "user", "content": secret}]})
    client.post("/v1/chat/completions", json=CHAT | {"messages": [{"role": secret, "content": secret}]})
    client.post("/v1/completions", json={"prompt": secret, "temperature": secret})
    client.post("/tokenize", json={"prompt": secret, secret: 1})
    assert secret not in "".join(f"{record.getMessage()} {record.exc_text}" for record in caplog.records)
