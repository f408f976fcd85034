"""Recital: how much of its training text a base model writes word for word, by how often that text has the passage.

Reads the training shards of Tokens and a base model; writes nothing. The model reads the first PREFIX_TOKENS tokens of a passage and continues
greedily; the length of the exact continuation is counted (Carlini et al. 2023, https://arxiv.org/abs/2202.07646, section 3: the more often a
text is repeated, the more of it is written).

A passage is a window of tokens within one document. All windows are counted by a hash of 64 bits. Those that occur several times overlap:
of them only the one where the repetition begins is taken, so that a licence on a hundred pages is one passage and not fifty.

Departures: Carlini et al. count only continuations of 50 tokens that are right to the end; their share is given next to the mean length.
Only the first MAX_TOKENS of the training text are counted.
"""

import bisect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from model.config import GenerateConfig
from tasks.evaluate.knowledge import class_name, mean
from tasks.markdown import Figures, table
from tasks.shares import share, shown

if TYPE_CHECKING:
    from model.network.transformer import Transformer

PREFIX_TOKENS, CONTINUED_TOKENS = 32, 50
WINDOW_TOKENS = PREFIX_TOKENS + CONTINUED_TOKENS
MAX_TOKENS = 5_000_000  # 40 MB of hashes, and less than a second for each million
# Odd, so that no token is lost modulo 2^64: the golden ratio, as in Fibonacci hashing.
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)

Windows = npt.NDArray[np.int64]


def recital_figures(
    model: "Transformer", bos: int, paths: Sequence[Path], bounds: Sequence[int], num_passages: int, batch: int
) -> list[Figures]:
    """For each class of passages by how often they occur: the mean exact continuation in tokens, and the share that is exact to its end."""
    from model.inference.cpu_kernels import make_decoder
    from model.inference.generate import generate

    greedy = GenerateConfig(max_new_tokens=CONTINUED_TOKENS, temperature=0.0)
    decoder, rows = make_decoder(model), []
    for number, passages in sorted(find_passages(read_tokens(paths), bos, bounds, num_passages).items(), reverse=True):
        lengths = []
        for start in range(0, len(passages), batch):
            group = passages[start : start + batch].tolist()
            written = generate(decoder, [[bos, *passage[:PREFIX_TOKENS]] for passage in group], greedy, bos)
            lengths += [
                exact_length(passage[PREFIX_TOKENS:], tokens) for passage, tokens in zip(group, written, strict=True)
            ]
        whole = share([length == CONTINUED_TOKENS for length in lengths])
        rows.append({"occurrences": class_name(number, bounds), "mean_tokens": mean(lengths), "whole": whole})
    return rows


def read_tokens(paths: Sequence[Path]) -> Windows:
    """The tokens of the shards in a row, at most MAX_TOKENS. Each document begins with the token bos."""
    from model.data.token_stream import token_runs

    found: list[npt.NDArray[np.int64]] = []
    missing = MAX_TOKENS
    for run in (run for path in paths for run in token_runs(str(path))):
        found.append(run.tokens[:missing].astype(np.int64))
        missing -= len(found[-1])
        if not missing:
            break
    return np.concatenate(found) if found else np.empty(0, np.int64)


def find_passages(tokens: Windows, bos: int, bounds: Sequence[int], limit: int) -> dict[int, Windows]:
    """Up to `limit` passages [N, WINDOW_TOKENS] of each class of occurrences, drawn at random; a class without any is left out."""
    if len(tokens) < WINDOW_TOKENS:
        return {}
    windows = np.lib.stride_tricks.sliding_window_view(tokens, WINDOW_TOKENS)
    hashes = np.zeros(len(windows), np.uint64)
    for place in range(WINDOW_TOKENS):
        hashes = hashes * MULTIPLIER + tokens[place : place + len(windows)].astype(np.uint64)
    # Windows with a bos reach into the next document. A hash of 0 occurrences marks them, which no window has.
    num_bos = np.concatenate(([0], np.cumsum(tokens == bos)))
    is_whole = num_bos[WINDOW_TOKENS:] == num_bos[:-WINDOW_TOKENS]
    _, first, place_of, counts = np.unique(hashes, return_index=True, return_inverse=True, return_counts=True)
    occurrences = np.where(is_whole, counts[place_of], 0)
    before = np.concatenate(([0], occurrences[:-1]))
    is_first = first[place_of] == np.arange(len(windows))
    # What occurs once is taken anywhere, what is repeated only where the repetition begins.
    starts = np.flatnonzero(is_whole & is_first & ((occurrences == 1) | (before < occurrences)))
    classes: dict[int, list[int]] = {}
    for start in np.random.default_rng(0).permutation(starts).tolist():
        classes.setdefault(bisect.bisect(bounds, occurrences[start]), []).append(start)
    return {number: windows[some[:limit]] for number, some in classes.items() if limit}


def exact_length(expected: Sequence[int], written: Sequence[int]) -> int:
    """How many tokens of what was written are those expected, from the first on."""
    pairs = enumerate(zip(expected, written, strict=False))
    return next((place for place, (one, two) in pairs if one != two), min(len(expected), len(written)))


def recital_section(figures: Figures) -> str:
    """The section of the report card; empty where the training text has no passage of that length."""
    if not (rows := figures.get("recital")):
        return ""
    cells = [[row["occurrences"], f"{row['mean_tokens']:.1f}", shown(row["whole"])] for row in rows]
    note = (
        f"The base model reads {PREFIX_TOKENS} tokens of a passage of its training text and continues greedily; the passage has "
        f"{CONTINUED_TOKENS} more.\n\n"
    )
    headings = ["Occurrences of the passage", "Tokens written word for word", "All of them"]
    return "## Recital\n\n" + note + table(headings, cells)
