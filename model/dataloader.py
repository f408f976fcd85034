"""From files to microbatches: the batch of a step is a function of the seed and the step, and of nothing else.

Reads Arrow IPC files of documents' tokens (memory-mapped; one column `tokens`, a list a document, which starts with
<|bos|>), JSON Lines of conversations and JSON Lines of preference pairs. Writes nothing.

Documents are concatenated and cut into sequences of T + 1 tokens with a stride of T, as in GPT-2: attention crosses
documents, and what is left of the last sequence is dropped. Conversations are packed whole, first fit, and padded; one
longer than a sequence is cropped at its end. A pair of which one side does not fit is dropped.

All data sets are shuffled anew each epoch. Ranks and microbatches only share out a step's batch, so the number of
either changes nothing but the order in which floating-point numbers are added.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import Tensor

from model.config import Objective, TrainConfig
from model.tokenizer import Tokenizer

Indices = npt.NDArray[np.int64]


class Packed(NamedTuple):
    """Sequences of a language model."""

    tokens: Tensor  # [B, T + 1] int64: inputs are all but the last, targets all but the first
    mask: Tensor  # [B, T] float32: 1 where the target is to be learned


class Pairs(NamedTuple):
    """Preference pairs: sequence 2 i is the chosen one of pair i, sequence 2 i + 1 the rejected one."""

    tokens: Tensor  # [2 B, T] int64, padded on the right
    lengths: Tensor  # [2 B] int64


Microbatch = Packed | Pairs


class Dataset(Protocol):
    """Records that can be fetched by number."""

    record_sequences: int  # sequences that a record takes in a batch

    def __len__(self) -> int: ...

    def fetch(self, indices: Indices) -> Microbatch: ...

    def files(self, indices: Indices) -> list[str]:
        """The files that records may come from."""


class TokenShards:
    """Packed sequences over the documents of Arrow token shards, without a copy of them in memory."""

    record_sequences = 1

    def __init__(self, paths: Sequence[str], sequence_tokens: int) -> None:
        self.sequence_tokens = sequence_tokens
        self._runs = [tokens for path in paths for tokens in token_runs(path)]
        self._paths = [path for path in paths for _ in token_runs(path)]
        self._starts = np.cumsum([0, *(len(tokens) for tokens in self._runs)])
        self.num_tokens = int(self._starts[-1])
        if len(self) < 1:
            raise ValueError(
                f"token shards {list(paths)} hold {self.num_tokens} tokens, fewer than a sequence of "
                f"{sequence_tokens + 1}; take more documents or a smaller sequence_tokens"
            )

    def __len__(self) -> int:
        return max(0, (self.num_tokens - 1) // self.sequence_tokens)

    def fetch(self, indices: Indices) -> Packed:
        """Sequences by number: tokens [B, T + 1], all of them to be learned."""
        T = self.sequence_tokens
        tokens = np.stack([self.slice(index * T, index * T + T + 1) for index in indices.tolist()])
        return Packed(torch.from_numpy(tokens), torch.ones(len(indices), T))

    def files(self, indices: Indices) -> list[str]:
        """The shards in which sequences begin."""
        runs = np.searchsorted(self._starts, indices * self.sequence_tokens, side="right") - 1
        return sorted({self._paths[run] for run in runs.tolist()})

    def slice(self, start: int, stop: int) -> Indices:
        """Tokens start to stop of all documents, one after the other."""
        first = int(np.searchsorted(self._starts, start, side="right")) - 1
        parts = []
        while start < stop:
            offset = start - self._starts[first]
            part = self._runs[first][offset : offset + stop - start]
            parts.append(part)
            start += len(part)
            first += 1
        return np.concatenate(parts).astype(np.int64)


def token_runs(path: str) -> Iterator[npt.NDArray[Any]]:
    """The tokens of each record batch of an Arrow IPC file: views of the memory map."""
    reader = pa.ipc.open_file(pa.memory_map(path))
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number).column("tokens").flatten().to_numpy(zero_copy_only=True)


def shard_vocab_size(path: str) -> int:
    """V of the tokenizer that a token shard was written with."""
    return int(pa.ipc.open_file(pa.memory_map(path)).schema.metadata[b"vocab_size"])


class ConversationRows:
    """Rendered conversations, packed into sequences; only the assistant's tokens are learned."""

    record_sequences = 1

    def __init__(self, paths: Sequence[str], sequence_tokens: int, tokenizer: Tokenizer) -> None:
        self.sequence_tokens = sequence_tokens
        self.paths = list(paths)
        self.pad = tokenizer.pad
        rendered = [tokenizer.render(record["messages"]) for record in read_records(paths)]
        self.num_cropped = sum(len(tokens) > sequence_tokens + 1 for tokens, _ in rendered)
        self._conversations = [(t[: sequence_tokens + 1], m[: sequence_tokens + 1]) for t, m in rendered]
        self._rows = first_fit([len(tokens) for tokens, _ in self._conversations], sequence_tokens + 1)

    def __len__(self) -> int:
        return len(self._rows)

    def files(self, indices: Indices) -> list[str]:
        """All files: records are not told apart by them."""
        return self.paths

    def fetch(self, indices: Indices) -> Packed:
        """Sequences by number: tokens [B, T + 1] padded on the right, mask [B, T]."""
        shape = (len(indices), self.sequence_tokens + 1)
        tokens, mask = np.full(shape, self.pad, np.int64), np.zeros(shape, np.float32)
        for row, index in enumerate(indices.tolist()):
            start = 0
            for number in self._rows[index]:
                part, part_mask = self._conversations[number]
                tokens[row, start : start + len(part)] = part
                mask[row, start : start + len(part)] = part_mask
                start += len(part)
        return Packed(torch.from_numpy(tokens), torch.from_numpy(mask[:, 1:].copy()))


