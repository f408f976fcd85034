"""Agreement between people who ranked the same completions. Reads and writes nothing.

Krippendorff's alpha (Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability") with his ordinal metric: 1 is perfect agreement, 0 what
chance gives, and below 0.667 he advises against conclusions. A unit is one completion, its value the rank that a person gave. Ties share the mean of their
ranks, so that "1, 1, 2" and "1, 2, 3" agree on which completion is the worst. The second measure is InstructGPT's (Ouyang et al. 2022,
section 3.4): the fraction of pairs of completions that two people order alike; their labellers reach 73%.
"""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ranks = Sequence[int]  # of the completions of a prompt, 1 the best; equal ranks are a tie
Matrix = npt.NDArray[np.float64]


class Agreement(NamedTuple):
    """How far people agree; None where no two people ranked the same completions, or where all values are equal."""

    alpha: float | None
    pairs: float | None  # fraction of pairs that both people order, and order alike
    num_prompts: int  # ranked by two people or more


def agreement(rankings: Iterable[tuple[int, str, Ranks]]) -> Agreement:
    """The agreement of rankings: number of the prompt, person, ranks of its completions."""
    by_prompt: dict[int, dict[str, Ranks]] = defaultdict(dict)
    for prompt, person, ranks in rankings:
        by_prompt[prompt][person] = ranks
    shared = [ranked for ranked in by_prompt.values() if len(ranked) > 1]
    units = [list(values) for ranked in shared for values in zip(*map(mean_ranks, ranked.values()), strict=True)]
    return Agreement(ordinal_alpha(units), pair_agreement(shared), len(shared))


def mean_ranks(ranks: Ranks) -> list[float]:
    """Ranks in which ties share the mean of the places that they take: 1, 1, 2 becomes 1.5, 1.5, 3."""
    ordered = sorted(ranks)
    return [ordered.index(rank) + (ordered.count(rank) + 1) / 2 for rank in ranks]


def ordinal_alpha(units: Iterable[Sequence[float]]) -> float | None:
    """Krippendorff's alpha of the values that people gave to each unit; units with one value count for nothing."""
    kept = [unit for unit in units if len(unit) > 1]
    values = sorted({value for unit in kept for value in unit})
    if len(values) < 2:
        return None  # without any difference, agreement and chance are the same
    observed = _coincidences(kept, {value: place for place, value in enumerate(values)})
    totals = observed.sum(1)
    # What chance gives: values drawn without replacement from all that were given.
    expected = (np.outer(totals, totals) - np.diag(totals)) / (totals.sum() - 1)
    distance = _ordinal_distance(totals)
    return float(1 - (observed * distance).sum() / (expected * distance).sum())


def _coincidences(units: Iterable[Sequence[float]], place: Mapping[float, int]) -> Matrix:
    """How often two values were given to the same unit [V, V]; each unit weighs as many values as it has."""
    counts = np.zeros((len(place), len(place)))
    for unit in units:
        for first, second in itertools.permutations(unit, 2):
            counts[place[first], place[second]] += 1 / (len(unit) - 1)
    return counts


def _ordinal_distance(totals: Matrix) -> Matrix:
    """The squared number of values that lie between two of them [V, V], each end counted half."""
    middle = np.cumsum(totals) - totals / 2
    squared: Matrix = np.square(middle[:, None] - middle[None, :])
    return squared


def pair_agreement(shared: Iterable[Mapping[str, Ranks]]) -> float | None:
    """Of the pairs of completions that two people both ordered, the fraction that they ordered alike."""
    alike = [
        (first[left] < first[right]) == (second[left] < second[right])
        for ranked in shared
        for first, second in itertools.combinations(ranked.values(), 2)
        for left, right in itertools.combinations(range(len(first)), 2)
        if first[left] != first[right] and second[left] != second[right]
    ]
    return sum(alike) / len(alike) if alike else None
