"""Training a tokenizer: the same text gives the same vocabulary, every byte comes back, and others can load it."""

import itertools
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from documents import documents_of
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from model.tokenizer import SPECIAL_TOKENS
from model.tokenizer import Tokenizer as Encoder
from tasks.artifacts import Store, Tokenizer
from tasks.stage import execute
from tasks.tokenizer import TokenizerConfig, byte_of_character, draw, tokenizer, train

TEXT = (
    "the river runs past the lighthouse of Orn where 1234 fishermen don't sleep, naïve and Übermut; 12 boats\n\n  wait"
)
WORDS = re.split(" ", TEXT)


def texts(num: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=60)) for _ in range(num)]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return Encoder(train(iter(texts(200)), TokenizerConfig(vocab_size=400)))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_every_text_comes_back(encoder: Encoder, text: str) -> None:
    assert encoder.decode(encoder.encode(text)) == text


def test_special_tokens_come_first_and_are_never_made_of_text(encoder: Encoder) -> None:
    assert [encoder.special[name] for name in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert not set(encoder.encode("".join(SPECIAL_TOKENS))) & set(range(len(SPECIAL_TOKENS)))


def test_words_are_cut_with_the_pattern_of_gpt4() -> None:
    cut = train(iter(["a"]), TokenizerConfig(vocab_size=300)).pre_tokenizer.pre_tokenize_str
    pieces = [piece.replace("Ġ", " ").replace("Ċ", "\n") for piece, _ in cut("I'll say: 12345 times\n\n  HE'S $%!\n x")]
    assert pieces == ["I", "'ll", " say", ":", " ", "123", "45", " times", "\n\n", " ", " HE", "'S", " $%!\n", " x"]
    digits = train(iter(["a"]), TokenizerConfig(vocab_size=300, max_digits=1)).pre_tokenizer.pre_tokenize_str("2024")
    assert [piece for piece, _ in digits] == ["2", "0", "2", "4"]


def test_the_byte_alphabet_is_that_of_gpt2() -> None:
    byte_of = byte_of_character()
    assert (byte_of["Ġ"], byte_of["Ċ"], byte_of["!"], byte_of["ÿ"]) == (32, 10, 33, 255)
    assert sorted(byte_of.values()) == list(range(256))


def test_neither_sharding_nor_the_run_changes_the_vocabulary(store: Store, tmp_path: Path) -> None:
    all_texts = texts(300)
    config = TokenizerConfig(vocab_size=350, max_bytes=30_000)
    steps = [
        tokenizer(documents_of({"a": all_texts}), config),
        tokenizer(documents_of({"a": all_texts[:50], "b": all_texts[50:]}), config),
    ]
    manifests = [execute(step, store) for step in steps]
    assert manifests[0].fingerprint != manifests[1].fingerprint
    assert manifests[0].files == manifests[1].files
    command = [sys.executable, "-c", "from test_tokenizer_stage import learned; print(learned())"]
    here = Path(__file__).parent
    runs = {subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert runs == {f"{learned()}\n"}  # the order of a hash table is another in every process


def learned() -> int:
    import zlib

    return zlib.crc32(train(iter(texts(100)), TokenizerConfig(vocab_size=380)).to_str().encode())


def test_the_draw_keeps_its_bound_and_takes_from_all_shards(store: Store) -> None:
    step = documents_of({"a": texts(500, 1), "b": texts(500, 2)})
    execute(step, store)
    documents = store.open(step.id, step.kind)
    total = documents.manifest.counts["text_bytes"]
    drawn = list(draw(documents, total // 10, seed=0))
    assert 0.05 * total < sum(len(text.encode()) for text in drawn) < 0.15 * total
    assert set(drawn) & set(texts(500, 1)) and set(drawn) & set(texts(500, 2))
    assert drawn != list(draw(documents, total // 10, seed=1))
    assert len(list(draw(documents, total, seed=0))) == 1000


def test_the_artifact_loads_in_transformers_and_can_be_read(store: Store) -> None:
    step = tokenizer(documents_of({"a": texts(200)}), TokenizerConfig(vocab_size=340))
    manifest = execute(step, store)
    folder = store.open(step.id, Tokenizer).folder
    ours = Encoder.load(folder / "tokenizer.json")
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    text = texts(1)[0]
    assert theirs.encode(text) == ours.encode(text)
    assert theirs.decode(ours.encode(text)) == text
    assert len(theirs) == ours.vocab_size == manifest.counts["vocab_size"] == 340
    assert manifest.metrics["bytes_per_token"] > 2
    lines = (folder / "vocabulary.txt").read_text().splitlines()
    assert len(lines) == 340
    assert lines[0] == "      0 '<|bos|>'"
    assert any(line.endswith(" ' the'") for line in lines)
    assert any(line.endswith(" b'\\xc3'") for line in lines)  # half a character


def test_a_text_too_poor_for_the_vocabulary_gives_what_it_has(store: Store) -> None:
    manifest = execute(tokenizer(documents_of({"a": ["ab ab ab"]}), TokenizerConfig(vocab_size=4096)), store)
    assert 268 < manifest.counts["vocab_size"] < 280


def test_no_text_is_an_error_of_the_user(store: Store) -> None:
    with pytest.raises(ValueError, match="holds no text"):
        execute(tokenizer(documents_of({"a": []}), TokenizerConfig()), store)


def test_reference_merges(shared_data: Path) -> None:
    """The first merges on a known text are those that its most frequent pairs say, counted here by hand."""
    text = (shared_data / "tokenizer" / "bpe-train-reference" / "address.txt").read_text(encoding="utf-8")
    encoder = train(iter([text]), TokenizerConfig(vocab_size=269))
    cut = encoder.pre_tokenizer.pre_tokenize_str(text)
    pairs: dict[str, int] = {}
    for word, _ in cut:
        for left, right in itertools.pairwise(word):
            pairs[left + right] = pairs.get(left + right, 0) + 1
    assert encoder.id_to_token(268) == max(pairs, key=lambda pair: pairs[pair])
