"""One HTTP request at a time, by httpx: raw bytes, redirects within rules, errors that say whether another try may help.

Reads http(s) URLs. Environment: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY, SSL_CERT_FILE, CRAWL2CHAT_CONTACT (an address where
whoever runs a server can reach you), and CRAWL2CHAT_REFUSE_PRIVATE_ADDRESSES.

Redirects lead to http and https only, at most MAX_REDIRECTS. Where the person who names a URL may be a stranger, as in the form of a
shared deployment, set CRAWL2CHAT_REFUSE_PRIVATE_ADDRESSES=1: then hosts with an address that is not public, and redirects from https to
http, are refused (server-side request forgery, CWE-918). The address is checked before the request, and again on the open connection,
as a name may get another address in between. Behind a proxy only the first check is possible: let the proxy refuse private addresses.
"""

import email.utils
import importlib.metadata
import ipaddress
import os
import re
import socket
import ssl
import string
import time
import urllib.request
from collections.abc import Mapping
from datetime import UTC
from functools import lru_cache
from urllib.parse import quote

import httpx

from model.errors import UserError
from tasks.redaction import redact_text, redact_url
from tasks.web.urls import ascii_host

TIMEOUT_SECONDS = 60.0  # to connect, and for each block that is read
MAX_REDIRECTS = 10
MAX_ERROR_BYTES = 4096  # of the body of an error
BUSY_STATUS = (408, 425, 429, 500, 502, 503, 504)
BUSY_WORDS = re.compile(rb"slow ?down|too many requests|rate.?limit|throttl", re.I)  # S3 and its like also say 403
REFUSE_PRIVATE = "CRAWL2CHAT_REFUSE_PRIVATE_ADDRESSES"
SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9+.-]{0,30}):")
NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
# What httpx says of an answer that breaks the protocol in its head: it will do so again
BAD_HEADERS = re.compile(r"Content-Length|Transfer-Encoding|illegal (?:header|status) line", re.IGNORECASE)


