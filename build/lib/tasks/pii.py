"""Personal data in a text: where it is, and the text without it.

Pure functions: the same text gives the same result wherever it stands. A pattern finds candidates, a validator decides: phonenumbers
(Google's libphonenumber), python-stdnum (Luhn, IBAN, US social security numbers), ipaddress, and the Public Suffix List for the end
of an e-mail address. What passes is replaced by the name of its kind.

FineWeb replaces e-mail addresses and public IPv4 addresses alone, by working look-alikes. Here a placeholder says what was there. Not found:
names, street addresses, and numbers without form or context that nobody could tell from others.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import phonenumbers
import tldextract
from stdnum import iban, luhn
from stdnum.us import ssn


class Span(NamedTuple):
    """The characters `start` to `end` of a text are personal data of `kind`."""

    start: int
    end: int
    kind: str


Finder = Callable[[str], Iterator[tuple[int, int]]]
CONTEXT_CHARACTERS = 32

suffixes = tldextract.TLDExtract(suffix_list_urls=(), cache_dir=None)  # the list in the package, no network


def redact(text: str, kinds: Sequence[str]) -> tuple[str, dict[str, int], int]:
    """`text` with every find replaced by its kind in brackets, the finds by kind, and how many characters they had.

    Repeated until nothing is found, so that redacting the result changes nothing.
    """
    counts: Counter[str] = Counter()
    num_characters = 0
    while spans := find(text, kinds):
        pieces, last = [], 0
        for start, end, kind in spans:
            pieces += [text[last:start], f"[{kind.upper()}]"]
            last = end
            counts[kind] += 1
            num_characters += end - start
        text = "".join((*pieces, text[last:]))
    return text, dict(sorted(counts.items())), num_characters


def find(text: str, kinds: Sequence[str]) -> list[Span]:
    """The personal data of `kinds` in `text`, in order. Where two finds overlap, the kind that is first in FINDERS has it."""
    spans: list[Span] = []
    for kind, finder in FINDERS.items():
        if kind in kinds:
            found = [Span(start, end, kind) for start, end in finder(text)]
            spans += [span for span in found if not any(span.start < other.end and other.start < span.end for other in spans)]
    return sorted(spans)


def is_after(context: re.Pattern[str], text: str, start: int) -> bool:
    """Whether the words before `start` say what comes."""
    return bool(context.search(text[max(0, start - CONTEXT_CHARACTERS) : start]))


# E-mail addresses

EMAIL = re.compile(r"(?<![\w.%+@-])[\w.%+'-]{1,64}@((?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24})(?![\w@-])")


def find_emails(text: str) -> Iterator[tuple[int, int]]:
    """Addresses whose host ends in a public suffix, so that icon@2x.png is none."""
    if "@" in text:
        for match in EMAIL.finditer(text):
            if has_public_suffix(match[1].lower()):
                start = match.start() + len(match[0]) - len(match[0].lstrip("'.%+-"))
                yield start, match.end()


@lru_cache(maxsize=4096)
def has_public_suffix(host: str) -> bool:
    return bool(suffixes(host).top_domain_under_public_suffix)


# Internet addresses

IPV4 = re.compile(r"(?<![\w.])(?<!\w[/-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-])(?!\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE)
VERSION_CONTEXT = re.compile(r"(?:\bv|\b(?:version|release|build|firmware|driver|update|patch|section|chapter|clause|rule|figure|table|§)s?)\W*$", re.IGNORECASE)
ALLOCATED = ipaddress.IPv6Network("2000::/3")


def find_ips(text: str) -> Iterator[tuple[int, int]]:
    """Addresses that are routed on the public internet."""
    for match in IPV4.finditer(text):
        if not is_after(VERSION_CONTEXT, text, match.start()) and is_public(match[0]):
            yield match.span()
    if "::" in text or text.count(":") >= 7:
        for match in IPV6.finditer(text):
            if is_public(match[0]):
                yield match.span()


def is_public(address: str) -> bool:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return False
    is_allocated = parsed.version == 4 or parsed in ALLOCATED
    return is_allocated and parsed.is_global and not parsed.is_multicast


# Numbers of banks, cards and offices

IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?!\w)")
CARD = re.compile(r"(?<![\w.+/-])(?<!\d )[2-6]\d{3}(?:[ -]?\d){8,15}(?![\w-])(?!\.\d)")
ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})$|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}$|3[47]\d{13}$|3(?:0[0-5]|[689]\d)\d{11}$"
    r"|35(?:2[89]|[3-8]\d)\d{12}$|6(?:011|4[4-9]\d|5\d\d)\d{12}$|62\d{14,17}$|(?:50\d\d|5[6-9]\d\d|6[37]\d\d)\d{8,15}$"
)
SSN = re.compile(r"(?<![\w.-])\d{3}([ -]?)\d{2}\1\d{4}(?![\w-])(?!\.\d)")
SSN_CONTEXT = re.compile(r"\b(?:ssn|ss#|social security)\b", re.IGNORECASE)


def find_ibans(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in IBAN.finditer(text) if iban.is_valid(match[0]))


def find_cards(text: str) -> Iterator[tuple[int, int]]:
    """Numbers with an issuer's first digits, of the length of its cards, and with a right check digit (ISO/IEC 7812)."""
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        if ISSUERS.match(digits) and luhn.is_valid(digits):
            yield match.span()


def find_ssns(text: str) -> Iterator[tuple[int, int]]:
    """US social security numbers of valid ranges: with hyphens, or where the words before say so."""
    for match in SSN.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        is_named = match[1] == "-" or is_after(SSN_CONTEXT, text, match.start())
        if is_named and ssn.is_valid(digits):
            yield match.span()


# Phone numbers

PHONE = re.compile(r"(?<![\w.,/#$€£@=-])(?:\+ ?\d|\(\+?\d|\d)[\d ().\-/‐‑–\u00a0]{5,22}\d(?:\s?(?:x|ext\.?|extension)\s?\d{1,5})?(?![\w%])(?![.,]\d)")
PHONE_CONTEXT = re.compile(
    r"\b(?:phone|telephone|tel|call|calls|called|calling|fax|mobile|cell|whatsapp|dial|ring|contact|hotline|number is|reach)\b[^\d]*$", re.IGNORECASE
)
PHONE_REGION = "US"
NATIONAL_FORM = re.compile(r"(?:1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?:\D.*)?$")


def find_phones(text: str) -> Iterator[tuple[int, int]]:
    """International numbers with a plus sign, and US ones in their usual form or where the words before say so."""
    for match in PHONE.finditer(text):
        number = match[0]
        is_named = number.startswith(("+", "(+")) or NATIONAL_FORM.match(number) or is_after(PHONE_CONTEXT, text, match.start())
        if is_named and is_phone(number):
            yield match.span()


def is_phone(number: str) -> bool:
    try:
        return phonenumbers.is_valid_number(phonenumbers.parse(number, PHONE_REGION))
    except phonenumbers.NumberParseException:
        return False


FINDERS: dict[str, Finder] = {
    "email": find_emails,
    "iban": find_ibans,
    "ip": find_ips,
    "card": find_cards,
    "ssn": find_ssns,
    "phone": find_phones,
}
KINDS = tuple(FINDERS)
