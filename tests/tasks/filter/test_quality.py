"""What could go wrong in the quality rules: a measure that counts something else, a limit that is off, a language whose
words are not found.
"""

import gzip
import json
import math
import re
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.filter import quality
from tasks.filter.quality import (
    ATTRIBUTE_NAMES,
    QualityLimits,
    TextRules,
    clean_and_count,
    clean_lines,
    compute_attributes,
    fineweb_quality,
    gopher_quality,
    repetition,
    split_words,
)
from tasks.web.language_id import STOP_WORDS
from tests.support.cost import grows_linearly, peak_bytes

RULES = TextRules()

FINEWEB = {
    "max_gopher_duplicate_paragraph_fraction": 0.30,
    "max_gopher_duplicate_paragraph_character_fraction": 0.20,
    "max_gopher_duplicate_line_fraction": 0.30,
    "max_gopher_duplicate_line_character_fraction": 0.20,
    "max_gopher_top_2_gram_fraction": 0.20,
    "max_gopher_top_3_gram_fraction": 0.18,
    "max_gopher_top_4_gram_fraction": 0.16,
    "max_gopher_repeated_5_gram_fraction": 0.15,
    "max_gopher_repeated_6_gram_fraction": 0.14,
    "max_gopher_repeated_7_gram_fraction": 0.13,
    "max_gopher_repeated_8_gram_fraction": 0.12,
    "max_gopher_repeated_9_gram_fraction": 0.11,
    "max_gopher_repeated_10_gram_fraction": 0.10,
    "min_gopher_words": 50,
    "max_gopher_words": 100_000,
    "min_gopher_mean_word_length": 3,
    "max_gopher_mean_word_length": 10,
    "max_gopher_hash_fraction": 0.1,
    "max_gopher_ellipsis_fraction": 0.1,
    "max_gopher_bullet_line_fraction": 0.9,
    "max_gopher_ellipsis_line_fraction": 0.3,
    "min_gopher_alphabetic_word_fraction": 0.8,
    "min_gopher_stop_words": 2,
    "max_c4_lorem_ipsum_lines": 0,
    "max_c4_brace_lines": 0,
    "min_c4_sentences": 5,
    "min_fineweb_ended_line_fraction": 0.12,
    "max_fineweb_short_line_fraction": 0.67,
    "max_fineweb_duplicate_character_fraction": 0.01,
    "max_fineweb_newline_fraction": 0.3,
}


def test_limits_are_those_of_fineweb_and_every_measure_has_one():
    assert QualityLimits().model_dump() == FINEWEB
    assert {name.split("_", 1)[1] for name in FINEWEB} == set(ATTRIBUTE_NAMES)
    assert quality.limits("gopher_words", QualityLimits()) == (50, 100_000)
    assert quality.limits("c4_sentences", QualityLimits()) == (5, math.inf)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Don't stop: it’s", "Don|'t|stop|:|it|’s"),
        ("3.14, or 1,000... at 21:00", "3.14|,|or|1,000|...|at|21:00"),
        ("(The U.S. “one”)\n\n# two", "(|The|U.S.|“|one|”|)|#|two"),
        ("well-known IL-3 and/or -- so", "well|-|known|IL-3|and/or|--|so"),
        ("see https://a.org/b?c=d, jane@a.org.", "see|https://a.org/b?c=d,|jane@a.org|."),
        ("soft\u00adhyphen", "soft\u00adhyphen"),
        (" \n ", ""),
        ("हिन्दी में है।", "हिन्दी|में|है|।"),  # a vowel sign is part of its word
        ("cafe\u0301 noir", "cafe\u0301|noir"),
        ("我们今天去公园。", "我们|今天|去公|园|。"),  # of about a word's length
        ("東京タワーへ", "東京|タワ|ーへ"),
        ("ภาษาไทย", "ภาษา|ไทย"),
    ],
)
def test_split_words_splits_as_spacy_does(text, words):
    assert "|".join(split_words(text)) == words


def fractions_of(text):
    return repetition(text, split_words(text))


