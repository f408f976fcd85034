"""The other languages of the sample web: small grammars of German, French, Spanish and Russian.

Reads data/foreign.yaml; writes nothing. A sentence is a time, a subject, a verb with its object, a place and sometimes a reason, each
drawn from a table, in the word order of the language. The same file has what a site of each language prints around its text.
"""

import random
from typing import Any

from tasks.sample_web.data import table
from tasks.sample_web.grammar import capitalize

LANGUAGES: dict[str, Any] = table("foreign")["languages"]
PARTS = ("time", "subject", "verb", "object", "place", "reason")


def write_foreign(language: str, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """A title and two to four paragraphs, 90 to 200 words in all."""
    num_words = rng.randint(95, 175)
    sentences: list[str] = []
    while sum(len(sentence.split()) for sentence in sentences) < num_words:
        sentences.append(write_sentence(language, rng))
    cuts = sorted(rng.sample(range(2, len(sentences) - 1), rng.randint(1, 3)))
    paragraphs = [" ".join(sentences[a:b]) for a, b in zip([0, *cuts], [*cuts, len(sentences)], strict=True)]
    title = " ".join(_draw(language, part, rng) for part in ("subject", "verb", "object"))
    return capitalize(title), tuple(paragraphs)


def write_sentence(language: str, rng: random.Random) -> str:
    """A sentence of a language."""
    slots = {part: _draw(language, part, rng) for part in PARTS}
    return capitalize(rng.choice(LANGUAGES[language]["patterns"]).format(**slots)) + "."


def _draw(language: str, part: str, rng: random.Random) -> str:
    return str(rng.choice(LANGUAGES[language][f"{part}s"]))
