"""Phone numbers in a text.

Pure functions. Google's libphonenumber (phonenumbers) decides about numbers with a country's code and about national
numbers in a form that only phone numbers have. After words that say so ("Tel.", "call me at") any number of 7 to 15 digits counts, as
no validator knows all countries' numbers and half of the numbers that people make up are valid nowhere.
"""

import re
from collections.abc import Callable, Collection, Iterator

import phonenumbers

from tasks.pii.spans import Span, words_before

# The hyphens and the dash beyond ASCII and the no-break space are what word processors put into numbers
SEPARATORS = " .\\-/‐‑–\u00a0"
EXTENSION = r"(?:\s?(?:x|ext\.?|extension)\s?\d{1,5})?"
# Six to fourteen more digits with at most one separator between two: E.164 allows 15 digits. A price, a path, a version or a part of a
# longer number is excluded by what stands before and after
PHONE = re.compile(
    rf"[+(0-9](?<![\w./#$€£@=-].)(?:(?<=\+)\(?\d|(?<=\()\+?\d|(?<=\d))(?:\)?[{SEPARATORS}]?\(?\d){{6,14}}{EXTENSION}"
    r"(?![\w%])(?![./-]\d)"
)
INTERNATIONAL = re.compile(r"(\(?)(?:00|011[ -])(?=[1-9])")  # as dialled in most countries, and in North America
# As printed in these countries. libphonenumber would accept most numbers of nine or ten digits in one country or another
NATIONAL_FORMS = tuple(
    (re.compile(rf"(?:{form})(?:\D.*)?$"), region)
    for form, region in (
        (r"(?:1[ .-]?)?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}", "US"),
        (r"\(?0\d{2}\)? \d{4} \d{4}|\(?0\d{3}\)? \d{3} \d{4}|\(?0\d{4}\)? \d{3} ?\d{3}", "GB"),
        (r"0\d(?:([ .])\d\d)(?:\1\d\d){3}", "FR"),
        (r"\(?0\d\)? \d{4} \d{4}|04\d\d \d{3} \d{3}", "AU"),
        (r"\(0\d{2,4}\) ?\d[\d -]{4,9}|0\d{2,4} ?/ ?\d[\d -]{4,9}", "DE"),
    )
)
NOUNS = (
    r"(?:phone|t[eé]l[eé]phone|tel[eé]fon[eo]?|t[eé]l|fax|mobile|mobil|cell|cellphone|whatsapp|hotline|desk|office)s?"
)
LABEL = re.compile(rf"\b{NOUNS}(?: (?:number|no|nummer))?\s?[:.#][\s()]*$", re.IGNORECASE)
BEFORE = re.compile(
    rf"\b(?:{NOUNS}(?: (?:number|no|nummer))?(?: (?:is|at|on))?"
    r"|(?:call|calls|called|calling|dial|ring|reach|answering|messages?)(?: \w+){0,2}? (?:at|on|to)|call|dial)[\s:.#,()-]*$",
    re.IGNORECASE,
)
# What LABEL and BEFORE match ends so. In a table of numbers this fails in a ninth of their time
ENDS_IN_WORD = re.compile(r"[^\W\d_][\s:.#,()-]*$")
AFTER = re.compile(r"[ (-]{1,2}(?:fax|office|mobile|cell)\b(?! \w)", re.IGNORECASE)
# Two years, thousands in groups, a day: no phone number unless a label says so
OTHER = re.compile(r"(?:19|20)\d\d\D(?:19|20)\d\d$|[1-9]\d{0,2}(?: \d{3})+$|\d{1,4}([./-])\d{1,2}\1\d{1,4}$")


def find_phones(text: str, kinds: Collection[str]) -> Iterator[Span]:
    """Numbers with a country's code, valid national ones in a usual form, and any after words that say so."""
    for match in PHONE.finditer(text):
        # In "(212-555-0123)" the bracket belongs to the sentence, in "(212) 555-0123" to the number.
        is_within_brackets = match[0].startswith("(") and ")" not in match[0]
        start, end = match.start() + is_within_brackets, match.end()
        if is_phone(text[start:end]) or is_called_phone(text, start, end):
            yield Span(start, end, "phone")


def is_phone(number: str) -> bool:
    """Whether a number is one by itself."""
    # A plus sign is evidence enough, so that the length alone is checked; without it the number must lie in an assigned range.
    if number.lstrip("(").startswith("+"):
        return _passes(number, None, phonenumbers.is_possible_number)
    if INTERNATIONAL.match(number):
        return _passes(INTERNATIONAL.sub(r"\1+", number, count=1), None, phonenumbers.is_valid_number)
    # Forms first: libphonenumber takes some 90 times as long to parse a number as a pattern to refuse it.
    return any(
        form.match(number) and _passes(number, region, phonenumbers.is_valid_number) for form, region in NATIONAL_FORMS
    )


def is_called_phone(text: str, start: int, end: int) -> bool:
    """Whether the words before or after a number say that it is one."""
    before = words_before(text, start)
    if not ENDS_IN_WORD.search(before):
        return AFTER.match(text, end) is not None and not OTHER.match(text[start:end])
    # A label ("Tel.:") is stronger than a verb ("call"), after which a year or a date may follow.
    is_called = BEFORE.search(before) or AFTER.match(text, end)
    return bool(LABEL.search(before) or (is_called and not OTHER.match(text[start:end])))


def _passes(number: str, region: str | None, check: Callable[[phonenumbers.PhoneNumber], bool]) -> bool:
    try:
        return check(phonenumbers.parse(number, region))
    except phonenumbers.NumberParseException:
        return False