class StatusError(OSError):
    """A server's answer that is no success."""

    def __init__(self, status: int, reason: str, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__(f"HTTP status {status} {reason}".rstrip())
        self.status = status
        self.headers = headers
        self.body = body


class RefusedError(UserError):
    """An address or a redirect that is against the rules."""


class Answer:
    """A successful answer whose body is read as a stream. `read` gives the bytes as they were sent, never decompressed."""

    def __init__(self, client: httpx.Client, response: httpx.Response) -> None:
        self.status = response.status_code
        self.headers = response.headers
        self._client = client
        self._response = response
        self._blocks = response.iter_raw()
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Up to `size` bytes, b"" at the end. Raises httpx.TransportError where the connection breaks."""
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return b""
            self._rest = block
        data, self._rest = self._rest[:size], self._rest[size:]
        return data

    def close(self) -> None:
        """Close the response and its connection."""
        self._response.close()
        self._client.close()


def request(url: str, method: str = "GET", **headers: str) -> Answer:
    """Send a request and follow its redirects.

    Raises StatusError for an answer that is no success, RefusedError (a UserError) for what is against the rules, and httpx's errors.
    """
    return send(url, method, headers, refuses_private=is_private_refused(), timeout_seconds=TIMEOUT_SECONDS)


def send(url: str, method: str, headers: Mapping[str, str], *, refuses_private: bool, timeout_seconds: float) -> Answer:
    """The same, whatever the environment says of addresses that are not public."""
    client = _client(timeout_seconds)
    try:
        seen: set[str] = set()
        while True:
            if url in seen or len(seen) > MAX_REDIRECTS:
                raise RefusedError(
                    f"{redact_url(url)} redirects in a loop, or more than {MAX_REDIRECTS} times: check the address"
                )
            seen.add(url)
            response = _send(client, url, method, headers, refuses_private)
            # Redirects are followed here and not by httpx, since each target is checked before anything is sent to it.
            if not response.has_redirect_location:
                break
            response.close()
            url = _redirect(url, response.headers["Location"], refuses_private)
        if not response.is_success:
            raise StatusError(response.status_code, response.reason_phrase, response.headers, _error_body(response))
        return Answer(client, response)
    except BaseException:
        client.close()
        raise


def _client(timeout_seconds: float) -> httpx.Client:
    # Not compressed on the way: a resumed download asks for a range of the file's bytes, and a compressed answer has others.
    headers = {"User-Agent": user_agent(), "Accept": "*/*", "Accept-Encoding": "identity"}
    try:
        return httpx.Client(headers=headers, timeout=timeout_seconds, verify=_tls_context())
    except (ValueError, ImportError, httpx.InvalidURL) as error:
        raise UserError(
            f"the proxy of the environment cannot be used ({redact_text(str(error))}): check HTTP_PROXY and the like"
        ) from error


@lru_cache(maxsize=1)  # reading the certificates takes 20 ms
def _tls_context() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _send(client: httpx.Client, url: str, method: str, headers: Mapping[str, str], is_refused: bool) -> httpx.Response:
    target = httpx.URL(ascii_url(url))
    if is_refused:
        check_public(target.host)
    response = client.send(client.build_request(method, target, headers=dict(headers)), stream=True)
    # The name may have been resolved to another address since (DNS rebinding): what counts is where the connection leads.
    if is_refused and not _is_proxied(target):
        stream = response.extensions.get("network_stream")
        address = stream.get_extra_info("server_addr") if stream else None
        if not address or not _is_public(address[0]):
            response.close()
            raise RefusedError(f"{redact_url(url)} leads to an address that is not public: it is refused{_why()}")
    return response


def _redirect(url: str, location: str, is_refused: bool) -> str:
    """Where a redirect leads to. Raises RefusedError where it must not be followed."""
    scheme = SCHEME.match(location)
    if scheme and scheme[1].lower() not in ("http", "https"):
        raise RefusedError(
            f"{redact_url(url)} redirects to {redact_url(location)[:200]}: only http and https are followed"
        )
    target = httpx.URL(ascii_url(url)).join(location)
    if is_refused and url.lower().startswith("https:") and target.scheme == "http":
        raise RefusedError(f"{redact_url(url)} redirects from https to http: it is refused{_why()}")
    return str(target)


def _error_body(response: httpx.Response) -> bytes:
    """The first bytes of an error's body, which may say that the server is busy."""
    try:
        return next(response.iter_raw(MAX_ERROR_BYTES), b"")
    except httpx.HTTPError:
        return b""
    finally:
        response.close()


def is_private_refused() -> bool:
    """Whether addresses that are not public are refused."""
    return os.environ.get(REFUSE_PRIVATE, "") not in ("", "0", "false")


def check_public(host: str) -> None:
    """Raises RefusedError where `host` has an address that is not public. A name that cannot be resolved is left to the connection."""
    try:
        found = {str(entry[4][0]) for entry in socket.getaddrinfo(host.strip("[]"), None)}
    except (OSError, UnicodeError):
        return
    if private := sorted(address for address in found if not _is_public(address)):
        raise RefusedError(f"{host} has the address {private[0]}, which is not public: it is refused{_why()}")


def _why() -> str:
    return f" because {REFUSE_PRIVATE} is set" if is_private_refused() else ""


def _is_public(address: str) -> bool:
    """Whether an IP address is routed on the public internet; of an IPv6 address that embeds an IPv4 one, that."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        nat64 = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF) if parsed in NAT64 else None
        # A private address could be written in one of the three forms in which IPv6 carries an IPv4 address.
        if embedded := parsed.ipv4_mapped or parsed.sixtofour or nat64:
            parsed = embedded
    return parsed.is_global and not parsed.is_multicast


def _is_proxied(url: httpx.URL) -> bool:
    proxies = urllib.request.getproxies()
    return bool(proxies.get(url.scheme) or proxies.get("all")) and not urllib.request.proxy_bypass(url.host)


def is_busy(error: BaseException) -> bool:
    """Whether a server says that it is asked too often, or cannot answer now."""
    if not isinstance(error, StatusError):
        return False
    return error.status in BUSY_STATUS or (error.status == 403 and BUSY_WORDS.search(error.body) is not None)


def is_transient(error: BaseException) -> bool:
    """Whether another try may help: a busy server, a broken connection; no refusal, no bad certificate, no bad address."""
    if isinstance(error, StatusError):
        return is_busy(error)
    # httpx wraps it in a ConnectError like any broken connection: only the cause shows that another try cannot help.
    if _has_cause(error, ssl.SSLCertVerificationError):
        return False
    if isinstance(error, httpx.RemoteProtocolError):
        return BAD_HEADERS.search(str(error)) is None
    if isinstance(error, (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL)):
        return False
    # These are OSErrors too, as a broken connection is, and stay as they are however often they are tried.
    if isinstance(error, (FileNotFoundError, PermissionError, IsADirectoryError)):
        return False
    return isinstance(error, (OSError, httpx.TransportError))


def _has_cause(error: BaseException | None, kind: type[BaseException]) -> bool:
    for _ in range(10):
        if error is None or isinstance(error, kind):
            return error is not None
        error = error.__cause__ or error.__context__
    return False


def retry_after_seconds(error: BaseException, max_seconds: float) -> float:
    """What a server asks for in Retry-After, in seconds or as a date (RFC 9110, section 10.2.3); 0 for anything else."""
    # The header is a stranger's text: a number without end or a date of the year 9999 must not stop a worker for ever.
    value = error.headers.get("Retry-After", "").strip() if isinstance(error, StatusError) else ""
    if re.fullmatch(r"[0-9]+", value):
        return min(float(value), max_seconds) if len(value) <= 9 else max_seconds
    try:
        date = email.utils.parsedate_to_datetime(value)
        seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError, IndexError):
        return 0.0
    return min(max(seconds, 0.0), max_seconds)


def ascii_url(url: str) -> str:
    """A URL as browsers send it: beyond ASCII, the host as the name servers know it, else UTF-8 with percent signs."""
    scheme, _, rest = url.partition("://")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    user, at, host = authority.rpartition("@")
    safe = string.punctuation + " "
    return f"{scheme}://{quote(user, safe=safe)}{at}{ascii_host(host)}{quote(rest[len(authority) :], safe=safe)}"


def user_agent() -> str:
    """Who sends the request, for whoever runs the server."""
    contact = os.environ.get("CRAWL2CHAT_CONTACT", "")
    purpose = f"reads web archives as training data; {contact}".removesuffix("; ")
    return f"crawl2chat/{importlib.metadata.version('crawl2chat')} ({purpose})"
