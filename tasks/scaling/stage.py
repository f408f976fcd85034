"""Scaling: what a run will come to, foretold by smaller ones, and how far the foretelling was off.

Reads the Checkpoints of runs of several sizes on several budgets of tokens, each trained to the end of its own schedule, and, once there
is one, of the run that is foretold, which has no part in the fit. Writes a Report: `report.md`, `report.json` and `scaling.svg`.
The law and its fit are model/planning/scaling_law.py's; losses are of the validation split, in nats a token and in bits a byte.

Departs from Hoffmann et al. 2022 in size: nine runs where they had over 400, so intervals stand beside all constants. A run's budget
is of tokens seen; where they come by more than once, the law takes repeated tokens for fresh ones, and the report tells the epochs.
"""

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from model.config import Config, Fraction, ModelShape, num_matrix_parameters
from model.planning.scaling_law import ScalingRun, fit, resample, scatter
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import BaseModel, Report
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.markdown import Figures
from tasks.scaling.report import draw, render, svg
from tasks.training import model_config

VERSION = 2
SIZES = (0.34, 0.5, 0.67)  # of the model that is foretold
BUDGETS = (0.125, 0.25, 0.5)  # of the tokens that it is trained on


class ScalingConfig(Config):
    """Which run is foretold, and how the intervals are made."""

    model: ModelShape = Field(ModelShape(), title="Model", description="The shape of that model.")
    num_tokens: int = Field(2**20, ge=1, description="Tokens that it is trained on.")
    interval_fraction: Fraction = Field(0.9, description="Resampled fits that lie within an interval.")
    num_resamples: int = Field(400, ge=20, le=10_000, description="Fits to losses drawn anew around the law.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of these losses.")


class Trained(NamedTuple):
    """What a finished run says of itself."""

    num_parameters: int
    num_tokens: int
    loss_nats: float
    bits_per_byte: float
    epochs: float
    seconds: float

    @property
    def point(self) -> ScalingRun:
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
    target = inputs.target
    seen = sorted(read(checkpoint) for checkpoint in inputs.runs)
    vocab_size = model_config(inputs.runs[0]).vocab_size
    num_parameters = num_matrix_parameters(config.model.with_vocabulary(vocab_size))
    figures = foretell(config, seen, num_parameters)
    if target:
        figures |= verdict(figures, read(target))
    picture = svg(draw(figures))
    report = render(figures)
    write_atomically(ctx.folder / "scaling.svg", picture)
    write_atomically(ctx.folder / "report.json", json.dumps(figures, indent=1))
    write_atomically(ctx.folder / "report.md", f"{report}\n![Loss by tokens and size](scaling.svg)\n")
    encoded = base64.b64encode(picture.encode()).decode()
    ctx.markdown("report", f"{report}\n![Loss](data:image/svg+xml;base64,{encoded})", "A run foretold by smaller ones")
    ctx.table("runs", figures["runs"], "What the law was fitted to")
    metrics = {f"law/{name}": value for name, value in figures["law"].items()}
    metrics |= {f"foretold/{name}": figures["foretold"][name] for name in ("loss_nats", "bits_per_byte")}
    return Outcome({"runs": len(seen)}, metrics | figures.get("verdict", {}))


def read(checkpoint: BaseModel) -> Trained:
    """Raises ValueError where a run was not validated."""
    counts, metrics = checkpoint.manifest.counts, checkpoint.manifest.metrics
    if "validation/loss_nats" not in metrics:
        raise ValueError(
            f"artifact {checkpoint.manifest.id} has no validation loss: give its tokens a validation split, and "
            "pretrain.train.eval_sequences more than 0"
        )
    return Trained(
        num_matrix_parameters(model_config(checkpoint)),
        counts["tokens"],
        metrics["validation/loss_nats"],
        metrics["validation/bits_per_byte"],
        metrics["epochs"],
        metrics["train/seconds"],
    )


def foretell(config: ScalingConfig, seen: Sequence[Trained], num_parameters: int) -> Figures:
    """The law of the runs, each constant with its interval, what it says of the run that is foretold, and of the best use of its FLOPs.

    The interval of the foretold loss holds the scatter of a single run too.
    """
    points = [run.point for run in seen]
    law = fit(points)
    laws = resample(law, points, config.num_resamples, config.seed)
    noise = np.random.default_rng(config.seed).normal(scale=scatter(law, points), size=len(laws))
    losses = np.array([other.loss_nats(num_parameters, config.num_tokens) for other in laws]) * np.exp(noise)
    loss, flops = law.loss_nats(num_parameters, config.num_tokens), 6.0 * num_parameters * config.num_tokens
    bits_per_nat = seen[0].bits_per_byte / seen[0].loss_nats
    best = law.optimum(flops)
    ratios = [tokens / parameters for parameters, tokens in (other.optimum(flops) for other in laws)]
    return {
        "runs": [run._asdict() | {"fitted_nats": law.loss_nats(run.num_parameters, run.num_tokens)} for run in seen],
        "law": law._asdict(),
        "intervals": {name: interval(config, [getattr(other, name) for other in laws]) for name in law._fields},
        "interval_fraction": config.interval_fraction,
        "scatter_fraction": scatter(law, points),
        "foretold": {
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
    outside = (1 - config.interval_fraction) / 2
    return [float(bound) for bound in np.quantile(values, [outside, 1 - outside])]


def verdict(figures: Figures, measured: Trained) -> Figures:
    """How far off the foretold loss was: of the loss, and of the fall from the best of the runs that the law knew.

    The first is small for any guess, since losses lie close together; nobody who had only the runs could hide in the second.
    """
    told, best = figures["foretold"]["loss_nats"], min(run["loss_nats"] for run in figures["runs"])
    error = {
        "error_fraction": told / measured.loss_nats - 1,
        "error_of_fall_fraction": (told - measured.loss_nats) / abs(best - measured.loss_nats),
    }
    return {"measured": measured._asdict(), "verdict": error}
