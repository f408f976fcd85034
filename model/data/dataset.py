"""Data sets: records that are fetched by number, and the order in which training takes them. Reads and writes nothing."""

from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model.data.packing import Indices
from model.errors import UserError

Tokens = Sequence[int] | npt.NDArray[Any]
Part = tuple[Tokens, Sequence[int] | int]
"""Tokens, and 1 where one is learned: a value for each, or one for all."""
MIXTURE_POSITIONS = 1024  # a mixture has the exact shares over this many records


class NotEnoughData(UserError):
    """Files hold nothing that can be learned in sequences of the given length."""


class Packed(NamedTuple):
    """Sequences of a language model."""

    tokens: Tensor  # [B, T + 1] int64: inputs are all but the last, targets all but the first
    mask: Tensor  # [B, T] float32: 1 where the target is learned


def pack(rows: Sequence[Iterable[Part]], num_tokens: int, pad: int) -> Packed:
    """Sequences of parts, one after the other, padded on the right to num_tokens."""
    tokens = np.full((len(rows), num_tokens), pad, np.int64)
    # 0 on padding, since no part covers it.
    mask = np.zeros(tokens.shape, np.float32)
    for row, parts in enumerate(rows):
        start = 0
        for part, is_learned in parts:
            end = start + len(part)
            tokens[row, start:end] = part
            mask[row, start:end] = is_learned
            start = end
    # The first token is never a target. A copy, because the slice is not contiguous.
    return Packed(torch.from_numpy(tokens), torch.from_numpy(mask[:, 1:].copy()))


class Pairs(NamedTuple):
    """Preference pairs: sequence 2 i is the chosen one of pair i, sequence 2 i + 1 the rejected one."""

    tokens: Tensor  # [2 B, T] int64, padded on the right
    lengths: Tensor  # [2 B] int64
    starts: Tensor  # [2 B] int64: the place of the completion's first token
    weights: Tensor  # [B] float32: how much a pair counts


class ReferencedPairs(NamedTuple):
    """Preference pairs with what the reference policy finds of them: row 2 i is the chosen side of pair i, row 2 i + 1 the rejected one."""

    tokens: Tensor  # [2 B, T] int64, padded on the right
    mask: Tensor  # [2 B, T - 1] 1 where the next token belongs to the completion
    reference_logprobs: Tensor  # [2 B] log p of the completion under the reference policy
    weights: Tensor  # [B] float32: how much a pair counts


Microbatch = Packed | Pairs | ReferencedPairs


class Dataset(Protocol):
    """Records, and the order in which training takes them."""

    record_sequences: int  # sequences that a record takes in a batch

    def __len__(self) -> int: ...

    def draw(self, positions: Indices, seed: int) -> Indices:
        """The numbers of the records at positions [N] of an endless stream, which depends on the seed alone."""

    def fetch(self, indices: Indices) -> Microbatch:
        """Records by number."""

    def files(self, indices: Indices) -> list[str]:
        """The files that records may come from."""

    def counts(self) -> dict[str, int]:
        """The number of records, and of what was dropped or padded to make them."""

    def epochs(self, num_records: int) -> dict[str, float]:
        """How many epochs the first `num_records` of the stream are, in all and by part of a mixture."""


class Shuffled:
    """Every epoch takes each record once, each epoch in another order."""

    def __len__(self) -> int:
        raise NotImplementedError

    def draw(self, positions: Indices, seed: int) -> Indices:
        """The records at positions [N] of an endless stream of epochs, see `shuffled`."""
        return shuffled(len(self), positions, seed)

    def epochs(self, num_records: int) -> dict[str, float]:
        """The epochs of the first `num_records` records, under the name `epochs`."""
        return {"epochs": num_records / len(self)}


