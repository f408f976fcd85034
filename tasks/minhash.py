"""MinHash: short signatures of texts, and which of them agree.

Pure functions. The smallest of all hashes of a text's runs of words is the same for two texts with the probability of
their Jaccard similarity (Broder 1997). Many such hashes, in bands, find near duplicates without comparing all pairs.

Text is made alike first as FineWeb does (Penedo et al. 2024): lower case, each number 0, no marks, no accents. It
departs in that a run is hashed from the hashes of its words, all runs of a text at once.
"""

import re
import unicodedata
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import xxhash

U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]
Places = npt.NDArray[np.intp]

PRIME = np.uint64(2**61 - 1)
RUNS_PER_BLOCK = 512  # at 112 hashes 0.5 MB, which stays in the cache, and bounds what a book takes
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
WORD = re.compile(r"[^\W_]+")
ACCENTS = re.compile(
    "[" + "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M") + "]+"
)


def split_words(text: str) -> list[str]:
    """The words of `text`, made alike."""
    text = text.lower()
    if not text.isascii():
        text = ACCENTS.sub("", unicodedata.normalize("NFD", text))
    return WORD.findall(NUMBER.sub("0", text))


def hash_runs(words: Iterable[str], run_words: int) -> U64:
    """A hash of every different run of `run_words` words; none where there are fewer words."""
    hashes = np.fromiter((xxhash.xxh3_64_intdigest(word.encode()) for word in words), np.uint64)
    num_runs = len(hashes) - run_words + 1
    if num_runs < 1:
        return np.zeros(0, np.uint64)
    runs = np.zeros(num_runs, np.uint64)
    for place in range(run_words):
        runs = mix(runs) + hashes[place : place + num_runs]
    return np.unique(mix(runs))


def mix(values: U64) -> U64:
    """A bijection of 64 bits: each of the input changes half of the output (the finalizer of MurmurHash3, Appleby)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def hash_functions(num: int, seed: int) -> tuple[U64, U64]:
    """Factors in [1, p) and summands in [0, p) of `num` functions (a x + b) mod p, p = 2^61 - 1."""
    random = np.random.RandomState(seed)  # its stream is frozen, that of newer generators is not
    return (
        random.randint(1, int(PRIME), num, dtype=np.uint64),
        random.randint(0, int(PRIME), num, dtype=np.uint64),
    )


def sign(runs: U64, factors: U64, summands: U64) -> U64:
    """The smallest value of each hash function over `runs`. a x + b wraps at 2^64 before the modulus, as in FineWeb."""
    smallest = np.full(len(factors), np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(runs), RUNS_PER_BLOCK):
        hashes = factors[:, None] * runs[None, start : start + RUNS_PER_BLOCK]
        hashes += summands[:, None]
        hashes -= hashes // PRIME * PRIME  # numpy has no fast remainder
        np.minimum(smallest, hashes.min(axis=1), out=smallest)
    return smallest


def band_keys(signature: U64, num_bands: int) -> U64:
    """One number for each band of a signature; equal bands have equal ones."""
    bands = signature.reshape(num_bands, -1)
    return np.array([xxhash.xxh3_64_intdigest(band.tobytes()) for band in bands], np.uint64)


def sketch(signature: U64) -> U8:
    """The low byte of each hash: an eighth of the memory, and one in 256 looks equal that is not (Li and König 2010)."""
    return signature.astype(np.uint8)


class Clusters:
    """Union-find over documents 0 to `num` - 1. The first document of a cluster stands for it."""

    def __init__(self, num: int) -> None:
        self.parents = list(range(num))

    def first(self, document: int) -> int:
        parents = self.parents
        while parents[document] != document:
            parents[document] = document = parents[parents[document]]
        return document

    def join(self, one: int, other: int) -> None:
        low, high = sorted((self.first(one), self.first(other)))
        self.parents[high] = low

    def join_pairs(self, ones: Places, others: Places) -> None:
        for one, other in zip(ones.tolist(), others.tolist(), strict=True):
            self.join(one, other)


def equal_pairs(places: Places, keys: U64) -> tuple[Places, Places]:
    """Each of `places` whose key others have too, and the next one that has it."""
    order = np.argsort(keys, kind="stable")
    is_equal = np.flatnonzero(keys[order][1:] == keys[order][:-1])
    return places[order[is_equal]], places[order[is_equal + 1]]
