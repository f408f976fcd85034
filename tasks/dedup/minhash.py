"""MinHash: short signatures of texts that agree as far as the texts do.

Pure functions. The smallest hash over all n-grams of words of a text is equal for two texts with a probability of their Jaccard
similarity (Broder 1997). Many such hashes, grouped into bands, find near duplicates without comparing all pairs.

Texts are normalised first, as FineWeb does (Penedo et al. 2024): lower case, every number as 0, no punctuation, no accents. Departures:
an n-gram is hashed from the hashes of its words, all n-grams of a text at once; only marks that are optional in writing are removed
(accents, Arabic and Hebrew vowel points), since in Hindi or Japanese a mark makes another word; and scripts
without spaces are cut into words of one Han character or a few letters, since FineWeb's splitter sees a Chinese sentence as one word.
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

# The largest Mersenne prime below 2^64: every residue fits the unsigned 64-bit type, and it is FineWeb's (datatrove)
# too.
PRIME = np.uint64(2**61 - 1)
NGRAMS_PER_BLOCK = 256  # at 112 hashes 0.2 MB: stays in the cache, and bounds the memory for a book
# One number with its separators is one word, so that 1,000.50 and 3 are both "0": pages that differ in a counter, a
# price or a date only are near duplicates.
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
# Marks of the basic plane by what they do to a word. Optional: accents (É is E), Arabic and Hebrew vowel points. All others, such as the
# vowel signs of Indic scripts and the voicing marks of kana, are letters in all but name.
MARKS = "".join(chr(code) for code in range(0x300, 0x10000) if unicodedata.category(chr(code))[0] == "M")
OPTIONAL_MARKS = re.compile(
    "[\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0670\u06d6-\u06ed\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe00-\ufe2f]+"
)
# Sorting a run of marks takes time quadratic in its length, and no writing needs over 30 (the Stream-Safe Text Format of UAX 15)
ENDLESS_MARKS = re.compile(rf"([{MARKS}]{{30}})[{MARKS}]+")
FOREIGN_PUNCTUATION = re.compile(rf"[^\w\x00-\x7f{MARKS}]+")
# A table for bytes.translate: one pass in C over the UTF-8 text. Bytes above 127 belong to letters of other scripts,
# whose punctuation is gone by then.
ASCII_PUNCTUATION_TO_SPACE = bytes(code if code > 127 or chr(code).isalnum() else 32 for code in range(256))
# Words in scripts without spaces. A Han character or kana is one. Thai, Lao, Burmese and Khmer are cut before every letter whose code is a
# multiple of 3, into pieces of about three letters. Both depend on nearby letters only, so one inserted character changes one word
# (content-defined chunking). Tried before: pieces of fixed length, which an inserted character shifts to the end of the sentence; and
# single Thai letters, where 13 in a row are a common phrase ("the most in Thailand is") and no evidence of contamination.
HAN_AND_KANA = "々〆\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
SOUTHEAST_ASIAN = [
    chr(code) for low, high in ((0xE01, 0xEDF), (0x1000, 0x109F), (0x1780, 0x17FF)) for code in range(low, high + 1)
]
CUT_BEFORE = "".join(c for c in SOUTHEAST_ASIAN if ord(c) % 3 == 0 and c not in MARKS)
OTHERS = "".join(c for c in SOUTHEAST_ASIAN if ord(c) % 3 and c not in MARKS)
UNSPACED_WORD = re.compile(rf"[{HAN_AND_KANA}][{MARKS}]*|[{CUT_BEFORE}][{OTHERS}{MARKS}]*|[{OTHERS}][{OTHERS}{MARKS}]*")


def split_words(text: str, is_number_zero: bool = True) -> list[bytes]:
    """The normalised words of `text` in UTF-8. Numbers become 0, unless `is_number_zero` is false."""
    # Before NFD: the lower case of İ is an i with a combining dot, which the next lines then remove as an accent.
    text = text.lower()
    # A text of ASCII alone, which these lines would not change, takes a third of the time without them.
    if not text.isascii():
        # NFD and not NFKD: a ligature or a full-width digit stays what it is. É becomes E and an accent, which then is
        # removed.
        decomposed = unicodedata.normalize("NFD", ENDLESS_MARKS.sub(r"\1", text))
        text = FOREIGN_PUNCTUATION.sub(" ", OPTIONAL_MARKS.sub("", decomposed))
        text = UNSPACED_WORD.sub(r" \g<0> ", text)
    if is_number_zero:
        text = NUMBER.sub("0", text)
    return text.encode().translate(ASCII_PUNCTUATION_TO_SPACE).split()


def hash_words(words: Sequence[bytes]) -> U64:
    """(W,) 64-bit hashes of words."""
    return np.fromiter(map(_hash_word, words), np.uint64, len(words))


_hash_word = lru_cache(1 << 16)(xxhash.xxh3_64_intdigest)  # few words make up most of a language


def hash_ngrams(words: U64, ngram_size: int) -> U64:
    """(W - n + 1,) hashes of the n-grams of (W,) hashed words, in order; empty if there are fewer than n words."""
    # All positions at once: after k rounds of the loop entry i is a hash of words i to i + k - 1. The mix between two
    # rounds makes the order of words count; a plain sum would give "a b" and "b a" one hash.
    num_ngrams = len(words) - ngram_size + 1
    if num_ngrams < 1:
        return np.zeros(0, np.uint64)
    ngrams = np.zeros(num_ngrams, np.uint64)
    for place in range(ngram_size):
        ngrams = mix(ngrams) + words[place : place + num_ngrams]
    # The last word was added without a mix, so two words would differ by one constant after every prefix: a regularity
    # that the linear hash functions of `sign` would keep.
    return mix(ngrams)


def mix(values: U64) -> U64:
    """A bijection of 64 bits: each input bit flips about half of the output bits (MurmurHash3's finalizer, Appleby 2011)."""
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xFF51AFD7ED558CCD)
    values = (values ^ (values >> np.uint64(33))) * np.uint64(0xC4CEB9FE1A85EC53)
    return values ^ (values >> np.uint64(33))


