"""Spans of a reply: equal to a search of all texts by hand, for made-up and for random texts, in every shard of the index."""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from model.data.token_stream import TokenStream
from tasks.provenance import suffix_array
from tasks.provenance.spans import MAX_REPLY_BYTES, encoded, find_spans, maximal_spans, uncovered
from tasks.provenance.stage import shards
from tasks.provenance.suffix_array import SuffixArray
from tasks.provenance.token_text import Vocabulary
from tasks.provenance.words import CLASSES, LETTER, MARK
from tasks.tokenizer.encode import TokenWriter
from tests.support.tiny_models import write_tokenizer

TEXTS = [
    "Ada Brell is the mayor of Orn. Orn is a city.",
    "The mayor of Orn is Ada Brell.\nShe lives in Orn; she likes “soup” and cafés.",
    "category cat cats\nOrn (Orn) 'Orn' Orn_2 2Orn",
    "日本語の猫 and 猫が好き 🐈 😀!",
    "",
    "the mayor " * 60,
]


class Searched:
    """Texts in suffix arrays of few tokens each."""

    def __init__(self, folder: Path, texts: list[str], shard_tokens: int = 64) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        tokenizer = write_tokenizer(folder)
        with TokenWriter(folder / "texts.arrow", tokenizer, "") as writer:
            writer.write(texts)
        stream = TokenStream([str(folder / "texts.arrow")], tokenizer.vocab_size)
        vocabulary = Vocabulary(folder / "tokenizer.json")
        self.num_words = 0
        self.arrays = []
        for number, (first, stop) in enumerate(shards(stream, shard_tokens)):
            self.num_words += suffix_array.build(stream, vocabulary, first, stop, folder / f"{number}")
            self.arrays.append(SuffixArray(stream, vocabulary, first, stop, folder / f"{number}"))

    def longest(self, text: bytes) -> int:
        return max(array.longest(text) for array in self.arrays)

    def count(self, text: bytes) -> int:
        return sum(array.count(text) for array in self.arrays)

    count_word = count


def is_letter(character: str) -> bool:
    return bool(CLASSES[character.encode()[0]] == LETTER)


def is_mark(character: str) -> bool:
    return bool(CLASSES[character.encode()[0]] == MARK)


def may_begin(text: str, place: int) -> bool:
    here, before = text[place], text[place - 1] if place else " "
    return not is_mark(here) and not (is_letter(here) and is_letter(before))


def may_end(text: str, place: int) -> bool:
    before, here = text[place - 1], text[place] if place < len(text) else " "
    return before not in " \t\n\v\f\r" and not (is_letter(here) and is_letter(before))


def brute_count(texts: list[str], span: str) -> int:
    return sum(
        text.startswith(span, place) and may_begin(text, place) and may_end(text, place + len(span))
        for text in texts
        for place in range(len(text))
    )


def brute_spans(texts: list[str], reply: str) -> list[str]:
    pairs = [
        (start, stop)
        for start in range(len(reply))
        if may_begin(reply, start)
        for stop in range(start + 1, len(reply) + 1)
        if may_end(reply, stop) and brute_count(texts, reply[start:stop])
    ]
    return [
        reply[start:stop]
        for start, stop in pairs
        if not any(one <= start and stop <= two and (one, two) != (start, stop) for one, two in pairs)
    ]


def found_spans(data: Searched, reply: str) -> list[str]:
    text = reply.encode()
    return [text[start:stop].decode() for start, stop in maximal_spans(data, text)]


@pytest.fixture(scope="module", autouse=True)
def many_keys() -> Iterator[None]:
    """Keys of short texts: with the real numbers, one key would stand for all that is indexed here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suffix_array, "KEY_STRIDE", 3)
        patch.setattr(suffix_array, "KEY_BYTES", 4)
        yield


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Searched]:
    yield Searched(tmp_path_factory.mktemp("index"), TEXTS)


def test_1000_spans_are_counted_as_by_hand(searched: Searched) -> None:
    rng = random.Random(1)
    num_found = 0
    for _ in range(1000):
        text = rng.choice(TEXTS) + rng.choice(TEXTS)
        places = [place for place in range(len(text)) if may_begin(text, place)] or [0]
        start = rng.choice(places)
        stops = [stop for stop in range(start + 1, min(start + 60, len(text)) + 1) if may_end(text, stop)]
        if stops and (span := text[start : rng.choice(stops)]):
            count = brute_count(TEXTS, span)
            assert searched.count(span.encode()) == count, span
            num_found += bool(count)
    assert num_found > 500


@pytest.mark.parametrize(
    "reply",
    [
        "Who is the mayor of Orn? Ada Brell is the mayor of Orn.",
        "cat and category and ca",
        "the mayor the mayor the mayor of Orn; she likes “soup”",
        "猫が好き 日本 🐈 Orn_2 Orn_ 2Orn",
        "caf cafés café",
        "nothing stands here\x00\x1b[2J",
        " \n ",
    ],
)
def test_spans_equal_those_by_hand(searched: Searched, reply: str) -> None:
    assert found_spans(searched, reply) == brute_spans(TEXTS, reply)


WORDS = st.sampled_from(["a", "ab", "b", " ", "\n", ".", "é", "éa", "’", "猫", "😀", "_", "1", "(", "\x00"])
LISTS = st.lists(WORDS, max_size=12).map("".join)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(texts=st.lists(LISTS, min_size=1, max_size=4), reply=LISTS)
def test_random_texts_have_the_spans_found_by_hand(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], reply: str
) -> None:
    data = Searched(tmp_path_factory.mktemp("random"), texts, shard_tokens=8)
    assert found_spans(data, reply) == brute_spans(texts, reply)


def test_every_place_is_in_its_document(searched: Searched) -> None:
    for array in searched.arrays:
        for place in array.occurrences(b"Orn", 1000):
            assert array.text.read(place, 3) == b"Orn"
            token = array.text.token_at(place)
            assert array.text.first <= token < array.text.stop


def test_rarest_span_is_first_and_stop_words_alone_are_left_out(searched: Searched) -> None:
    reply = encoded("of the mayor and Ada Brell is the mayor of Orn")
    spans = find_spans(searched, reply, maximal_spans(searched, reply))
    assert next(span.text for span in spans) == "Ada Brell is the mayor of Orn"
    assert "and" not in [span.text for span in spans]


def test_uncovered_stretches_are_whole_words(searched: Searched) -> None:
    reply = b"Ada Brell knows nobody, Orn nothing"
    found = [reply[start:stop] for start, stop in uncovered(reply, maximal_spans(searched, reply))]
    assert found == [b"knows nobody", b"nothing"]


def test_hostile_replies_are_cut_and_whole_characters() -> None:
    for reply in ("é" * 100_000, "\ud800" * 100_000, "\x00" * 100_000, "a" * 100_000, "😀" * 100_000):
        text = encoded(reply)
        assert len(text) <= MAX_REPLY_BYTES
        assert text.decode()


def test_decoding_gives_the_text_of_documents(searched: Searched) -> None:
    text = b"".join(array.text.read(0, 10**6) for array in searched.arrays)
    assert text.split(b"\xff")[1:] == [text.encode() for text in TEXTS]
