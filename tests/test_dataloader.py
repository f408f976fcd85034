"""Batches: nothing is lost or told twice, the order follows seed and step, and ranks only share the work out."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny import write_lines, write_tokenizer

from model.config import TrainConfig
from model.dataloader import (
    ConversationRows,
    Packed,
    Pairs,
    PreferencePairs,
    TokenShards,
    batch_indices,
    first_fit,
    microbatch_records,
    microbatches,
    open_dataset,
)
from model.tokenizer import Tokenizer


def write_shard(path: Path, documents: list[list[int]], per_batch: int = 3, kind: pa.DataType | None = None) -> str:
    schema = pa.schema([("tokens", pa.list_(kind or pa.uint16()))], metadata={b"vocab_size": b"320"})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        for start in range(0, len(documents), per_batch):
            writer.write_batch(pa.record_batch([documents[start : start + per_batch]], schema=schema))
    return str(path)


@pytest.fixture
def documents() -> list[list[int]]:
    """Their tokens in a row are 0, 1, 2 ... 499."""
    lengths = np.random.default_rng(0).multinomial(500, np.ones(17) / 17).tolist()
    starts = np.cumsum([0, *lengths]).tolist()
    return [list(range(start, stop)) for start, stop in pairwise(starts)]


@pytest.fixture
def shards(tmp_path: Path, documents: list[list[int]]) -> TokenShards:
    paths = [write_shard(tmp_path / "0.arrow", documents[:10]), write_shard(tmp_path / "1.arrow", documents[10:])]
    return TokenShards(paths, sequence_tokens=8)


def test_sequences_tile_the_documents(shards: TokenShards) -> None:
    assert shards.num_tokens == 500
    assert len(shards) == 62  # 62 * 8 + 1 <= 500
    tokens, mask = shards.fetch(np.arange(62))
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, torch.arange(62)[:, None] * 8 + torch.arange(9))
    assert mask.shape == (62, 8) and mask.min() == 1


@pytest.mark.parametrize("kind", [pa.uint16(), pa.uint32()])
def test_shards_are_not_copied_into_memory(tmp_path: Path, documents: list[list[int]], kind: pa.DataType) -> None:
    before = pa.total_allocated_bytes()
    shards = TokenShards([write_shard(tmp_path / "0.arrow", documents * 1000, 1000, kind)], 8)
    assert shards.num_tokens == 500_000
    assert pa.total_allocated_bytes() == before
    assert shards.slice(499_990, 500_000).tolist() == list(range(490, 500))


def test_too_few_tokens_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hold 5 tokens, fewer than a sequence of 9"):
        TokenShards([write_shard(tmp_path / "0.arrow", [[1, 2, 3, 4, 5]])], 8)


def test_a_foreign_tokenizer_is_refused(tmp_path: Path, documents: list[list[int]]) -> None:
    path = write_shard(tmp_path / "0.arrow", documents)
    with pytest.raises(ValueError, match="a vocabulary of 320 tokens, the tokenizer has 300"):
        open_dataset("pretrain", [path], 8, write_tokenizer(tmp_path, vocab_size=300))


def test_each_epoch_tells_every_sequence_once_and_in_another_order() -> None:
    told = [batch_indices(10, 4, step, seed=7) for step in range(5)]  # two epochs of 10 in batches of 4
    first, second = np.split(np.concatenate(told), 2)
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()
    assert first.tolist() != np.concatenate([batch_indices(10, 4, step, seed=8) for step in range(5)])[:10].tolist()


@pytest.mark.parametrize(("num_ranks", "microbatch_sequences"), [(1, 8), (1, 3), (2, 4), (4, 1), (8, 8)])
def test_a_batch_is_the_same_however_it_is_shared_out(
    shards: TokenShards, num_ranks: int, microbatch_sequences: int
) -> None:
    config = TrainConfig(
        batch_tokens=64, sequence_tokens=8, microbatch_sequences=microbatch_sequences, num_ranks=num_ranks, seed=3
    )
    parts = [part for rank in range(num_ranks) for part in microbatches(shards, config, 11, rank)]
    assert {len(part.tokens) for part in parts} == {microbatch_records(config, shards)}
    together = torch.cat([part.tokens for part in parts])
    whole = shards.fetch(batch_indices(len(shards), 8, 11, seed=3)).tokens
    assert sorted(together.tolist()) == sorted(whole.tolist())


def test_ranks_that_cannot_share_a_batch_are_refused(shards: TokenShards) -> None:
    config = TrainConfig(batch_tokens=64, sequence_tokens=8, num_ranks=3)
    with pytest.raises(ValueError, match="num_ranks=3 cannot share evenly; choose a multiple of 24"):
        list(microbatches(shards, config, 0, 0))


@given(st.lists(st.integers(1, 20), max_size=60))
def test_first_fit_places_everything_once_and_overfills_nothing(lengths: list[int]) -> None:
    rows = first_fit(lengths, 20)
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    filled = [sum(lengths[number] for number in row) for row in rows]
    assert all(0 < length <= 20 for length in filled)
    assert sum(length <= 10 for length in filled) <= 1  # two half-empty rows would have been one


@pytest.fixture
def tokenizer(tmp_path: Path) -> Tokenizer:
    return write_tokenizer(tmp_path)


def chat(question: str, answer: str) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_conversations_are_packed_whole_and_only_answers_are_learned(tmp_path: Path, tokenizer: Tokenizer) -> None:
    records = [chat(f"what is {n}?", "it is blue. " * (n % 4 + 1)) for n in range(30)]
    write_lines(tmp_path / "chat.jsonl", records)
    rows = ConversationRows([str(tmp_path / "chat.jsonl")], 48, tokenizer)
    assert rows.num_cropped == 0
    tokens, mask = rows.fetch(np.arange(len(rows)))
    assert tokens.shape == (len(rows), 49) and mask.shape == (len(rows), 48)
    rendered = [tokenizer.render(record["messages"]) for record in records]
    assert int((tokens != tokenizer.pad).sum()) == sum(len(tokens) for tokens, _ in rendered)
    assert int(mask.sum()) == sum(sum(mask) for _, mask in rendered)
    answers = [tokenizer.decode(row[1:][learned == 1].tolist()) for row, learned in zip(tokens, mask, strict=True)]
    assert "".join(answers).count("it is blue. ") == sum(n % 4 + 1 for n in range(30))
    assert "what" not in "".join(answers)


def test_a_conversation_longer_than_a_sequence_is_cropped_and_counted(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_lines(tmp_path / "chat.jsonl", [chat("what is it?", "yes " * 200), chat("no?", "no")])
    rows = ConversationRows([str(tmp_path / "chat.jsonl")], 32, tokenizer)
    assert rows.num_cropped == 1
    tokens, mask = rows.fetch(np.arange(len(rows)))
    assert tokens[0].tolist() == tokenizer.render(chat("what is it?", "yes " * 200)["messages"])[0][:33]
    assert mask[0, -1] == 1


def test_pairs_end_with_the_end_of_the_turn(tmp_path: Path, tokenizer: Tokenizer) -> None:
    messages = [{"role": "user", "content": "what colour is the sky?"}]
    fits = {"messages": messages, "chosen": "it is blue.", "rejected": "no"}
    write_lines(tmp_path / "pairs.jsonl", [fits, fits | {"rejected": "no " * 100}])
    pairs = PreferencePairs([str(tmp_path / "pairs.jsonl")], 64, tokenizer)
    assert (len(pairs), pairs.num_dropped) == (1, 1)
    tokens, lengths = pairs.fetch(np.arange(1))
    for row, length, completion in zip(tokens.tolist(), lengths.tolist(), ("it is blue.", "no"), strict=True):
        assert row[:length] == tokenizer.render([*messages, {"role": "assistant", "content": completion}])[0]
        assert row[length - 1] == tokenizer.assistant_end
        assert set(row[length:]) == {tokenizer.pad}


def test_pairs_count_twice_in_a_batch(tmp_path: Path, tokenizer: Tokenizer) -> None:
    pair = {"messages": [{"role": "user", "content": "the sky?"}], "chosen": "blue", "rejected": "red"}
    write_lines(tmp_path / "pairs.jsonl", [pair] * 9)
    pairs = open_dataset("reward", [str(tmp_path / "pairs.jsonl")], 32, tokenizer)
    config = TrainConfig(batch_tokens=32 * 8, sequence_tokens=32, microbatch_sequences=4)
    parts = list(microbatches(pairs, config, 0, 0))
    assert [tuple(part.tokens.shape) for part in parts] == [(4, 32), (4, 32)]
    assert all(isinstance(part, Pairs) and not isinstance(part, Packed) for part in parts)
