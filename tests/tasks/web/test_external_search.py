"""Search by a web service: which addresses may be asked, and what a hostile service may answer."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import pytest

from model.errors import UserError
from tasks.web import external_search
from tasks.web.external_search import ExternalSearch, Found
from tasks.web.http_client import RefusedError

GOOD = {
    "results": [
        {"title": "<b>Orn</b>", "url": "https://example.org/", "content": "Orn is\na city."},
        {"content": 3},
        "x",
    ]
}


class Service(BaseHTTPRequestHandler):
    """Answers by the words of the query."""

    def do_GET(self) -> None:
        words = parse_qs(urlsplit(self.path).query)["q"][0]
        if words == "redirect":
            self.send_response(302)
            self.send_header("Location", "file:///etc/passwd")
            self.end_headers()
            return
        self.send_response(500 if words == "fail" else 200)
        self.end_headers()
        try:
            if words == "drip":
                for _ in range(100):
                    self.wfile.write(b" ")
                    self.wfile.flush()
                    time.sleep(0.05)
            self.wfile.write(
                {"large": b"x" * 2_000_000, "html": b"<html>", "list": b"[1]", "deep": b"[" * 100_000}.get(
                    words, json.dumps(GOOD).encode()
                )
            )
        except OSError:
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def url(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/search?q={{query}}&format=json"
    server.shutdown()
    server.server_close()


def test_results_are_plain_text(url: str) -> None:
    found = ExternalSearch(url, allows_private=True).search("a & b?#\ud800")
    assert found == [Found("Orn", "https://example.org/", "Orn is a city.")]


def test_private_addresses_are_refused_unless_allowed(url: str) -> None:
    with pytest.raises(RefusedError, match=r"127\.0\.0\.1, which is not public"):
        ExternalSearch(url).search("x")
    with pytest.raises(RefusedError, match="not public"):
        ExternalSearch("http://169.254.169.254/latest?q={query}").search("x")


@pytest.mark.parametrize(
    ("words", "message"),
    {
        "fail": "status 500",
        "large": "more than 1,000,000 bytes",
        "html": "gives no JSON",
        "deep": "gives no JSON",
        "list": 'without "results"',
        "redirect": "only http and https are followed",
    }.items(),
)
def test_hostile_answers_are_user_errors(url: str, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        ExternalSearch(url, allows_private=True).search(words)


def test_slow_service_is_left(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(external_search, "SECONDS", 0.3)
    with pytest.raises(UserError, match="takes longer than"):
        ExternalSearch(url, allows_private=True).search("drip")


@pytest.mark.parametrize(
    "bad", ["", "ftp://example.org/{query}", "https://example.org/", "https://{query}/x", "file:///{query}"]
)
def test_url_without_a_place_for_the_query_is_refused(bad: str) -> None:
    with pytest.raises(UserError, match="is no search URL"):
        ExternalSearch(bad)


def test_no_service_is_a_user_error() -> None:
    with pytest.raises(UserError, match="cannot be reached"):
        ExternalSearch("http://127.0.0.1:9/x?q={query}", allows_private=True).search("x")