def shuffled(num_records: int, positions: Indices, seed: int) -> Indices:
    """The records at positions [N] of a stream of epochs, each in another order."""
    # A position is an epoch and a place in it: no state to save, and any step can be computed directly.
    return np.array([_order(num_records, seed, p // num_records)[p % num_records] for p in positions.tolist()])


@lru_cache(maxsize=8)
def _order(num_records: int, seed: int, epoch: int) -> Indices:
    # A permutation for each epoch; the cache holds the few that a step can reach.
    return np.random.default_rng((seed, epoch)).permutation(num_records)


class Mixture:
    """Several data sets in one stream, each with a share of the records.

    Of every MIXTURE_POSITIONS records each data set gives as many as its weight says, at positions drawn with the seed. It takes its
    own records in its own order and begins its next epoch after the last of them.
    """

    def __init__(self, datasets: Sequence[Dataset], weights: Sequence[float]) -> None:
        self.datasets = list(datasets)
        self.record_sequences = datasets[0].record_sequences
        self.quotas = _quotas(np.array(weights), MIXTURE_POSITIONS)
        self._firsts = np.cumsum([0, *map(len, datasets)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def draw(self, positions: Indices, seed: int) -> Indices:
        """The records at positions [N]: numbers over all data sets, one after the other."""
        return np.array([self._draw_one(position, seed) for position in positions.tolist()])

    def _draw_one(self, position: int, seed: int) -> int:
        block, place = divmod(position, MIXTURE_POSITIONS)
        sources = _sources(tuple(self.quotas.tolist()), seed, block)
        source = int(sources[place])
        # How many records this data set has given before the position.
        before = block * int(self.quotas[source]) + int((sources[:place] == source).sum())
        return int(self._firsts[source] + self.datasets[source].draw(np.array([before]), seed)[0])

    def _split(self, indices: Indices) -> Iterator[tuple[Dataset, Indices]]:
        """The data set and the number in it of each record."""
        sources = np.searchsorted(self._firsts, indices, side="right") - 1
        for source, number in zip(sources.tolist(), indices - self._firsts[sources], strict=True):
            yield self.datasets[source], np.array([number])

    def fetch(self, indices: Indices) -> Microbatch:
        """Records by number, in that order. All data sets give the same kind and length of sequence."""
        parts = [dataset.fetch(number) for dataset, number in self._split(indices)]
        return type(parts[0])(*map(torch.cat, zip(*parts, strict=True)))

    def files(self, indices: Indices) -> list[str]:
        """The files of all data sets that the records may come from, sorted."""
        return sorted({file for dataset, number in self._split(indices) for file in dataset.files(number)})

    def counts(self) -> dict[str, int]:
        """The counts of the first data set's kind, summed over all data sets."""
        named = [dataset.counts() for dataset in self.datasets]
        return {name: sum(counts.get(name, 0) for counts in named) for name in named[0]}

    def epochs(self, num_records: int) -> dict[str, float]:
        """The epochs of the first data set under `epochs`, those of the others under `mixture/NUMBER/epochs`."""
        shares = num_records * self.quotas / MIXTURE_POSITIONS
        epochs = [
            dataset.epochs(share)["epochs"] for dataset, share in zip(self.datasets, shares.tolist(), strict=True)
        ]
        return {"epochs": epochs[0]} | {f"mixture/{number}/epochs": value for number, value in enumerate(epochs[1:], 1)}


def _quotas(weights: npt.NDArray[np.float64], num_positions: int) -> Indices:
    """Whole numbers in the ratio of the weights that add up to num_positions: those with the largest remainders get one more."""
    shares = weights / weights.sum() * num_positions
    quotas: Indices = np.floor(shares).astype(np.int64)
    # Largest remainders; the stable sort breaks ties by order.
    quotas[np.argsort(quotas - shares, kind="stable")[: num_positions - int(quotas.sum())]] += 1
    if not quotas.all():
        raise ValueError(
            f"weights {weights.tolist()} give a part of a mixture less than one record of {num_positions}: "
            "give it more weight, or remove it"
        )
    return quotas


@lru_cache(maxsize=8)
def _sources(quotas: tuple[int, ...], seed: int, block: int) -> Indices:
    """The data set of each position of a block of a mixture."""
    # Exact shares in each block, in random order: drawing each position apart would let the shares drift.
    sources: Indices = np.random.default_rng((seed, block)).permutation(np.repeat(np.arange(len(quotas)), quotas))
    return sources
