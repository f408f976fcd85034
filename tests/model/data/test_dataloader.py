"""Batches: no record is lost or repeated, the order follows seed and step, and ranks only split the work."""

import gc
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.config import Objective, TrainConfig, TrainRun
from model.data.conversations import ConversationRows, PreferencePairs
from model.data.dataloader import batch_indices, microbatch_records, microbatches, open_dataset, open_validation
from model.data.dataset import Dataset, Mixture, Packed, Pairs, shuffled
from model.data.packing import best_fit
from model.data.token_shards import TokenShards, WholeDocuments
from model.errors import UserError
from model.tokenizer.chat import ChatTokenizer
from tests.support.tiny_models import write_lines, write_tokenizer

V = 320


def write_shard(path: Path, documents: list[list[int]], per_batch: int = 3, kind: pa.DataType | None = None) -> str:
    schema = pa.schema([("tokens", pa.list_(kind or pa.uint16()))], metadata={b"vocab_size": str(V).encode()})
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
    return TokenShards(paths, 8, 2**16)


@pytest.fixture
def tokenizer(tmp_path: Path) -> ChatTokenizer:
    return write_tokenizer(tmp_path)


def test_token_shards_sequences_tile_the_documents(shards: TokenShards) -> None:
    assert shards.stream.num_tokens == 500
    assert len(shards) == 62  # 62 * 8 + 1 <= 500
    tokens, mask = shards.fetch(np.arange(62))
    assert tokens.dtype == torch.int64
    assert torch.equal(tokens, torch.arange(62)[:, None] * 8 + torch.arange(9))
    assert mask.shape == (62, 8) and mask.min() == 1


@pytest.mark.parametrize("kind", [pa.uint16(), pa.uint32()])
def test_token_shards_stay_memory_mapped(tmp_path: Path, documents: list[list[int]], kind: pa.DataType) -> None:
    gc.collect()  # or other tests' garbage goes meanwhile
    before = pa.total_allocated_bytes()
    shards = TokenShards([write_shard(tmp_path / "0.arrow", documents * 1000, 1000, kind)], 8, 2**16)
    assert shards.stream.num_tokens == 500_000
    assert pa.total_allocated_bytes() == before
    assert shards.stream.slice(499_990, 500_000).tolist() == list(range(490, 500))


def test_token_shards_with_too_few_tokens_raise_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="hold 5 tokens, fewer than a sequence of 9"):
        TokenShards([write_shard(tmp_path / "0.arrow", [[1, 2, 3, 4, 5]])], 8, V)


def test_open_dataset_with_another_vocabulary_raises_error(tmp_path: Path, documents: list[list[int]]) -> None:
    path = write_shard(tmp_path / "0.arrow", documents)
    with pytest.raises(ValueError, match="a vocabulary of 320 tokens, and the tokenizer has 300"):
        open_dataset("pretrain", [path], 8, write_tokenizer(tmp_path, vocab_size=300))


def test_shuffled_takes_each_record_once_per_epoch_in_new_order() -> None:
    first, second = (shuffled(10, np.arange(10) + 10 * epoch, seed=7) for epoch in range(2))
    assert sorted(first) == sorted(second) == list(range(10))
    assert first.tolist() != second.tolist()
    assert first.tolist() != shuffled(10, np.arange(10), seed=8).tolist()


@pytest.mark.parametrize(("num_ranks", "microbatch_sequences"), [(1, 8), (1, 3), (2, 4), (4, 1), (8, 8)])
def test_batch_does_not_depend_on_ranks_and_microbatches(
    shards: TokenShards, num_ranks: int, microbatch_sequences: int
) -> None:
    config = TrainConfig(
        batch_tokens=64, sequence_tokens=8, microbatch_sequences=microbatch_sequences, num_ranks=num_ranks, seed=3
    )
    parts = [part for rank in range(num_ranks) for part in microbatches(shards, config, 11, rank)]
    assert {len(part.tokens) for part in parts} == {microbatch_records(config, shards)}
    together = torch.cat([part.tokens for part in parts])
    whole = shards.fetch(batch_indices(shards, config, 11)).tokens
    assert sorted(together.tolist()) == sorted(whole.tolist())


