"""Personal data in a text: where it is, and the text without it.

Pure functions: the same text gives the same result wherever it stands. A pattern finds candidates, a validator decides:
phonenumbers (Google's libphonenumber), python-stdnum (check digits of cards, accounts, national numbers), ipaddress,
and the Public Suffix List for the end of an e-mail address. What passes is replaced by the name of its kind.

FineWeb replaces e-mail addresses and public IPv4 addresses alone, by working look-alikes. Here a placeholder says what
was there. Not found: names, and numbers without form or context that nobody could tell from others.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Literal

from tasks.pii.identifiers import find_ibans, find_identifiers
from tasks.pii.phones import find_phones
from tasks.pii.spans import Kind, Span, mask, replace, words_before
from tasks.pii.street_addresses import find_addresses
from tasks.web.urls import registered_domain

__all__ = ["FINDERS", "Action", "Kind", "Span", "find", "kind_to_drop", "redact", "replace", "to_redact"]

Action = Literal["redact", "drop", "keep"]

Finder = Callable[[str, Collection[str]], Iterator[Span]]  # the spans of a text, in order and apart, of kinds asked for
MAX_PASSES = 4  # two are enough but for a page made to cost time


def redact(text: str, kinds: Collection[str]) -> str:
    """`text` with the personal data of `kinds` replaced by its kind in brackets."""
    return replace(text, find(text, kinds))


def find(text: str, kinds: Collection[str]) -> list[Span]:
    """The personal data of `kinds` in `text`, in order and apart. What two finders claim is of the first in FINDERS.

    What is found is masked and the rest is looked through again, as a find may hide what stands beside it. So nothing
    is found in the text that `replace` makes of it.
    """
    spans: list[Span] = []
    text = text.replace("\u00a0", " ")  # it keeps the groups of a number on one line
    finders = dict.fromkeys(finder for kind, finder in FINDERS.items() if kind in kinds)
    for _ in range(MAX_PASSES):
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

EMAIL_HOST = re.compile(r"@((?:[\w-]{1,63}(?<!-)\.){1,8}(?:xn--[\w-]{1,58}\w|[^\W\d_]{2,24}))(?!@|[-_]?[^\W_])")
EMAIL_NAME = re.compile(r"[\w.%+'-]{1,64}")  # read backwards from the @


def find_emails(text: str, kinds: Collection[str]) -> Iterator[Span]:
    """Addresses whose host ends in a public suffix, so that icon@2x.png is none."""
    end = 0
    for match in EMAIL_HOST.finditer(text):
        at = match.start()
        name = EMAIL_NAME.match(text[max(end, at - 64) : at][::-1])
        start = at - len(name[0].rstrip("'.%+-")) if name else at
        if start < at and registered_domain(match[1].lower()):
            end = match.end()
            yield Span(start, end, "email")


# Internet addresses

IPV4 = re.compile(r"[0-9](?<![\w.].)(?<!\w[/-].)\d{0,2}(?:\.\d{1,3}){3}(?![\w-])(?!\.\d)")
IPV6_PART = re.compile(r":[0-9a-fA-F]{0,4}:")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-fA-F]{0,4}:){2,7}(?:\d{1,3}(?:\.\d{1,3}){3}|[0-9a-fA-F]{0,4})(?![\w:])(?!\.\d)")
VERSION_CONTEXT = re.compile(
    r"(?:\bv|§|\b(?:ver|version|release|build|firmware|kernel|driver|update|patch|section|chapter|clause|rule|fig|figure|table|"
    r"ec)s?(?: (?:number|is|to))*)\W*$",
    re.IGNORECASE,
)
ALLOCATED = ipaddress.IPv6Network("2000::/3")


def find_ips(text: str, kinds: Collection[str]) -> Iterator[Span]:
    """Addresses that are routed on the public internet."""
    matches = [match for match in IPV4.finditer(text) if not VERSION_CONTEXT.search(words_before(text, match.start()))]
    if IPV6_PART.search(text):
        matches += IPV6.finditer(text)
    end = 0
    for match in sorted(matches, key=re.Match.start):
        if match.start() >= end and is_public(match[0]):
            end = match.end()
            yield Span(*match.span(), "ip")


def is_public(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    is_allocated = parsed.version == 4 or parsed in ALLOCATED
    return is_allocated and parsed.is_global and not parsed.is_multicast


FINDERS: dict[Kind, Finder] = {
    "email": find_emails,
    "ip": find_ips,
    "iban": find_ibans,
    "ssn": find_identifiers,
    "national_number": find_identifiers,
    "card": find_identifiers,
    "address": find_addresses,
    "phone": find_phones,
}
