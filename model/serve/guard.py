"""What a request must be before it is parsed: of this site, with the key, of a bounded size, and sent in a bounded time.

Reads and writes nothing. The server runs on a person's machine, and any web page that the person opens can send requests to it. So Host must be a name of this
server, which stops DNS rebinding; Origin, where a browser sends one, must be this server's own; and a body must be JSON by its type, which
another site's page cannot send without asking first (https://fetch.spec.whatwg.org/#cors-protocol), and here nobody answers.
"""

import asyncio
import contextlib
import hmac
import logging
import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from model.serve.errors import ApiError

logger = logging.getLogger("crawl2chat")

LOOPBACK = ("localhost", "127.0.0.1", "::1")
# The last mark may be missing: a string without an end would be searched again from each of its marks, in quadratic time.
STRING, BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*+"?', re.DOTALL), re.compile(rb"[][{}]")
DISCARD_SECONDS, DISCARD_BYTES = 5.0, 2**26
OPEN_PATHS = ("/health", "/page/")  # without the key: the page has to load before it can ask for one
SECURITY_HEADERS = {
    # The page's own files and nothing else: text of a model that became markup could neither run nor load anything.
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    # Or the browser looks up the hosts of links before anyone follows one, and the page links to what was crawled.
    "x-dns-prefetch-control": "off",
    "cross-origin-resource-policy": "same-origin",
}


@dataclass(frozen=True)
class Limits:
    """What one request may be."""

    body_bytes: int = 2**22
    body_seconds: float = 20.0
    nesting: int = 32
    num_connections: int = 512  # requests that are answered at once


