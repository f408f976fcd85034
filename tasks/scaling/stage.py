"""Scaling: predicts the loss of a run from smaller runs, and reports how far the prediction was off.

Reads the base models of runs of several sizes on several budgets of tokens, each trained to the end of a schedule of its length, and, once it is
trained, the target: the run that is predicted, which has no part in the fit. Writes a Report: `report.md`, `report.json` and
`scaling.svg`. The law and its fit are in model/planning/scaling_law.py; losses are of the validation split, in nats per token and in
bits per byte.

Departs from Hoffmann et al. 2022 in size: nine runs where they had over 400, so all constants have intervals. A run's budget counts
tokens seen: the law takes repeated tokens for fresh ones, and the report states the epochs.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from model.config import Config, Fraction, ModelShape, num_matrix_parameters
from model.errors import UserError
from model.planning.scaling_law import ScalingRun, fit, resample, scatter
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import BaseModel, Report
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.markdown import Figures
from tasks.plots import picture, svg
from tasks.scaling.report import draw, render
from tasks.training import model_config

VERSION = 3
# Three of each are the fewest that determine an exponent (MIN_VALUES in scaling_law.py). A size is a fraction of both
# layers and width (flows/scaling.py): but for rounding, these have 4%, 12% and 30% of the target's weights between embedding and head.
SIZES = (0.34, 0.5, 0.67)  # fractions of the target's model
BUDGETS = (0.125, 0.25, 0.5)  # fractions of the target's tokens


class ScalingConfig(Config):
    """The target run, and how the intervals are computed."""

    model: ModelShape = Field(ModelShape(), title="Model", description="The shape of the target.")
    num_tokens: int = Field(2**20, ge=1, description="Tokens that the target is trained on.")
    interval_fraction: Fraction = Field(0.9, description="Fraction of the resampled fits within an interval.")
    num_resamples: int = Field(400, ge=20, le=10_000, description="Fits to losses drawn around the law.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of these losses.")


class Trained(NamedTuple):
    """Size, budget and results of a finished run."""

    num_parameters: int
    num_tokens: int
    loss_nats: float
    bits_per_byte: float
    epochs: float
    seconds: float

    @property
    def point(self) -> ScalingRun:
        """What the law is fitted to."""
        return ScalingRun(self.num_parameters, self.num_tokens, self.loss_nats)


@dataclass(frozen=True)
class ScalingInputs:
    """The runs that the law is fitted to, and the predicted run once it is finished."""

    runs: tuple[BaseModel, ...]
    target: BaseModel | None = None


def scaling(runs: Sequence[Step[BaseModel]], target: Step[BaseModel] | None, config: ScalingConfig) -> Step[Report]:
    """Fit a scaling law to `runs` and predict the run of `config`; `target` is that run, to compare with."""
    inputs = roles(runs=runs, target=target)
    return Step("scaling", VERSION, Report, config, inputs, run=fit_scaling_law, takes=ScalingInputs)


def fit_scaling_law(ctx: StageContext, config: ScalingConfig, inputs: ScalingInputs) -> Outcome:
    """Fit the law, write the report and the plot. Raises UserError where a run was not validated."""
    # All runs have one tokenizer and one validation split, which flows/scaling.py sees to: losses of others could not be compared.
    target = inputs.target
    seen = sorted(read(checkpoint) for checkpoint in inputs.runs)
    vocab_size = model_config(inputs.runs[0]).vocab_size
    num_parameters = num_matrix_parameters(config.model.with_vocabulary(vocab_size))
    figures = predict(config, seen, num_parameters)
    if target:
        figures |= compare(figures, read(target))
    plot = draw(figures)
    report = render(figures)
    write_atomically(ctx.folder / "scaling.svg", svg(plot))
    write_atomically(ctx.folder / "report.json", json.dumps(figures, indent=1))
    write_atomically(ctx.folder / "report.md", f"{report}\n![Loss by tokens and size](scaling.svg)\n")
    # A link to scaling.svg leads nowhere in the Prefect UI, which shows the page without the folder: there the picture is part of it.
    ctx.markdown("report", f"{report}\n{picture(plot, 'Loss by tokens and size')}", "A run predicted from smaller ones")
    ctx.table("runs", figures["runs"], "What the law was fitted to")
    metrics = {f"law/{name}": value for name, value in figures["law"].items()}
    metrics |= {f"predicted/{name}": figures["predicted"][name] for name in ("loss_nats", "bits_per_byte")}
    metrics |= {name: error for name, error in figures.get("error", {}).items() if error is not None}
    return Outcome({"runs": len(seen)}, metrics)


def read(checkpoint: BaseModel) -> Trained:
    """The results of a run. Raises UserError where it was not validated."""
    counts, metrics = checkpoint.manifest.counts, checkpoint.manifest.metrics
    if "validation/loss_nats" not in metrics:
        raise UserError(
            f"artifact {checkpoint.manifest.id} has no validation loss: give its tokens a validation split, and "
            "pretrain.train.eval_sequences more than 0"
        )
    # N counts what every token is multiplied with, as in scaling_law.py; `parameters` of the manifest counts norms and an untied embedding too.
    return Trained(
        num_matrix_parameters(model_config(checkpoint)),
        counts["tokens"],
        metrics["validation/loss_nats"],
        metrics["validation/bits_per_byte"],
        metrics["epochs"],
        metrics["train/seconds"],
    )


def predict(config: ScalingConfig, seen: Sequence[Trained], num_parameters: int) -> Figures:
    """The law of the runs with an interval for each constant, its prediction of the target, and the best use of the target's FLOPs.

    The interval of the predicted loss includes the scatter of a single run.
    """
    # Two uncertainties: of the constants, by the resampled laws, and of a single run around any law, by the noise.
    points = [run.point for run in seen]
    law = fit(points)
    laws = resample(law, points, config.num_resamples, config.seed)
    noise = np.random.default_rng(config.seed).normal(scale=scatter(law, points), size=len(laws))
    losses = np.array([other.loss_nats(num_parameters, config.num_tokens) for other in laws]) * np.exp(noise)
    loss, flops = law.loss_nats(num_parameters, config.num_tokens), 6.0 * num_parameters * config.num_tokens
    # Nats per token to bits per byte: log2(e) over bytes per token, the same for all runs on one validation split.
    bits_per_nat = seen[0].bits_per_byte / seen[0].loss_nats
    best = law.optimum(flops)
    ratios = [tokens / parameters for parameters, tokens in (other.optimum(flops) for other in laws)]
    return {
        "runs": [run._asdict() | {"fitted_nats": law.loss_nats(run.num_parameters, run.num_tokens)} for run in seen],
        "law": law._asdict(),
        # Constants and optimum are of laws, without the noise of a single run.
        "intervals": {name: interval(config, [getattr(other, name) for other in laws]) for name in law._fields},
        "interval_fraction": config.interval_fraction,
        "scatter_fraction": scatter(law, points),
        "predicted": {
            "num_parameters": num_parameters,
            "num_tokens": config.num_tokens,
            "loss_nats": loss,
            "bits_per_byte": loss * bits_per_nat,
            "interval_nats": interval(config, losses),
        },
        "optimum": {
            "flops": flops,
            "num_parameters": best[0],
            "num_tokens": best[1],
            "tokens_per_parameter": best[1] / best[0],
            "interval": interval(config, ratios),
        },
    }


def interval(config: ScalingConfig, values: Sequence[float] | Any) -> list[float]:
    """The central interval that holds `interval_fraction` of the values."""
    outside = (1 - config.interval_fraction) / 2
    return [float(bound) for bound in np.quantile(values, [outside, 1 - outside])]


def compare(figures: Figures, measured: Trained) -> Figures:
    """The error of the predicted loss: as a fraction of the loss, and of its fall below the best run that the law was fitted to.

    Losses lie close together, so that the first is small for any guess. The second is 1 for a guess that the target does no better
    than the best run.
    """
    predicted, best = figures["predicted"]["loss_nats"], min(run["loss_nats"] for run in figures["runs"])
    # The gain of the target over the best run. abs() keeps the sign that of the error where the target does worse.
    fall = abs(best - measured.loss_nats)
    error = {
        "error_fraction": predicted / measured.loss_nats - 1,
        # Of no fall there is no fraction; None and not infinity, which JSON does not have.
        "error_of_fall_fraction": (predicted - measured.loss_nats) / fall if fall else None,
    }
    return {"measured": measured._asdict(), "error": error}
