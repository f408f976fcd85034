"""The grammar of the sample web: how a pattern becomes a sentence, and how people mistype one.

Reads the words that all texts share (data/words.yaml); writes nothing. A pattern is text in which "(a|b|)" is a choice, nested at will,
and "$word" a slot: first of the mapping given, else a random entry of LEXICON. An entry may itself hold choices and slots. No pattern
names a real person or place, and none claims anything about an entity of the world that is not a fact of it.
"""

import random
import re
from collections.abc import Mapping, Sequence
from typing import TypeVar

from tasks.sample_web.data import table

V = TypeVar("V")
LEXICON: dict[str, list[str]] = table("words")["lexicon"]

_SPOT = re.compile(r"\(([^()]*)\)|\$([A-Z][a-z]*|[a-z_]+)")
_SENTENCE_START = re.compile(r"(^\"?|[.?!] \"?|[,:] \"|[.?!]\" \")([a-z])")
_VOWEL_SOUND = re.compile(r"\b(a) (?=(?!uni|use|one|once|eu)[aeiou]|hour|honest)", re.IGNORECASE)


def expand(pattern: str, rng: random.Random, slots: Mapping[str, str]) -> str:
    """Make all choices and fill all slots. Raises KeyError for a slot that is neither given nor in LEXICON."""

    def choose(spot: re.Match[str]) -> str:
        choices, slot = spot.groups()
        if slot is None:
            return rng.choice(str(choices).split("|"))
        return slots[slot] if slot in slots else rng.choice(LEXICON[slot])

    while "(" in pattern or "$" in pattern:
        pattern = _SPOT.sub(choose, pattern)
    return pattern


def tidy(text: str) -> str:
    """The text with capital letters at the start of sentences and quotations, and "an" before vowels."""
    text = _VOWEL_SOUND.sub(r"\1n ", text)
    return _SENTENCE_START.sub(lambda start: start[1] + start[2].upper(), text)


def say(pattern: str, rng: random.Random, slots: Mapping[str, str] | None = None) -> str:
    """One or more finished sentences from a pattern."""
    return tidy(expand(pattern, rng, slots or {}))


def capitalize(text: str) -> str:
    """The text with its first letter in upper case; the other letters stay."""
    return text[:1].upper() + text[1:]


def possessive(name: str) -> str:
    """Jonas' or Ada's."""
    return f"{name}'" if name.endswith("s") else f"{name}'s"


def deal(rng: random.Random, entries: Sequence[V], count: int) -> list[V]:
    """`count` entries in random order. No entry occurs a second time before all have occurred once."""
    return [entry for _ in range(-(-count // len(entries))) for entry in rng.sample(entries, len(entries))][:count]


def rename(text: str, renamed: Mapping[str, str]) -> str:
    """The text with other names, as whole words; in lower case where it has them in lower case."""
    both = {name.lower(): other.lower() for name, other in renamed.items()} | dict(renamed)
    # Long names first: a first name is a part of a name.
    names = "|".join(map(re.escape, sorted(both, key=len, reverse=True)))
    return re.sub(rf"\b({names})\b", lambda found: both[found[1]], text)


def misspell(text: str, rng: random.Random, kept: Sequence[str] = ()) -> str:
    """The text with one typing mistake, as in a hurry: a letter lost, doubled, or two letters exchanged.

    The mistake is in a word of at least four letters, never in a name of `kept`: a question with another name asks for another entity.
    """
    names = {word for name in kept for word in name.lower().split()}
    words = text.split(" ")
    places = [n for n, word in enumerate(words) if len(word) > 3 and word.isalpha() and word.lower() not in names]
    if not places:
        return text
    place = rng.choice(places)
    word = words[place]
    letter = rng.randrange(1, len(word) - 1)
    words[place] = rng.choice(
        (
            word[:letter] + word[letter + 1 :],
            word[:letter] + word[letter] + word[letter:],
            word[:letter] + word[letter + 1] + word[letter] + word[letter + 2 :],
        )
    )
    return " ".join(words)


NUMBER_WORDS: list[str] = table("words")["numbers"]


def in_words(number: int) -> str:
    """A number from 0 to 99 in words."""
    tens, ones = divmod(number, 10)
    if number < len(NUMBER_WORDS):
        return NUMBER_WORDS[number]
    ten = str(table("words")["tens"][tens])
    return f"{ten}-{NUMBER_WORDS[ones]}" if ones else ten
