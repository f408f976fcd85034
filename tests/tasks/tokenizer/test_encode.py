"""Tokenizing: every document comes back from the shards, the split leaks nothing, and the baseline is a fair one."""

import gc
import math
import random
from itertools import pairwise
from pathlib import Path
from typing import get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.token_stream import shard_vocab_size, token_runs
from model.tokenizer.chat import ChatTokenizer
from model.tokenizer.vocabularies import PatternName
from tasks.artifacts.manifest import Tokenizer as TokenizerArtifact
from tasks.artifacts.manifest import Tokens
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.tokenizer.bigram import Bigram, Pairs, bits_per_byte, fit_discount, read_pairs
from tasks.tokenizer.encode import CUT, TokenizeConfig, TokenWriter, batches, is_validation, metrics, pieces, tokenize
from tasks.tokenizer.train import TokenizerConfig, train
from tests.support.documents import documents_of
from tests.support.wiring import tokenizer
from tests.tasks.tokenizer.test_train import texts

SHARDS = {"a": texts(120, 1), "b": texts(80, 2), "none": [], "odd": ["", "x", "<|bos|> forged", "Ω\0"]}
ALL = [text for shard in SHARDS.values() for text in shard]


def steps(fraction: float = 0.2, **settings: int) -> tuple[Step[TokenizerArtifact], Step[Tokens]]:
    documents = documents_of(SHARDS)
    learned = tokenizer(documents, TokenizerConfig(vocab_size=330))
    return learned, tokenize(
        documents, learned, TokenizeConfig(validation_fraction=fraction, num_workers=1, **settings)
    )


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[ChatTokenizer, Tokens]:
    store = Store(str(tmp_path_factory.mktemp("store")))
    learned, step = steps()
    execute(step.inputs["documents"], store)
    execute(learned, store)
    execute(step, store)
    return ChatTokenizer.load(store.folder(learned.id) / "tokenizer.json"), store.open(step.id, Tokens)


def documents_in(paths: list[Path]) -> list[list[int]]:
    return [document for path in paths for document in pa.ipc.open_file(str(path)).read_all()["tokens"].to_pylist()]


def test_every_document_decodes_to_itself_once(made: tuple[ChatTokenizer, Tokens]) -> None:
    encoder, tokens = made
    documents = documents_in(tokens.files("train/*.arrow") + tokens.files("validation/*.arrow"))
    assert all(document[0] == encoder.bos and encoder.bos not in document[1:] for document in documents)
    assert sorted(encoder.decode(document) for document in documents) == sorted(ALL)


def test_counts_equal_the_content_of_the_shards(made: tuple[ChatTokenizer, Tokens]) -> None:
    encoder, tokens = made
    counts = tokens.manifest.counts
    for split in ("train", "validation"):
        documents = documents_in(tokens.files(f"{split}/*.arrow"))
        assert counts[f"{split}/documents"] == len(documents) > 0
        assert counts[f"{split}/tokens"] == sum(map(len, documents))
        assert counts[f"{split}/text_bytes"] == sum(len(encoder.decode(document).encode()) for document in documents)
        assert counts[f"{split}/text_bytes"] == sum(int(encoder.token_bytes[document].sum()) for document in documents)
    assert counts["documents"] == len(ALL)
    assert counts["tokens"] == counts["train/tokens"] + counts["validation/tokens"]


def test_equal_texts_lie_in_one_split() -> None:
    sides = {text: is_validation(text, 0.3) for text in texts(1000, 3)}
    assert 0.2 < sum(sides.values()) / len(sides) < 0.4
    assert not any(is_validation(text, 0.0) for text in sides)
    stays = [text for text, side in sides.items() if side]
    assert all(is_validation(text, 0.5) for text in stays)  # a larger share takes more, and gives none back


def test_shards_are_memory_mapped_and_carry_metadata(made: tuple[ChatTokenizer, Tokens]) -> None:
    encoder, tokens = made
    path = str(tokens.files("train/*.arrow")[0])
    assert shard_vocab_size(path) == encoder.vocab_size
    assert pa.ipc.open_file(path).schema.metadata[b"tokenizer"].decode() in tokens.manifest.inputs["tokenizer"]
    gc.collect()  # or other tests' garbage goes meanwhile
    before = pa.total_allocated_bytes()
    runs = list(token_runs(path))
    assert pa.total_allocated_bytes() == before
    assert runs[0].tokens.dtype == np.uint16


def test_large_vocabulary_is_written_as_uint32(made: tuple[ChatTokenizer, Tokens], tmp_path: Path) -> None:
    class Large:
        vocab_size, bos = 2**16 + 1, 0

        def encode_batch(self, texts: list[str]) -> list[list[int]]:
            return [[2**16] for _ in texts]

    with TokenWriter(tmp_path / "shard.arrow", Large(), "fingerprint") as writer:
        assert writer.write(["a", "b"]) == 4
        assert writer.write([]) == 0
    assert documents_in([tmp_path / "shard.arrow"]) == [[0, 2**16], [0, 2**16]]


