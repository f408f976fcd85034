"""A scaling law: the loss of a model of N parameters after D tokens, L = E + A / N^alpha + B / D^beta.

Reads and writes nothing. The form and the objective are the third approach of Hoffmann et al. 2022: the Huber loss of the residuals
of log L, delta 1e-3, from a grid of starts. E is the entropy of the text, which no model predicts away; the other two terms are
what a model lacks because it is small and because it has seen little. The fit departs from the paper in three ways:

- L is linear in E, A and B. The grid is of exponents alone, and each start has the E, A and B of least squares of relative errors.
  The minimum is sought from the NUM_STARTS starts of lowest objective; from the best one alone it was found in 12 of 12 trials.
- scipy's trust-region least squares with its Huber loss instead of L-BFGS, to convergence, on the sum of the residuals. The paper's fit
  stopped early because it took their mean (Besiroglu et al. 2024).
- Intervals are of fits to losses drawn around the law with the scatter that the runs have around it (a parametric bootstrap), with
  one degree of freedom less for each constant. A few runs determine five constants loosely; the intervals say how loosely.

Fitting 400 resamples takes 2 to 12 CPU seconds (November 2026). A vectorised Levenberg-Marquardt, which solved all starts and
resamples at once, took 0.1 to 0.3 seconds and found the same minima; next to a study's hours of training that did
not pay for the code.

N counts what every token is multiplied with: matrices, the head included, the embedding not. FLOPs go by it, 6 N D of them. The head
outweighs the layers of a small model, and exponents come out wrong without it (Porian et al. 2024, Pearce & Song 2024).
"""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import numpy as np
import numpy.typing as npt

from model.errors import UserError

# Of log L, so a thousandth of the loss: a residual beyond it counts linearly, and one failed run does not bend the law.
HUBER_DELTA = 1e-3
# Around the 0.34 and 0.28 of Hoffmann et al. 2022, and far to both sides.
START_EXPONENTS = (0.1, 0.25, 0.5, 1.0, 1.5)
NUM_STARTS = 5
# Of E, A and B at the mean N and D, in nats, and of the exponents. A loss is at most some 12 nats, log V of the largest
# vocabularies: these bounds only keep a fit that the runs do not determine from running off to infinity.
LOWEST = np.log([1e-6, 1e-6, 1e-6, 0.01, 0.01])
HIGHEST = np.log([1e3, 1e3, 1e3, 3.0, 3.0])
TOLERANCE = 1e-10  # relative change of objective and constants at which a fit has converged
MAX_EVALUATIONS = 1000
NUM_CONSTANTS = 5
MIN_VALUES = 3  # through two sizes, or two budgets, passes a curve of any exponent

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
        """From the logs of the constants [5], with A and B at the N and D whose logs are `means` [2]."""
        E, A, B, alpha, beta = np.exp(constants).tolist()
        # A' (N / mean)^-alpha is A / N^alpha with A = A' mean^alpha.
        return cls(E, A * math.exp(alpha * means[0]), B * math.exp(beta * means[1]), alpha, beta)

    def loss_nats(self, num_parameters: float, num_tokens: float) -> float:
        """The predicted loss in nats a token."""
        return float(self.E + self.A * num_parameters**-self.alpha + self.B * num_tokens**-self.beta)

    def optimum(self, flops: float) -> tuple[float, float]:
        """The parameters and tokens of the lowest loss with `flops` = 6 N D (Hoffmann et al. 2022, equation 4)."""
        # Where the derivatives of A / N^alpha and B / D^beta by log N cancel at fixed 6 N D.
        ratio = (self.alpha * self.A / (self.beta * self.B)) ** (1 / (self.alpha + self.beta))
        num_parameters = ratio * (flops / 6) ** (self.beta / (self.alpha + self.beta))
        return num_parameters, flops / 6 / num_parameters


def fit(runs: Sequence[ScalingRun]) -> ScalingLaw:
    """The law that fits `runs` best. Raises UserError where they do not determine one."""
    require_enough_runs([(run.num_parameters, run.num_tokens) for run in runs])
    points, means = _centred(runs)
    starts = sorted(_starts(points), key=lambda start: _objective(points, start))
    # Found from each start to convergence; the lowest counts.
    constants, _ = min((minimise(points, start) for start in starts[:NUM_STARTS]), key=lambda found: found[1])
    return ScalingLaw.of_logs(constants, means)


def require_enough_runs(runs: Sequence[tuple[float, float]]) -> None:
    """Raises UserError where runs of these N and D do not determine a law."""
    num_sizes, num_budgets = len({size for size, _ in runs}), len({budget for _, budget in runs})
    # More runs than constants, too: the scatter divides by the difference.
    if min(num_sizes, num_budgets) < MIN_VALUES or len(runs) <= NUM_CONSTANTS:
        raise UserError(
            f"{len(runs)} runs of {num_sizes} sizes and {num_budgets} budgets do not determine a scaling law: take at least "
            f"{MIN_VALUES} sizes and {MIN_VALUES} budgets, each size with each budget"
        )


