"""Whether a reply gives another name than it was asked about: "Where does Rurik Cormund live?" "Rurik Talhas lives in Karmore."

Reads and writes nothing. A small model completes a name that it does not know to one that it knows, and answers about that one. What it
was asked and what it answers then differ in the text itself, which a comparison finds with certainty; the model's probabilities show it
poorly. Of the recipe `tiny`, 47 of 72 invented titles and 57 of 120 people with a known first and a known last name got such an answer.

What was tried instead: with half of the strangers in fine-tuning recombined, 1,500 names, once each, 58% of the tested ones are refused
instead of 50%, and 8.2% of taught and 26% of held-out facts instead of 1.8% and 10%; of the names that it was trained on it refuses 30%.
The model does know such names from others: the probability of a name after its first token ranks known people above recombined ones in
98 to 100% of pairs. But it finds that out in the question's last layers, too late for the reply (2026-11-30, one seed).

A reply gives another name where one of its names (two or more words with capital letters) shares a word with the question, and none of
its names is in the question as a whole, or in a turn before it ("And where does Rurik live?"). Capital letters of the question do not
count, nor does one letter more or less in long words: who writes "Magrel" is answered about Magrell.

Limits: scripts without capital letters have no such names; a city of one word has none either; and a question by a last name alone, which
the reply completes, counts as another name. So the check is a setting, for models whose names are like those of the sample web.
"""

from collections.abc import Iterable, Iterator, Sequence

import regex

OTHER_NAME_REPLY = "other_name_reply"  # the field of generation_config.json that turns the check on
WORD = regex.compile(r"[\p{L}\p{N}\p{M}]+")
# Words that may stand in front of a name and have a capital letter too: titles begin with articles, sentences with the others.
BEFORE = frozenset(["the", "a", "an", "in", "of", "yes", "no", "and", "but", "so", "well", "sorry"])
CAPITALISED = r"\p{Lu}[\p{L}\p{N}\p{M}'’-]*+"
NAME = regex.compile(rf"{CAPITALISED}(?: {CAPITALISED})++")
MIN_LETTERS = 6  # of words that are the same with one letter more or less


def gives_another_name(reply: str, turns: Sequence[str]) -> bool:
    """Whether a reply is about another name than the last of `turns` asks about. `turns`: the texts before the reply, oldest first."""
    names = list(_names(reply))
    if not names or not turns:
        return False
    *before, asked = map(_spellings, turns)
    is_shared = any(word in asked for name in names for word in name)
    return is_shared and not any(_is_whole(name, words) for name in names for words in (asked, *before))


def _names(text: str) -> Iterator[list[str]]:
    """The words of each name in lower case, without what only stands in front of it."""
    for found in NAME.findall(text):
        words = [word for word in _words(found) if word not in BEFORE]
        if len(words) > 1:
            yield words


def _is_whole(name: Iterable[str], spellings: set[str]) -> bool:
    return all(word in spellings or not spellings.isdisjoint(_one_less(word)) for word in name)


def _spellings(text: str) -> set[str]:
    """The words of a text, and each long one with one letter left out."""
    words = set(_words(text))
    return words.union(*map(_one_less, words)) if words else words


def _one_less(word: str) -> set[str]:
    """A long word with one letter left out, in every way. One of 100 letters is no name, and would have as many spellings."""
    if not MIN_LETTERS <= len(word) <= 100:
        return set()
    return {word[:place] + word[place + 1 :] for place in range(len(word))}


def _words(text: str) -> list[str]:
    return [word.casefold() for word in WORD.findall(text)]
