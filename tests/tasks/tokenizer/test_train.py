"""Training a tokenizer: the same text gives the same vocabulary, every byte comes back, and others can load it."""

import json
import random
import re
import string
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from model.tokenizer.chat import SPECIAL_TOKENS, ChatTokenizer
from model.tokenizer.vocabularies import byte_of_character
from tasks.artifacts.manifest import Documents, Tokenizer
from tasks.artifacts.store import Store
from tasks.execution.reporter import Reporter, Row, reporting
from tasks.execution.runner import execute
from tasks.records.documents import Document
from tasks.tokenizer.train import (
    TokenizerConfig,
    compare,
    cut_unbroken,
    held_out,
    sample_texts,
    train,
    verify,
)
from tests.support import plain_bpe
from tests.support.documents import documents_of
from tests.support.wiring import tokenizer

TEXT = (
    "the river runs past the lighthouse of Orn where 1234 fishermen don't sleep, naïve and Übermut; 12 boats\n\n  wait"
)
WORDS = re.split(" ", TEXT)
BYTE_OF = byte_of_character()


def texts(num: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=60)) for _ in range(num)]


@pytest.fixture(scope="module")
def encoder() -> ChatTokenizer:
    return ChatTokenizer(train(iter(texts(200)), TokenizerConfig(vocab_size=400)))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_every_text_decodes_to_itself(encoder: ChatTokenizer, text: str) -> None:
    assert encoder.decode(encoder.encode(text)) == text


def test_special_tokens_come_first_and_never_result_from_text(encoder: ChatTokenizer) -> None:
    assert [encoder.special[name] for name in SPECIAL_TOKENS] == list(range(len(SPECIAL_TOKENS)))
    assert not set(encoder.encode("".join(SPECIAL_TOKENS))) & set(range(len(SPECIAL_TOKENS)))


def test_words_are_split_with_the_pattern_of_gpt4() -> None:
    config = TokenizerConfig(vocab_size=300, pattern="gpt4", max_digits=3)
    cut = train(iter(["a"]), config).pre_tokenizer.pre_tokenize_str
    pieces = [piece.replace("Ġ", " ").replace("Ċ", "\n") for piece, _ in cut("I'll say: 12345 times\n\n  HE'S $%!\n x")]
    assert pieces == ["I", "'ll", " say", ":", " ", "123", "45", " times", "\n\n", " ", " HE", "'S", " $%!\n", " x"]


@pytest.mark.parametrize(
    ("settings", "pieces"),
    [
        ({"pattern": "gpt4", "max_digits": 1}, "2 0 2 4 ĠHEllo 'S"),
        ({"max_digits": 3}, "202 4 ĠHEllo ' S"),
        ({"pattern": "gpt2"}, "2024 ĠHEllo ' S"),
        ({"pattern": "gpt4o", "max_digits": 3}, "202 4 ĠHEllo'S"),
    ],
)
def test_pattern_and_digits_are_settings(settings: dict[str, Any], pieces: str) -> None:
    cut = train(iter(["a"]), TokenizerConfig(vocab_size=300, **settings)).pre_tokenizer.pre_tokenize_str("2024 HEllo'S")
    assert [piece for piece, _ in cut] == pieces.split()


def test_turn_of_a_conversation_is_cut_as_the_line_of_a_page_is() -> None:
    """Else a small model that answers questions on pages has to learn the words of its answers again in conversations."""
    cut = train(iter(["a"]), TokenizerConfig(vocab_size=300)).pre_tokenizer.pre_tokenize_str
    turns = [[piece for piece, _ in cut(text)] for text in ("Who is it?", "Ann Bel was born in 1951.")]
    line = [piece for piece, _ in cut("Q:Who is it?\nA:Ann Bel was born in 1951.\n")]
    assert line == ["Q", ":", *turns[0], "Ċ", "A", ":", *turns[1], "Ċ"]


def test_byte_alphabet_equals_gpt2() -> None:
    assert (BYTE_OF["Ġ"], BYTE_OF["Ċ"], BYTE_OF["!"], BYTE_OF["ÿ"]) == (32, 10, 33, 255)
    assert sorted(BYTE_OF.values()) == list(range(256))


