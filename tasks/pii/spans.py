"""Stretches of a text that are personal data, as the finders hand them on, and the text without them.

Pure functions. A find is replaced by its kind in brackets, and masked by a stretch of the same length that begins and
ends with the same brackets: no finder reads across either, so what is found next to them is the same.
"""

from collections.abc import Iterable
from typing import Literal, NamedTuple

Kind = Literal["email", "ip", "iban", "ssn", "national_number", "card", "address", "phone"]
CONTEXT_CHARACTERS = 32  # a bound for searches at every candidate, and enough for "driver's license number is"


class Span(NamedTuple):
    """The characters `start` to `end` of a text are personal data of `kind`."""

    start: int
    end: int
    kind: Kind


def replace(text: str, spans: Iterable[Span]) -> str:
    """`text` with its `spans`, in order and apart, replaced by their kinds in brackets."""
    return _join(text, ((span, f"[{span.kind.upper()}]") for span in spans))


def mask(text: str, spans: Iterable[Span]) -> str:
    """`text` with its `spans`, in order and apart, made unreadable; every other character stays where it is."""
    # Finds are longer than the two brackets. The same length keeps all places valid while the rest of the text is searched.
    return _join(text, ((span, f"[{'X' * (span.end - span.start - 2)}]") for span in spans))


def _join(text: str, placeholders: Iterable[tuple[Span, str]]) -> str:
    pieces, last = [], 0
    for span, placeholder in placeholders:
        pieces += [text[last : span.start], placeholder]
        last = span.end
    return "".join((*pieces, text[last:]))


def words_before(text: str, start: int) -> str:
    """The words before `start`, back to another find: they may say what comes."""
    # A find, masked or replaced, ends in a bracket. What stands before it is not the same in the text and in the redacted text,
    # and a number must be found in both or in neither.
    return text[max(0, start - CONTEXT_CHARACTERS) : start].rpartition("]")[2]
