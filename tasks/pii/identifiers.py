"""Numbers of banks, cards and offices that stand for one person.

Pure functions. A form finds candidates, python-stdnum (check digits, ranges, dates) decides. A form that other numbers
have as well counts only after words that say so; a number without check digits (passport, driving licence) as well.

Cost: linear. A candidate is compared with all forms in one call, and with forms that want words before them only if
there are letters before it: a text of numbers alone, 1 MB of "4111 ", has 200,000 candidates.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator
from functools import lru_cache, partial
from typing import NamedTuple

import stdnum.au.tfn
import stdnum.be.nn
import stdnum.br.cpf
import stdnum.ca.sin
import stdnum.ch.ssn
import stdnum.cn.ric
import stdnum.de.idnr
import stdnum.dk.cpr
import stdnum.es.dni
import stdnum.es.nie
import stdnum.fi.hetu
import stdnum.fr.nir
import stdnum.gb.nhs
import stdnum.iban
import stdnum.in_.aadhaar
import stdnum.in_.pan
import stdnum.it.codicefiscale
import stdnum.kr.rrn
import stdnum.mx.curp
import stdnum.nl.bsn
import stdnum.pl.pesel
import stdnum.se.personnummer
import stdnum.us.ssn
from stdnum import numdb

from tasks.pii.spans import Kind, Span, words_before

# Where a number may begin: six more digits or capitals follow, a digit is among the first, and no form but the French one begins with
# a digit by itself. Or the third character of an IBAN in any case, as people write de89 3704...
START = re.compile(
    r"[0-9A-Z](?:(?<![\w+/-].)(?<!\d[.,].)"
    r"(?:(?<=\d)(?= ?\d\d|\d)|(?<=[A-Z])(?=[A-Z]{0,5}[ -]?\d))(?=[A-Z]{0,5}(?:[ .-]?[0-9A-Z]){6})"
    r"|(?<=[A-Za-z]{2}[0-9])(?<![\w+/-]...)(?=[0-9][ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{3}))"
)
IBAN_DIGITS = re.compile(
    r"[0-9]{2}(?:(?<=\b[A-Za-z]{2}..)|(?<=\b[A-Za-z]{2} ..))[ -]?[A-Za-z0-9]{4}[ -]?[A-Za-z0-9]{3}"
)
# Not within a longer number or word, and not before decimals; a full stop after it is the sentence's
END = r"(?![\w-])(?!\.\d)"
# All words of contexts have one of these. Not \w: digits are what most hostile texts consist of
LETTER = re.compile(r"[a-z]", re.IGNORECASE)
BACKREFERENCE = re.compile(r"\\([1-9])")
# First digits (ISO/IEC 7812) and lengths: Visa; Mastercard; American Express; Diners Club; JCB; Discover; UnionPay; Maestro.
# The check digit alone would accept one in ten of all numbers of this length
ISSUERS = re.compile(
    r"4(?:\d{12}|\d{15}|\d{18})$|(?:5[1-5]\d\d|222[1-9]|22[3-9]\d|2[3-6]\d\d|27[01]\d|2720)\d{12}$"
    r"|3[47]\d{13}$|3(?:0[0-5]|[689]\d)\d{11}$|35(?:2[89]|[3-8]\d)\d{12}$"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}$|62\d{14,17}$|(?:50\d\d|5[6-9]\d\d|6[37]\d\d)\d{8,15}$"
)
DOUBLED = bytes.maketrans(b"0123456789", bytes([0, 2, 4, 6, 8, 1, 3, 5, 7, 9]))  # the digit sum of twice a digit


class Identifier(NamedTuple):
    """Numbers of `kind` have the form and are valid; where there is a context, words before say what they are."""

    kind: Kind
    form: re.Pattern[str]
    is_valid: Callable[[str], bool]
    context: re.Pattern[str] | None = None


def _row(kind: Kind, form: str, is_valid: Callable[[str], bool], context: str = "") -> Identifier:
    # Some contexts end in a sign ("no. #"), after which there is no \b
    words = re.compile(rf"\b(?:{context})(?:\b|(?<=\W))", re.IGNORECASE) if context else None
    return Identifier(kind, re.compile(f"(?:{form}){END}"), is_valid, words)


class Table:
    """Identifiers in the order in which they are tried, and one pattern that finds the first whose form matches.

    Of some twenty forms at most a few match a number: one call that fails costs a tenth of twenty that fail.
    """

    def __init__(self, identifiers: Iterable[Identifier]) -> None:
        self.identifiers = tuple(identifiers)
        self.index_by_group: dict[int, int] = {}
        branches: list[str] = []
        num_groups = 0
        for index, identifier in enumerate(self.identifiers):
            num_groups += 1
            self.index_by_group[num_groups] = index
            # In the common pattern \1 of a form is the group that follows the one around the form.
            shift = partial(_shifted, num_groups=num_groups)
            branches.append(f"({BACKREFERENCE.sub(shift, identifier.form.pattern)})")
            num_groups += identifier.form.groups
        self.any_form = re.compile("|".join(branches))

    def from_first_match(self, text: str, start: int) -> tuple[Identifier, ...]:
        """The identifiers from the first whose form matches at `start` on."""
        match = self.any_form.match(text, start) if self.identifiers else None
        # The group around a form closes after those within it, so that lastindex is its number.
        return self.identifiers[self.index_by_group[match.lastindex or 0] :] if match else ()


def _shifted(backreference: re.Match[str], num_groups: int) -> str:
    return f"\\{int(backreference[1]) + num_groups}"


class Tables(NamedTuple):
    """What is tried for a candidate: a number, a number with words before it, or a code that begins with a capital."""

    numbers: Table
    numbers_after_words: Table
    codes: Table


@lru_cache(maxsize=16)
def _tables(kinds: frozenset[str]) -> Tables:
    numbers, codes = ([row for row in rows if row.kind in kinds] for rows in (NUMBERS, CODES))
    return Tables(Table(row for row in numbers if not row.context), Table(numbers), Table(codes))


def find_identifiers(text: str, kinds: Collection[str]) -> Iterator[Span]:
    """The first identifier of NUMBERS or CODES that a number can be."""
    tables = _tables(frozenset(kinds))
    has_ibans = "iban" in kinds
    end = 0
    for candidate in START.finditer(text):
        start = candidate.start()
        if start < end:
            continue
        is_number = candidate[0].isdigit()
        span = _find_iban(text, start, end, is_number) if has_ibans else None
        if span := span or _identify(text, start, is_number, tables):
            end = span.end
            yield span


def _identify(text: str, start: int, is_number: bool, tables: Tables) -> Span | None:
    if text[start - 1 : start].isalpha():
        return None  # the digits of what could have been an IBAN
    before = words_before(text, start)
    # A table of numbers has no words before its numbers: then the forms that count only after words need not be tried.
    table = tables.codes if not is_number else tables.numbers_after_words if LETTER.search(before) else tables.numbers
    for kind, form, is_valid, context in table.from_first_match(text, start):
        match = form.match(text, start)
        if match and context and not context.search(before):
            continue
        while match:
            if is_valid(match[0].replace(" ", "")):
                return Span(start, match.end(), kind)
            # Its last group may be the next word, as in "1111 12/25"
            match = form.match(text, start, text.rfind(" ", start, match.end()))
    return None


# Accounts. An IBAN has the length of its country, so that it is read from its start whatever follows

IBANS = numdb.get("iban")  # python-stdnum's table of countries, from SWIFT's registry of IBAN formats


def _find_iban(text: str, start: int, end: int, is_number: bool) -> Span | None:
    """The international bank account number (ISO 13616) at `start`, or two letters before it; none that begins before `end`."""
    if is_number:
        if not IBAN_DIGITS.match(text, start):
            return None
        start -= 3 if text[start - 1] == " " else 2
    # The country decides the length. One pattern for all of them would read on into the next word.
    form = _iban_form(text[start : start + 2].upper())
    match = form.match(text, start) if form and start >= end else None
    return Span(start, match.end(), "iban") if match and is_account(match[0].replace(" ", "")) else None


@lru_cache(maxsize=1024)  # all pairs of letters
def _iban_form(country: str) -> re.Pattern[str] | None:
    """The form of a country's IBANs, None of two letters that have none."""
    structure = IBANS.info(f"{country}00")[0][1].get("bban", "")
    length = sum(int(part) for part in re.findall(r"(\d+)!", structure))
    return re.compile(rf"[A-Za-z]{{2}} ?\d{{2}}(?:[ -]?[A-Za-z0-9]){{{length}}}{END}") if length else None


