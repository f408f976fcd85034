"""Ratings of models from votes between two of them: Bradley-Terry with bootstrap intervals, and Elo as it changed.

Reads and writes nothing. Bradley & Terry 1952 (https://doi.org/10.2307/2334029): model i beats model j with the probability
1 / (1 + exp(s_j - s_i)). A tie, and "both are bad", count as half a win of each, as in Chatbot Arena (Chiang et al. 2024,
https://arxiv.org/abs/2403.04132, section 4) and in evalica, whose ratings these are (tests/tasks/feedback/test_ratings.py).

The likelihood is maximised by Newton's method: it is concave, and a handful of steps suffices where Zermelo's iteration takes hundreds.
Departure: a prior of PRIOR_TIES ties of every model against one of average strength. Without it a model that won all its votes would have an
infinite rating, and the ratings of two models that no votes connect could not be compared.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

Winner = Literal["left", "right", "tie", "both_bad"]
Matrix = npt.NDArray[np.float64]

SCORE_OF_LEFT: dict[str, float] = {"left": 1.0, "right": 0.0, "tie": 0.5, "both_bad": 0.5}
# A rating of 400 more is 10 wins for each loss, and the average is 1000: the scale of chess, on which arenas report.
POINTS_PER_NAT, AVERAGE = 400 / math.log(10), 1000.0
PRIOR_TIES = 1.0  # 10,000 votes move by less than half a point, and a single vote makes nobody a champion
MIN_VOTES = 10  # for an interval: samples of fewer votes are too much alike, and it would be too narrow
ELO_STEP = 4.0  # of Chatbot Arena: a single vote says little
CONVERGED = 1e-10  # nats of the largest change
MAX_STEPS = 100
MAX_STEP_NATS = 2.0  # of one of Newton's steps, which overshoots where nearly all votes have one winner


class Vote(NamedTuple):
    """A vote between two models."""

    left: str
    right: str
    winner: Winner


class Rating(NamedTuple):
    """The rating of a model in points, with the interval that holds 95% of the resampled ones; None after few votes."""

    model: str
    points: float
    low: float | None
    high: float | None
    num_votes: int


def rate(votes: Sequence[Vote], num_resamples: int = 200, seed: int = 0) -> list[Rating]:
    """The ratings of all models in the votes, the best first. The intervals come from votes drawn with replacement."""
    models, wins = count_wins(votes)
    if not models:
        return []
    points = to_points(strengths(wins)).tolist()
    num_votes = (wins + wins.T).sum(1).round().astype(int).tolist()
    ends = np.percentile(_resampled(models, votes, num_resamples, seed), [2.5, 97.5], axis=0).T.tolist()
    ratings = [
        Rating(model, rating, low if count >= MIN_VOTES else None, high if count >= MIN_VOTES else None, count)
        for model, rating, (low, high), count in zip(models, points, ends, num_votes, strict=True)
    ]
    return sorted(ratings, key=lambda rating: -rating.points)


def count_wins(votes: Iterable[Vote]) -> tuple[list[str], Matrix]:
    """The names of the models, sorted, and wins [M, M]: how often the one of the row beat that of the column."""
    votes = list(votes)
    models = sorted({model for vote in votes for model in (vote.left, vote.right)})
    place = {model: number for number, model in enumerate(models)}
    wins = np.zeros((len(models), len(models)))
    for vote in votes:
        left, right, score = place[vote.left], place[vote.right], SCORE_OF_LEFT[vote.winner]
        wins[left, right] += score
        wins[right, left] += 1 - score
    return models, wins


def strengths(wins: Matrix, prior_ties: float = PRIOR_TIES) -> Matrix:
    """The strengths [..., M] in nats, of mean 0, that make wins [..., M, M] most likely.

    Without a prior they exist where no group of models won all its votes against the others (Ford 1957); the caller sees to that.
    """
    num_votes = wins + wins.swapaxes(-1, -2)
    found = np.zeros(wins.shape[:-1])
    for _ in range(MAX_STEPS):
        expected = _win_probability(found[..., :, None] - found[..., None, :])
        against_average = _win_probability(found)
        gradient = (wins - num_votes * expected).sum(-1) + prior_ties * (0.5 - against_average)
        information = num_votes * expected * (1 - expected)
        diagonal = information.sum(-1) + prior_ties * against_average * (1 - against_average)
        hessian = np.eye(wins.shape[-1]) * diagonal[..., None] - information
        # The pseudoinverse: without a prior the strengths are known up to a constant, and it leaves their mean at 0.
        step = (np.linalg.pinv(hessian, hermitian=True) @ gradient[..., None])[..., 0]
        largest = np.abs(step).max(-1, keepdims=True)
        found += step * np.minimum(1.0, MAX_STEP_NATS / np.maximum(largest, CONVERGED))
        if largest.max() < CONVERGED:
            break
    centred: Matrix = found - found.mean(-1, keepdims=True)
    return centred


def _win_probability(difference: Matrix) -> Matrix:
    # Through tanh: exp of a large difference would overflow.
    return 0.5 * (1 + np.tanh(difference / 2))


def to_points(nats: Matrix) -> Matrix:
    """Strengths in nats as points."""
    return AVERAGE + POINTS_PER_NAT * nats


def _resampled(models: Sequence[str], votes: Sequence[Vote], num_resamples: int, seed: int) -> Matrix:
    """Points [R, M] of R samples of the votes, drawn with replacement (Efron 1979)."""
    # Votes of one pair and result are alike, so a sample is a multinomial draw of their numbers: its cost does not grow with the votes.
    kinds = sorted(set(votes))
    number_of = Counter(votes)
    shares = np.array([number_of[kind] for kind in kinds]) / len(votes)
    samples = np.random.default_rng(seed).multinomial(len(votes), shares, size=num_resamples)
    tables = np.stack([_table(models, kind) for kind in kinds])  # [kinds, M, M]
    return to_points(strengths(np.tensordot(samples, tables, 1)))


def _table(models: Sequence[str], vote: Vote) -> Matrix:
    """The wins [M, M] of a single vote."""
    table = np.zeros((len(models), len(models)))
    left, right = models.index(vote.left), models.index(vote.right)
    table[left, right] = SCORE_OF_LEFT[vote.winner]
    table[right, left] = 1 - SCORE_OF_LEFT[vote.winner]
    return table


def elo(votes: Iterable[Vote], step: float = ELO_STEP) -> list[dict[str, float]]:
    """The Elo ratings after each vote (Elo 1978), of the models seen so far.

    Unlike Bradley-Terry's they depend on the order: they show how a model fared lately, and the table is not sorted by them.
    """
    ratings: dict[str, float] = {}
    history = []
    for vote in votes:
        left, right = ratings.get(vote.left, AVERAGE), ratings.get(vote.right, AVERAGE)
        change = step * (SCORE_OF_LEFT[vote.winner] - 1 / (1 + 10 ** ((right - left) / 400)))
        ratings = {**ratings, vote.left: left + change, vote.right: right - change}
        history.append(ratings)
    return history
