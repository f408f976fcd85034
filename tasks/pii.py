"""Personal data in a text: where it is, and the text without it.

Pure functions: the same text gives the same result wherever it stands. A pattern finds candidates, a validator decides:
phonenumbers (Google's libphonenumber), python-stdnum (Luhn, IBAN, US social security numbers), ipaddress, and the
Public Suffix List for the end of an e-mail address. What passes is replaced by the name of its kind.

FineWeb replaces e-mail addresses and public IPv4 addresses alone, by working look-alikes. Here a placeholder says what
was there. Not found: names, street addresses, and numbers without form or context that nobody could tell from others.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import phonenumbers
from stdnum import iban, luhn
from stdnum.us import ssn

from tasks.addresses import registered_domain


class Span(NamedTuple):
    """The characters `start` to `end` of a text are personal data of `kind`."""

    start: int
    end: int
    kind: str


Finder = Callable[[str], Iterator[tuple[int, int]]]
CONTEXT_CHARACTERS = 32
MAX_PASSES = 4  # two are enough but for a page made to cost time


def redact(text: str, kinds: Sequence[str]) -> tuple[str, dict[str, int], int]:
    """`text` with every find replaced by its kind in brackets, the finds by kind, and how many characters they had.

    Repeated until nothing is found, as what is gone may have hidden what stood beside it: twice is the same as once.
    """
    counts: Counter[str] = Counter()
    num_characters = 0
    for _ in range(MAX_PASSES):
        if not (spans := find(text, kinds)):
            break
        pieces, last = [], 0
        for start, end, kind in spans:
            pieces += [text[last:start], f"[{kind.upper()}]"]
            last = end
            counts[kind] += 1
            num_characters += end - start
        text = "".join((*pieces, text[last:]))
    return text, dict(sorted(counts.items())), num_characters


def find(text: str, kinds: Sequence[str]) -> list[Span]:
    """The personal data of `kinds` in `text`, in order. Where two overlap, the kind that is first in FINDERS has it."""
    spans: list[Span] = []
    is_taken = bytearray(len(text))
    for kind, (hint, finder) in FINDERS.items():
        if kind in kinds and hint.search(text):
            for start, end in finder(text):
                if is_taken.find(1, start, end) < 0:
                    is_taken[start:end] = bytes([1]) * (end - start)
                    spans.append(Span(start, end, kind))
    return sorted(spans)


def is_after(context: re.Pattern[str], text: str, start: int) -> bool:
    """Whether the words before `start` say what comes."""
    return bool(context.search(text[max(0, start - CONTEXT_CHARACTERS) : start]))


# E-mail addresses

EMAIL = re.compile(r"[\w.%+'-]{1,64}@((?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24})(?![\w@-])")


def find_emails(text: str) -> Iterator[tuple[int, int]]:
    """Addresses whose host ends in a public suffix, so that icon@2x.png is none."""
    for match in EMAIL.finditer(text):
        if registered_domain(match[1].lower()):
            start = match.end() - len(match[0].lstrip("'.%+-"))
            yield start, match.end()


# Internet addresses

IPV4 = re.compile(r"(?<![\w.])(?<!\w[/-])\d{1,3}(?:\.\d{1,3}){3}(?![\w-])(?!\.\d)")
IPV6 = re.compile(r"(?<![\w:.])(?:[0-9a-f]{0,4}:){2,7}[0-9a-f]{0,4}(?![\w:])", re.IGNORECASE)
VERSION_CONTEXT = re.compile(
    r"(?:\bv|§|\b(?:version|release|build|firmware|driver|update|patch|section|chapter|clause|rule|figure|table)s?)\W*$",
    re.IGNORECASE,
)
ALLOCATED = ipaddress.IPv6Network("2000::/3")


def find_ips(text: str) -> Iterator[tuple[int, int]]:
    """Addresses that are routed on the public internet."""
    for match in IPV4.finditer(text):
        if not is_after(VERSION_CONTEXT, text, match.start()) and is_public(match[0]):
            yield match.span()
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

IBAN = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?: [A-Z0-9]{4}){2,7}(?: [A-Z0-9]{1,3})?)(?!\w)")
CARD = re.compile(r"(?<![\w.+/-])\d{4}(?:[ -]?\d){8,15}(?![\w-])(?!\.\d)")
ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})$|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}$"
    r"|3[47]\d{13}$|3(?:0[0-5]|[689]\d)\d{11}$|35(?:2[89]|[3-8]\d)\d{12}$"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}$|62\d{14,17}$|(?:50\d\d|5[6-9]\d\d|6[37]\d\d)\d{8,15}$"
)
CARD_CONTEXT = re.compile(r"\b(?:card|cc|visa|mastercard|amex|maestro)\b", re.IGNORECASE)
SSN = re.compile(r"(?<![\w.-])\d{3}([ -]?)\d{2}\1\d{4}(?![\w-])(?!\.\d)")
SSN_CONTEXT = re.compile(r"\b(?:ssn|social security)\b", re.IGNORECASE)


def find_ibans(text: str) -> Iterator[tuple[int, int]]:
    return (match.span() for match in IBAN.finditer(text) if iban.is_valid(match[0]))


def find_cards(text: str) -> Iterator[tuple[int, int]]:
    """Numbers with a right check digit (ISO/IEC 7812) and an issuer's first digits, or words before that say so."""
    for match in CARD.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        is_named = ISSUERS.match(digits) or is_after(CARD_CONTEXT, text, match.start())
        if is_named and luhn.is_valid(digits):
            yield match.span()