def test_batch_that_ranks_cannot_share_evenly_raises_error(shards: TokenShards) -> None:
    config = TrainConfig(batch_tokens=64, sequence_tokens=8, num_ranks=3)
    with pytest.raises(ValueError, match="num_ranks=3 cannot share evenly: choose a multiple of 24"):
        list(microbatches(shards, config, 0, 0))


@given(st.lists(st.integers(1, 20), max_size=60))
def test_best_fit_places_each_item_once_within_capacity(lengths: list[int]) -> None:
    order, starts = best_fit(np.array(lengths, np.int64), 20)
    rows = [order[start:stop].tolist() for start, stop in pairwise(starts.tolist())]
    assert sorted(number for row in rows for number in row) == list(range(len(lengths)))
    filled = [sum(lengths[number] for number in row) for row in rows]
    assert all(0 < length <= 20 for length in filled)
    assert sum(length <= 10 for length in filled) <= 1  # two half-empty rows would have been one
    assert sorted(filled) == sorted(sum(row) for row in one_by_one(lengths, 20))


def one_by_one(lengths: list[int], capacity: int) -> list[list[int]]:
    """Best fit as the textbooks have it: longest first, each where the least room is left over."""
    rows: list[list[int]] = []
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in rows if sum(row) + length <= capacity]
        if fitting:
            max(fitting, key=sum).append(length)
        else:
            rows.append([length])
    return rows