def is_issued_card(number: str) -> bool:
    """Whether a card number has a right check digit (ISO/IEC 7812) and an issuer's first digits."""
    digits = number.replace("-", "")
    return ISSUERS.match(digits) is not None and is_card(digits)


def is_card(number: str) -> bool:
    """Whether the last digit is the check digit of the others (Luhn). As python-stdnum's, in a tenth of the time."""
    digits = number.replace("-", "").encode()
    return (sum(digits[-1::-2]) - len(digits[-1::-2]) * ord("0") + sum(digits[-2::-2].translate(DOUBLED))) % 10 == 0


def is_account(number: str) -> bool:
    """Whether an IBAN has the form of its country and a right check; not whether the bank is in a list of banks."""
    return bool(stdnum.iban.is_valid(number, check_country=False))


def is_anything(number: str) -> bool:
    """Accepts every number: the validator of forms without check digits."""
    return True


# A card number has at most 19 digits (ISO/IEC 7812-1). Groups must be separated alike; American Express and Diners Club print
# 4-6-5 and 4-6-4 digits
CARD = r"\d{12,19}|\d{4}([ -])\d{4}\1\d{4}\1\d{1,4}(?:\1\d{1,3})?|\d{4}([ -])\d{6}\2\d{4,5}"
CARD_AFTER_WORDS = r"\d{4}(?:[ -]?\d){8,15}"
CARD_WORDS = "card|cc|visa|mastercard|amex|maestro"
ITIN_GROUP = r"(?:5\d|6[0-5]|7\d|8[0-8]|9[0-24-9])"  # those that are given out
SSN_WORDS = "ssn|social security"
NINO = r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]"  # prefixes that are given out
# "licence number" alone would also be that of a software or a broker
DOCUMENT_WORDS = r"(?:passport|driv(?:er\S{0,2}|ing) licen[cs]e) (?:number|no|#)\W{0,3}(?:is )?"
DOCUMENT = _row("national_number", r"[A-Z]{0,2}\d{4,14}(?:-\d{2,6}){0,2}", is_anything, DOCUMENT_WORDS)

