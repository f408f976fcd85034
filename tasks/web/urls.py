"""Parts of web addresses: hosts by the Public Suffix List, folders, and a form in which two addresses of one page are equal.

Pure functions of URLs as they come, which may be no URLs at all. The list is the one in the tldextract package; nothing is fetched.

Every function has a bound of time and memory. A URL of more than MAX_URL_CHARACTERS or with a host of more than MAX_HOST_CHARACTERS is
treated as one without a host, before anything parses it: urllib compares the host with its NFKC form, which takes time quadratic in
combining marks, and a host of n labels has n hosts above it of up to n characters.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from urllib.parse import SplitResult, urlsplit

import tldextract

# RFC 9110, section 4.1, asks servers for at least 8,000 bytes; Apache and nginx refuse longer ones by default
MAX_URL_CHARACTERS = 8192
MAX_HOST_CHARACTERS = 253  # RFC 1035: 255 bytes with the lengths of the labels
MAX_AUTHORITY_CHARACTERS = 1024  # host, user, password and port
MAX_FOLDERS = 16
TRACKING = re.compile(r"(?:utm_\w+|fbclid|gclid|msclkid)(?:=|$)", re.IGNORECASE)
UNSAFE = str.maketrans("", "", "\t\r\n")  # urllib removes them before it parses, as browsers do
AUTHORITY_END = re.compile(r"[/?#]")

# Without suffix_list_urls and cache_dir it reads its packaged list: the same on every machine, and nothing is fetched
split_host = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)


def registered_domain(host: str) -> str:
    """What was registered of a host: example.co.uk of www.example.co.uk; "" of an IP address, a bare suffix, or no host."""
    return _registered_domain(host) if len(host) <= MAX_HOST_CHARACTERS else ""


@lru_cache(maxsize=65536)
def _registered_domain(host: str) -> str:
    return split_host(host).top_domain_under_public_suffix


def ascii_host(host: str) -> str:
    """A host as the name servers know it: xn--mnchen-3ya.de of münchen.de. As it came if there is no such form."""
    try:
        return host if host.isascii() or len(host) > MAX_HOST_CHARACTERS else host.encode("idna").decode()
    except UnicodeError:
        return host


def split_address(url: str) -> SplitResult | None:
    """The parts of a URL, or None if it has no host or is too long to be one."""
    try:
        parts = _split(url)
        return parts if 0 < len(parts.hostname or "") <= MAX_HOST_CHARACTERS else None
    except ValueError:
        return None


def _split(url: str) -> SplitResult:
    """`urlsplit` within bounds. Raises ValueError for a URL that cannot be parsed or is too long."""
    if len(url) > MAX_URL_CHARACTERS:
        raise ValueError(f"a URL has {len(url):,} characters; at most {MAX_URL_CHARACTERS:,} are read")
    if not url.isascii():
        # Only beyond ASCII does urllib compare with NFKC, which is what the bound is for.
        authority = url.translate(UNSAFE).partition("//")[2]
        if len(AUTHORITY_END.split(authority, maxsplit=1)[0]) > MAX_AUTHORITY_CHARACTERS:
            raise ValueError(f"a URL has a host of more than {MAX_AUTHORITY_CHARACTERS:,} characters")
    return urlsplit(url)


def hosts_above(host: str) -> Iterator[str]:
    """`host` and the hosts above it, up to the registered one: a.b.example.co.uk, b.example.co.uk, example.co.uk."""
    if len(host) > MAX_HOST_CHARACTERS:
        return
    yield host
    registered = registered_domain(host)
    while registered and len(host) > len(registered):
        host = host.partition(".")[2]
        yield host


def pages_above(host: str, path: str, query: str = "") -> Iterator[str]:
    """The folders above a page, the page and the page with its query as HOST/PATH?QUERY, with and without the host's www."""
    if len(host) > MAX_HOST_CHARACTERS:
        return
    folders = [folder for folder in path.lower().split("/") if folder][:MAX_FOLDERS]
    # Lists name pages with or without www., and rarely both.
    for name in dict.fromkeys((host, host.removeprefix("www."))):
        for num_folders in range(1, len(folders) + 1):
            yield "/".join((name, *folders[:num_folders]))
        if query:
            yield f"{name}/{'/'.join(folders)}?{query.lower()}"


def normalise(url: str) -> str:
    """A URL without what does not change the page: scheme, default port, last slash, tracking parameters, fragment.

    A URL that cannot be parsed or is too long stays as it is.
    """
    try:
        parts = _split(url)
        # http and https show one page nearly everywhere, so that the scheme and its default port are left out.
        port = "" if parts.port in (None, 80, 443) else f":{parts.port}"
    except ValueError:
        return url
    query = "&".join(part for part in parts.query.split("&") if not TRACKING.match(part))
    return f"{parts.hostname or ''}{port}{parts.path.rstrip('/')}{'?' if query else ''}{query}"
