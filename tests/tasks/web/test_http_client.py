"""Servers that misbehave on purpose: headers, redirects, trickles, certificates, private addresses, encodings, proxies."""

import contextlib
import gzip
import http.server
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.errors import UserError
from tasks.web import download, http_client
from tasks.web.download import head, open_file
from tasks.web.http_client import REFUSE_PRIVATE, check_public

CONTENT = gzip.compress(b"content " * 1000)
Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    for name in ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", REFUSE_PRIVATE):
        monkeypatch.delenv(name, raising=False)


class Server(http.server.ThreadingHTTPServer):
    """Answers each request with the next of `answers`, the last of them again and again."""

    daemon_threads = True

    def __init__(self, answers: list[Answer]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers = answers
        self.requests: list[tuple[str, str, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.server.requests.append((self.command, self.path, dict(self.headers)))
        self.close_connection = True
        answers = self.server.answers
        (answers.pop(0) if len(answers) > 1 else answers[0])(self)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None: ...


@contextlib.contextmanager
def serving(*answers: Answer, context: ssl.SSLContext | None = None) -> Iterator[Server]:
    with Server(list(answers)) as server:
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def send(status: int = 200, body: bytes = CONTENT, **headers: str) -> Answer:
    """An answer; a header of the value "" is left out."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        lines = {"Content-Length": str(len(body))} | {name.replace("_", "-"): value for name, value in headers.items()}
        for name, value in lines.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        with contextlib.suppress(OSError):
            handler.wfile.write(body)

    return answer


def read(url: str) -> bytes:
    with open_file(url) as stream:
        return stream.read()


# Headers


@pytest.mark.parametrize("length", ["9" * 5000, "many", "²", "-5", "1e3"])
def test_invalid_content_length_is_one_clear_error_after_one_request(length: str) -> None:
    with serving(send(Content_Length=length)) as server, pytest.raises(UserError, match="cannot be read") as caught:
        read(server.url)
    assert len(server.requests) == 1
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    "content_range",
    [
        "bytes 5-9",
        "items 0-9/10",
        "bytes 9-5/10",
        "bytes 0-10/10",
        f"bytes 0-9/{'9' * 5000}",
        "bytes ²-9/10",
        "",
        "bytes 0--1/10",
    ],
)
def test_wrong_content_range_is_tried_again_then_refused(content_range: str) -> None:
    with serving(send(206, b"0123456789", Content_Range=content_range)) as server:
        with pytest.raises(
            ConnectionError, match="failed at byte 0, 8 times in a row, the last with: the server sent a part"
        ):
            read(server.url)
        assert len(server.requests) == 8


def test_truncated_body_is_resumed_by_range() -> None:
    size = len(CONTENT)
    first = send(200, CONTENT[:10], Content_Length=str(size), ETag='"a"')
    rest = send(206, CONTENT[10:], Content_Range=f"bytes 10-{size - 1}/{size}", ETag='"a"')
    with serving(first, rest) as server:
        assert read(server.url) == CONTENT
        assert [headers.get("Range") for *_, headers in server.requests] == [None, "bytes=10-"]


def test_connection_that_breaks_after_the_last_byte_ends_the_file() -> None:
    def chunk(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        handler.wfile.write(b"%x\r\n%s\r\n" % (len(CONTENT), CONTENT))

    with serving(chunk, send(416, b"", Content_Range=f"bytes */{len(CONTENT)}")) as server:
        assert read(server.url) == CONTENT


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", "deflate", "br", "zstd", "identity"])
def test_compressed_file_is_read_as_it_was_sent(encoding: str) -> None:
    """Servers call a .gz file Content-Encoding: gzip. To decode it would change the bytes, and the ranges of a resumed download."""
    with serving(send(Content_Encoding=encoding)) as server:
        assert read(f"{server.url}/file.gz") == CONTENT
        assert server.requests[0][2]["Accept-Encoding"] == "identity"


# Redirects


def test_redirects_are_followed_with_the_range() -> None:
    size = len(CONTENT)
    answers = [
        send(302, b"", Location="/other"),
        send(200, CONTENT[:10], Content_Length=str(size)),
        send(307, b"", Location="other2"),
        send(206, CONTENT[10:], Content_Range=f"bytes 10-{size - 1}/{size}"),
    ]
    with serving(*answers) as server:
        assert read(f"{server.url}/folder/file") == CONTENT
        assert [path for _, path, _ in server.requests] == ["/folder/file", "/other", "/folder/file", "/folder/other2"]
        assert server.requests[3][2]["Range"] == "bytes=10-"


@pytest.mark.parametrize("location", ["/file", "//127.0.0.1:{port}/file", "/other"])
def test_redirect_loop_is_refused(location: str) -> None:
    with serving(send(302, b"", Location="/x")) as server:
        server.answers[0] = send(302, b"", Location=location.format(port=server.server_port))
        with pytest.raises(UserError, match="redirects in a loop"):
            read(f"{server.url}/file")
        assert len(server.requests) <= 11


def test_endless_redirects_are_refused() -> None:
    answers = [send(302, b"", Location=f"/{number}") for number in range(50)]
    with serving(*answers) as server, pytest.raises(UserError, match="more than 10 times"):
        read(server.url)


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "ftp://host.example/a", "gopher://host.example/", "data:,x", "javascript:1"]
)
def test_redirect_to_another_scheme_is_refused(location: str) -> None:
    with (
        serving(send(302, b"", Location=location)) as server,
        pytest.raises(UserError, match=r"only http and https are followed|cannot be read"),
    ):
        read(server.url)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "host",
    [
        *(
            "127.0.0.1",
            "localhost",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "169.254.169.254",
            "0.0.0.0",
            "[::1]",
            "[fe80::1]",
        ),
        *("[::ffff:127.0.0.1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "[fc00::1]", "224.0.0.1", "100.64.0.1"),
    ],
)
def test_private_addresses_are_refused_where_that_is_set(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(REFUSE_PRIVATE, "1")
    with pytest.raises(UserError, match="not public: it is refused because CRAWL2CHAT_REFUSE_PRIVATE_ADDRESSES is set"):
        read(f"http://user:secret@{host}/file")


@pytest.mark.parametrize("host", ["8.8.8.8", "[2a00:1450:4001:82a::200e]", "host.invalid"])
def test_public_addresses_pass(host: str) -> None:
    check_public(host)


def test_private_address_behind_a_redirect_or_a_changed_name_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(send()) as server:
        monkeypatch.setenv(REFUSE_PRIVATE, "1")
        monkeypatch.setattr(
            http_client, "check_public", lambda host: None
        )  # the name had a public address when it was checked
        with pytest.raises(UserError, match="leads to an address that is not public"):
            read(server.url)


# Time


def test_server_that_trickles_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "RATE_WINDOW_SECONDS", 0.1)

    def trickle(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        with contextlib.suppress(OSError):
            for _ in range(2000):
                handler.wfile.write(b"a")
                time.sleep(0.02)

    with (
        serving(trickle) as server,
        pytest.raises(UserError, match=r"too slow at byte .*bytes a second, less than 1,000"),
    ):
        read(server.url)
    assert len(server.requests) == 3


def test_slow_window_ends_with_a_good_one(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = download.Download("http://host.example/", lambda url, offset: download.Body(None, None))
    for rate in (10, 10, 5000, 10, 10, 5000):
        with contextlib.suppress(ConnectionError):
            stream._check_rate(60.0, 60 * rate)
    with pytest.raises(UserError):
        for _ in range(3):
            with contextlib.suppress(ConnectionError):
                stream._check_rate(60.0, 600)


# Certificates


def test_bad_certificate_is_not_tried_again(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=host.example", "-days", "2"]
    try:
        subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl command to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with (
        serving(send(), context=context) as server,
        pytest.raises(UserError, match=r"CERTIFICATE_VERIFY_FAILED.*check the address"),
    ):
        start = time.monotonic()
        read(f"https://127.0.0.1:{server.server_port}/")
    assert time.monotonic() - start < 60  # a bound on hangs


# Proxies and secrets


def test_download_goes_through_the_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(send()) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        assert read("http://host.invalid/file.gz") == CONTENT
        assert proxy.requests[0][1] == "http://host.invalid/file.gz"
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        with serving(send()) as server:
            assert read(server.url) == CONTENT
            assert len(server.requests) == 1


def test_proxy_that_cannot_be_used_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "nonsense://user:secret@127.0.0.1:9")
    with pytest.raises(UserError, match="check HTTP_PROXY") as caught:
        read("http://host.invalid/")
    assert "secret" not in str(caught.value)


def closed_port() -> int:
    with socket.socket() as endpoint:
        endpoint.bind(("127.0.0.1", 0))
        return int(endpoint.getsockname()[1])


@pytest.mark.parametrize(
    "answer",
    [
        send(404, b""),
        send(403, b"Forbidden"),
        send(500, b""),
        send(302, b"", Location="/"),
        send(302, b"", Location="ftp://user:secret@host.example/?token=secret"),
        send(200, b"", Content_Length="9" * 5000),
        send(206, b"", Content_Range="x"),
    ],
)
def test_errors_hold_no_credentials(answer: Answer) -> None:
    with serving(answer) as server:
        for call in (read, head):
            with pytest.raises((ValueError, ConnectionError)) as caught:
                call(f"http://user:secret@127.0.0.1:{server.server_port}/?X-Amz-Signature=secret&token=secret")
            assert "secret" not in str(caught.value)
            assert "127.0.0.1" in str(caught.value)


def test_error_of_a_server_that_is_away_holds_no_credentials() -> None:
    with pytest.raises(ConnectionError) as caught:
        read(f"http://user:secret@127.0.0.1:{closed_port()}/?sig=secret")
    assert "secret" not in str(caught.value)


def test_user_and_password_of_a_url_are_sent() -> None:
    with serving(send()) as server:
        assert read(f"http://user:secret@127.0.0.1:{server.server_port}/") == CONTENT
        assert server.requests[0][2]["Authorization"] == "Basic dXNlcjpzZWNyZXQ="
