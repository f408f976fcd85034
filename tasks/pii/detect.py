"""Finds personal data in a text, and replaces it.

Pure functions: the same text gives the same result, whatever was read before. A pattern finds candidates, a validator decides:
phonenumbers (Google's libphonenumber), python-stdnum (check digits of cards, accounts, national numbers), ipaddress,
and the Public Suffix List for the end of an e-mail address. What passes is replaced by the name of its kind.

FineWeb replaces e-mail addresses and public IPv4 addresses alone, by working look-alikes. Here a placeholder says what
was there. Not found: names, and numbers without a form or words before them that would distinguish them.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

from tasks.pii.identifiers import find_identifiers
from tasks.pii.phones import find_phones
from tasks.pii.spans import Kind, Span, mask, replace, words_before
from tasks.pii.street_addresses import find_addresses
from tasks.web.urls import registered_domain

__all__ = ["FINDERS", "Action", "Kind", "Span", "find", "kind_to_drop", "redact", "replace", "to_redact"]

Action = Literal["redact", "drop", "keep"]

Finder = Callable[[str, Collection[str]], Iterator[Span]]  # the spans of a text, in order and apart, of kinds asked for
MAX_PASSES = 4  # two are enough except for hostile pages


def redact(text: str, kinds: Collection[str]) -> str:
    """`text` with the personal data of `kinds` replaced by its kind in brackets."""
    return replace(text, find(text, kinds))


def find(text: str, kinds: Collection[str]) -> list[Span]:
    """The personal data of `kinds` in `text`, in order and apart. What two finders claim is of the first in FINDERS.

    What is found is masked and the rest is searched again, as a find may hide what stands next to it. So nothing
    is found in the text that `replace` makes of it.
    """
    spans: list[Span] = []
    text = text.replace("\u00a0", " ")  # it keeps the groups of a number on one line
    # In order, and each once: find_identifiers finds four kinds in one scan.
    finders = dict.fromkeys(finder for kind, finder in FINDERS.items() if kind in kinds)
    for _ in range(MAX_PASSES):
        # A finder sees what the ones before it left. Phone numbers come last, as any number of 7 to 15 digits can be one.
        num_before = len(spans)
        for finder in finders:
            if found := list(finder(text, kinds)):
                text = mask(text, found)
                spans += found
        if len(spans) == num_before:
            break
    return sorted(spans)


def to_redact(spans: Sequence[Span], actions: Mapping[Kind, Action]) -> list[Span]:
    """The `spans` of kinds that are to be redacted."""
    return [span for span in spans if actions.get(span.kind) == "redact"]


def kind_to_drop(spans: Sequence[Span], actions: Mapping[Kind, Action]) -> Kind | None:
    """The kind for which a text with `spans` is to be dropped: the most frequent of those, if any."""
    counts = Counter(span.kind for span in spans if actions.get(span.kind) == "drop")
    return max(sorted(counts), key=counts.__getitem__, default=None)


# E-mail addresses

# The search is for the @: a pattern that began with the name would try every start in a long run of its characters, which takes time
# quadratic in the run. Labels of a host have at most 63 characters (RFC 1035), names at most 64 (RFC 5321, section 4.5.3.1.1).
EMAIL_HOST = re.compile(r"@((?:[\w-]{1,63}(?<!-)\.){1,8}(?:xn--[\w-]{1,58}\w|[^\W\d_]{2,24}))(?!@|[-_]?[^\W_])")
EMAIL_NAME = re.compile(r"[\w.%+'-]{1,64}")  # read backwards from the @
# Accounts of version control, whose address is that of a repository: git@github.com:user/project.git
REPOSITORY_NAMES = frozenset(["git", "hg", "svn", "gitlab", "gitea", "gitolite", "aur"])
REMOTE_PATH = re.compile(r":(?:[/~]|[\w~.-]{1,100}(?:/[\w~.-]{1,100}){0,8}\.git\b)")  # as scp, rsync and git write it


def find_emails(text: str, kinds: Collection[str]) -> Iterator[Span]:
    """Addresses whose host ends in a public suffix, so that icon@2x.png does not count, nor does the address of a repository or a remote file."""
    end = 0
    for match in EMAIL_HOST.finditer(text):
        at = match.start()
        # Backwards, the marks that end the match stand before the name: 'jane@example.com
        name = EMAIL_NAME.match(text[max(end, at - 64) : at][::-1])
        start = at - len(name[0].rstrip("'.%+-")) if name else at
        is_remote = text[start:at].lower() in REPOSITORY_NAMES or REMOTE_PATH.match(text, match.end())
        if start < at and not is_remote and registered_domain(match[1].lower()):
            end = match.end()
            yield Span(start, end, "email")


# Internet addresses

# Not after a letter, a digit or a point, nor after a name with a slash or a hyphen: Chrome/99.0.48.44, lib-1.2.3.4
IPV4 = re.compile(r"[0-9](?<![\w.].)(?<!\w[/-].)\d{0,2}(?:\.\d{1,3}){3}(?![\w-])(?!\.\d)")
# In every IPv6 address, and in next to no text: IPV6 tries each letter that can be a hexadecimal digit
IPV6_PART = re.compile(r":[0-9a-fA-F]{0,4}:")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4})(?![\w:])(?!\.\d)")
# What stands before a version or a section of four numbers. The expressions end where the number starts, and are searched
# in the words before it alone
VERSION_WORDS = "ver|version|release|build|firmware|kernel|driver|update|patch|section|chapter|clause|rule|fig|figure|table|ec"  # and their plurals
SOFTWARE = (
    "nginx|apache|httpd|tomcat|openssl|openssh|curl|wget|php|python|java|jre|jdk|perl|ruby|nodejs|npm|golang|mysql|mariadb|"
    "postgres|postgresql|sqlite|redis|mongodb|oracle|linux|ubuntu|debian|android|ios|ipados|macos|windows|chrome|chromium|webview|"
    "firefox|safari|edge|opera|webkit|gecko|vivaldi|brave|docker|kubernetes|git|gcc|clang|cmake|acrobat|reader|flash|office|libreoffice|"
    "excel|word|outlook|skype|zoom|teams|itunes|quicktime|directx|nvidia|cuda|bios|uefi|unity|unreal|minecraft|wordpress|joomla|drupal|"
    "vmware|esxi|virtualbox|sdk|plugin|package|library|module|software|installer|iis|silverlight|steam"
)
VERSION_CONTEXT = re.compile(
    rf"(?:\bv|§|[<>~=!]=\s?|[<>^~]\s?|\b(?:{VERSION_WORDS})s?(?: (?:number|is|to))*|"
    r"\b(?:upgrad|updat|downgrad)(?:e|es|ed|ing)(?: \w{1,20})?(?: (?:from|to)))\W*$",
    re.IGNORECASE,
)
SOFTWARE_CONTEXT = re.compile(rf"\b(?:{SOFTWARE})[ (]{{1,2}}$", re.IGNORECASE)
# The last words with which one of the two can match. The expressions are slow, and most numbers stand after another word.
LAST_WORDS = frozenset(
    ["v", "number", "is", "to", "from"]
    + [word + ending for word in VERSION_WORDS.split("|") for ending in ("", "s")]
    + SOFTWARE.split("|")
)
LAST_WORD = re.compile(r"(\W*)(\w*)")  # read backwards from the number
VERSION_AFTER = re.compile(r"[ -]?(?:beta|alpha|rc\d?|released?|\(?(?:x64|x86|64-bit|32-bit|build)\b)", re.IGNORECASE)
# Other names stand before versions too (LibreOffice), and before addresses (Google): a version begins low and has a 0 in the middle
NAME_BEFORE = re.compile(r"\b([A-Za-z][A-Za-z+#]{2,30}) $")
LOW_WITH_ZERO = re.compile(r"(?:[12]?\d)\.(?:0\.\d+|\d+\.0)\.\d+$")
ADDRESS_WORDS = frozenset(
    [
        "address",
        "addresses",
        "are",
        "connect",
        "connected",
        "connecting",
        "connects",
        "dns",
        "for",
        "from",
        "gateway",
        "has",
        "host",
        "hosts",
        "into",
        "login",
        "machine",
        "named",
        "nameserver",
        "network",
        "node",
        "peer",
        "ping",
        "pinged",
        "proxy",
        "range",
        "reach",
        "reached",
        "resolver",
        "route",
        "router",
        "saw",
        "server",
        "servers",
        "subnet",
        "that",
        "the",
        "this",
        "user",
        "using",
        "via",
        "visited",
        "visitor",
        "vpn",
        "was",
        "were",
        "with",
        "and",
        "block",
        "blocked",
        "google",
        "cloudflare",
        "its",
        "not",
    ]
)
# All that IANA's registry of the IPv6 address space gives out for global unicast
ALLOCATED = ipaddress.IPv6Network("2000::/3")


def find_ips(text: str, kinds: Collection[str]) -> Iterator[Span]:
    """Addresses that are routed on the public internet. Versions of four parts are not addresses."""
    # An address that could as well be a version is left: software pages are full of them, and a version names nobody.
    matches = [match for match in IPV4.finditer(text) if not is_version(text, match)]
    if IPV6_PART.search(text):
        matches += IPV6.finditer(text)
    end = 0
    for match in sorted(matches, key=re.Match.start):
        if match.start() >= end and is_public(match[0]):
            end = match.end()
            yield Span(*match.span(), "ip")


def is_version(text: str, match: re.Match[str]) -> bool:
    """Whether the four numbers of `match` are a version, or count chapters: nginx 1.18.0.5, v8.8.4.4, section 1.2.3.4."""
    before = words_before(text, match.start())
    if VERSION_AFTER.match(text, match.end()):
        return True
    if _may_name_version(before) and (VERSION_CONTEXT.search(before) or SOFTWARE_CONTEXT.search(before)):
        return True
    name = NAME_BEFORE.search(before) if LOW_WITH_ZERO.match(match[0]) else None
    return name is not None and name[1].lower() not in ADDRESS_WORDS


def _may_name_version(before: str) -> bool:
    """Whether the last word of `before`, or a sign after it, can be what stands before a version."""
    signs, word = LAST_WORD.match(before[::-1]).groups()  # type: ignore[union-attr]  # it matches any text
    return word[::-1].lower() in LAST_WORDS or not set("§<>~=!^").isdisjoint(signs)


def is_public(address: str) -> bool:
    """Whether `address` is an IP address of one host on the public internet: not private, reserved or multicast."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    # ipaddress calls unassigned space global as well: 10:20:30:40:50:60:1:2 in a list of numbers would be an address.
    is_allocated = parsed.version == 4 or parsed in ALLOCATED
    return is_allocated and parsed.is_global and not parsed.is_multicast


FINDERS: dict[Kind, Finder] = {
    "email": find_emails,
    "ip": find_ips,
    "iban": find_identifiers,
    "ssn": find_identifiers,
    "national_number": find_identifiers,
    "card": find_identifiers,
    "address": find_addresses,
    "phone": find_phones,
}
