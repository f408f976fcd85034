"""The results of a scaling study as Markdown and as a plot. Reads and writes nothing; tasks/scaling/stage.py computes the figures."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from model.planning.scaling_law import ScalingLaw
from tasks.markdown import Figures, percent, table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVE_POINTS = 60  # of a curve of the law: smooth at the width of the plot
# Above this, the runs' scatter around the law is reported as too large to trust it.
LARGE_SCATTER = 0.02


def render(figures: Figures) -> str:
    """The whole page."""
    sections = (runs_section, law_section, prediction_section, optimum_section)
    return "# Scaling law\n\n" + "\n".join(section(figures) for section in sections)


def runs_section(figures: Figures) -> str:
    """A table of the runs, and how closely they follow the law."""
    rows = [
        [
            count(run["num_parameters"]),
            count(run["num_tokens"]),
            f"{run['epochs']:.2f}",
            # 6 N D: 2 FLOPs for each weight and token forward and 4 backward; attention's products are left out, as in Kaplan et al. 2020.
            f"{6.0 * run['num_parameters'] * run['num_tokens']:.1e}",
            f"{run['loss_nats']:.3f}",
            f"{run['bits_per_byte']:.3f}",
            f"{run['fitted_nats']:.3f}",
            f"{run['seconds']:,.0f}",
        ]
        for run in figures["runs"]
    ]
    headings = [
        "N, parameters",
        "D, tokens",
        "Epochs",
        "FLOPs",
        "L, nats per token",
        "Bits per byte",
        "Fitted",
        "Seconds",
    ]
    # A standard deviation of log L, which for a few percent is that of L as a fraction.
    scatter = figures["scatter_fraction"]
    note = f"\nThe runs scatter by {100 * scatter:.2f}% around the law"
    ending = ": they do not follow it, and its prediction is worth little.\n" if scatter > LARGE_SCATTER else ".\n"
    return "## Runs\n\n" + table(headings, rows) + note + ending


def law_section(figures: Figures) -> str:
    """The constants with their intervals."""
    rows = [
        [name, f"{value:.3g}", " to ".join(f"{bound:.3g}" for bound in figures["intervals"][name])]
        for name, value in figures["law"].items()
    ]
    note = (
        f"\n{len(figures['runs'])} runs determine {len(rows)} constants loosely: E, A and alpha can change together with little effect on "
        "the fit, as the intervals show. The prediction of a run that is not much larger is more certain than any of them.\n"
    )
    headings = [
        "L = E + A / N^alpha + B / D^beta",
        "Fitted",
        f"{percent(figures['interval_fraction'])} of resampled fits",
    ]
    return "## The law\n\n" + table(headings, rows) + note


def prediction_section(figures: Figures) -> str:
    """The predicted loss of the target and, once it is trained, the error."""
    # How far the prediction extrapolates, in each direction: the further, the less its interval can be trusted.
    predicted, measured = figures["predicted"], figures.get("measured")
    largest = max(run["num_parameters"] for run in figures["runs"]), max(run["num_tokens"] for run in figures["runs"])
    low, high = predicted["interval_nats"]
    note = (
        f"{count(predicted['num_parameters'])} parameters on {count(predicted['num_tokens'])} tokens, "
        f"{predicted['num_parameters'] / largest[0]:.1f} times the largest run's and {predicted['num_tokens'] / largest[1]:.1f} times the "
        "longest's. This run had no part in the fit.\n\n"
    )
    rows = [
        ["Predicted", f"{predicted['loss_nats']:.3f}", f"{low:.3f} to {high:.3f}", f"{predicted['bits_per_byte']:.3f}"]
    ]
    if measured is None:
        return "## The predicted run\n\n" + note + _prediction_table(rows) + "\nIt is not trained yet.\n"
    rows.append(["Measured", f"{measured['loss_nats']:.3f}", "", f"{measured['bits_per_byte']:.3f}"])
    error = figures["error"]
    of_fall = error["error_of_fall_fraction"]
    ending = (
        f"\nThe error is {100 * error['error_fraction']:+.2f}% of the loss"
        + (f", and {100 * of_fall:+.0f}% of the fall below the best of the runs above" if of_fall is not None else "")
        + f". It was trained for {measured['epochs']:.2f} epochs.\n"
    )
    return "## The predicted run\n\n" + note + _prediction_table(rows) + ending


def _prediction_table(rows: Sequence[Sequence[str]]) -> str:
    return table(["", "L, nats per token", "Interval", "Bits per byte"], rows)


def optimum_section(figures: Figures) -> str:
    """The size and budget at which the law is lowest for the target's FLOPs."""
    best = figures["optimum"]
    low, high = best["interval"]
    return (
        "## The best use of its FLOPs\n\n"
        f"With {best['flops']:.1e} FLOPs the law is lowest at {count(best['num_parameters'])} parameters and {count(best['num_tokens'])} "
        f"tokens: {best['tokens_per_parameter']:.3g} tokens per parameter ({low:.3g} to {high:.3g}). This holds for this text, "
        "vocabulary and batch, and for runs this small; Hoffmann et al. 2022 found about 20 for web text and far larger models. "
        "No other figure of a law is less certain than this ratio.\n"
    )