def test_repetition_counts_repeated_paragraphs_and_lines():
    attributes = fractions_of("ab cd\n\nab cd\n\n\nef\n\nab cd")
    assert attributes["gopher_duplicate_paragraph_fraction"] == 2 / 4
    assert attributes["gopher_duplicate_paragraph_character_fraction"] == 10 / 24
    attributes = fractions_of("one\ntwo\none\n\nthree")
    assert attributes["gopher_duplicate_line_fraction"] == 1 / 4
    assert attributes["gopher_duplicate_line_character_fraction"] == 3 / 18
    assert attributes["gopher_duplicate_paragraph_fraction"] == 0


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "b c", " ", "", "d"]), max_size=12))
def test_repetition_splits_paragraphs_and_lines_at_their_ends(parts):
    text = "\n".join(parts)
    attributes = repetition(text, [])
    for kind, end in (("paragraph", r"\n{2,}"), ("line", r"\n+")):
        pieces = re.split(end, text.strip())
        repeated = [piece for number, piece in enumerate(pieces) if piece in pieces[:number]]
        assert attributes[f"gopher_duplicate_{kind}_fraction"] == len(repeated) / len(pieces)
        num_characters = sum(map(len, repeated))
        assert attributes[f"gopher_duplicate_{kind}_character_fraction"] == num_characters / max(len(text), 1)


def test_repetition_measures_the_most_frequent_ngram():
    attributes = fractions_of("a b a b a b c")
    assert attributes["gopher_top_2_gram_fraction"] == 3 * len("a b") / 13
    assert attributes["gopher_top_3_gram_fraction"] == 2 * len("a b a") / 13
    assert attributes["gopher_top_4_gram_fraction"] == 2 * len("a b a b") / 13
    attributes = fractions_of("every word of this text comes once")
    assert attributes["gopher_top_2_gram_fraction"] == 0


def test_repeated_ngrams_do_not_count_a_word_twice():
    text = "v w x y z v w x y z v w x y z q"
    attributes = fractions_of(text)
    assert attributes["gopher_repeated_5_gram_fraction"] == 10 / len(text)
    assert attributes["gopher_repeated_6_gram_fraction"] == 6 / len(text)  # at 5, then behind it too little is left
    assert attributes["gopher_repeated_10_gram_fraction"] == 10 / len(text)


def naive_repeated_characters(words, n):
    seen, characters, place = set(), 0, 0
    while place + n <= len(words):
        gram = tuple(words[place : place + n])
        if gram in seen:
            characters, place = characters + len("".join(gram)), place + n
        else:
            seen.add(gram)
            place += 1
    return characters


def naive_top_characters(words, n):
    grams = [tuple(words[place : place + n]) for place in range(len(words) - n + 1)]
    num = max((grams.count(gram) for gram in grams), default=0)
    return next((num * len(" ".join(gram)) for gram in grams if grams.count(gram) == num > 1), 0)


@settings(deadline=None)
@given(st.lists(st.sampled_from(["a", "bb", "ccc"]), max_size=60))
def test_repetition_equals_a_plain_scan(words):
    text = " ".join(words)
    attributes = repetition(text, words)
    for n in (2, 3, 4):
        assert attributes[f"gopher_top_{n}_gram_fraction"] == naive_top_characters(words, n) / max(len(text), 1)
    for n in range(5, 11):
        assert attributes[f"gopher_repeated_{n}_gram_fraction"] == naive_repeated_characters(words, n) / max(
            len(text), 1
        )


