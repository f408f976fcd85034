"""Signatures: the values by which documents are compared, and by which the best document of a cluster is chosen.

Reads documents, writes columns (tasks/dedup/columns.py). Per document: hashes of its URL and its text, a key for each band of its
MinHash, a sketch that estimates the similarity of two documents with an equal key, and length, file, offset and id. An artifact can
keep a part of them, so that later crawls are compared with it: Parquet with id, url, content, is_signed, bands and sketch, 241 bytes a
document plus its id.
"""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from pydantic import Field

from model.config import Config
from tasks.dedup import minhash
from tasks.dedup.columns import Column, Values
from tasks.dedup.minhash import U64
from tasks.records.documents import Document
from tasks.web import urls


class SigningConfig(Config):
    """How near duplicates are found."""

    by_minhash: bool = Field(True, description="Keep one document of each group with nearly the same text.")
    # FineWeb's values (Penedo et al. 2024): 14 x 8 = 112 hashes, with which half of the pairs at a similarity of 0.68
    # share a band. More rows move that point up and make the curve steeper, more bands move it down.
    num_bands: int = Field(
        14, ge=1, le=200, description="Bands of the MinHash. One equal band makes two documents candidates."
    )
    rows_per_band: int = Field(8, ge=1, le=50, description="MinHash values in a band; all must be equal.")
    ngram_size: int = Field(
        5, ge=1, le=50, description="Words in an n-gram; documents are compared by their sets of n-grams."
    )
    seed: int = Field(1, ge=0, description="Random seed of the hash functions.")


def bands(config: SigningConfig) -> list[str]:
    """The names of the columns that hold the keys of the bands."""
    return [f"band_{band}" for band in range(config.num_bands)]


def columns(folder: Path, config: SigningConfig) -> dict[str, Column]:
    """The columns of the signatures in `folder`, by name."""
    dtypes: dict[str, Any] = {
        **dict.fromkeys(("num_characters", "offset"), np.int64),
        # 64-bit hashes in place of strings: a column needs a fixed width. Among a billion documents two different
        # values have the same hash with a probability of some 3% (n^2 / 2^65), so about no document is dropped wrongly.
        **dict.fromkeys(("file", "id", "url", "content", *bands(config)), np.uint64),
        "is_signed": np.bool_,
        # By far the widest of them: 112 bytes of some 280. It is read for candidate pairs only.
        "sketch": (np.uint8, (config.num_bands * config.rows_per_band,)),
    }
    return {name: Column(folder / name, np.dtype(dtype)) for name, dtype in dtypes.items()}


def sign(documents: Sequence[Document], words: Sequence[U64], config: SigningConfig) -> dict[str, Values]:
    """The values of all columns for D documents, given the hashes of their words."""
    signatures = sign_words(words, config)
    keys = np.array([minhash.band_keys(signature, config.num_bands) for signature in signatures])
    return {
        "num_characters": np.array([len(document["text"]) for document in documents]),
        "offset": np.array([document["offset"] for document in documents]),
        "file": hash_texts([document["file"] for document in documents]),
        "id": hash_texts([document["id"] for document in documents]),
        # Documents without a URL get their id, so that no two of them count as one page.
        "url": hash_texts([urls.normalise(document["url"]) or document["id"] for document in documents]),
        # Blanks at the ends differ between extractors and captures and are no content.
        "content": hash_texts([document["text"].strip() for document in documents]),
        # As many words as an n-gram has are needed for one. Without this mark all short documents would be candidates
        # for each other, since their signatures are equal.
        "is_signed": np.array([len(hashes) >= config.ngram_size for hashes in words]),
        "sketch": minhash.sketch(signatures),
        **dict(zip(bands(config), keys.T, strict=True)),
    }


def sign_words(words: Sequence[U64], config: SigningConfig) -> U64:
    """(D, bands x rows) the MinHash of each document; 2^64 - 1 throughout for a document too short for an n-gram."""
    functions = _functions(config.num_bands * config.rows_per_band, config.seed)
    return np.array([minhash.sign(minhash.hash_ngrams(hashes, config.ngram_size), *functions) for hashes in words])


_functions = lru_cache(minhash.hash_functions)  # drawn once in each process, not for each batch


def hash_texts(texts: Sequence[str]) -> U64:
    """(D,) 64-bit hashes of whole texts."""
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], np.uint64)


def write_kept(path: Path, ids: Sequence[str], signed: Mapping[str, Values], config: SigningConfig) -> None:
    """Write the signatures that an artifact keeps, as Parquet."""
    keys = np.stack([signed[name] for name in bands(config)], axis=1)
    table = {
        "id": pa.array(ids, pa.string()),
        **{name: pa.array(signed[name]) for name in ("url", "content", "is_signed")},
        # Fixed-size binary: the bytes as they are, without an offset for each document.
        "bands": as_binary(keys),
        "sketch": as_binary(signed["sketch"]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    # Hashes hardly repeat: a dictionary would be as large as the column.
    pq.write_table(pa.table(table), path, compression="zstd", use_dictionary=False)


def as_binary(values: Values) -> pa.Array:
    """A (D, n) array as D byte strings of equal length."""
    width = values.shape[1] * values.itemsize
    # The first buffer is the bitmap of nulls: None says that there are no nulls.
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
    )


def load_kept(path: Path, first: int, config: SigningConfig, columns: Mapping[str, Column]) -> None:
    """Copy kept signatures into the columns, from document number `first` on.

    Their lengths are set above every real length, in the order of the documents, so that a known document is always the one that stays.
    """
    table = pq.read_table(path).combine_chunks()
    for name in ("url", "content", "is_signed"):
        columns[name].write(first, table[name].to_numpy())
    columns["sketch"].write(first, np.frombuffer(b"".join(table["sketch"].to_pylist()), np.uint8))
    keys = np.frombuffer(b"".join(table["bands"].to_pylist()), np.uint64)
    for name, band in zip(bands(config), keys.reshape(-1, config.num_bands).T, strict=True):
        columns[name].write(first, band)
    # Minus the document's number, so that of two known documents the earlier is the better one, and every known one
    # gets a rank before all new documents: `mark_dropped` relies on that order.
    columns["num_characters"].write(first, np.iinfo(np.int64).max - first - np.arange(len(table)))
    for name in ("file", "offset", "id"):
        # Ties are decided by length already, so what an artifact does not keep is 0, also the hash of the file:
        # `candidates.rank` knows 0.
        columns[name].write(first, np.zeros(len(table)))
