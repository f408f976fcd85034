"""Signatures: what documents are compared by, and what makes one the best of its cluster.

Reads documents, writes columns (tasks/dedup/columns.py). Of each document: hashes of its address and its text, a key for each band
of its MinHash, the sketch that says how similar two are whose keys are equal, and length, file, offset and id. Writes too,
and reads, the part of them that an artifact keeps to hold later documents against it: Parquet with id, url, content,
is_signed, bands and sketch, 241 bytes a document and its id.
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
    """How near duplicates are told."""

    by_minhash: bool = Field(True, description="Drop documents of nearly the same text, but for one.")
    num_bands: int = Field(14, ge=1, le=200, description="One band that is equal makes two documents near duplicates.")
    rows_per_band: int = Field(8, ge=1, le=50, description="Smallest hashes that must all be equal in a band.")
    ngram_size: int = Field(
        5, ge=1, le=50, description="Words in a run; documents are compared by their runs of words."
    )
    seed: int = Field(1, ge=0, description="Of the hash functions.")


def bands(config: SigningConfig) -> list[str]:
    """The columns with the keys of the bands."""
    return [f"band_{band}" for band in range(config.num_bands)]


def columns(folder: Path, config: SigningConfig) -> dict[str, Column]:
    """The columns of the signatures, in `folder`."""
    dtypes: dict[str, Any] = {
        **dict.fromkeys(("num_characters", "offset"), np.int64),
        **dict.fromkeys(("file", "id", "url", "content", *bands(config)), np.uint64),
        "is_signed": np.bool_,
        "sketch": (np.uint8, (config.num_bands * config.rows_per_band,)),
    }
    return {name: Column(folder / name, np.dtype(dtype)) for name, dtype in dtypes.items()}


def sign(documents: Sequence[Document], words: Sequence[U64], config: SigningConfig) -> dict[str, Values]:
    """What the columns say of these documents, whose words are hashed already."""
    signatures = sign_words(words, config)
    keys = np.array([minhash.band_keys(signature, config.num_bands) for signature in signatures])
    return {
        "num_characters": np.array([len(document["text"]) for document in documents]),
        "offset": np.array([document["offset"] for document in documents]),
        "file": hash_texts([document["file"] for document in documents]),
        "id": hash_texts([document["id"] for document in documents]),
        "url": hash_texts([urls.normalise(document["url"]) or document["id"] for document in documents]),
        "content": hash_texts([document["text"].strip() for document in documents]),
        "is_signed": np.array([len(hashes) >= config.ngram_size for hashes in words]),
        "sketch": minhash.sketch(signatures),
        **dict(zip(bands(config), keys.T, strict=True)),
    }


def sign_words(words: Sequence[U64], config: SigningConfig) -> U64:
    """(D, bands x hashes): the MinHash of each document; the largest number throughout where it has no run."""
    functions = _functions(config.num_bands * config.rows_per_band, config.seed)
    return np.array([minhash.sign(minhash.hash_runs(hashes, config.ngram_size), *functions) for hashes in words])


_functions = lru_cache(minhash.hash_functions)


def hash_texts(texts: Sequence[str]) -> U64:
    return np.array([xxhash.xxh3_64_intdigest(text.encode()) for text in texts], np.uint64)


def write_kept(path: Path, ids: Sequence[str], signed: Mapping[str, Values], config: SigningConfig) -> None:
    """Write what an artifact keeps of these documents."""
    keys = np.stack([signed[name] for name in bands(config)], axis=1)
    table = {
        "id": pa.array(ids, pa.string()),
        **{name: pa.array(signed[name]) for name in ("url", "content", "is_signed")},
        "bands": as_binary(keys),
        "sketch": as_binary(signed["sketch"]),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), path, compression="zstd", use_dictionary=False)


def as_binary(values: Values) -> pa.Array:
    """A (D, n) array as D strings of bytes of one length."""
    width = values.shape[1] * values.itemsize
    return pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(width), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
    )


def load_kept(path: Path, first: int, config: SigningConfig, columns: Mapping[str, Column]) -> None:
    """Write what an artifact kept into the columns from document `first` on: longer than any, in the order they come."""
    table = pq.read_table(path).combine_chunks()
    for name in ("url", "content", "is_signed"):
        columns[name].write(first, table[name].to_numpy())
    columns["sketch"].write(first, np.frombuffer(b"".join(table["sketch"].to_pylist()), np.uint8))
    keys = np.frombuffer(b"".join(table["bands"].to_pylist()), np.uint64)
    for name, band in zip(bands(config), keys.reshape(-1, config.num_bands).T, strict=True):
        columns[name].write(first, band)
    columns["num_characters"].write(first, np.iinfo(np.int64).max - first - np.arange(len(table)))
    for name in ("file", "offset", "id"):
        columns[name].write(first, np.zeros(len(table)))
