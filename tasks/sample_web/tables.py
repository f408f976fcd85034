"""Tables of phrases, and how the sample web's grammars draw from them. Reads and writes nothing."""

import random
from collections.abc import Sequence


def words(text: str) -> tuple[str, ...]:
    """The entries of a table, which are separated by |."""
    return tuple(entry.strip() for entry in text.split("|"))


def deal(rng: random.Random, table: Sequence[str], count: int) -> list[str]:
    """`count` entries in random order. No entry occurs a second time before all have occurred once."""
    return [entry for _ in range(-(-count // len(table))) for entry in rng.sample(table, len(table))][:count]


def capitalize(text: str) -> str:
    """The text with its first letter in upper case; the other letters stay."""
    return text[:1].upper() + text[1:]
