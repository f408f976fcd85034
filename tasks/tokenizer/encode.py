"""Tokenize: documents to shards of tokens.

Reads Documents and a Tokenizer. Writes train/NAME.arrow and validation/NAME.arrow for each shard NAME of documents: uncompressed Arrow
IPC files, read by memory mapping, with one column `tokens`, a list per document (uint16 if V allows it, else uint32), each starting
with <|bos|>. The schema's metadata holds vocab_size and tokenizer (its fingerprint). They open in pyarrow and in `datasets`.

A document is validation by the hash of its text, so the same text never lies in both splits. A long document is encoded in pieces,
cut where no word crosses under any pattern of model/tokenizer/vocabularies.py: its tokens are those of the whole text.

Not used: tiktoken 0.14 produces the same tokens at three times the speed, and panics on a million spaces (November 2026).
"""

import contextlib
import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from model.config import Config, runtime
from model.files import replacing
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import Documents, Tokenizer, Tokens
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.execution.shards import Counts, failed_fraction, map_shards, tick
from tasks.tokenizer.bigram import bits_per_byte, read_pairs

VERSION = 2
BATCH_DOCUMENTS = 1_000
BATCH_CHARACTERS = 2_000_000  # encoded at once: about 25 bytes of memory each
# A piece has twice this at most. The document of a web page has some thousands of characters; pieces are for books,
# logs and dumps.
PIECE_CHARACTERS = 500_000
# Either after a line end, before a letter: every pattern ends a word there. Or before a space between two ASCII
# letters: the space begins the next word in every pattern. The tests compare pieces with whole texts for each pattern.
CUT = re.compile(r"(?<=\S\n)(?=[^\W\d_])|(?<=[A-Za-z])(?= [A-Za-z])")
SPLITS = ("train", "validation")
UNITS = ("documents", "tokens", "text_bytes")


class TokenizeConfig(Config):
    """The validation split."""

    validation_fraction: float = Field(
        0.02, ge=0.0, lt=1.0, description="Fraction of the documents held out for validation."
    )
    num_workers: int = runtime(0, ge=0, le=1024, description="Worker processes; 0: one per core.")
    max_failed_fraction: float = failed_fraction()


@dataclass(frozen=True)
class TokenizeInputs:
    """What tokens are made of."""

    documents: Documents
    tokenizer: Tokenizer


def tokenize(documents: Step[Documents], tokenizer: Step[Tokenizer], config: TokenizeConfig) -> Step[Tokens]:
    """Encode documents as Arrow shards of tokens."""
    inputs = roles(documents=documents, tokenizer=tokenizer)
    return Step("tokenize", VERSION, Tokens, config, inputs, run=encode_documents, takes=TokenizeInputs)


def encode_documents(ctx: StageContext, config: TokenizeConfig, inputs: TokenizeInputs) -> Outcome:
    """Encode every shard by itself, a training and a validation part each."""
    documents, tokenizer = inputs.documents, inputs.tokenizer
    # The path and not the loaded tokenizer: shards are sent to worker processes, and each reads the file once.
    encoder_path = tokenizer.folder / "tokenizer.json"
    shards = [
        (path.stem, Shard(path, ctx.folder, encoder_path, tokenizer.manifest.fingerprint, config.validation_fraction))
        for path in documents.files("documents/*.parquet")
    ]
    counts = map_shards(
        ctx,
        tokenize_shard,
        shards,
        num_workers=config.num_workers,
        total=documents.manifest.counts["documents"],
        unit="documents",
        max_failed_fraction=config.max_failed_fraction,
    )
    counts |= {unit: sum(counts[f"{split}/{unit}"] for split in SPLITS) for unit in UNITS}
    return Outcome(counts, metrics(ctx.folder, ChatTokenizer.load(encoder_path), counts))


@dataclass(frozen=True)
class Shard:
    """One shard of documents, and where and how its tokens are written."""

    path: Path
    folder: Path
    encoder_path: Path
    fingerprint: str
    validation_fraction: float

    def writer(self, split: str, encoder: ChatTokenizer) -> "TokenWriter":
        """The writer of one split of this shard."""
        return TokenWriter(self.folder / split / f"{self.path.stem}.arrow", encoder, self.fingerprint)


def tokenize_shard(shard: Shard) -> Counts:
    """Write both splits of one shard. Returns the counts of both."""
    os.environ["RAYON_NUM_THREADS"] = "1"  # shards run in parallel already; more threads would compete with them
    encoder = load_encoder(shard.encoder_path)
    counts = Counter({f"{split}/{unit}": 0 for split in SPLITS for unit in UNITS})
    with shard.writer("train", encoder) as train, shard.writer("validation", encoder) as validation:
        for texts in batches(read_texts(shard.path)):
            held_out = [is_validation(text, shard.validation_fraction) for text in texts]
            for split, writer, wanted in (("train", train, False), ("validation", validation, True)):
                # One pass over the documents fills both splits; an empty list writes no batch.
                chosen = [text for text, is_held_out in zip(texts, held_out, strict=True) if is_held_out is wanted]
                counts[f"{split}/documents"] += len(chosen)
                counts[f"{split}/text_bytes"] += sum(len(text.encode()) for text in chosen)
                counts[f"{split}/tokens"] += writer.write(chosen)
            tick(len(texts))
    return dict(counts)