def chat(question: str, answer: str) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_conversations_are_packed_whole_with_answers_in_loss_mask(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    records = [chat(f"what is {n}?", "it is blue. " * (n % 4 + 1)) for n in range(30)]
    write_lines(tmp_path / "chat.jsonl", records)
    rows = ConversationRows([str(tmp_path / "chat.jsonl")], 48, tokenizer)
    assert rows.counts()["cropped_tokens"] == 0
    tokens, mask = rows.fetch(np.arange(len(rows)))
    assert tokens.shape == (len(rows), 49) and mask.shape == (len(rows), 48)
    rendered = [tokenizer.render(record["messages"]) for record in records]
    assert int((tokens != tokenizer.pad).sum()) == sum(len(tokens) for tokens, _ in rendered)
    assert int(mask.sum()) == sum(sum(mask) for _, mask in rendered)
    answers = [tokenizer.decode(row[1:][learned == 1].tolist()) for row, learned in zip(tokens, mask, strict=True)]
    assert "".join(answers).count("it is blue. ") == sum(n % 4 + 1 for n in range(30))
    assert "what" not in "".join(answers)


def test_conversation_longer_than_sequence_is_cropped_and_counted(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    write_lines(tmp_path / "chat.jsonl", [chat("what is it?", "yes " * 200), chat("no?", "no")])
    rows = ConversationRows([str(tmp_path / "chat.jsonl")], 32, tokenizer)
    assert rows.counts()["cropped_conversations"] == 1
    tokens, mask = rows.fetch(np.arange(len(rows)))
    assert tokens[0].tolist() == tokenizer.render(chat("what is it?", "yes " * 200)["messages"])[0][:33]
    assert mask[0, -1] == 1


def test_conversation_cropped_before_assistant_turn_is_dropped(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    """A batch of such alone would have nothing to divide its loss by."""
    records = [chat("why? " * 200, "because"), chat("no?", "no")]
    write_lines(tmp_path / "chat.jsonl", records)
    rows = ConversationRows([str(tmp_path / "chat.jsonl")], 32, tokenizer)
    counts = rows.counts()
    assert (counts["conversations"], counts["dropped_conversations"], counts["cropped_tokens"]) == (1, 1, 0)
    assert all(rows.fetch(np.arange(len(rows))).mask.sum(1) > 0)
    write_lines(tmp_path / "chat.jsonl", records[:1])
    with pytest.raises(
        ValueError, match="none of 1 conversations has a token of the assistant within sequence_tokens=32"
    ):
        ConversationRows([str(tmp_path / "chat.jsonl")], 32, tokenizer)


def test_conversation_in_which_nothing_is_learned_is_refused(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    """Training on it would divide a loss by nothing, or hide that its roles were read wrongly."""
    write_lines(tmp_path / "chat.jsonl", [chat("no?", "no"), {"messages": chat("no?", "no")["messages"][:1]}])
    with pytest.raises(UserError, match=r"chat.jsonl, conversation 2: nothing of the conversation is learned"):
        ConversationRows([str(tmp_path / "chat.jsonl")], 32, tokenizer)


@pytest.mark.parametrize("objective", ["pretrain", "sft", "reward"])
def test_open_validation_with_too_little_data_returns_none(
    tmp_path: Path, tokenizer: ChatTokenizer, objective: Objective, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "nothing"
    write_shard(path, []) if objective == "pretrain" else write_lines(path, [])
    run = TrainRun.model_construct(objective=objective, validation_paths=(str(path),), train=TrainConfig())
    assert open_validation(run, tokenizer) is None
    assert "no validation: " in capsys.readouterr().err


def test_preference_pairs_end_with_end_of_turn_token(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    messages = [{"role": "user", "content": "what colour is the sky?"}]
    fits = {"messages": messages, "chosen": "it is blue.", "rejected": "no"}
    write_lines(tmp_path / "pairs.jsonl", [fits, fits | {"rejected": "no " * 100}])
    pairs = PreferencePairs([str(tmp_path / "pairs.jsonl")], 64, tokenizer)
    assert pairs.counts() == {"records": 1, "dropped_pairs": 1}
    tokens, lengths, starts, weights = pairs.fetch(np.arange(1))
    assert weights.tolist() == [1.0]
    assert starts.tolist() == [len(tokenizer.render_prompt(messages))] * 2
    for row, length, completion in zip(tokens.tolist(), lengths.tolist(), ("it is blue.", "no"), strict=True):
        assert row[:length] == tokenizer.render([*messages, {"role": "assistant", "content": completion}])[0]
        assert row[length - 1] == tokenizer.turn_end
        assert set(row[length:]) <= {tokenizer.pad}
    assert tokens.shape == (2, lengths.max())


def test_preference_pair_counts_as_two_sequences(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    pair = {"messages": [{"role": "user", "content": "the sky?"}], "chosen": "blue", "rejected": "red"}
    write_lines(tmp_path / "pairs.jsonl", [pair] * 9)
    pairs = open_dataset("reward", [str(tmp_path / "pairs.jsonl")], 32, tokenizer)
    config = TrainConfig(batch_tokens=32 * 8, sequence_tokens=32, microbatch_sequences=4)
    parts = list(microbatches(pairs, config, 0, 0))
    longest = int(parts[0].lengths.max())
    assert [tuple(part.tokens.shape) for part in parts] == [(4, longest), (4, longest)]
    assert all(isinstance(part, Pairs) and not isinstance(part, Packed) for part in parts)


def test_preference_pairs_of_a_compiled_objective_have_one_shape(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    pair = {"messages": [{"role": "user", "content": "the sky?"}], "chosen": "blue", "rejected": "red"}
    write_lines(tmp_path / "pairs.jsonl", [pair] * 2)
    pairs = open_dataset("reward", [str(tmp_path / "pairs.jsonl")], 32, tokenizer, has_one_shape=True)
    assert pairs.fetch(np.arange(2)).tokens.shape == (4, 32)


@given(st.lists(st.lists(st.integers(20, 300), max_size=40), min_size=1, max_size=12), st.integers(2, 17))
def test_whole_documents_keep_all_tokens_and_begin_each_sequence(texts: list[list[int]], sequence_tokens: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = write_tokenizer(Path(folder))
        texts.append([20])  # not only empty ones
        path = write_shard(Path(folder) / "0.arrow", [[tokenizer.bos, *text] for text in texts])
        rows = WholeDocuments([path], sequence_tokens, tokenizer)
        tokens, mask = rows.fetch(np.arange(len(rows)))
    assert set(tokens[:, 0].tolist()) == {tokenizer.bos}
    parts = [split(row[row != tokenizer.pad].tolist(), tokenizer.bos) for row in tokens]
    pieces = [piece for row in parts for piece in row]
    whole = [tuple(text) for text in texts if 0 < len(text) <= sequence_tokens]
    assert sorted(token for piece in pieces for token in piece) == sorted(token for text in texts for token in text)
    assert not set(whole) - set(pieces)
    counts = rows.counts()
    assert counts["padded_tokens"] == int((tokens == tokenizer.pad).sum())
    assert counts["cuts_in_documents"] == len(pieces) - sum(bool(text) for text in texts)
    assert torch.equal(mask == 1, tokens[:, 1:] != tokenizer.pad)


def split(tokens: list[int], bos: int) -> list[tuple[int, ...]]:
    """What lies between <|bos|>s."""
    pieces: list[list[int]] = []
    for token in tokens:
        if token == bos:
            pieces.append([])
        else:
            pieces[-1].append(token)
    return [tuple(piece) for piece in pieces]


def test_long_document_continues_in_next_piece(tmp_path: Path, tokenizer: ChatTokenizer) -> None:
    text = list(range(20, 20 + 35))
    path = write_shard(tmp_path / "0.arrow", [[tokenizer.bos, *text]])
    rows = WholeDocuments([path], 10, tokenizer)
    tokens = rows.fetch(np.arange(len(rows))).tokens.tolist()
    assert [row[1:] for row in tokens][:3] == [text[:10], text[10:20], text[20:30]]
    assert tokens[3] == [tokenizer.bos, *text[30:], *[tokenizer.pad] * 5]
    assert rows.counts() == {"records": 4, "padded_tokens": 5, "cuts_in_documents": 3}
    assert rows.files(np.arange(4)) == [path]


@pytest.fixture
def mixture(tmp_path: Path) -> Mixture:
    """Sequences of 8 tokens: those of the second part are all above 1000, those of the third above 2000."""
    paths = [
        write_shard(tmp_path / f"{n}.arrow", [list(range(1000 * n, 1000 * n + size))])
        for n, size in enumerate((81, 161, 41))
    ]
    return Mixture([TokenShards([path], 8, 2**16) for path in paths], [1.0, 2.0, 0.5])


def test_mixture_takes_records_in_proportion_to_weights(mixture: Mixture) -> None:
    drawn = mixture.draw(np.arange(2048), seed=5)
    sources = mixture.fetch(drawn).tokens[:, 0] // 1000
    assert np.bincount(sources).tolist() == [586, 1170, 292]
    assert np.bincount(sources[:1024]).tolist() == [293, 585, 146]
    for source, num_records in enumerate((10, 20, 5)):  # in epochs, each of which takes every record once
        of_it = drawn[sources == source]
        assert (
            sorted(of_it[:num_records]) == sorted(of_it[num_records : 2 * num_records]) == sorted(set(of_it.tolist()))
        )
    assert mixture.epochs(1024) == {"epochs": 29.3, "mixture/1/epochs": 29.25, "mixture/2/epochs": 29.2}


def test_mixture_depends_on_seed_and_position_alone(mixture: Mixture) -> None:
    drawn = mixture.draw(np.arange(3000), seed=5)
    assert mixture.draw(np.arange(1500, 1600), seed=5).tolist() == drawn[1500:1600].tolist()
    assert mixture.draw(np.arange(3000), seed=6).tolist() != drawn.tolist()
    assert mixture.files(np.array([0, 34])) == [
        mixture.datasets[0].files(np.array([0]))[0],
        mixture.datasets[2].files(np.array([0]))[0],
    ]


def test_mixture_weight_below_one_record_raises_error(tmp_path: Path) -> None:
    parts: list[Dataset] = [TokenShards([write_shard(tmp_path / "0.arrow", [list(range(100))])], 8, V)] * 2
    with pytest.raises(ValueError, match="less than one record of 1024: give it more weight"):
        Mixture(parts, [1.0, 1e-4])
