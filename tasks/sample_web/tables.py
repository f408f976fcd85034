"""Tables of phrases, and how the sample web's small grammars draw from them."""

import random
from collections.abc import Sequence


def words(text: str) -> tuple[str, ...]:
    """A table from its entries, with | between them."""
    return tuple(entry.strip() for entry in text.split("|"))


def deal(rng: random.Random, table: Sequence[str], count: int) -> list[str]:
    """`count` entries in random order, none a second time before all were dealt once."""
    return [entry for _ in range(-(-count // len(table))) for entry in rng.sample(table, len(table))][:count]


def capitalize(text: str) -> str:
    """The text with its first letter, and no other, made large."""
    return text[:1].upper() + text[1:]
