"""MinHash: short signatures of texts, which are alike where the texts are.

Pure functions. The smallest of all hashes of a text's runs of words is the same for two texts with the probability of
their Jaccard similarity (Broder 1997). Many such hashes, in bands, find near duplicates without comparing all pairs.

Text is made alike first as FineWeb does (Penedo et al. 2024): lower case, each number 0, no marks, no accents. It
departs in that a run is hashed from the hashes of its words, all runs of a text at once.
"""

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import xxhash

U64 = npt.NDArray[np.uint64]
U8 = npt.NDArray[np.uint8]

PRIME = np.uint64(2**61 - 1)
RUNS_PER_BLOCK = 256  # at 112 hashes 0.2 MB, which stays in the cache, and bounds what a book takes
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
FOREIGN_MARKS = re.compile(r"[^\w\x00-\x7f]+")
SPACED_MARKS = bytes(code if code > 127 or chr(code).isalnum() else 32 for code in range(256))
ACCENTS = re.compile(
    "[" + "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M") + "]+"
)


def split_words(text: str, is_number_zero: bool = True) -> list[bytes]:
    """The words of `text`, made alike, in UTF-8; numbers are left as they are where they tell texts apart."""
    text = text.lower()
    if not text.isascii():
        text = FOREIGN_MARKS.sub(" ", ACCENTS.sub("", unicodedata.normalize("NFD", text)))
    if is_number_zero:
        text = NUMBER.sub("0", text)
    return text.encode().translate(SPACED_MARKS).split()


def hash_words(words: Sequence[bytes]) -> U64:
    return np.fromiter(map(_hash_word, words), np.uint64, len(words))


_hash_word = lru_cache(1 << 16)(xxhash.xxh3_64_intdigest)  # few words make up most of a language


def hash_runs(words: U64, ngram_size: int) -> U64:
    """A hash of every run of `ngram_size` hashed words, in their order; none where there are fewer words."""
    num_runs = len(words) - ngram_size + 1
    if num_runs < 1:
        return np.zeros(0, np.uint64)
    runs = np.zeros(num_runs, np.uint64)
    for place in range(ngram_size):
        runs = mix(runs) + words[place : place + num_runs]
    return mix(runs)


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
        multiples = hashes // PRIME  # numpy has no fast remainder
        multiples *= PRIME
        hashes -= multiples
        np.minimum(smallest, hashes.min(axis=1), out=smallest)
    return smallest


def band_keys(signature: U64, num_bands: int) -> U64:
    """One number for each band of a signature; equal bands have equal ones."""
    bands = signature.reshape(num_bands, -1)
    return np.array([xxhash.xxh3_64_intdigest(band.tobytes()) for band in bands], np.uint64)


def sketch(signature: U64) -> U8:
    """The low byte of each hash: an eighth of the memory, and one in 256 looks equal that is not (Li and König 2010)."""
    return signature.astype(np.uint8)