# In the order in which they are tried, by what they begin with: a digit, or a capital. Cards are last:
# their check digit alone accepts one number in ten, and words that name another kind should decide before
NUMBERS = (
    _row("ssn", r"\d{3}-\d{2}-\d{4}", stdnum.us.ssn.is_valid),
    _row("ssn", r"\d{3}([ -]?)\d{2}\1\d{4}", stdnum.us.ssn.is_valid, SSN_WORDS),
    _row("national_number", rf"9\d{{2}}-{ITIN_GROUP}-\d{{4}}", is_anything),
    _row("national_number", r"\d{3}([ -]?)\d{3}\1\d{4}", stdnum.gb.nhs.is_valid, "nhs"),
    _row("national_number", r"\d{3}([ -]?)\d{3}\1\d{3}", stdnum.ca.sin.is_valid, "sin|social insurance"),
    _row("national_number", r"\d{3}([ ]?)\d{3}\1\d{3}", stdnum.au.tfn.is_valid, "tfn|tax file"),
    _row("national_number", r"\d{2} ?\d{3} ?\d{3} ?\d{3}", stdnum.de.idnr.is_valid, r"steuer\W?id\w*|idnr"),
    _row("national_number", r"[12]( ?)\d{2}\1\d{2}\1\d[\dAB]\1\d{3}\1\d{3}\1\d{2}", stdnum.fr.nir.is_valid),
    _row("national_number", r"\d{8}-?[A-Za-z]", stdnum.es.dni.is_valid, "dni|nif|documento"),
    _row("national_number", r"\d{9}|\d{4}[. ]\d{2}[. ]\d{3}", stdnum.nl.bsn.is_valid, r"bsn|burgerservice\w*|sofi\w*"),
    _row("national_number", r"\d{2}\.\d{2}\.\d{2}-\d{3}\.\d{2}", stdnum.be.nn.is_valid),
    _row("national_number", r"756\.\d{4}\.\d{4}\.\d{2}", stdnum.ch.ssn.is_valid),
    _row("national_number", r"\d{11}", stdnum.pl.pesel.is_valid, "pesel"),
    _row("national_number", r"(?:\d{2})?\d{6}[-+]?\d{4}", stdnum.se.personnummer.is_valid, r"person\w*|pnr"),
    _row("national_number", r"\d{6}-?\d{4}", stdnum.dk.cpr.is_valid, "cpr"),
    _row("national_number", r"\d{6}[-+A-FU-Y]\d{3}[0-9A-Y]", stdnum.fi.hetu.is_valid),
    _row("national_number", r"\d{3}\.\d{3}\.\d{3}-\d{2}", stdnum.br.cpf.is_valid),
    _row("national_number", r"\d{11}", stdnum.br.cpf.is_valid, "cpf"),
    _row("national_number", r"\d{4}([ -]?)\d{4}\1\d{4}", stdnum.in_.aadhaar.is_valid, "aadha?ar|uidai"),
    _row("national_number", r"\d{17}[\dX]", stdnum.cn.ric.is_valid),
    _row("national_number", r"\d{6}-[1-8]\d{6}", stdnum.kr.rrn.is_valid),
    DOCUMENT,
    _row("card", CARD, is_issued_card),
    _row("card", CARD_AFTER_WORDS, is_card, CARD_WORDS),
)
CODES = (
    _row("national_number", rf"{NINO} \d{{2}} \d{{2}} \d{{2}} [A-D]", is_anything),
    _row("national_number", rf"{NINO} ?\d{{6}} ?[A-D]", is_anything, "national insurance|nino|ni (?:number|no)"),
    _row("national_number", r"[XYZ]-?\d{7}-?[A-Z]", stdnum.es.nie.is_valid, "nie|nif|documento"),
    _row("national_number", r"[A-Z]{6}[\dL-V]{2}[A-Z][\dL-V]{2}[A-Z][\dL-V]{3}[A-Z]", stdnum.it.codicefiscale.is_valid),
    _row("national_number", r"[A-Z]{4}\d{6}[HM][A-Z]{5}[0-9A-Z]\d", stdnum.mx.curp.is_valid),
    _row("national_number", r"[A-Z]{3}P[A-Z]\d{4}[A-Z]", stdnum.in_.pan.is_valid),
    DOCUMENT,
)