def count(number: float) -> str:
    """A number in millions or billions."""
    return f"{number / 1e9:,.2f} B" if number >= 1e9 else f"{number / 1e6:,.2f} M"


def draw(figures: Figures) -> "Figure":
    """Loss by tokens: the runs of each size and the law; for the target the law, the prediction and the measured loss."""
    # Imported here: matplotlib is slow to import, and most commands draw nothing. Figure and not pyplot, which keeps every figure in a
    # global list and chooses a window system.
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    sizes = sorted({run["num_parameters"] for run in figures["runs"]})
    shades = matplotlib.colormaps["Blues"](np.linspace(0.45, 0.95, len(sizes)))
    for size, shade in zip(sizes, shades, strict=True):
        runs = [(run["num_tokens"], run["loss_nats"]) for run in figures["runs"] if run["num_parameters"] == size]
        axes.plot(*zip(*runs, strict=True), "o", color=shade, markersize=5, label=f"{count(size)} parameters")
        _draw_law(axes, figures, size, color=shade)
    _draw_target(axes, figures)
    budgets = sorted({run["num_tokens"] for run in (*figures["runs"], figures["predicted"])})
    # Powers of ten would be one tick or none: budgets lie within a factor of about ten.
    axes.set_xscale("log")
    axes.set_xticks(budgets, [count(budget) for budget in budgets])
    axes.set_xticks([], minor=True)
    axes.set_xlabel("D, tokens")
    axes.set_ylabel("L, nats per token")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def _draw_law(axes: "Axes", figures: Figures, num_parameters: float, **style: Any) -> None:
    law = ScalingLaw(**figures["law"])
    shortest = min(run["num_tokens"] for run in figures["runs"])
    tokens = np.geomspace(shortest, figures["predicted"]["num_tokens"], CURVE_POINTS)
    axes.plot(tokens, [law.loss_nats(num_parameters, budget) for budget in tokens], linewidth=1.2, **style)


def _draw_target(axes: "Axes", figures: Figures) -> None:
    predicted = figures["predicted"]
    size, at, loss = predicted["num_parameters"], predicted["num_tokens"], predicted["loss_nats"]
    low, high = predicted["interval_nats"]
    # errorbar takes distances, and refuses negative ones: the interval is of quantiles, and need not hold the prediction.
    spread = [[max(0.0, loss - low)], [max(0.0, high - loss)]]
    red: dict[str, Any] = {"color": "tab:red", "markerfacecolor": "white", "capsize": 4}
    _draw_law(axes, figures, size, color="tab:red", linestyle="dashed")
    axes.errorbar([at], [loss], spread, fmt="o", label=f"{count(size)}, predicted", **red)
    if measured := figures.get("measured"):
        axes.plot([at], [measured["loss_nats"]], "x", color="black", markersize=7, label=f"{count(size)}, measured")
