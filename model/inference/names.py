"""Whether a reply gives another name than it was asked about: "Where does Rurik Cormund live?" "Rurik Talhas lives in Karmore."

Reads and writes nothing. A small model completes a name that it does not know to one that it knows, and answers about that one. What it
was asked and what it answers then differ in the text itself, and need only be compared; the reply's probability shows it poorly. Of the
recipe `tiny`, questions about 36 of 72 new titles and 53 of 120 people with a known first and a known last name got such an answer.

A reply gives another name where one of its names (two or more words with capital letters) shares a word with the question or a turn before
it ("And where does Rurik live?"), and none of its names is in one of them as a whole. Capital letters of the question do not count, nor
does one letter more or less in a long word: who writes "Magrel" is answered about Magrell.

Limits: scripts without capital letters have no such names; a city of one word has none either; and a question by a last name alone, which
the reply completes, counts as another name. So the check is a setting, for models whose names are like those of the sample web.

What was tried besides (2026-11-30, one seed each). Replies that name nothing of the question at all count too: then all of 432 strangers are
refused, and 3.0% of taught and 20% of held-out facts, which had been answered about others; but on the web a good reply need not repeat
the question. Fine-tuning in which half of the strangers have recombined names, 1,500 of them: 58% of those tested are refused instead of
50%, with 8.2% of taught and 26% of held-out facts instead of 1.8 and 10%; even of the names in the training 30%. Yet the base model can tell
them apart: the probability of a name after its first token is higher for a known person than for a recombined one in 99% of pairs.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import regex

OTHER_NAME_REPLY = "other_name_reply"  # the field of generation_config.json that turns the check on
WORD = regex.compile(r"[\p{L}\p{N}\p{M}]+")
# Words that may stand in front of a name and have a capital letter too: titles begin with articles, sentences with the others.
BEFORE = frozenset(["the", "a", "an", "in", "of", "yes", "no", "and", "but", "so", "well", "sorry"])
CAPITALISED = r"\p{Lu}[\p{L}\p{N}\p{M}'’-]*+"
NAME = regex.compile(rf"{CAPITALISED}(?: {CAPITALISED})++")
MIN_LETTERS = 6  # of words that are the same with one letter more or less
# What is compared of a long reply and a long conversation, so that a stranger's request costs a server some milliseconds.
MAX_NAMES, MAX_CHARACTERS = 16, 20_000


def checked(reply: str, messages: Iterable[Mapping[str, Any]], said: str) -> str:
    """A reply, or `said` instead of one about another name than its conversation; "" leaves all as they are."""
    turns = [message["content"] for message in messages if message["role"] in ("user", "assistant")]
    return said if said and gives_another_name(reply, turns) else reply


def gives_another_name(reply: str, turns: Sequence[str]) -> bool:
    """Whether a reply is about another name than the conversation. `turns`: the texts before the reply."""
    names = list(islice(_names(reply), MAX_NAMES))
    asked = [set(_words(turn)) for turn in _last(turns)] if names else []
    if not any(word in words for words in asked for name in names for word in name):
        return False
    shorter: list[set[str]] = [set().union(*map(_one_less, words)) for words in asked]
    return not any(_is_whole(name, *words) for words in zip(asked, shorter, strict=True) for name in names)


def _last(turns: Sequence[str]) -> Iterator[str]:
    """The turns that lie within the last MAX_CHARACTERS, newest first; the oldest of them is cut."""
    left = MAX_CHARACTERS
    for turn in reversed(turns):
        if not left:
            return
        yield turn[-left:]
        left -= min(left, len(turn))


def _names(text: str) -> Iterator[list[str]]:
    """The words of each name in lower case, without what only stands in front of it."""
    for found in NAME.findall(text):
        words = [word for word in _words(found) if word not in BEFORE]
        if len(words) > 1:
            yield words


def _is_whole(name: Iterable[str], asked: set[str], shorter: set[str]) -> bool:
    """Whether all words of a name were asked about. `shorter`: what was asked, with one letter left out."""
    return all(word in asked or word in shorter or not asked.isdisjoint(_one_less(word)) for word in name)


def _one_less(word: str) -> set[str]:
    """A long word with one letter left out, in every way. One of 100 letters is no name, and would have as many spellings."""
    if not MIN_LETTERS <= len(word) <= 100:
        return set()
    return {word[:place] + word[place + 1 :] for place in range(len(word))}


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text)]
