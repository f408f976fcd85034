"""What could go wrong in the quality rules: a measure that counts something else, a limit that is off or on the wrong
side.
"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import quality
from tasks.quality import (
    MEASURES,
    QualityConfig,
    broken_rule,
    clean_lines,
    fineweb_quality,
    gopher_quality,
    measure,
    repetition,
    split_words,
)

CONFIG = QualityConfig()

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
PASSING = {name: FINEWEB.get(f"max_{name}", FINEWEB.get(f"min_{name}", 0)) for name in MEASURES}


def test_every_limit_of_fineweb_is_a_default_and_every_measure_has_one():
    limits = {name for name in QualityConfig.model_fields if name.split("_", 1)[1] in MEASURES}
    assert limits == set(FINEWEB)
    assert {name.split("_", 1)[1] for name in limits} == set(MEASURES)
    assert {name: getattr(CONFIG, name) for name in limits} == FINEWEB


@pytest.mark.parametrize("limit", FINEWEB)
def test_a_document_at_the_limit_passes_and_just_beyond_it_does_not(limit):
    side, name = limit.split("_", 1)
    beyond = math.nextafter(FINEWEB[limit], math.inf if side == "max" else -math.inf)
    assert broken_rule(PASSING | {name: FINEWEB[limit]}, CONFIG) is None
    assert broken_rule(PASSING | {name: beyond}, CONFIG) == name


def test_the_first_rule_of_the_order_is_the_reason():
    assert broken_rule(PASSING | {"fineweb_newline_fraction": 9, "gopher_words": 0}, CONFIG) == "gopher_words"


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
    ],
)
def test_words(text, words):
    assert "|".join(split_words(text)) == words


def fractions_of(text):
    return repetition(text, split_words(text))


def test_repeated_paragraphs_and_lines():
    measures = fractions_of("ab cd\n\nab cd\n\n\nef\n\nab cd")
    assert measures["gopher_duplicate_paragraph_fraction"] == 2 / 4
    assert measures["gopher_duplicate_paragraph_character_fraction"] == 10 / 24
    measures = fractions_of("one\ntwo\none\n\nthree")
    assert measures["gopher_duplicate_line_fraction"] == 1 / 4
    assert measures["gopher_duplicate_line_character_fraction"] == 3 / 18
    assert measures["gopher_duplicate_paragraph_fraction"] == 0


def test_most_frequent_n_gram():
    measures = fractions_of("a b a b a b c")
    assert measures["gopher_top_2_gram_fraction"] == 3 * len("a b") / 13
    assert measures["gopher_top_3_gram_fraction"] == 2 * len("a b a") / 13
    assert measures["gopher_top_4_gram_fraction"] == 2 * len("a b a b") / 13
    measures = fractions_of("every word of this text comes once")
    assert measures["gopher_top_2_gram_fraction"] == 0


def test_repeated_n_grams_do_not_count_a_word_twice():
    text = "v w x y z v w x y z v w x y z q"
    measures = fractions_of(text)
    assert measures["gopher_repeated_5_gram_fraction"] == 10 / len(text)
    assert measures["gopher_repeated_6_gram_fraction"] == 6 / len(text)  # at 5, then behind it too little is left
    assert measures["gopher_repeated_10_gram_fraction"] == 10 / len(text)


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
def test_the_shortcuts_find_what_a_plain_scan_finds(words):
    text = " ".join(words)
    measures = repetition(text, words)
    for n in (2, 3, 4):
        assert measures[f"gopher_top_{n}_gram_fraction"] == naive_top_characters(words, n) / max(len(text), 1)
    for n in range(5, 11):
        assert measures[f"gopher_repeated_{n}_gram_fraction"] == naive_repeated_characters(words, n) / max(len(text), 1)


def test_gopher_quality():
    text = "- The #1 cat ...\n• sat and 22\nwith … "
    words = split_words(text)
    assert words == ["-", "The", "#", "1", "cat", "...", "•", "sat", "and", "22", "with", "…"]
    measures = gopher_quality(text, words, ["the", "and", "with"])
    assert measures == {
        "gopher_words": 7,
        "gopher_mean_word_length": (3 + 1 + 3 + 3 + 3 + 2 + 4) / 7,
        "gopher_hash_fraction": 1 / 12,
        "gopher_ellipsis_fraction": 2 / 12,
        "gopher_bullet_line_fraction": 2 / 3,
        "gopher_ellipsis_line_fraction": 2 / 3,
        "gopher_alphabetic_word_fraction": 5 / 12,
        "gopher_stop_words": 2,  # as written: The is none
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
def test_c4_lines(line, left):
    text, _ = clean_lines(f"First of three lines.\n  {line}\n\nLast of three lines.", CONFIG)
    assert text.split("\n") == ["First of three lines.", *([left] if left else []), "Last of three lines."]


@pytest.mark.parametrize(
    ("line", "is_kept"),
    [("It ends here.", True), ("It says “so”", True), ("It does not end", False), ("It trails off...", False)],
)
def test_c4_end_of_line_rule_is_off_by_default(line, is_kept):
    assert clean_lines(line, CONFIG)[0] == line
    assert bool(clean_lines(line, QualityConfig(keep_c4_unended_lines=False))[0]) == is_kept


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
def test_c4_counts(text, counts):
    assert tuple(clean_lines(text, CONFIG)[1].values()) == counts


def test_fineweb_quality():
    short, long = "x" * 30, "y" * 31
    text = f"{short}\n{long}.\n\n{long}\n{short}\n"
    assert fineweb_quality(text, 20) == {
        "fineweb_ended_line_fraction": 1 / 4,
        "fineweb_short_line_fraction": 2 / 4,
        "fineweb_duplicate_character_fraction": 30 / (30 + 32 + 31 + 30),
        "fineweb_newline_fraction": 5 / 20,
    }


def test_fineweb_measures_what_c4_left():
    text = "A line that ends well.\nMenu\nHome\nA second line that is here"
    left, measures = measure(text, CONFIG)
    assert left == "A line that ends well.\nA second line that is here"
    assert measures["fineweb_ended_line_fraction"] == 1 / 2
    assert measures["fineweb_newline_fraction"] == 1 / 12
    assert measures["gopher_words"] == 13


def test_a_text_longer_than_any_that_may_pass_is_cut_for_gopher(monkeypatch):
    monkeypatch.setattr(quality, "LONGEST", 1000)
    text = "one two three four.\n" * 200
    left, measures = measure(text, CONFIG)
    assert left == text.rstrip()
    assert measures["gopher_words"] == 200
    assert measures["c4_sentences"] == 200


@settings(deadline=None)
@given(st.text(max_size=300))
def test_any_text_has_all_measures(text):
    _, measures = measure(text, CONFIG)
    assert set(measures) == set(MEASURES)
    assert all(math.isfinite(value) and value >= 0 for value in measures.values())
