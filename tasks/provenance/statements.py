"""Statements of a fact: the documents with a sentence that names what a question asks about, and the answer.

Reads full-text indexes and the training data's word counts; writes nothing. A document states the fact where one sentence has the answer and
each name of the question (a part of it, once the whole stood before), or has the answer and a pronoun after a sentence that has the names
("Ada moved. She lives in Orn."): the simplest rule that separates several people of one page. The relation itself is not compared: "born in Orn" counts for "lives in Orn" too.
Kandpal et al. 2023 (https://arxiv.org/abs/2211.08411) count documents with both entities; a sentence is stricter.

The names of a question are its capitalised words. A question may be typed in lower case: then neighbouring words that the training data has
with capitals, or the rarest one that it mostly writes with a capital.
"""

import re
from collections.abc import Callable, Iterator, Sequence

from tasks.provenance.spans import STOP_WORDS, WORD, Searchable
from tasks.records.excerpts import SENTENCE_END
from tasks.records.full_text import FullTextIndex, IndexedText, Kind

PRONOUNS = frozenset({"he", "she", "it", "they", "his", "her", "its", "their", "him", "them"})
MAX_DOCUMENTS = 2_000
MAX_NAMES = 4
MAX_NAME_WORDS = 4
MAX_QUESTION_CHARACTERS = 2_000
ARTICLE = re.compile(r"^(the|an?)\s+", re.IGNORECASE)


def names(question: str, data: Searchable) -> list[str]:
    """What a question asks about: names of one or more words in the order of the question."""
    # Its last sentence of two words or more: what stands before is a greeting or a frame.
    parts = SENTENCE_END.split(question := question[:MAX_QUESTION_CHARACTERS])
    asked = next((part for part in reversed(parts) if len(WORD.findall(part)) > 1), question)
    words = [match for match in WORD.finditer(asked) if match[0].lower() not in STOP_WORDS]
    found = [" ".join(run) for run in runs(words, lambda match: match[0][0].isupper()) if run]
    # The first word has a capital whatever it is; it is part of a name only before another one.
    if words and words[0].start() == 0 and found and found[0] == words[0][0]:
        found.pop(0)
    return (found or _lower_case_names(words, data))[:MAX_NAMES]


def runs(words: Sequence[re.Match[str]], is_part: Callable[[re.Match[str]], bool]) -> Iterator[list[str]]:
    """Neighbouring words, of which only a blank separates two, that are parts of a name."""
    run: list[str] = []
    end = -1
    for match in words:
        if run and (match.start() != end + 1 or not is_part(match)):
            yield run
            run = []
        if is_part(match):
            run.append(match[0])
        end = match.end()
    yield run


def _lower_case_names(words: Sequence[re.Match[str]], data: Searchable) -> list[str]:
    """Names without capitals: neighbouring words that the training data has with capitals, else the rarest that it has so, or not at all."""
    found: list[str] = []
    for run in runs(words, lambda match: match[0][0].isalpha()):
        found += _written_together(run, data)
    if found:
        return found
    rare = sorted(((data.count_word(match[0].lower().encode()), match[0]) for match in words), key=lambda pair: pair[0])
    written = [word for count, word in rare if data.count_word(word.capitalize().encode()) > count]
    return written[:1] or [word for _, word in rare[:1]]


def _written_together(run: Sequence[str], data: Searchable) -> Iterator[str]:
    """The longest parts of a run of words, of two or more, that stand somewhere with capitals."""
    first = 0
    while first < len(run) - 1:
        for last in range(min(len(run), first + MAX_NAME_WORDS), first + 1, -1):
            name = " ".join(word.capitalize() for word in run[first:last])
            if data.count_word(name.encode()):
                yield name
                first = last - 1
                break
        first += 1


def statements(
    index: FullTextIndex, subjects: Sequence[str], answers: Sequence[str], kinds: Sequence[Kind]
) -> Iterator[tuple[IndexedText, str]]:
    """The records that state a fact, each once, with the sentence."""
    seen: set[str] = set()
    for answer in dict.fromkeys(ARTICLE.sub("", answer.strip()) for answer in answers):
        if not answer:
            continue
        for record in index.with_phrases([*(_rarest(name) for name in subjects), answer], kinds, MAX_DOCUMENTS):
            sentence = stating(record.text, subjects, answer)
            if sentence and record.id not in seen:
                seen.add(record.id)
                yield record, sentence


def _rarest(name: str) -> str:
    """The part of a name by which records are found: its last word, as pages use last names and first names alone."""
    return name.rsplit(maxsplit=1)[-1]


def stating(text: str, subjects: Sequence[str], answer: str) -> str:
    """The first sentence of a text that states the answer about all subjects; "" where none does."""
    full = [f" {' '.join(WORD.findall(name.lower()))} " for name in subjects]
    phrase = f" {' '.join(WORD.findall(answer.lower()))} "
    is_known = [False] * len(full)  # whether the whole name stood before: a part of it is then enough
    is_open = False  # whether a pronoun stands for the subjects
    for sentence in SENTENCE_END.split(text):
        words = WORD.findall(sentence.lower())
        joined = f" {' '.join(words)} "
        is_whole = [name in joined for name in full]
        is_known = [known or whole for known, whole in zip(is_known, is_whole, strict=True)]
        is_part = [
            known and not set(name.split()).isdisjoint(words) for known, name in zip(is_known, full, strict=True)
        ]
        is_open = all(is_part) or (is_open and not PRONOUNS.isdisjoint(words))
        if is_open and phrase in joined:
            return sentence.strip()
    return ""