class Guard:
    """Middleware around an application. hosts: names of this server; None: any (a key is asked for then)."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        api_key: str | None = None,
        hosts: Iterable[str] | None = LOOPBACK,
        limits: Limits = Limits(),
    ) -> None:
        self.app, self.limits = app, limits
        self.key = None if api_key is None else api_key.encode()
        self.hosts = None if hosts is None else {host.lower() for host in hosts}
        self.num_running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The application."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        answer, incoming, refusal = _Answer(send), _Incoming(receive), None
        self.num_running += 1
        try:
            if self.num_running > self.limits.num_connections:
                raise ApiError(
                    503, "the server has too many requests: try again in a second", headers={"Retry-After": "1"}
                )
            headers = Headers(scope=scope)
            self._check_headers(scope, headers)
            body = await self._read_body(headers, incoming) if scope["method"] not in ("GET", "HEAD") else b""
            await self.app(scope, _replay(body, incoming), answer)
        except ApiError as error:
            refusal = error
        except Exception as error:
            # The type alone: a message or a traceback could quote a prompt.
            logger.error("%s %s failed: %s", scope["method"], scope["path"], type(error).__name__)
            refusal = ApiError(500, f"a fault of the server: {type(error).__name__}")
        finally:
            self.num_running -= 1
        if refusal and not answer.has_begun:
            # Not counted any more: whoever is refused for the lack of a key takes no place of others.
            if refusal.status not in (408, 503):  # the rest did not come for long, or there is too much to do
                await incoming.discard_rest()
            await refusal.response()(scope, receive, answer)

    def _check_headers(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        if self.hosts is not None and hostname(host) not in self.hosts:
            raise ApiError(403, "the Host header names another server: use the address that `crawl2chat serve` prints")
        origin = headers.get("origin")
        # A page without an origin, such as a sandboxed frame, sends "null".
        if origin is not None and (urlsplit_or_none(origin) != host.lower() or not host):
            raise ApiError(403, "requests from pages of other sites are not answered")
        if headers.get("sec-fetch-site", "none") not in ("none", "same-origin") and not _is_open(scope):
            raise ApiError(403, "requests from pages of other sites are not answered")
        if self.key is not None and not _is_open(scope):
            given = headers.get("authorization", "").removeprefix("Bearer ").strip()
            # In constant time: a plain comparison takes longer the more characters are right.
            if not hmac.compare_digest(given.encode("latin-1"), self.key):
                raise ApiError(
                    401, "the API key is missing or wrong: send `Authorization: Bearer KEY`", code="invalid_api_key"
                )
        if scope["method"] not in ("GET", "HEAD"):
            kind = headers.get("content-type", "").partition(";")[0].strip().lower()
            if kind != "application/json":
                raise ApiError(415, "send the request as JSON, with `Content-Type: application/json`")

    async def _read_body(self, headers: Headers, incoming: "_Incoming") -> bytes:
        announced = headers.get("content-length", "0")
        if announced.isdecimal() and len(announced) < 20 and int(announced) > self.limits.body_bytes:
            raise self._too_large()
        try:
            async with asyncio.timeout(self.limits.body_seconds):
                body = await self._receive_all(incoming)
        except TimeoutError:
            raise ApiError(408, f"the body did not arrive within {self.limits.body_seconds:g} s") from None
        if is_nested_deeper(body, self.limits.nesting):
            raise ApiError(400, f"the JSON is nested deeper than {self.limits.nesting} levels")
        return body

    async def _receive_all(self, incoming: "_Incoming") -> bytes:
        body = bytearray()
        while True:
            message = await incoming()
            if message["type"] == "http.disconnect":
                raise ApiError(400, "the client hung up before its request was complete")
            body += message.get("body", b"")
            if len(body) > self.limits.body_bytes:
                raise self._too_large()
            if incoming.has_ended:
                return bytes(body)

    def _too_large(self) -> ApiError:
        return ApiError(413, f"the body has more than {self.limits.body_bytes} bytes", headers={"Connection": "close"})


class _Incoming:
    """`receive`, and the knowledge whether the body has ended."""

    def __init__(self, receive: Receive) -> None:
        self.receive, self.has_ended = receive, False

    async def __call__(self) -> Message:
        message = await self.receive()
        self.has_ended = message["type"] != "http.request" or not message.get("more_body", False)
        return message

    async def discard_rest(self) -> None:
        """Read what is left of a body that is refused: a connection that is closed before loses the answer on its way."""
        num_bytes = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DISCARD_SECONDS):
                while not self.has_ended and num_bytes < DISCARD_BYTES:
                    num_bytes += len((await self()).get("body", b""))


class _Answer:
    """`send` with our headers on every answer, and the knowledge whether one has begun."""

    def __init__(self, send: Send) -> None:
        self.send, self.has_begun = send, False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.has_begun = True
            headers = MutableHeaders(raw=list(message.get("headers", ())))
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)  # a route may have a policy for its own page
            message = {**message, "headers": headers.raw}
        await self.send(message)


def _is_open(scope: Scope) -> bool:
    path: str = scope["path"]
    return scope["method"] in ("GET", "HEAD") and (path == "/" or path.startswith(OPEN_PATHS))


def _replay(body: bytes, receive: Receive) -> Receive:
    """The body that was read, then what comes after it: the disconnect."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return messages.pop() if messages else await receive()

    return replay


def hostname(host: str) -> str:
    """The name in a Host header, without the port; "" where it is missing."""
    try:
        return (urlsplit(f"//{host}").hostname or "").lower()
    except ValueError:
        return ""


def urlsplit_or_none(origin: str) -> str | None:
    """HOST:PORT of an http origin, None where it is no such."""
    try:
        parts = urlsplit(origin)
    except ValueError:
        return None
    return parts.netloc.lower() if parts.scheme in ("http", "https") else None


def is_nested_deeper(body: bytes, limit: int) -> bool:
    """Whether arrays and objects of JSON are nested deeper than `limit`; brackets in strings do not count."""
    depth = 0
    for match in BRACKET.finditer(STRING.sub(b"", body)):
        depth += 1 if match[0] in b"[{" else -1
        if depth > limit:
            return True
    return False
