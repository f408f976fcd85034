"""Seeds: the report cards of runs that differ in their random seeds only, as a mean and a spread of each figure.

Reads the Reports of `evaluate`; writes a Report: `report.md` and `report.json`. The interval that a card puts on a share says how well so
many questions measure this one model. It does not say how another training would have ended, which the spread over seeds does: a
difference between two recipes that is smaller than it shows nothing (Bouthillier et al. 2021, https://arxiv.org/abs/2103.03098).

The standard deviation is the sample's, with one degree of freedom less than runs: of two or three seeds it is a rough figure, so the
smallest and the largest value stand next to it.
"""

import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from model.config import Config
from model.errors import UserError
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import Report
from tasks.artifacts.step import Outcome, Step, roles
from tasks.evaluate.measures import MODELS, base_measures, chat_measures, value_of
from tasks.execution.context import StageContext
from tasks.markdown import Figures, percent, table

VERSION = 1
MIN_SEEDS = 2
SEEDS = (0, 1, 2)  # 0 is the default of every training


class SeedsConfig(Config):
    """What is compared."""

    seeds: tuple[int, ...] = Field(min_length=MIN_SEEDS, description="The seed of each run, in their order.")


@dataclass(frozen=True)
class SeedsInputs:
    """The report card of each run."""

    cards: tuple[Report, ...]


def compare_seeds(cards: Sequence[Step[Report]], config: SeedsConfig) -> Step[Report]:
    """Mean and spread over the cards of runs with other seeds. Raises UserError where two have one seed."""
    if len(set(config.seeds)) < len(config.seeds):
        raise UserError(f"the seeds {', '.join(map(str, config.seeds))} are not all different: name each once")
    return Step("seeds", VERSION, Report, config, roles(cards=cards), run=write_comparison, takes=SeedsInputs)


def write_comparison(ctx: StageContext, config: SeedsConfig, inputs: SeedsInputs) -> Outcome:
    """Compare the cards and write the report."""
    runs = [json.loads((card.folder / "report.json").read_text(encoding="utf-8")) for card in inputs.cards]
    figures: Figures = {"seeds": list(config.seeds), **compare(runs)}
    report = render(figures)
    write_atomically(ctx.folder / "report.json", json.dumps(figures, indent=1))
    write_atomically(ctx.folder / "report.md", report)
    ctx.markdown("report", report, "Mean and spread over seeds")
    return Outcome({"runs": len(runs)})


def compare(runs: Sequence[Figures]) -> Figures:
    """Of each measure that all runs have: the value of each run, by model."""
    found = {"base": [base_measures(run) for run in runs], "chat": [chat_measures(run) for run in runs]}
    return {
        section: {
            name: {
                model: [value_of(run[name][model]) for run in measured]
                for model in measured[0][name]
                if all(model in run.get(name, {}) for run in measured)
            }
            for name in measured[0]
        }
        for section, measured in found.items()
    }


def render(figures: Figures) -> str:
    """The whole page."""
    seeds = ", ".join(map(str, figures["seeds"]))
    note = (
        f"{len(figures['seeds'])} runs of one recipe on the same data, with the seeds {seeds}. Mean, standard deviation over the seeds, and "
        "in brackets the smallest and the largest value.\n\n"
    )
    base = [
        [name, cell(values["base"], is_share="per byte" not in name)]
        for name, values in figures["base"].items()
        if values
    ]
    chat = [
        [name, *(cell(values.get(model, [])) for model in MODELS)] for name, values in figures["chat"].items() if values
    ]
    return (
        "# Mean and spread over seeds\n\n"
        + note
        + "## Base model\n\n"
        + table(["Measure", "Base model"], base)
        + "\n## Chat models\n\n"
        + table(["Measure", *MODELS.values()], chat)
    )


def cell(values: Sequence[float], *, is_share: bool = True) -> str:
    """ "71.2% ± 2.1 (69.0 to 74.5)"; a dash for no values."""
    if not values:
        return "–"
    mean, spread, low, high = statistics.mean(values), statistics.stdev(values), min(values), max(values)
    if is_share:
        return f"{percent(mean)} ± {100 * spread:.1f} ({100 * low:.1f} to {100 * high:.1f})"
    return f"{mean:.3f} ± {spread:.3f} ({low:.3f} to {high:.3f})"