@lru_cache(maxsize=1)
def load_encoder(path: Path) -> ChatTokenizer:
    """The tokenizer, read once per process."""
    return ChatTokenizer.load(path)


def read_texts(path: Path) -> Iterator[str]:
    """The texts of a shard of documents; no other column is read."""
    with pq.ParquetFile(path) as shard:
        for batch in shard.iter_batches(BATCH_DOCUMENTS, columns=["text"]):
            yield from batch.column("text").to_pylist()


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Texts in lists of at most BATCH_DOCUMENTS and about BATCH_CHARACTERS."""
    batch: list[str] = []
    size = 0
    for text in texts:
        batch.append(text)
        size += len(text)
        if len(batch) == BATCH_DOCUMENTS or size >= BATCH_CHARACTERS:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def is_validation(text: str, validation_fraction: float) -> bool:
    """Whether a document is held out, by the hash of its text."""
    # Not hash(), which is another in every process. By the text alone: a document stays in its split when others come
    # or go, in whatever shards.
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") < validation_fraction * 2**64


def pieces(text: str) -> Iterator[str]:
    """Cut a text into pieces of about PIECE_CHARACTERS; where twice that has no safe place to cut, it is cut anyway."""
    start = 0
    while len(text) - start > 2 * PIECE_CHARACTERS:
        cut = CUT.search(text, start + PIECE_CHARACTERS, start + 2 * PIECE_CHARACTERS)
        end = cut.start() if cut else start + 2 * PIECE_CHARACTERS
        yield text[start:end]
        start = end
    yield text[start:]


class TokenWriter:
    """Writes documents to one token shard, one record batch per call. If the block raises, nothing is left behind."""

    def __init__(self, path: Path, encoder: ChatTokenizer, fingerprint: str) -> None:
        self.path = path
        self.encoder = encoder
        # Half the disk and half the memory bandwidth of training, at every vocabulary up to 65,536: all of the built-in
        # recipes.
        self.dtype = np.uint16 if encoder.vocab_size <= 2**16 else np.uint32
        metadata = {"vocab_size": str(encoder.vocab_size), "tokenizer": fingerprint}
        self.schema = pa.schema([("tokens", pa.list_(pa.from_numpy_dtype(self.dtype)))], metadata=metadata)

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as opened:
            # Left in reverse: the writer writes the file's footer, the file is closed, and only then it gets its name.
            sink = opened.enter_context(pa.OSFile(str(opened.enter_context(replacing(self.path))), "wb"))
            self.writer = opened.enter_context(pa.ipc.new_file(sink, self.schema))
            self.opened = opened.pop_all()
        return self

    def write(self, texts: list[str]) -> int:
        """Write texts as one record batch. Returns the number of tokens."""
        if not texts:
            return 0
        pieces_of = [list(pieces(text)) for text in texts]
        # A generator over batches of pieces: a call can hold one document of any length, whose tokens must not all
        # exist twice.
        encoded = (
            np.array(tokens, self.dtype)
            for batch in batches(chain.from_iterable(pieces_of))
            for tokens in self.encoder.encode_batch(batch)
        )
        bos = np.array([self.encoder.bos], self.dtype)
        # islice takes each document's pieces off the one stream, so a document may span batches.
        documents = [np.concatenate([bos, *islice(encoded, len(group))]) for group in pieces_of]
        # 32 bits are enough: a call holds about BATCH_CHARACTERS, and one longer document at most.
        offsets = np.cumsum([0, *map(len, documents)], dtype=np.int32)
        values = np.concatenate(documents)
        column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
        self.writer.write_batch(pa.record_batch([column], schema=self.schema))
        return len(values)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.opened.__exit__(kind, error, trace)


def metrics(folder: Path, encoder: ChatTokenizer, counts: Counts) -> dict[str, float]:
    """bytes_per_token; and bigram/bits_per_byte, the baseline of the base model, if anything is held out."""
    # Without <|bos|>, one for each document, which stands for no byte of text.
    figures = {"bytes_per_token": counts["text_bytes"] / max(counts["tokens"] - counts["documents"], 1)}
    train, validation = (read_pairs(sorted((folder / split).iterdir()), encoder.bos) for split in SPLITS)
    if len(train.before) and len(validation.before):
        num_predicted = counts["validation/tokens"] - counts["validation/documents"]
        # The bytes of the tokens that were read, at the average of the split: read_pairs stops at MAX_TOKENS, the count
        # of bytes does not.
        num_bytes = counts["validation/text_bytes"] * len(validation.before) / num_predicted
        figures["bigram/bits_per_byte"] = bits_per_byte(train, validation, num_bytes, encoder.vocab_size)
    return figures