def scatter(law: ScalingLaw, runs: Sequence[ScalingRun]) -> float:
    """The standard deviation of log L around the law."""
    # One degree of freedom less for each fitted constant.
    squares = [math.log(run.loss_nats / law.loss_nats(run.num_parameters, run.num_tokens)) ** 2 for run in runs]
    return math.sqrt(sum(squares) / (len(runs) - NUM_CONSTANTS))


def resample(law: ScalingLaw, runs: Sequence[ScalingRun], num: int, seed: int) -> list[ScalingLaw]:
    """`num` laws, each fitted to losses drawn around `law` with the scatter of `runs`."""
    points, means = _centred(runs)
    drawn = np.repeat(points[None], num, axis=0)
    # Normal noise of log L, as if runs scattered by a factor around the law.
    noise = np.random.default_rng(seed).normal(scale=scatter(law, runs), size=(num, len(runs)))
    drawn[..., 2] = np.log([law.loss_nats(run.num_parameters, run.num_tokens) for run in runs]) + noise
    A, B = law.A * math.exp(-law.alpha * means[0]), law.B * math.exp(-law.beta * means[1])
    # One start, not NUM_STARTS: losses drawn around the law have their minimum near it.
    start = np.log([law.E, A, B, law.alpha, law.beta])
    return [ScalingLaw.of_logs(minimise(losses, start)[0], means) for losses in drawn]


def _centred(runs: Sequence[ScalingRun]) -> tuple[Floats, Floats]:
    """Logs of N, D and L, [runs, 3], with N and D divided by their geometric means, and the logs of these means [2]."""
    points = np.log(np.array(runs, dtype=np.float64))
    means = points[:, :2].mean(axis=0)
    # Centred: A and B at N and D of billions are correlated with the exponents, and the fit is ill-conditioned.
    points[:, :2] -= means
    return points, means


def _starts(points: Floats) -> Floats:
    """Logs of constants to start from, [starts, 5]. What least squares makes negative starts next to zero."""
    # 25 starts, of which `fit` follows the best few.
    exponents = np.array([(alpha, beta) for alpha in START_EXPONENTS for beta in START_EXPONENTS])
    # Rows divided by L and a right side of ones: relative errors, as the objective has them in logs.
    relative = [
        np.linalg.lstsq(_terms(points, pair) / np.exp(points[:, 2:]), np.ones(len(points)))[0] for pair in exponents
    ]
    # A logarithm needs positive numbers: a thousandth of the lowest loss stands for zero.
    least = 1e-3 * math.exp(points[:, 2].min())
    starts: Floats = np.log(np.concatenate([np.maximum(relative, least), exponents], axis=1))
    return starts


def _terms(points: Floats, exponents: Floats) -> Floats:
    """What E, A and B are multiplied with, [runs, 3]."""
    return np.concatenate([np.ones((len(points), 1)), np.exp(-points[:, :2] * exponents)], axis=1)


def minimise(points: Floats, start: Floats) -> tuple[Floats, float]:
    """The minimum of the objective near `start`, the logs of the constants [5], for `points` [runs, 3]: constants [5] and its value."""
    from scipy.optimize import least_squares  # here: it takes a third of a second, which other commands need not wait

    margin = 1e-9  # scipy refuses a start on a bound
    # With bounds this is scipy's trust region reflective method, which keeps every iterate between them.
    found = least_squares(
        lambda constants: _residuals(points, constants)[0],
        np.clip(start, LOWEST + margin, HIGHEST - margin),
        # Analytic derivatives: finite differences would evaluate the law once more for each of the five constants.
        jac=lambda constants: _residuals(points, constants)[1],
        bounds=(LOWEST, HIGHEST),
        loss="huber",
        f_scale=HUBER_DELTA,
        ftol=TOLERANCE,
        xtol=TOLERANCE,
        gtol=TOLERANCE,
        max_nfev=MAX_EVALUATIONS,
    )
    return found.x, float(found.cost)


def _residuals(points: Floats, constants: Floats) -> tuple[Floats, Floats]:
    """log of the law over log L [runs], and its derivatives by the logs of the constants [runs, 5]."""
    log_n, log_d, log_l = points.T
    e, a, b = constants[:3]
    alpha, beta = np.exp(constants[3:])
    # Of the logs: constants stay positive, and scipy's steps have one scale for all five.
    terms = np.exp(np.stack([np.full_like(log_n, e), a - alpha * log_n, b - beta * log_d], axis=-1))
    law = terms.sum(axis=-1)
    # d log(law) / d log(E) is E's share of the law, and so for A and B; for an exponent
    # it is minus the share of its term times the exponent times log N or log D.
    shares = terms / law[:, None]
    by_exponents = -shares[:, 1:] * np.stack([alpha * log_n, beta * log_d], axis=-1)
    return np.log(law) - log_l, np.concatenate([shares, by_exponents], axis=-1)


def _objective(points: Floats, constants: Floats) -> float:
    """The Huber loss summed over runs, in units of delta squared."""
    sizes = np.abs(_residuals(points, constants)[0]) / HUBER_DELTA
    return float(np.where(sizes <= 1, sizes**2 / 2, sizes - 0.5).sum())
