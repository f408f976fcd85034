"""Which characters belong to a class of Unicode, such as letters, in the version of Unicode that `tokenizers` has.

Reads and writes nothing. Each version of Python and of a regex library has another version of Unicode: Python 3.11 knows 9,272 letters
less than tokenizers 0.23. Who splits a text elsewhere needs the characters themselves.
"""

import re
import sys
from functools import cache
from itertools import groupby

import tokenizers
from tokenizers import pre_tokenizers

ESCAPED = frozenset(r"\^-[]&~|")  # marks that mean something between brackets


@cache
def members(name: str) -> str:
    r"""The characters of a class, as `\p{L}` or `\s`, in order."""
    characters = "".join(chr(code) for code in range(sys.maxunicode + 1) if not 0xD800 <= code < 0xE000)
    others = pre_tokenizers.Split(tokenizers.Regex(f"[^{name}]+"), behavior="removed")
    return "".join(piece for piece, _ in others.pre_tokenize_str(characters))


def ranges(characters: str) -> str:
    """Sorted characters as they stand between the brackets of a regular expression: "A-Za-z"."""
    runs = []
    # Within a run, code point minus place is constant.
    for _, run in groupby(enumerate(characters), lambda entry: ord(entry[1]) - entry[0]):
        first, *_, last = [character for _, character in run] * 2
        runs.append(_escaped(first) if first == last else f"{_escaped(first)}-{_escaped(last)}")
    return "".join(runs)


def _escaped(character: str) -> str:
    return f"\\{character}" if character in ESCAPED else character


def classes_of(pattern: str) -> dict[str, str]:
    r"""The ranges of every class in a pattern of Oniguruma, and of `\s`, which `\S` needs as well."""
    return {name: ranges(members(name)) for name in sorted({*re.findall(r"\\p\{\w+\}", pattern), r"\s"})}
