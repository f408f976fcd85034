"""Parts of web addresses: hosts by the Public Suffix List, folders, and the form in which two addresses of one page are
equal.

Pure functions of URLs as they come, which may be no URLs at all. The list is the one in the tldextract package; nothing
is fetched.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

import tldextract

MAX_FOLDERS = 16
TRACKING = re.compile(r"(?:utm_\w+|fbclid|gclid|msclkid)(?:=|$)", re.IGNORECASE)

split_host = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


@lru_cache(maxsize=65536)
def registered_domain(host: str) -> str:
    """What was registered of a host: example.co.uk of www.example.co.uk; "" of an IP address or a bare suffix."""
    return split_host(host).top_domain_under_public_suffix


def ascii_host(host: str) -> str:
    """A host as the name servers know it: xn--mnchen-3ya.de of münchen.de. As it came where there is no such form."""
    try:
        return host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        return host


def split_address(url: str) -> SplitResult | None:
    """The parts of a URL, or None where it has no host."""
    try:
        parts = urlsplit(url)
        return parts if parts.hostname else None
    except ValueError:
        return None


def hosts_above(host: str) -> Iterator[str]:
    """`host` and the hosts above it, up to the registered one: a.b.example.co.uk, b.example.co.uk, example.co.uk."""
    yield host
    registered = registered_domain(host)
    while registered and len(host) > len(registered):
        host = host.partition(".")[2]
        yield host


def pages_above(host: str, path: str, query: str = "") -> Iterator[str]:
    """The folders above a page, the page and the page with its query as HOST/PATH?QUERY, with and without the host's www."""
    folders = [folder for folder in path.lower().split("/") if folder][:MAX_FOLDERS]
    for name in dict.fromkeys((host, host.removeprefix("www."))):
        for num_folders in range(1, len(folders) + 1):
            yield "/".join((name, *folders[:num_folders]))
        if query:
            yield f"{name}/{'/'.join(folders)}?{query.lower()}"


def normalise(url: str) -> str:
    """A URL without what does not change the page: scheme, default port, last slash, tracking parameters, fragment."""
    try:
        parts = urlsplit(url)
        port = "" if parts.port in (None, 80, 443) else f":{parts.port}"
    except ValueError:
        return url
    query = "&".join(part for part in parts.query.split("&") if not TRACKING.match(part))
    return f"{parts.hostname or ''}{port}{parts.path.rstrip('/')}{'?' if query else ''}{query}"
