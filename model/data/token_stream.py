"""The tokens of documents as one stream, read from token shards without a copy in memory. No torch here.

Reads Arrow IPC files, memory-mapped: one column `tokens`, a list a document, which starts with <|bos|>. Writes nothing. Files may come
from a store that others write to: each is validated when it is opened, and a damaged one raises a UserError that names it.
"""

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from model.data.packing import Indices
from model.errors import UserError

MAX_OPEN_SHARDS = 4096
COLUMN_TYPES = (pa.list_(pa.uint16()), pa.list_(pa.uint32()))


class TokenRun(NamedTuple):
    """A record batch of a token shard: views of the memory map."""

    tokens: npt.NDArray[Any]
    offsets: npt.NDArray[np.int32]  # where each document begins and the last one ends


class TokenStream:
    """The documents of Arrow token shards as one sequence of tokens, memory-mapped.

    Every shard is opened and checked once; then only the last used stay mapped. A crawl has 90,000 files, and Linux gives a process
    65,530 maps (vm.max_map_count) and often 1,024 open files.
    """

    def __init__(self, paths: Sequence[str], vocab_size: int) -> None:
        """Raises UserError where a shard is damaged, or holds a token that is not below `vocab_size`."""
        self._paths = list(paths)
        sizes = [
            (shard, batch, len(run.tokens))
            for shard, path in enumerate(self._paths)
            for batch, run in enumerate(checked_runs(path, vocab_size))
        ]
        # Three numbers per record batch: tens of thousands of shards fit in little memory.
        self._shards, self._batches, lengths = np.array(sizes, np.int64).reshape(-1, 3).T
        self._starts = np.cumsum([0, *lengths])
        self.num_tokens = int(self._starts[-1])
        # Dropping an entry unmaps the file, since nothing else holds its arrays.
        self._open = lru_cache(max_open_shards())(self._read)

    def _read(self, shard: int) -> list[TokenRun]:
        return list(token_runs(self._paths[shard]))

    def _run(self, number: int) -> TokenRun:
        return self._open(int(self._shards[number]))[int(self._batches[number])]

    def slice(self, start: int, stop: int) -> npt.NDArray[Any]:
        """Tokens start to stop of all documents, one after the other."""
        # side="right" skips empty record batches, whose start equals the next one's.
        first = int(self._starts.searchsorted(start, side="right")) - 1
        parts = []
        while start < stop:
            offset = start - self._starts[first]
            part = self._run(first).tokens[offset : offset + stop - start]
            parts.append(part)
            start += len(part)
            first += 1
        return np.concatenate(parts)

    def documents(self) -> Indices:
        """Where every document begins and the last one ends: [N + 1]."""
        begins = [start + self._run(number).offsets[:-1] for number, start in enumerate(self._starts[:-1])]
        return np.concatenate([*begins, self._starts[-1:]]).astype(np.int64)

    def files(self, tokens: Indices) -> list[str]:
        """The shards that hold the tokens of these numbers."""
        runs = np.searchsorted(self._starts, tokens, side="right") - 1
        return sorted({self._paths[shard] for shard in self._shards[runs].tolist()})


def max_open_shards() -> int:
    """How many shards a stream keeps mapped: within the limit of open files, of which each map holds one."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    # A sixteenth: ranks, sockets and other streams need open files too.
    return MAX_OPEN_SHARDS if soft == resource.RLIM_INFINITY else max(16, min(MAX_OPEN_SHARDS, soft // 16))


def checked_runs(path: str, vocab_size: int) -> Iterator[TokenRun]:
    """The record batches of a token shard, each with all its tokens below `vocab_size`. Raises UserError.

    Reads the whole file.
    """
    for run in token_runs(path):
        if len(run.tokens) and int(largest := run.tokens.max()) >= vocab_size:
            raise UserError(
                f"token shard {path} holds the token {largest}, and its vocabulary has {vocab_size}: tokenize the documents again"
            )
        yield run


def token_runs(path: str) -> Iterator[TokenRun]:
    """The record batches of an Arrow IPC file that hold documents. Raises UserError where the file is damaged.

    pyarrow trusts a file: offsets that point outside it crash the process when they are followed, so each batch is validated first.
    """
    with explaining(path):
        reader = open_shard(path)
        num_batches = reader.num_record_batches
    for number in range(num_batches):
        with explaining(path):
            batch = reader.get_batch(number)
            # full: checks the offsets themselves, not only the sizes of the buffers.
            batch.validate(full=True)
            column = batch.column(0)
            # A null list or token has a slot with any number in it.
            if column.null_count or column.values.null_count:
                raise ValueError("it has null values")
            if not len(column):
                continue
            offsets = column.offsets.to_numpy(zero_copy_only=True)
            tokens = column.flatten().to_numpy(zero_copy_only=True)
        # A sliced array's offsets begin later; flatten has already cut its values to match.
        yield TokenRun(tokens, offsets - offsets[0] if offsets[0] else offsets)


def open_shard(path: str) -> Any:
    """The reader of a token shard, memory-mapped. Raises ValueError where its columns are not those of one."""
    # Mapped: the system's page cache holds the tokens once for all ranks of a machine.
    reader = pa.ipc.open_file(pa.memory_map(path))
    if reader.schema.names != ["tokens"] or reader.schema.types[0] not in COLUMN_TYPES:
        raise ValueError(f"its columns are {', '.join(map(str, reader.schema)) or 'none'}")
    return reader


def shard_vocab_size(path: str) -> int:
    """V of the tokenizer that a token shard was written with. Raises UserError where it does not say."""
    with explaining(path):
        return int((open_shard(path).schema.metadata or {})[b"vocab_size"])


@contextmanager
def explaining(path: str) -> Iterator[None]:
    """Turn what pyarrow raises for a damaged file into a UserError that names it."""
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"there is no token shard {path}: tokenize the documents again") from None
    except (pa.ArrowException, ValueError, KeyError, OSError, OverflowError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(
            f"{path} is not a readable token shard ({reason[:200]}): tokenize the documents again"
        ) from None
