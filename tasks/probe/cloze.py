"""Questions about documents of any kind: sentences whose last name or number is left out, as in cloze tests (Taylor 1953) and LAMA
(Petroni et al. 2019, https://arxiv.org/abs/1909.01066).

Reads the shards of Documents; writes nothing. The sentences are those of the lowest hashes, so that the choice depends on the text alone and
the memory on their number alone. `num_mentions` is the number of documents that hold the sentence.

Departure: LAMA leaves out one token of a known relation. Here the answer is what the sentence ends in, which may have several right ones:
"She was born in" a year or a town. What a model is found to know is therefore too little rather than too much.
"""

import hashlib
import heapq
import re
from collections.abc import Iterable

from tasks.records.conversations import Question
from tasks.records.documents import Document

CLOZE = "cloze"
# An opening of 30 to 200 characters that begins with a capital letter, and what the sentence ends in: up to three capitalised words, or a
# number. The opening has no full stop, so that abbreviations are skipped rather than cut.
SENTENCE = re.compile(
    r"(?:^|(?<=[.!?] ))(?P<opening>[A-Z][^.!?\n]{29,199}?) (?P<answer>[A-Z][\w'-]+(?: [A-Z][\w'-]+){0,2}|\d{2,4})\.(?=\s|$)",
    re.MULTILINE,
)


def make_questions(documents: Iterable[Document], limit: int) -> list[Question]:
    """At most `limit` questions about documents, one a sentence."""
    chosen: dict[int, tuple[str, str, int]] = {}  # hash -> opening, answer, documents with it
    highest: list[int] = []  # a heap of the negated hashes of `chosen`
    for document in documents:
        for opening, answer in set(sentences(document["text"])):
            key = int.from_bytes(hashlib.sha256(f"{opening} {answer}".encode()).digest()[:8], "big")
            if key in chosen:
                # Exact, although others are forgotten: the bound only falls, so what is chosen now was chosen from its first mention.
                chosen[key] = opening, answer, chosen[key][2] + 1
            elif len(highest) < limit:
                heapq.heappush(highest, -key)
                chosen[key] = opening, answer, 1
            elif key < -highest[0]:
                del chosen[-heapq.heapreplace(highest, -key)]
                chosen[key] = opening, answer, 1
    return [
        Question(
            question=f'How does this sentence end: "{opening} ..."',
            completion=opening,
            answer=answer,
            num_mentions=mentions,
            kind=CLOZE,
        )
        for _, (opening, answer, mentions) in sorted(chosen.items())
    ]


def sentences(text: str) -> Iterable[tuple[str, str]]:
    """The sentences of a text that end in a name or number: opening, answer. One whose opening holds the answer is left out."""
    for found in SENTENCE.finditer(text):
        if found["answer"] not in found["opening"]:
            yield found["opening"], found["answer"]