def test_gopher_quality_measures_words_marks_and_lines():
    text = "- The #1 cat ...\n• sat and 22\nwith … "
    words = split_words(text)
    assert words == ["-", "The", "#", "1", "cat", "...", "•", "sat", "and", "22", "with", "…"]
    attributes = gopher_quality(text, words, "en", ["the", "and", "with"])
    assert attributes == {
        "gopher_words": 7,
        "gopher_mean_word_length": (3 + 1 + 3 + 3 + 3 + 2 + 4) / 7,
        "gopher_hash_fraction": 1 / 12,
        "gopher_ellipsis_fraction": 2 / 12,
        "gopher_bullet_line_fraction": 2 / 3,
        "gopher_ellipsis_line_fraction": 2 / 3,
        "gopher_alphabetic_word_fraction": 5 / 12,
        "gopher_stop_words": 2,  # in this case: "The" does not count
    }


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("Three words here", "Three words here"),
        ("Two words", None),
        ("The river is long.[12] It is deep.[citation needed] So.[edit]", "The river is long. It is deep. So."),
        ("A very " + "o" * 1000, "A very " + "o" * 1000),
        ("A very " + "o" * 1001, None),
        ("Please enable JavaScript to go on.", None),
        ("Read our Privacy Policy with care.", None),
        ("This site uses cookies for all.", None),
        ("Grandmother uses cookie cutters daily.", "Grandmother uses cookie cutters daily."),
    ],
)
def test_clean_lines_follows_the_rules_of_c4(line, left):
    text, *_ = clean_and_count(f"First of three lines.\n  {line}\n\nLast of three lines.", "en", RULES)
    assert text.split("\n") == ["First of three lines.", *([left] if left else []), "Last of three lines."]


@pytest.mark.parametrize(
    ("line", "is_kept"),
    [("It ends here.", True), ("It says “so”", True), ("It does not end", False), ("It trails off...", False)],
)
def test_clean_lines_keeps_unended_lines_by_default(line, is_kept):
    assert clean_and_count(line, "en", RULES)[0] == line
    assert bool(clean_and_count(line, "en", TextRules(keep_c4_unended_lines=False))[0]) == is_kept


@pytest.mark.parametrize(
    ("text", "counts"),
    [
        ("It is Lorem Ipsum again.", (1, 0, 1)),
        ("lorem ipsum", (0, 0, 0)),  # a line of two words is gone before
        ("if (x) { y; }", (0, 1, 1)),
        ("This javascript line { is gone", (0, 0, 0)),
        ("One is here. Two is here! Is three? “Four.” Five is here.", (0, 0, 5)),
        ("Dots in 3.14, example.com and Dr. Who do not end.", (0, 0, 1)),
        ("The first line\nand the second line", (0, 0, 2)),
        ("これは 一つ 目。これは 二つ 目。", (0, 0, 2)),
    ],
)
def test_clean_lines_counts_filler_braces_and_sentences(text, counts):
    assert tuple(clean_and_count(text, "en", RULES)[2].values()) == counts


def test_fineweb_quality_measures_lines_and_their_characters():
    short, long = "x" * 30, "y" * 31
    text = f"{short}\n{long}.\n\n{long}\n{short}\n"
    assert fineweb_quality(text, 20) == {
        "fineweb_ended_line_fraction": 1 / 4,
        "fineweb_short_line_fraction": 2 / 4,
        "fineweb_duplicate_character_fraction": 30 / (30 + 32 + 31 + 30),
        "fineweb_newline_fraction": 5 / 20,
    }


def test_fineweb_quality_measures_what_c4_left():
    text = "A line that ends well.\nMenu\nHome\nA second line that is here"
    left, attributes = compute_attributes(text, "en", RULES)
    assert left == "A line that ends well.\nA second line that is here"
    assert attributes["fineweb_ended_line_fraction"] == 1 / 2
    assert attributes["fineweb_newline_fraction"] == 1 / 12
    assert attributes["gopher_words"] == 13


def test_compute_attributes_cuts_a_text_that_is_longer_than_any_that_may_pass(monkeypatch):
    monkeypatch.setattr(quality, "LONGEST", 1000)
    text = "one two three four.\n" * 200
    left, attributes = compute_attributes(text, "en", RULES)
    assert left == text.rstrip()
    assert attributes["gopher_words"] == 200
    assert attributes["c4_sentences"] == 200