def test_shards_open_in_datasets(made: tuple[ChatTokenizer, Tokens], tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    paths = [str(path) for path in made[1].files("train/*.arrow")]
    opened = datasets.load_dataset("arrow", data_files=paths, split="train", cache_dir=str(tmp_path))
    assert opened["tokens"][:3] == documents_in(made[1].files("train/*.arrow"))[:3]


def test_batches_are_bounded_by_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tokenizer.encode.BATCH_DOCUMENTS", 3)
    monkeypatch.setattr("tasks.tokenizer.encode.BATCH_CHARACTERS", 10)
    assert list(batches(["a"] * 7)) == [["a"] * 3, ["a"] * 3, ["a"]]
    assert list(batches(["a" * 20, "b", "c" * 9, "d"])) == [["a" * 20], ["b", "c" * 9], ["d"]]
    assert list(batches([])) == []


ENCODERS = {
    pattern: ChatTokenizer(train(iter(texts(200)), TokenizerConfig(vocab_size=400, pattern=pattern)))
    for pattern in get_args(PatternName)
}


@pytest.mark.parametrize("pattern", ENCODERS)
@settings(max_examples=300, deadline=None)
@given(
    words=st.lists(st.sampled_from(["river", "\n", " ", "don't", "'S", "12", "!", "/", "\u0301", "\x85", "語", "Über"]))
)
def test_text_in_pieces_has_the_tokens_of_the_whole(pattern: str, words: list[str]) -> None:
    text, encoder = "".join(words), ENCODERS[pattern]
    cuts = [0, *(cut.start() for cut in CUT.finditer(text)), len(text)]
    found = [text[start:end] for start, end in pairwise(cuts)]
    assert [token for piece in found for token in encoder.encode(piece)] == encoder.encode(text)


@pytest.mark.parametrize("text", ["one two three\nfour " * 20, "x" * 300, " " * 300, "語\n" * 150, "", "short"])
def test_pieces_are_bounded_and_complete(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.tokenizer.encode.PIECE_CHARACTERS", 25)
    found = list(pieces(text))
    assert "".join(found) == text
    assert max(map(len, found)) <= 50


def test_long_document_stays_one_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder, long = ENCODERS["gpt4"], "\n".join(texts(50))
    monkeypatch.setattr("tasks.tokenizer.encode.PIECE_CHARACTERS", 100)
    monkeypatch.setattr("tasks.tokenizer.encode.BATCH_CHARACTERS", 1_000)
    with TokenWriter(tmp_path / "shard.arrow", encoder, "fingerprint") as writer:
        writer.write(["first", long, "", "last"])
    expected = [[encoder.bos, *encoder.encode(text)] for text in ("first", long, "", "last")]
    assert documents_in([tmp_path / "shard.arrow"]) == expected


def test_no_bigram_baseline_without_a_validation_split(store: Store) -> None:
    learned, step = steps(fraction=0.0)
    execute(step.inputs["documents"], store)
    execute(learned, store)
    manifest = execute(step, store)
    assert manifest.counts["validation/tokens"] == 0
    assert "bigram/bits_per_byte" not in manifest.metrics


# The baseline


def as_pairs(tokens: list[int]) -> Pairs:
    array = np.array(tokens, np.int64)
    return Pairs(array[:-1], array[1:])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=2, max_size=60), st.floats(0.1, 0.95))
def test_bigram_probabilities_sum_to_one(tokens: list[int], discount: float) -> None:
    bigram = Bigram(as_pairs(tokens), 7)
    for before in range(7):
        after = np.arange(7)
        total = sum(math.exp(-bigram.nats(Pairs(np.array([before]), after[b : b + 1]), discount)) for b in range(7))
        assert total == pytest.approx(1.0)


def test_bigram_reaches_the_entropy_of_a_markov_chain() -> None:
    """Text of a chain whose entropy is known: 1 bit a token, and a byte a token."""
    rng = random.Random(0)
    tokens = [0]
    for _ in range(60_000):
        tokens.append((tokens[-1] * 2 + rng.randrange(2)) % 64)
    bits = bits_per_byte(as_pairs(tokens[:50_000]), as_pairs(tokens[50_000:]), 10_000, 64)
    assert bits == pytest.approx(1.0, abs=0.01)


def test_pairs_do_not_cross_documents(made: tuple[ChatTokenizer, Tokens]) -> None:
    encoder, tokens = made
    pairs = read_pairs(tokens.files("train/*.arrow"), encoder.bos)
    documents = documents_in(tokens.files("train/*.arrow"))
    assert len(pairs.after) == sum(len(document) - 1 for document in documents)
    assert encoder.bos not in pairs.after
    assert (pairs.before == encoder.bos).sum() == sum(len(document) > 1 for document in documents)


def test_discount_is_fitted_without_the_validation_text() -> None:
    rng = random.Random(0)
    repetitive = as_pairs([0, 1] * 2000)
    scattered = as_pairs([rng.randrange(500) for _ in range(2000)])
    assert fit_discount(repetitive, 500) < fit_discount(scattered, 500)


def test_bigram_baseline_of_a_single_pair_is_finite() -> None:
    assert 0 < bits_per_byte(as_pairs([0, 1]), as_pairs([0, 1]), 2, 7) < 10


def test_bigram_baseline_divides_by_the_bytes_that_it_read(
    made: tuple[ChatTokenizer, Tokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a long validation split only a part is read: its cost must not be spread over the bytes of the whole."""
    encoder, tokens = made
    whole = tokens.manifest.metrics["bigram/bits_per_byte"]
    monkeypatch.setattr("tasks.tokenizer.bigram.MAX_TOKENS", 1)  # the first batch of each split
    part = len(read_pairs(tokens.files("validation/*.arrow"), encoder.bos).before)
    assert part < 2 / 3 * tokens.manifest.counts["validation/tokens"]
    bits = metrics(tokens.folder, encoder, tokens.manifest.counts)["bigram/bits_per_byte"]
    assert whole < bits < 3 * whole  # dearer, since less is learned as well


def test_bigram_baseline_beats_a_uniform_model(made: tuple[ChatTokenizer, Tokens]) -> None:
    encoder, tokens = made
    counts, bits = tokens.manifest.counts, tokens.manifest.metrics["bigram/bits_per_byte"]
    uniform = math.log2(encoder.vocab_size) * counts["validation/tokens"] / counts["validation/text_bytes"]
    assert 0 < bits < uniform
