"""What is measured of a text, and the limits outside of which it is dropped.

Pure functions. The measures are those of Gopher (Rae et al. 2021, table A1 and section A.1.1), C4 (Raffel et al. 2020,
section 2.2) and FineWeb (Penedo et al. 2024), with FineWeb's thresholds. All are measured of every text, and decided
after.

A measure, its limits and the reason have one name: `max_gopher_hash_fraction` is the most that `gopher_hash_fraction`
may be, and a document above it is dropped for quality/gopher_hash_fraction. Limits are inclusive.

It departs from datatrove's code in this: words and sentences are split by patterns and not by spaCy, an n-gram that
comes once is not the most repeated one, and a line may also end in a curly quote.
"""

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import Field

from tasks.artifacts import Config

Attributes = dict[str, float]
LONGEST = 1_000_000  # characters, or a page of single marks would take gigabytes

MEASURES = (
    "gopher_duplicate_paragraph_fraction",
    "gopher_duplicate_paragraph_character_fraction",
    "gopher_duplicate_line_fraction",
    "gopher_duplicate_line_character_fraction",
    *(f"gopher_top_{n}_gram_fraction" for n in (2, 3, 4)),
    *(f"gopher_repeated_{n}_gram_fraction" for n in range(5, 11)),
    "gopher_words",
    "gopher_mean_word_length",
    "gopher_hash_fraction",
    "gopher_ellipsis_fraction",
    "gopher_bullet_line_fraction",
    "gopher_ellipsis_line_fraction",
    "gopher_alphabetic_word_fraction",
    "gopher_stop_words",
    "c4_lorem_ipsum_lines",
    "c4_brace_lines",
    "c4_sentences",
    "fineweb_ended_line_fraction",
    "fineweb_short_line_fraction",
    "fineweb_duplicate_character_fraction",
    "fineweb_newline_fraction",
)
"""In the order in which they are decided."""


def fraction(default: float, description: str) -> float:
    limit: float = Field(default, ge=0, le=1, description=description)
    return limit


class QualityConfig(Config):
    """The limits. FineWeb's values are the defaults."""

    max_gopher_duplicate_paragraph_fraction: float = fraction(0.30, "Paragraphs that repeat an earlier one, of all.")
    max_gopher_duplicate_paragraph_character_fraction: float = fraction(0.20, "Characters in repeated paragraphs.")
    max_gopher_duplicate_line_fraction: float = fraction(0.30, "Lines that repeat an earlier one, of all.")
    max_gopher_duplicate_line_character_fraction: float = fraction(0.20, "Characters in repeated lines.")
    max_gopher_top_2_gram_fraction: float = fraction(0.20, "Characters in the most frequent pair of words.")
    max_gopher_top_3_gram_fraction: float = fraction(0.18, "Characters in the most frequent three words in a row.")
    max_gopher_top_4_gram_fraction: float = fraction(0.16, "Characters in the most frequent four words in a row.")
    max_gopher_repeated_5_gram_fraction: float = fraction(0.15, "Characters in repeated runs of five words.")
    max_gopher_repeated_6_gram_fraction: float = fraction(0.14, "Characters in repeated runs of six words.")
    max_gopher_repeated_7_gram_fraction: float = fraction(0.13, "Characters in repeated runs of seven words.")
    max_gopher_repeated_8_gram_fraction: float = fraction(0.12, "Characters in repeated runs of eight words.")
    max_gopher_repeated_9_gram_fraction: float = fraction(0.11, "Characters in repeated runs of nine words.")
    max_gopher_repeated_10_gram_fraction: float = fraction(0.10, "Characters in repeated runs of ten words.")
    min_gopher_words: int = Field(50, ge=0, description="Words that are not only punctuation.")
    max_gopher_words: int = Field(100_000, ge=1, description="Words that are not only punctuation.")
    min_gopher_mean_word_length: float = Field(3, ge=0, description="Mean length of these words, in characters.")
    max_gopher_mean_word_length: float = Field(10, ge=0, description="Mean length of these words, in characters.")
    max_gopher_hash_fraction: float = fraction(0.1, "Hash signs for each word.")
    max_gopher_ellipsis_fraction: float = fraction(0.1, "Ellipses for each word.")
    max_gopher_bullet_line_fraction: float = fraction(0.9, "Lines that start with a bullet.")
    max_gopher_ellipsis_line_fraction: float = fraction(0.3, "Lines that end with an ellipsis.")
    min_gopher_alphabetic_word_fraction: float = fraction(0.8, "Words with a letter in them, of all and punctuation.")
    min_gopher_stop_words: int = Field(2, ge=0, description="How many of the stop words there must be.")
    stop_words: list[str] = Field(
        ["the", "be", "to", "of", "and", "that", "have", "with"],
        description="Gopher's frequent words, as written. Give those of the language where it is not English.",
    )
    keep_c4_citations: bool = Field(False, description="Leave [1], [edit] and [citation needed] in the text.")
    keep_c4_unended_lines: bool = Field(True, description="Keep lines that do not end in a full stop or the like.")
    max_c4_word_length: int = Field(1000, ge=1, description="A line with a longer word is removed, in characters.")
    min_c4_line_words: int = Field(3, ge=0, description="A line with fewer words is removed.")
    keep_c4_javascript_lines: bool = Field(False, description="Keep lines that name JavaScript.")
    keep_c4_policy_lines: bool = Field(False, description="Keep lines on terms, privacy and cookies.")
    max_c4_lorem_ipsum_lines: int = Field(0, ge=0, description="Lines of the printers' filler text.")
    max_c4_brace_lines: int = Field(0, ge=0, description="Lines with a curly brace. More lets pages about code pass.")
    min_c4_sentences: int = Field(5, ge=0, description="Sentences in the lines that are left.")
    min_fineweb_ended_line_fraction: float = fraction(0.12, "Lines that end as a sentence does.")
    max_fineweb_short_line_fraction: float = fraction(0.67, "Lines of at most 30 characters.")
    max_fineweb_duplicate_character_fraction: float = fraction(0.01, "Characters in repeated lines.")
    max_fineweb_newline_fraction: float = fraction(0.3, "Line ends for each word.")


