"""A scaling law: the loss that a model of N parameters comes to on D tokens, L = E + A / N^alpha + B / D^beta.

Reads and writes nothing. The form and what is minimised are the third approach of Hoffmann et al. 2022: the Huber loss of the
residuals of log L, delta 1e-3, from a grid of starts. E is what no model can foresee of the text, the other two terms are what a
model lacks for being small and for having seen little. The fit departs from the paper in three ways:

- L is linear in E, A and B: the grid is of exponents alone, and each start has the E, A and B of least squares of relative errors.
- Levenberg-Marquardt with Huber's weights, all starts at once, instead of L-BFGS. It goes on until it stands still, with the sum of
  the residuals; the paper's stopped early, on their mean (Besiroglu et al. 2024).
- Intervals are of fits to losses drawn around the law with the scatter that the runs have around it (a parametric bootstrap), with
  as many degrees of freedom less as there are constants. A few runs hold five constants loosely, and this tells how loosely.

N counts what every token is multiplied with: matrices, the head included, the embedding not. FLOPs go by it, 6 N D of them. The head
outweighs the layers of a small model, and exponents come out wrong without it (Porian et al. 2024, Pearce & Song 2024).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

HUBER_DELTA = 1e-3
START_EXPONENTS = (0.1, 0.25, 0.5, 1.0, 1.5)
LOWEST = np.log([1e-6, 1e-6, 1e-6, 0.01, 0.01])  # of E, A and B at the mean N and D, in nats, and of the exponents
HIGHEST = np.log([1e3, 1e3, 1e3, 3.0, 3.0])
MOST_DAMPING = 1e12  # where steps come to nothing
MOST_ITERATIONS = 400
NUM_CONSTANTS = 5
LEAST_VALUES = 3  # through two sizes, or two budgets, goes a curve of any exponent

Floats = npt.NDArray[np.float64]


class ScalingRun(NamedTuple):
    """A finished run: N, D, and L in nats a token."""

    num_parameters: float
    num_tokens: float
    loss_nats: float


class ScalingLaw(NamedTuple):
    """The five constants, with L in nats a token."""

    E: float
    A: float
    B: float
    alpha: float
    beta: float

    @classmethod
    def of_logs(cls, constants: Floats, means: Floats) -> Self:
        """From the logs of the constants [5], A and B at the N and D whose logs are `means` [2]."""
        E, A, B, alpha, beta = np.exp(constants).tolist()
        return cls(E, A * math.exp(alpha * means[0]), B * math.exp(beta * means[1]), alpha, beta)

    def loss_nats(self, num_parameters: float, num_tokens: float) -> float:
        return float(self.E + self.A * num_parameters**-self.alpha + self.B * num_tokens**-self.beta)

    def optimum(self, flops: float) -> tuple[float, float]:
        """The parameters and tokens that come to the lowest loss with `flops` = 6 N D (Hoffmann et al. 2022, equation 4)."""
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        num_parameters = ratio * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return num_parameters, flops / 6 / num_parameters


def fit(runs: Sequence[ScalingRun]) -> ScalingLaw:
    """The law that is nearest to `runs`. Raises ValueError where they do not tell one."""
    require_enough_runs([(run.num_parameters, run.num_tokens) for run in runs])
    points, means = _centred(runs)
    minima, values = minimise(points, _starts(points))
    return ScalingLaw.of_logs(minima[values.argmin()], means)


def require_enough_runs(runs: Sequence[tuple[float, float]]) -> None:
    """Raises ValueError where runs of these N and D do not tell a law."""
    num_sizes, num_budgets = (len(set(values)) for values in zip(*runs, strict=True))
    if min(num_sizes, num_budgets) < LEAST_VALUES or len(runs) <= NUM_CONSTANTS:
        raise ValueError(
            f"{len(runs)} runs of {num_sizes} sizes and {num_budgets} budgets do not tell a scaling law: take at least "
            f"{LEAST_VALUES} sizes and {LEAST_VALUES} budgets, each size with each budget"
        )


def scatter(law: ScalingLaw, runs: Sequence[ScalingRun]) -> float:
    """The standard deviation of log L around the law."""
    squares = [math.log(run.loss_nats / law.loss_nats(run.num_parameters, run.num_tokens)) ** 2 for run in runs]
    return math.sqrt(sum(squares) / (len(runs) - NUM_CONSTANTS))


def resample(law: ScalingLaw, runs: Sequence[ScalingRun], num: int, seed: int) -> list[ScalingLaw]:
    """`num` laws of runs as they might have come out."""
    points, means = _centred(runs)
    drawn = np.repeat(points[None], num, axis=0)
    noise = np.random.default_rng(seed).normal(scale=scatter(law, runs), size=(num, len(runs)))
    drawn[..., 2] = np.log([law.loss_nats(run.num_parameters, run.num_tokens) for run in runs]) + noise
    A, B = law.A * math.exp(-law.alpha * means[0]), law.B * math.exp(-law.beta * means[1])
    start = np.log([law.E, A, B, law.alpha, law.beta])
    return [ScalingLaw.of_logs(minimum, means) for minimum in minimise(drawn, np.tile(start, (num, 1)))[0]]


def _centred(runs: Sequence[ScalingRun]) -> tuple[Floats, Floats]:
    """Logs of N, D and L, [runs, 3], of which N and D are over their means, and the logs of these."""
    points = np.log(np.array(runs, dtype=np.float64))
    means = points[:, :2].mean(axis=0)
    points[:, :2] -= means
    return points, means


def _starts(points: Floats) -> Floats:
    """The logs of constants, [starts, 5]. What least squares makes negative starts next to zero."""
    exponents = np.array([(alpha, beta) for alpha in START_EXPONENTS for beta in START_EXPONENTS])
    relative = [
        np.linalg.lstsq(_terms(points, pair) / np.exp(points[:, 2:]), np.ones(len(points)))[0] for pair in exponents
    ]
    least = 1e-3 * math.exp(points[:, 2].min())
    starts: Floats = np.log(np.concatenate([np.maximum(relative, least), exponents], axis=1))
    return starts


def _terms(points: Floats, exponents: Floats) -> Floats:
    """What E, A and B are multiplied with, [runs, 3]."""
    return np.concatenate([np.ones((len(points), 1)), np.exp(-points[:, :2] * exponents)], axis=1)


def minimise(points: Floats, constants: Floats) -> tuple[Floats, Floats]:
    """points [runs, 3] or [starts, runs, 3], logs of constants [starts, 5] -> these at minima, and what is minimised [starts].

    A step of which nothing comes is damped ten times more, the next after one of which something comes three times less.
    """
    damping = np.full(len(constants), 1e-3)
    residuals, slopes = _residuals(points, constants)
    values = _huber(residuals)
    for _ in range(MOST_ITERATIONS):
        weights = np.minimum(1.0, HUBER_DELTA / np.maximum(np.abs(residuals), HUBER_DELTA))[..., None]
        curvature = np.einsum("srj,srk->sjk", slopes, weights * slopes)
        diagonal = np.einsum("sjj->sj", curvature)
        diagonal += damping[:, None] * (diagonal + 1e-9)
        gradient = np.einsum("srj,sr->sj", weights * slopes, residuals)
        tried = np.clip(constants - np.linalg.solve(curvature, gradient[..., None])[..., 0], LOWEST, HIGHEST)
        tried_residuals, tried_slopes = _residuals(points, tried)
        is_better = _huber(tried_residuals) < values
        constants = np.where(is_better[:, None], tried, constants)
        residuals = np.where(is_better[:, None], tried_residuals, residuals)
        slopes = np.where(is_better[:, None, None], tried_slopes, slopes)
        values = _huber(residuals)
        damping = np.clip(np.where(is_better, damping / 3, damping * 10), 1 / MOST_DAMPING, MOST_DAMPING)
        if damping.min() == MOST_DAMPING:
            break
    return constants, values


def _residuals(points: Floats, constants: Floats) -> tuple[Floats, Floats]:
    """log of the law over log L [starts, runs], and its slopes by the constants [starts, runs, 5]."""
    log_n, log_d, log_l = np.moveaxis(np.broadcast_to(points, (len(constants), *points.shape[-2:])), -1, 0)
    e, a, b = constants[:, :3].T[..., None]
    alpha, beta = np.exp(constants[:, 3:]).T[..., None]
    terms = np.exp(np.stack([e + 0 * log_n, a - alpha * log_n, b - beta * log_d], axis=-1))
    law = terms.sum(axis=-1)
    shares = terms / law[..., None]
    by_exponents = -shares[..., 1:] * np.stack([alpha * log_n, beta * log_d], axis=-1)
    return np.log(law) - log_l, np.concatenate([shares, by_exponents], axis=-1)


def _huber(residuals: Floats) -> Floats:
    """Summed over runs, in units of delta squared."""
    sizes = np.abs(residuals) / HUBER_DELTA
    return np.asarray(np.where(sizes <= 1, sizes**2 / 2, sizes - 0.5).sum(axis=-1))