def test_vocabulary_does_not_depend_on_sharding_or_process(store: Store, tmp_path: Path) -> None:
    all_texts = texts(300)
    config = TokenizerConfig(vocab_size=350, max_bytes=30_000)
    steps = [
        tokenizer(documents_of({"a": all_texts}), config),
        tokenizer(documents_of({"a": all_texts[:50], "b": all_texts[50:]}), config),
    ]
    manifests = [execute(step, store) for step in steps]
    assert manifests[0].fingerprint != manifests[1].fingerprint
    assert manifests[0].files == manifests[1].files
    command = [sys.executable, "-c", "from tests.tasks.tokenizer.test_train import learned; print(learned())"]
    here = Path(__file__).parents[3]
    runs = {subprocess.run(command, cwd=here, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert runs == {f"{learned()}\n"}  # the order of a hash table is another in every process


def learned() -> int:
    import zlib

    return zlib.crc32(train(iter(texts(100)), TokenizerConfig(vocab_size=380)).to_str().encode())


def opened(store: Store, shards: dict[str, list[str]]) -> Documents:
    step = documents_of(shards)
    execute(step, store)
    return store.open(step.id, Documents)


def test_sample_texts_keeps_its_bound_and_takes_from_all_shards(store: Store) -> None:
    documents = opened(store, {"a": texts(450, 1), "b": texts(450, 2)})
    total = documents.manifest.counts["text_bytes"]
    drawn = list(sample_texts(documents, total // 5, seed=0))
    assert 0.15 * total < sum(len(text.encode()) for text in drawn) < 0.25 * total
    assert set(drawn) & set(texts(450, 1)) and set(drawn) & set(texts(450, 2))
    assert drawn != list(sample_texts(documents, total // 5, seed=1))
    assert (
        len(list(sample_texts(documents, total, seed=0))) == len(list(held_out(documents, seed=0))) == 900
    )  # few: all for both


def test_held_out_documents_are_never_sampled(store: Store) -> None:
    documents = opened(store, {"a": [f"{number} {text}" for number, text in enumerate(texts(2000))]})
    total = documents.manifest.counts["text_bytes"]
    spared = {document["text"] for document in held_out(documents, seed=0)}
    assert 20 < len(spared) < 60
    learned_from = set(sample_texts(documents, total, seed=0))
    assert len(learned_from) == 2000 - len(spared) and not learned_from & spared
    assert spared == {document["text"] for document in held_out(documents, seed=0)}


def test_one_huge_document_does_not_dominate_the_vocabulary(store: Store) -> None:
    documents = opened(store, {"a": [*texts(99), "spam " * 100_000]})
    drawn = list(sample_texts(documents, 40_000, seed=0))
    assert len(drawn) == 100  # never fewer, however little the huge one leaves of the bound
    assert max(map(len, drawn)) == 400


def test_cut_unbroken_cuts_only_endless_words() -> None:
    """A million characters without a space would be trained on for many minutes."""
    blob = "".join(random.Random(0).choices(string.ascii_letters + string.digits + "+/", k=300_000))
    for text in (texts(1)[0], "a" * 1_999, "a" * 2_001, " " * 4_000, f"see {blob}\nand\n{blob}"):
        pieces = list(cut_unbroken(text))
        assert "".join(pieces) == text
        assert max(map(len, (word for piece in pieces for word in re.findall(r"\S+|\s+", piece)))) <= 2_000
    assert list(cut_unbroken(texts(1)[0])) == texts(1)[:1]
    train(iter([blob, "a" * 1_000_000, " " * 1_000_000]), TokenizerConfig(vocab_size=300))


def test_artifact_loads_in_transformers_and_lists_its_tokens(store: Store) -> None:
    step = tokenizer(documents_of({"a": texts(200)}), TokenizerConfig(vocab_size=340))
    manifest = execute(step, store)
    folder = store.open(step.id, Tokenizer).folder
    ours = ChatTokenizer.load(folder / "tokenizer.json")
    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    text = texts(1)[0]
    assert theirs.encode(text) == ours.encode(text)
    assert theirs.decode(ours.encode(text)) == text
    assert len(theirs) == ours.vocab_size == manifest.counts["vocab_size"] == 340
    assert manifest.metrics["bytes_per_token"] > 2
    lines = (folder / "vocabulary.txt").read_text().splitlines()
    assert len(lines) == 340
    assert lines[0] == "      0 '<|bos|>'"
    assert any(line.split(maxsplit=1)[1] == r"b'\xc3'" for line in lines)  # half a character
    assert any(re.fullmatch(r" +\d+ ' river' +' r' \+ 'iver'", line) for line in lines)
    assert any(re.fullmatch(r" +\d+ 'naïve' +b'na\\xc3' \+ b'\\xafve'", line) for line in lines)


def test_small_text_yields_a_smaller_vocabulary(store: Store) -> None:
    manifest = execute(tokenizer(documents_of({"a": ["ab ab ab"]}), TokenizerConfig(vocab_size=4096)), store)
    assert 268 < manifest.counts["vocab_size"] < 280


def test_no_text_raises_user_error(store: Store) -> None:
    with pytest.raises(ValueError, match="holds no text"):
        execute(tokenizer(documents_of({"a": []}), TokenizerConfig()), store)


def test_verify_refuses_a_vocabulary_that_loses_or_lengthens_text(encoder: ChatTokenizer) -> None:
    verify(encoder, texts(3))
    with pytest.raises(RuntimeError, match="trained on text of another kind; raise max_bytes"):
        verify(encoder, ["日本語" * 9])
    lossy = tokenizers.Tokenizer.from_str(encoder._encoder.to_str())
    lossy.normalizer = tokenizers.normalizers.Lowercase()
    with pytest.raises(
        RuntimeError, match=r"1 of 2 documents do not decode to themselves: the tokenizer.json has a normalizer"
    ):
        verify(ChatTokenizer(lossy), ["The river", "the river"])


def test_compare_reports_each_language(encoder: ChatTokenizer) -> None:
    poor = ChatTokenizer(train(iter(["a"]), TokenizerConfig(vocab_size=300)))
    documents = [document("the river runs", "en"), document("日本 語", "ja"), document("wait", "")]
    whole, english, japanese = compare({"": encoder, "bytes": poor}, documents)
    assert (whole["language"], whole["documents"], whole["bytes"]) == ("all", 3, 14 + 10 + 4)
    assert english["language"] == "en" and japanese["language"] == "ja"
    assert english["bytes_per_token"] == 14 / len(encoder.encode("the river runs"))
    assert english["tokens_per_word"] == len(encoder.encode("the river runs")) / 3
    assert {row["bytes/bytes_per_token"] for row in (whole, english, japanese)} == {1.0}
    assert japanese["bytes/tokens_per_word"] == 5.0


def document(text: str, language: str) -> Document:
    known = Document(id=text, url="", date="", file="", offset=0, text=text)
    return {**known, "language": language} if language else known


def test_comparison_is_reported_and_kept_as_metrics(store: Store, tmp_path: Path, encoder: ChatTokenizer) -> None:
    encoder._encoder.save(str(tmp_path / "theirs.json"))
    shown: list[Row] = []

    class Eye(Reporter):
        def table(self, stage: str, name: str, rows: Any, description: str) -> None:
            shown.extend(rows)

    config = TokenizerConfig(vocab_size=300, compared_with=[str(tmp_path / "theirs.json")])
    with reporting(Eye()):
        manifest = execute(tokenizer(documents_of({"a": texts(50)}), config), store)
    assert [row["language"] for row in shown] == ["all"]
    assert manifest.metrics["theirs/bytes_per_token"] > manifest.metrics["bytes_per_token"] > 1
    assert manifest.metrics["theirs/tokens_per_word"] < manifest.metrics["tokens_per_word"]
    assert set(manifest.inputs) == {"documents", "compared_0"}


def test_merges_equal_the_reference_except_ties(shared_data: Path) -> None:
    """The reference and the trainer are one algorithm, with another choice among pairs that are equally frequent."""
    folder = shared_data / "tokenizer" / "bpe-train-reference"
    text = (folder / "corpus.en").read_text(encoding="utf-8")
    lines = (folder / "train-bpe-reference-merges.txt").read_text(encoding="utf-8").splitlines()
    encoder = train(iter([text]), TokenizerConfig(vocab_size=len(SPECIAL_TOKENS) + 256 + len(lines), pattern="gpt2"))
    words = Counter(as_bytes(word) for word, _ in encoder.pre_tokenizer.pre_tokenize_str(text))
    ids = {as_bytes(name): token for name, token in encoder.get_vocab().items() if name not in SPECIAL_TOKENS}

    def lowest_ids(pairs: list[plain_bpe.Pair]) -> plain_bpe.Pair:
        return min(pairs, key=lambda pair: (ids[pair[0]], ids[pair[1]]))

    greatest = [pair for pair, _ in plain_bpe.learn(words, len(lines), max)]
    assert greatest == [tuple(map(as_bytes, line.split(" "))) for line in lines]
    lowest = [pair for pair, _ in plain_bpe.learn(words, len(lines), lowest_ids)]
    assert lowest == [tuple(map(as_bytes, merge)) for merge in json.loads(encoder.to_str())["model"]["merges"]]


def as_bytes(name: str) -> bytes:
    return bytes(BYTE_OF[character] for character in name)