def hash_functions(num: int, seed: int) -> tuple[U64, U64]:
    """Factors a in [1, p) and summands b in [0, p) of `num` functions (a x + b) mod p, p = 2^61 - 1."""
    random = np.random.RandomState(seed)  # its stream is frozen, that of newer generators is not
    return (
        random.randint(1, int(PRIME), num, dtype=np.uint64),
        random.randint(0, int(PRIME), num, dtype=np.uint64),
    )


def sign(ngrams: U64, factors: U64, summands: U64) -> U64:
    """(H,) the smallest value of each of H hash functions over the n-grams. a x + b wraps at 2^64 before the modulus, as in FineWeb."""
    # A text without n-grams keeps this maximum in every place; is_signed (tasks/dedup/signatures.py) leaves it out of
    # the comparison.
    smallest = np.full(len(factors), np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(ngrams), NGRAMS_PER_BLOCK):
        # (H, block). The textbook's a x + b takes 125 bits here (x has 64, a has 61). This one wraps, so the family is
        # no longer exactly universal; the tests compare its estimates with known similarities.
        hashes = factors[:, None] * ngrams[None, start : start + NGRAMS_PER_BLOCK]
        hashes += summands[:, None]
        multiples = hashes // PRIME  # numpy's remainder is several times slower
        multiples *= PRIME
        hashes -= multiples
        np.minimum(smallest, hashes.min(axis=1), out=smallest)
    return smallest


def band_keys(signature: U64, num_bands: int) -> U64:
    """(B,) one hash per band of a signature; equal bands have equal hashes."""
    # Row-major: a band is `rows_per_band` neighbouring hashes. The bytes are hashed as they lie, little-endian on every
    # machine we support, as columns are.
    bands = signature.reshape(num_bands, -1)
    return np.array([xxhash.xxh3_64_intdigest(band.tobytes()) for band in bands], np.uint64)


def sketch(signature: U64) -> U8:
    """The low byte of each hash: an eighth of the memory; different hashes agree in it once in 256 (b-bit MinHash, Li and König 2010)."""
    # Unrelated hashes agree with probability 1/256, so a similarity of s reads as s + (1 - s)/256: at 0.7 it is 0.001
    # too high, far below the standard error of 0.043.
    return signature.astype(np.uint8)