def broken_rule(attributes: Attributes, config: QualityConfig) -> str | None:
    """The first measure that is outside its limits."""
    for name in MEASURES:
        low, high = getattr(config, f"min_{name}", -math.inf), getattr(config, f"max_{name}", math.inf)
        if not low <= attributes[name] <= high:
            return name
    return None


def measure(text: str, config: QualityConfig) -> tuple[str, Attributes]:
    """The text that C4's rules for lines leave, and all measures: Gopher's of the whole text, FineWeb's of what is left.

    Of a text of more than LONGEST characters Gopher's are those of its start: it has too many words in any case.
    """
    start = text[:LONGEST]
    words = split_words(start)
    left, c4 = clean_lines(text, config)
    num_words_left = len(words if left == start else split_words(left))
    gopher = repetition(start, words) | gopher_quality(start, words, config.stop_words)
    return left, gopher | c4 | fineweb_quality(left, num_words_left)


# Words, much as spaCy splits English: an address, initials, letters and digits with what joins them (3.14, IL-3, and/or),
# what follows an apostrophe, dots or dashes in a row, one mark
WORD = re.compile(
    r"(?:https?://|www\.)\S+|(?:[^\W\d_]\.)+(?!\w)"
    r"|\w+(?:(?:[.@&/\xad\u200b-\u200d]|[:,](?=\d)|(?<=[^\W\d])-(?=\d))\w+)*"
    r"|(?<=\w)['’]\w+|\.{2,}|-{2,}|[^\w\s]"
)
LETTER = re.compile(r"[^\W\d_]")


def split_words(text: str) -> list[str]:
    return WORD.findall(text)


# Gopher: repetition

PARAGRAPH_END = re.compile(r"\n{2,}")
LINE_END = re.compile(r"\n+")


def repetition(text: str, words: Sequence[str]) -> Attributes:
    """How much of a text repeats itself, as fractions of its paragraphs, lines and characters."""
    num_characters = max(len(text), 1)
    measures: Attributes = {}
    for kind, end in (("paragraph", PARAGRAPH_END), ("line", LINE_END)):
        parts = end.split(text.strip())
        num_repeated, repeated_characters = duplicates(parts)
        measures[f"gopher_duplicate_{kind}_fraction"] = num_repeated / len(parts)
        measures[f"gopher_duplicate_{kind}_character_fraction"] = repeated_characters / num_characters
    places: Sequence[int] = range(len(words))
    for n in range(2, 11):
        grams, places = repeated_grams(words, places, n)
        if n < 5:
            measures[f"gopher_top_{n}_gram_fraction"] = top_gram_characters(grams, n) / num_characters
        else:
            characters = repeated_gram_characters(grams, places, n)
            measures[f"gopher_repeated_{n}_gram_fraction"] = characters / num_characters
    return measures


def duplicates(parts: Iterable[str]) -> tuple[int, int]:
    """How many of `parts` repeat an earlier one, and their characters."""
    repeated = [(part, num - 1) for part, num in Counter(parts).items() if num > 1]
    return sum(num for _, num in repeated), sum(num * len(part) for part, num in repeated)


Gram = tuple[str, ...]


def repeated_grams(words: Sequence[str], places: Sequence[int], n: int) -> tuple[list[Gram], list[int]]:
    """The n-grams that occur more than once, and where. `places`: of all repeated (n-1)-grams, in which they must begin."""
    grams: Sequence[Gram]
    if n == 2:  # of all places, and three times as fast as the slices
        grams = list(itertools.pairwise(words))
    else:
        grams = [tuple(words[place : place + n]) for place in places if place + n <= len(words)]
    nums = Counter(grams)
    repeated = [(gram, place) for gram, place in zip(grams, places, strict=False) if nums[gram] > 1]
    return [gram for gram, _ in repeated], [place for _, place in repeated]


