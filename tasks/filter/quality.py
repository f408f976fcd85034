"""Quality rules: the attributes of a text, and the limits outside of which it is dropped.

Pure functions. The attributes are those of Gopher (Rae et al. 2021, table A1 and section A.1.1), C4 (Raffel et al. 2020,
section 2.2) and FineWeb (Penedo et al. 2024), with FineWeb's thresholds. All are computed of every text, and decided
after.

An attribute, its limits and the reason have one name: `max_gopher_hash_fraction` is the most that `gopher_hash_fraction`
may be, and a document above it is dropped for quality/gopher_hash_fraction. Limits are inclusive.

It departs from datatrove's code in this: words and sentences are split by patterns and not by spaCy, an n-gram that
comes once is not the most repeated one, and a line may also end in a curly quote. What a language changes is less than
in FineWeb-2 (Penedo et al. 2025), which also fits limits to each: stop words, and how words are counted where a script
has no spaces (tasks/web/language_id.py).
"""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import Field

from model.config import Config
from tasks.web.language_id import ATTACHED, STOP_WORDS, UNSPACED

Attributes = dict[str, float]
LONGEST = 1_000_000  # characters, or a page of single marks would take gigabytes

ATTRIBUTE_NAMES = (
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
"""In the order in which they are compared with their limits; the first that is outside is the reason."""


def fraction(default: float, description: str) -> float:
    """A limit of a fraction, in 0..1."""
    limit: float = Field(default, ge=0, le=1, description=description)
    return limit


class TextRules(Config):
    """What shapes the attributes: which lines are left, and which words count."""

    stop_words: dict[str, list[str]] = Field(
        {},
        description="Frequent words by language, as written, where others are wanted than those of tasks/web/language_id.py. "
        "In a language with none, min_gopher_stop_words does not apply.",
    )
    keep_c4_citations: bool = Field(False, description="Leave [1], [edit] and [citation needed] in the text.")
    # C4 removes lines without a final punctuation mark. FineWeb left this one rule of C4 out, since it alone removed about 30% of all
    # tokens (Penedo et al. 2024, section 3.5), and has min_fineweb_ended_line_fraction in its place
    keep_c4_unended_lines: bool = Field(True, description="Keep lines that do not end in a full stop or the like.")
    # The values are those of datatrove's C4QualityFilter, which FineWeb ran. The rules on long words and on policies are in C4's code
    # and not in its paper
    max_c4_word_length: int = Field(1000, ge=1, description="A line with a longer word is removed, in characters.")
    min_c4_line_words: int = Field(3, ge=0, description="A line with fewer words is removed.")
    keep_c4_javascript_lines: bool = Field(False, description="Keep lines that name JavaScript.")
    keep_c4_policy_lines: bool = Field(False, description="Keep lines on terms, privacy and cookies.")


class QualityLimits(Config):
    """The limits. FineWeb's values are the defaults."""

    # Rae et al. 2021, table A1: repetition within a document
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
    # Rae et al. 2021, section A.1.1: what prose looks like. Lists, navigation and tables fail on words, bullets and stop words
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
    # Raffel et al. 2020, section 2.2: pages with filler text or a curly brace, which is rare in prose and common in code
    max_c4_lorem_ipsum_lines: int = Field(0, ge=0, description="Lines of the printers' filler text.")
    max_c4_brace_lines: int = Field(0, ge=0, description="Lines with a curly brace. More lets pages about code pass.")
    min_c4_sentences: int = Field(5, ge=0, description="Sentences in the lines that are left.")
    # Penedo et al. 2024, section 3.6: attributes whose histograms differ between a crawl of high and one of low quality
    min_fineweb_ended_line_fraction: float = fraction(0.12, "Lines that end as a sentence does.")
    max_fineweb_short_line_fraction: float = fraction(0.67, "Lines of at most 30 characters.")
    # 0.1 in the paper, 0.01 in datatrove's FineWebQualityFilter, which made the data set: the value of the code is the default here
    max_fineweb_duplicate_character_fraction: float = fraction(0.01, "Characters in repeated lines.")
    # Not in the paper; datatrove's new_line_ratio, which drops lists of single words
    max_fineweb_newline_fraction: float = fraction(0.3, "Line ends for each word.")


def limits(name: str, config: QualityLimits) -> tuple[float, float]:
    """The least and the most that an attribute may be."""
    return getattr(config, f"min_{name}", -math.inf), getattr(config, f"max_{name}", math.inf)


def compute_attributes(text: str, language: str, rules: TextRules) -> tuple[str, Attributes]:
    """The text that C4's rules for lines leave, and all attributes: Gopher's of the whole text, FineWeb's of what is left.

    Of a text of more than LONGEST characters Gopher's are those of its start: it has too many words in any case. Two
    are not measured of every language: see gopher_quality.
    """
    # A word and its blank have some six characters in English, so that max_gopher_words, 100,000, drops what is longer.
    start = text[:LONGEST]
    # Words are split once and used by all attributes. What C4 removed is subtracted instead of counting the rest again
    words = split_words(start)
    left, num_removed, c4 = clean_and_count(text, language, rules)
    num_words_left = len(words) - num_removed if start == text else len(split_words(left))
    stop_words = rules.stop_words.get(language, STOP_WORDS.get(language, []))
    gopher = repetition(start, words) | gopher_quality(start, words, language, stop_words)
    return left, gopher | c4 | fineweb_quality(left, num_words_left)


# Words, much as spaCy splits English: an address, initials, letters and digits with what joins them (3.14, IL-3, and/or),
# what follows an apostrophe, dots or dashes in a row, one mark. Python does not count the marks that are put on a letter
# to a word, as the vowels of Hindi are. Scripts without spaces are cut in pieces of about a word's length
MARKS = "".join(filter(lambda character: unicodedata.category(character)[0] == "M", map(chr, range(0x300, 0x10000))))
WORD = re.compile(
    r"[a-zA-Z]+(?=[ \n])|[々〆\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]{1,2}"
    r"|[\u0e00-\u0fff\u1000-\u109f\u1780-\u17ff]{1,4}"
    r"|(?:https?://|www\.)\S+|(?:[^\W\d_]\.)+(?!\w)"
    rf"|\w[\w{MARKS}]*(?:(?:[.@&/\xad\u200b-\u200d]|[:,](?=\d)|(?<=[^\W\d])-(?=\d))\w[\w{MARKS}]*)*"
    r"|(?<=\w)['’]\w+|\.{2,}|-{2,}|[^\w\s]"
)
LETTER = re.compile(r"[^\W\d_]")


def split_words(text: str) -> list[str]:
    """The words and punctuation marks of a text, in order, see WORD."""
    return WORD.findall(text)


# Gopher: repetition

# Odd and far from a round number, so that the sums of words' numbers times its powers differ between n-grams (a polynomial hash
# modulo 2^64). It takes an array operation for each n, where tuples of words take a Python object for each n-gram
SPREAD = np.int64(0x1E3779B97F4A7C15)
Numbers = npt.NDArray[np.int64]


def repetition(text: str, words: Sequence[str]) -> Attributes:
    """How much of a text repeats itself, as fractions of its paragraphs, lines and characters."""
    # Divided by the characters of the whole text, line ends included, as in datatrove
    num_characters = max(len(text), 1)
    attributes: Attributes = {}
    parts = {
        "paragraph": [paragraph.lstrip("\n") for paragraph in text.strip().split("\n\n") if paragraph],
        "line": [line for line in text.strip().split("\n") if line],
    }
    for kind, texts in parts.items():
        num_repeated, repeated_characters = duplicates(texts)
        attributes[f"gopher_duplicate_{kind}_fraction"] = num_repeated / max(len(texts), 1)
        attributes[f"gopher_duplicate_{kind}_character_fraction"] = repeated_characters / num_characters
    for name, characters in repeated_characters_by_n(words).items():
        attributes[f"gopher_{name}_gram_fraction"] = characters / num_characters
    return attributes


def duplicates(parts: Iterable[str]) -> tuple[int, int]:
    """How many of `parts` repeat an earlier one, and their characters."""
    repeated = [(part, num - 1) for part, num in Counter(parts).items() if num > 1]
    return sum(num for _, num in repeated), sum(num * len(part) for part, num in repeated)


def repeated_characters_by_n(words: Sequence[str]) -> dict[str, int]:
    """The characters in the most frequent and in all repeated n-grams. An n-gram repeats only where an (n-1)-gram does."""
    characters = {f"top_{n}": 0 for n in (2, 3, 4)} | {f"repeated_{n}": 0 for n in range(5, 11)}
    numbers = {word: number for number, word in enumerate(dict.fromkeys(words))}
    ids = np.fromiter(map(numbers.__getitem__, words), np.int64, len(words))
    ends = list(accumulate(map(len, words), initial=0))
    grams, places = ids, np.arange(len(words))
    for n in range(2, 11):
        # An n-gram that repeats consists of (n-1)-grams that repeat, so that only the places of those are left from the last round.
        places = places[places + n <= len(words)]
        grams = grams[: len(places)] * SPREAD + ids[places + n - 1]
        order = grams.argsort(kind="stable")
        is_same = np.diff(grams[order]) == 0  # as the one before it, in order
        if not is_same.any():
            break
        if n < 5:
            place, num = most_frequent(places, order, is_same)
            # Its words with a blank between two of them, as datatrove joins them.
            characters[f"top_{n}"] = num * (ends[place + n] - ends[place] + n - 1)
        is_repeated = np.zeros(len(grams), bool)
        is_repeated[order[1:]] = is_same
        is_repeated[order[:-1]] |= is_same
        grams, places = grams[is_repeated], places[is_repeated]
        if n >= 5:
            characters[f"repeated_{n}"] = repeated_gram_characters(grams, places, n, ends)
    return characters


def most_frequent(places: Numbers, order: Numbers, is_same: npt.NDArray[np.bool_]) -> tuple[int, int]:
    """Where the most frequent n-gram is first, and how often it comes; of several the one that is first."""
    starts = np.flatnonzero(np.concatenate(([True], ~is_same)))
    nums = np.diff(starts, append=len(order))
    num = nums.max()
    return int(places[order[starts[nums == num]].min()]), int(num)


def repeated_gram_characters(grams: Numbers, places: Numbers, n: int, ends: Sequence[int]) -> int:
    """The characters of every n-gram that was seen before. The scan resumes after its end, so that no word counts twice."""
    # As in datatrove. Gopher asks that no character count twice where repeated n-grams overlap, and leaves open how.
    seen: set[int] = set()
    characters = free = 0
    for gram, place in zip(grams.tolist(), places.tolist(), strict=True):
        if place < free:
            continue
        if gram in seen:
            characters += ends[place + n] - ends[place]
            free = place + n
        else:
            seen.add(gram)
    return characters


# Gopher: quality

ELLIPSES = ("...", "…")
BULLETS = ("•", "-")


def gopher_quality(text: str, words: Sequence[str], language: str, stop_words: Collection[str]) -> Attributes:
    """Counts and fractions that distinguish prose from lists, tables and code. `words` with the punctuation.

    Stop words are left out where none are known, the mean length of words where the script has no spaces.
    """
    # A word has a letter or digit at one of its ends; all else is punctuation. Counted by distinct word, since these are few.
    spoken = {word: num for word, num in Counter(words).items() if word[0].isalnum() or word[-1].isalnum()}
    num_spoken, num_words = sum(spoken.values()), max(len(words), 1)
    num_with_letter = sum(num for word, num in spoken.items() if word.isalpha() or LETTER.search(word))
    lines = text.splitlines() or [""]
    # Hash signs and ellipses are counted in the text, not among words: "..." within a word counts too, as in datatrove
    attributes: Attributes = {
        "gopher_words": num_spoken,
        "gopher_hash_fraction": text.count("#") / num_words,
        "gopher_ellipsis_fraction": sum(map(text.count, ELLIPSES)) / num_words,
        "gopher_bullet_line_fraction": sum(line.lstrip().startswith(BULLETS) for line in lines) / len(lines),
        "gopher_ellipsis_line_fraction": sum(line.rstrip().endswith(ELLIPSES) for line in lines) / len(lines),
        "gopher_alphabetic_word_fraction": num_with_letter / num_words,
    }
    if language not in UNSPACED:
        num_characters = sum(num * len(word) for word, num in spoken.items())
        attributes["gopher_mean_word_length"] = num_characters / max(num_spoken, 1)
    if stop_words:
        # Where such words are written as a part of another, as Korean particles are, they are looked up in the text. Every stop word
        # counts once, however often it comes: Gopher asks for two different ones.
        among = text if language in ATTACHED else set(words)
        attributes["gopher_stop_words"] = sum(word in among for word in stop_words)
    return attributes


# C4: line by line

# Wikipedia's markers, as in C4's code
CITATION = re.compile(r"\[(?:\d*|edit|citation needed)\]")
# C4 has the five ASCII marks; curly quotes and the marks of other scripts are added
C4_ENDS = (".", "?", "!", '"', "'", "”", "’", "。", "！", "？", "।", "؟", "۔")
POLICIES = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
# The lookbehinds keep an English title from ending a sentence. A pattern needs no model for each language
SENTENCE_END = re.compile(
    r"[.!?…؟۔।](?<!\bDr.)(?<!\bM[rs].)(?<!\bMrs.)(?<!\bSt.)[\"'”’)\]]*\s+(?=[^a-z\s])|[。！？]+(?=.)"
    r"|(?<=[\u0e00-\u0fff]) (?=[\u0e00-\u0fff])"  # Thai and Lao end a sentence with a space
)


class C4Line(NamedTuple):
    """A line as it came and what C4's rules leave of it, and what C4 drops a page for."""

    given: str
    left: str
    is_filler: bool
    has_brace: bool


def clean_lines(text: str, language: str, rules: TextRules) -> str:
    """The lines of `text` that pass C4's rules."""
    return "\n".join(line.left for line in c4_lines(text, language, rules) if line.left)


def clean_and_count(text: str, language: str, rules: TextRules) -> tuple[str, int, Attributes]:
    """As `clean_lines`; and how many words of `text` are not in them, and what was counted."""
    lines: list[str] = []
    num_removed = num_filler = num_braces = num_sentences = 0
    for given, left, is_filler, has_brace in c4_lines(text, language, rules):
        num_filler += is_filler
        num_braces += has_brace
        if len(left) < len(given):
            num_removed += len(split_words(given)) - len(split_words(left))
        if left:
            # The end of a line ends a sentence, with or without a mark.
            num_sentences += 1 + len(SENTENCE_END.findall(left))
            lines.append(left)
    counts = {"c4_lorem_ipsum_lines": num_filler, "c4_brace_lines": num_braces, "c4_sentences": num_sentences}
    return "\n".join(lines), num_removed, {name: float(count) for name, count in counts.items()}


def c4_lines(text: str, language: str, rules: TextRules) -> Iterator[C4Line]:
    """Every line of `text` by C4's rules."""
    for given in map(str.strip, text.splitlines()):
        line = c4_line(given, language, rules)
        # C4 drops the page at the first filler line or brace. Here they are counted, so that a limit decides; a line that
        # is removed before a check does not count there, in the order of datatrove's C4QualityFilter.
        lowered = line.lower()
        is_filler = "lorem ipsum" in lowered
        if "javascript" in lowered and not rules.keep_c4_javascript_lines:
            line = ""
        has_brace = "{" in line
        if not rules.keep_c4_policy_lines and any(policy in lowered for policy in POLICIES):
            line = ""
        yield C4Line(given, line, is_filler, has_brace)


def c4_line(line: str, language: str, rules: TextRules) -> str:
    """`line` without citations; nothing where it is too short, not ended, or holds a word too long."""
    # By blanks, as C4 does: its limits are of such words. A line in a script without blanks would be one word, and go.
    words = split_words(line) if language in UNSPACED else line.split()
    if len(words) < rules.min_c4_line_words or (
        len(line) > rules.max_c4_word_length and max(map(len, words)) > rules.max_c4_word_length
    ):
        return ""
    if not rules.keep_c4_citations:
        line = CITATION.sub("", line)
    is_ended = line.endswith(C4_ENDS) and not line.endswith("...")
    return line if is_ended or rules.keep_c4_unended_lines else ""


# FineWeb

# Beyond the marks of Latin and Chinese script: Arabic, Armenian, Devanagari, Ethiopic, Khmer, Mongolian, Tibetan
SENTENCE_ENDS = tuple(".!?…‼⁇⁈⁉。．！？｡﹒﹗﹖؟۔\u0589।॥።፧፨។៕᠃᠉။༎")
SHORT_LINE_CHARACTERS = 30


def fineweb_quality(text: str, num_words: int) -> Attributes:
    """Fractions of the lines that are not empty, and of their characters."""
    # Not splitlines(): the text was joined by line feeds, and a line may hold other separators.
    lines = [line for line in text.split("\n") if line.strip()]
    num_lines = max(len(lines), 1)
    num_newlines = text.count("\n")
    return {
        "fineweb_ended_line_fraction": sum(line.endswith(SENTENCE_ENDS) for line in lines) / num_lines,
        "fineweb_short_line_fraction": sum(len(line) <= SHORT_LINE_CHARACTERS for line in lines) / num_lines,
        "fineweb_duplicate_character_fraction": duplicates(lines)[1] / max(len(text) - num_newlines, 1),
        "fineweb_newline_fraction": num_newlines / max(num_words, 1),
    }