def find_ssns(text: str) -> Iterator[tuple[int, int]]:
    """US social security numbers of valid ranges: with hyphens, or where the words before say so."""
    for match in SSN.finditer(text):
        digits = re.sub(r"\D", "", match[0])
        is_named = match[1] == "-" or is_after(SSN_CONTEXT, text, match.start())
        if is_named and ssn.is_valid(digits):
            yield match.span()


# Phone numbers

PHONE = re.compile(
    r"(?<![\w./#$€£@=-])(?:\+ ?\(?|\(\+?)?\d(?:\)?[ .\-/‐‑–\u00a0]?\(?\d){6,14}"
    r"(?:\s?(?:x|ext\.?|extension)\s?\d{1,5})?(?![\w%])(?![./-]\d)"
)
NATIONAL_FORM = re.compile(r"(?:1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?:\D.*)?$")
PHONE_CONTEXT = re.compile(
    r"\b(?:(?:phone|telephone|tel|fax|mobile|cell|cellphone|whatsapp|hotline|desk|office)s?"
    r"(?: (?:number|no))?(?: (?:is|at|on))?"
    r"|(?:call|calls|called|calling|dial|ring|reach)(?: \w+){0,2}?(?: (?:at|on))?)[\s:.#,-]*$",
    re.IGNORECASE,
)
NATIONAL_REGION = "US"
REGIONS = "US GB IE AU NZ ZA IN DE AT CH FR BE NL LU IT ES PT SE NO DK FI PL CZ HU RO GR TR RU UA IL BR MX AR JP KR CN"


def find_phones(text: str) -> Iterator[tuple[int, int]]:
    """Numbers with a country's code, valid US numbers in their usual form, and what is valid anywhere after words that say so."""
    for match in PHONE.finditer(text):
        number = match[0]
        if (
            (number.lstrip("(").startswith("+") and is_phone(number, phonenumbers.is_possible_number))
            or (NATIONAL_FORM.match(number) and is_phone(number, phonenumbers.is_valid_number))
            or (is_after(PHONE_CONTEXT, text, match.start()) and is_valid_somewhere(number))
        ):
            yield match.span()


def is_valid_somewhere(number: str) -> bool:
    return any(is_phone(number, phonenumbers.is_valid_number, region) for region in REGIONS.split())


def is_phone(number: str, check: Callable[[phonenumbers.PhoneNumber], bool], region: str = NATIONAL_REGION) -> bool:
    """Whether `number`, dialled in `region`, passes `check`."""
    try:
        return check(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False


# What a text without such data lacks: looked for first, as that takes far less time
AT_SIGN = re.compile("@")
ADDRESS_PART = re.compile(r"\d\.\d|::|:[0-9a-f]{1,4}:", re.IGNORECASE)
LONG_NUMBER = re.compile(r"\d(?:\D{0,5}\d){6}")

FINDERS: dict[str, tuple[re.Pattern[str], Finder]] = {
    "email": (AT_SIGN, find_emails),
    "iban": (LONG_NUMBER, find_ibans),
    "ip": (ADDRESS_PART, find_ips),
    "card": (LONG_NUMBER, find_cards),
    "ssn": (LONG_NUMBER, find_ssns),
    "phone": (LONG_NUMBER, find_phones),
}
