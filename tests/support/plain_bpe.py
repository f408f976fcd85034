"""Byte-level BPE as the papers say it, slow and short: what the trainer and the vocabularies are held against."""

from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise

Pair = tuple[bytes, bytes]


def learn(words: Mapping[bytes, int], num_merges: int, first: Callable[[list[Pair]], Pair]) -> list[tuple[Pair, int]]:
    """The merges and how often each pair was there, of words and how often each is there (Sennrich et al. 2016).

    `first` takes one of the pairs that are equally frequent.
    """
    split = {word: [bytes([byte]) for byte in word] for word in words}
    counts: Counter[Pair] = Counter()
    for word, num in words.items():
        count(counts, split[word], num)
    learned = []
    for _ in range(num_merges):
        most = max(counts.values())
        pair = first([pair for pair, num in counts.items() if num == most])
        learned.append((pair, most))
        for word, num in words.items():
            if pair[0] in split[word] and pair[1] in split[word]:
                count(counts, split[word], -num)
                split[word] = merge(split[word], pair)
                count(counts, split[word], num)
    return learned


def count(counts: Counter[Pair], parts: list[bytes], num: int) -> None:
    for pair in pairwise(parts):
        counts[pair] += num


def merge(parts: list[bytes], pair: Pair) -> list[bytes]:
    """`parts` with `pair` merged from the left: a part that was merged is not merged again."""
    merged: list[bytes] = []
    place = 0
    while place < len(parts):
        is_pair = tuple(parts[place : place + 2]) == pair
        merged.append(pair[0] + pair[1] if is_pair else parts[place])
        place += 1 + is_pair
    return merged


def encode(word: bytes, ranks: Mapping[bytes, int]) -> list[int]:
    """The tokens of a word as tiktoken makes them: the neighbours that make the token of lowest rank are merged first."""
    if word in ranks:
        return [ranks[word]]
    parts = [word[place : place + 1] for place in range(len(word))]
    while True:
        made = [
            (ranks[left + right], place) for place, (left, right) in enumerate(pairwise(parts)) if left + right in ranks
        ]
        if not made:
            return [ranks[part] for part in parts]
        place = min(made)[1]
        parts[place : place + 2] = [parts[place] + parts[place + 1]]