def top_gram_characters(grams: Sequence[Gram], n: int) -> int:
    """The characters in all occurrences of the most frequent n-gram, joined by spaces."""
    if not grams:
        return 0
    [(gram, num)] = Counter(grams).most_common(1)
    return num * (sum(map(len, gram)) + n - 1)


def repeated_gram_characters(grams: Sequence[Gram], places: Sequence[int], n: int) -> int:
    """The characters of every n-gram that was seen before. The scan goes on behind it, so that no word counts twice."""
    seen: set[Gram] = set()
    characters = free = 0
    for gram, place in zip(grams, places, strict=True):
        if place < free:
            continue
        if gram in seen:
            characters += sum(map(len, gram))
            free = place + n
        else:
            seen.add(gram)
    return characters


# Gopher: quality

ELLIPSES = ("...", "…")
BULLETS = ("•", "-")


def gopher_quality(text: str, words: Sequence[str], stop_words: Iterable[str]) -> Attributes:
    """Counts and fractions that tell prose from what is none. `words` with the punctuation."""
    spoken = [word for word in words if word[0].isalnum() or word[-1].isalnum()]
    lines = text.splitlines() or [""]
    num_words = max(len(words), 1)
    num_with_letter = sum(1 for word in spoken if word.isalpha() or LETTER.search(word))
    return {
        "gopher_words": len(spoken),
        "gopher_mean_word_length": sum(map(len, spoken)) / max(len(spoken), 1),
        "gopher_hash_fraction": text.count("#") / num_words,
        "gopher_ellipsis_fraction": sum(map(text.count, ELLIPSES)) / num_words,
        "gopher_bullet_line_fraction": sum(line.lstrip().startswith(BULLETS) for line in lines) / len(lines),
        "gopher_ellipsis_line_fraction": sum(line.rstrip().endswith(ELLIPSES) for line in lines) / len(lines),
        "gopher_alphabetic_word_fraction": num_with_letter / num_words,
        "gopher_stop_words": len(set(stop_words).intersection(words)),
    }


# C4: line by line

CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
C4_ENDS = (".", "?", "!", '"', "'", "”", "’")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
SENTENCE_END = re.compile(
    r"[.!?…](?<!\bDr.)(?<!\bM[rs].)(?<!\bMrs.)(?<!\bSt.)[\"'”’)\]]*\s+(?=[^a-z\s])|[。！？]+(?=.)"
)


def clean_lines(text: str, config: QualityConfig) -> tuple[str, Attributes]:
    """The lines of `text` that pass C4's rules, and what was counted in them."""
    lines: list[str] = []
    num_filler = num_braces = num_sentences = 0
    for given in text.splitlines():
        line = c4_line(given.strip(), config)
        if line is None:
            continue
        lowered = line.lower()
        num_filler += "lorem ipsum" in lowered
        if "javascript" in lowered and not config.keep_c4_javascript_lines:
            continue
        num_braces += "{" in line
        if not config.keep_c4_policy_lines and any(policy in lowered for policy in POLICIES):
            continue
        num_sentences += 1 + len(SENTENCE_END.findall(line))
        lines.append(line)
    counts = {"c4_lorem_ipsum_lines": num_filler, "c4_brace_lines": num_braces, "c4_sentences": num_sentences}
    return "\n".join(lines), {name: float(count) for name, count in counts.items()}


def c4_line(line: str, config: QualityConfig) -> str | None:
    """`line` without citations, or None where it is too short, not ended, or holds a word too long."""
    words = line.split()
    if len(words) < config.min_c4_line_words or (
        len(line) > config.max_c4_word_length and max(map(len, words)) > config.max_c4_word_length
    ):
        return None
    if not config.keep_c4_citations:
        line = CITATION.sub("", line)
    is_ended = line.endswith(C4_ENDS) and not line.endswith("...")
    return line if is_ended or config.keep_c4_unended_lines else None


# FineWeb

SENTENCE_ENDS = tuple(".!?…‼⁇⁈⁉。．！？｡﹒﹗﹖؟۔\u0589।॥።፧፨។៕᠃᠉။༎")
SHORT_LINE_CHARACTERS = 30


def fineweb_quality(text: str, num_words: int) -> Attributes:
    """Fractions of the lines that are not empty, and of their characters."""
    lines = [line for line in text.split("\n") if line.strip()]
    num_lines = max(len(lines), 1)
    num_newlines = text.count("\n")
    return {
        "fineweb_ended_line_fraction": sum(line.endswith(SENTENCE_ENDS) for line in lines) / num_lines,
        "fineweb_short_line_fraction": sum(len(line) <= SHORT_LINE_CHARACTERS for line in lines) / num_lines,
        "fineweb_duplicate_character_fraction": duplicates(lines)[1] / max(len(text) - num_newlines, 1),
        "fineweb_newline_fraction": num_newlines / max(num_words, 1),
    }