class PreferencePairs:
    """Rendered preference pairs, padded; the reward is read at the end of the completion."""

    record_sequences = 2

    def __init__(self, paths: Sequence[str], sequence_tokens: int, tokenizer: Tokenizer) -> None:
        self.sequence_tokens = sequence_tokens
        self.paths = list(paths)
        self.pad = tokenizer.pad
        pairs = [_render_pair(record, tokenizer) for record in read_records(paths)]
        self._pairs = [pair for pair in pairs if max(map(len, pair)) <= sequence_tokens]
        self.num_dropped = len(pairs) - len(self._pairs)
        if not self._pairs:
            raise ValueError(f"none of {len(pairs)} pairs fits into sequence_tokens={sequence_tokens}; make it larger")

    def __len__(self) -> int:
        return len(self._pairs)

    def files(self, indices: Indices) -> list[str]:
        """All files: records are not told apart by them."""
        return self.paths

    def fetch(self, indices: Indices) -> Pairs:
        """Pairs by number: tokens [2 B, T], lengths [2 B]."""
        sides = [side for index in indices.tolist() for side in self._pairs[index]]
        tokens = np.full((len(sides), self.sequence_tokens), self.pad, np.int64)
        for row, side in enumerate(sides):
            tokens[row, : len(side)] = side
        return Pairs(torch.from_numpy(tokens), torch.tensor([len(side) for side in sides]))


def _render_pair(record: dict[str, Any], tokenizer: Tokenizer) -> tuple[list[int], list[int]]:
    completions = (record["chosen"], record["rejected"])
    chosen, rejected = (
        tokenizer.render([*record["messages"], {"role": "assistant", "content": completion}])[0]
        for completion in completions
    )
    return chosen, rejected


def open_dataset(
    objective: Objective, paths: Sequence[str], sequence_tokens: int, tokenizer: Tokenizer
) -> TokenShards | ConversationRows | PreferencePairs:
    """The data set that an objective learns from. Raises ValueError where shards and tokenizer do not belong together."""
    if objective == "sft":
        return ConversationRows(paths, sequence_tokens, tokenizer)
    if objective == "reward":
        return PreferencePairs(paths, sequence_tokens, tokenizer)
    for path in paths:
        if shard_vocab_size(path) != tokenizer.vocab_size:
            raise ValueError(
                f"{path} was written with a vocabulary of {shard_vocab_size(path)} tokens, the tokenizer has "
                f"{tokenizer.vocab_size}; give the tokenizer that the shards were made with"
            )
    return TokenShards(paths, sequence_tokens)


def read_records(paths: Iterable[str]) -> list[dict[str, Any]]:
    """All JSON objects of JSON Lines files."""
    return [json.loads(line) for path in paths for line in Path(path).read_text(encoding="utf-8").splitlines()]


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Put things of these lengths into rows of a capacity, longest first, each into the first row it fits in.

    Every length is at most the capacity. Gives the numbers of the things by row.
    """
    rows: list[list[int]] = []
    free = np.zeros(len(lengths), np.int64)  # by row
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        fits = free[: len(rows)] >= lengths[number]
        row = int(fits.argmax()) if fits.any() else len(rows)
        if row == len(rows):
            rows.append([])
            free[row] = capacity
        rows[row].append(number)
        free[row] -= lengths[number]
    return rows


def batch_records(config: TrainConfig, dataset: Dataset) -> int:
    """Records of a batch, over all ranks. Raises ValueError where the ranks cannot share it evenly."""
    num_records = config.batch_tokens // (config.sequence_tokens * dataset.record_sequences)
    if num_records < 1 or num_records % config.num_ranks:
        raise ValueError(
            f"batch_tokens={config.batch_tokens} makes {num_records} records of {dataset.record_sequences} sequences, "
            f"which num_ranks={config.num_ranks} cannot share evenly; choose a multiple of "
            f"{config.sequence_tokens * dataset.record_sequences * config.num_ranks}"
        )
    return num_records


def microbatch_records(config: TrainConfig, dataset: Dataset) -> int:
    """Records of a microbatch: the largest divisor of a rank's share that microbatch_sequences admits."""
    share = batch_records(config, dataset) // config.num_ranks
    most = max(1, config.microbatch_sequences // dataset.record_sequences)
    return max(size for size in range(1, share + 1) if share % size == 0 and size <= most)


def batch_indices(num_records: int, batch_size: int, step: int, seed: int) -> Indices:
    """Which records the batch of a step (from 0) holds, [batch_size]; it may reach into the next epoch."""
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    return np.array([_order(num_records, seed, p // num_records)[p % num_records] for p in positions.tolist()])


@lru_cache(maxsize=4)
def _order(num_records: int, seed: int, epoch: int) -> Indices:
    return np.random.default_rng((seed, epoch)).permutation(num_records)


def microbatches(dataset: Dataset, config: TrainConfig, step: int, rank: int) -> Iterator[Microbatch]:
    """This rank's part of the batch of a step (from 0)."""
    indices = batch_indices(len(dataset), batch_records(config, dataset), step, config.seed)
    size = microbatch_records(config, dataset)
    mine = indices[rank :: config.num_ranks]
    for start in range(0, len(mine), size):
        yield dataset.fetch(mine[start : start + size])