@pytest.mark.parametrize(
    "piece", ["a", "a.", ". ", '."', "#\n", "a-", "- ", "[1", "1,", "https://", "x\u0301", "中", "b c d e "]
)
def test_compute_attributes_takes_time_and_memory_in_proportion_to_the_length(piece):
    short, long = (piece * (num_characters // len(piece)) for num_characters in (12_500, 200_000))
    assert grows_linearly(lambda text: compute_attributes(text, "en", RULES), short, long, 16)
    assert peak_bytes(lambda text: compute_attributes(text, "en", RULES), long) < 400 * len(long)


@settings(deadline=None)
@given(st.text(max_size=300))
def test_compute_attributes_of_any_text_is_complete(text):
    _, attributes = compute_attributes(text, "en", RULES)
    assert set(attributes) == set(ATTRIBUTE_NAMES)
    assert all(math.isfinite(value) and value >= 0 for value in attributes.values())


# Languages


def test_clean_lines_counts_the_words_that_it_removes():
    lines = ["One line that stays here.", "Home", "It is long.[12] And [edit] good.", "We use cookies on this site."]
    left, num_removed, _ = clean_and_count("\n\n".join(lines), "en", RULES)
    assert len(split_words(" ".join(lines))) - num_removed == len(split_words(left))


def test_stop_words_are_those_of_the_language_or_the_recipe():
    text = "Der Hund und die Katze sind in dem Haus."
    words = split_words(text)
    assert compute_attributes(text, "de", RULES)[1]["gopher_stop_words"] == 3
    assert compute_attributes(text, "en", RULES)[1]["gopher_stop_words"] == 0
    assert "gopher_stop_words" not in compute_attributes(text, "als", RULES)[1]  # none are known: no rule
    assert compute_attributes(text, "als", TextRules(stop_words={"als": ["Hund", "Maus"]}))[1]["gopher_stop_words"] == 1
    assert gopher_quality(text, words, "de", [])["gopher_words"] == 9


def test_split_words_cuts_scripts_without_spaces():
    text = "我们今天去公园，看到了很多美丽的花和树，孩子们在草地上玩。\n他们说明天还要再来，因为这里的空气很好。"
    left, attributes = compute_attributes(text, "zh", RULES)
    assert left == text  # no line is too short
    assert 20 < attributes["gopher_words"] < 40
    assert attributes["gopher_stop_words"] >= 4
    assert "gopher_mean_word_length" not in attributes
    assert compute_attributes(text, "en", RULES)[0] == ""


@pytest.fixture(scope="module")
def sentences(shared_data):
    """Real sentences by language."""
    found = defaultdict(list)
    with gzip.open(shared_data / "langid/lingua-sentences.jsonl.gz", "rt", encoding="utf-8") as stream:
        for sentence in map(json.loads, stream):
            found[sentence["lang"]].append(sentence["text"])
    return found


@pytest.mark.parametrize("language", STOP_WORDS)
def test_stop_words_occur_in_four_sentences_of_their_language(sentences, language):
    texts = sentences["nb" if language == "no" else language]
    groups = [" ".join(texts[start : start + 4]) for start in range(0, len(texts) - 3, 4)]
    nums = [
        gopher_quality(text, split_words(text), language, STOP_WORDS[language])["gopher_stop_words"] for text in groups
    ]
    fraction = sum(num >= QualityLimits().min_gopher_stop_words for num in nums) / len(nums)
    print(f"{language}: {fraction:.3f} of {len(nums)}")
    assert fraction > 0.9


def test_clean_lines_are_those_that_are_counted():
    text = (
        "Lorem ipsum {a} and more.\nThis site uses cookies {b}.\nJavaScript { must be on.\nA line [1] of text. Ok.\nno"
    )
    left, num_removed, counts = clean_and_count(text, "en", RULES)
    assert clean_lines(text, "en", RULES) == left == "Lorem ipsum {a} and more.\nA line  of text. Ok."
    assert counts == {"c4_lorem_ipsum_lines": 1, "c4_brace_lines": 2, "c4_sentences": 3}
    assert num_removed == len(split_words(text)) - len(split_words(left))
