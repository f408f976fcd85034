"""What a run of reinforcement learning shows while it goes: plots by kind of prompt, the diagnosis, and what its reward cannot see.

Reads `metrics.jsonl`, `diagnosis.jsonl` and `samples.jsonl` of the run (model/rl/trainer.py); writes `training.svg` next to them. The same plot is
an artifact of the run's page, with the newest diagnosis as its text.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from model.files import read_lines
from model.rl.watch import before_name
from tasks.artifacts.files import write_atomically
from tasks.execution.launcher import Metrics
from tasks.plots import picture, svg
from tasks.records.conversations import Prompt
from tasks.training import MAX_MARKERS, Follower, read_metrics, thinned

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Title of a panel, and the metrics it shows; {} stands for each kind of prompt.
PANELS = {
    "reward": ("reward/mean", "validation/reward_mean"),
    "held-out gold score": ("validation/gold_mean", "kind/{}/validation_gold_mean"),
    "solve rate (fraction right)": ("kind/{}/reward_verifiable",),
    "completion length (tokens)": ("kind/{}/completion_tokens_mean",),
    "KL to the SFT model, entropy (nats per token)": ("policy/kl_k3", "policy/entropy_nats"),
    "fraction of dead groups": ("group/dead_fraction", "kind/{}/group_dead_fraction"),
}
COLUMNS = 2


class RLFollower(Follower):
    """Reports plots by kind of prompt, and each new diagnosis."""

    last_sentence = ""

    def __call__(self, metrics: Metrics) -> None:
        """Report one line of metrics, and the diagnosis where it has changed."""
        super().__call__(metrics)
        self.report_diagnosis()

    def report_diagnosis(self) -> None:
        """Log the newest diagnosis unless it was logged already."""
        if (found := newest_diagnosis(self.ctx.folder)) and found["sentence"] != self.last_sentence:
            self.last_sentence = found["sentence"]
            self.ctx.log(f"after {found['step']:,} steps: {found['sentence']}")

    def report_samples(self) -> None:
        """Report the completions that were sampled as a table. Prompts may be a user's: they stay out of the log."""
        if self.samples.exists():
            samples = read_lines(self.samples)
            self.ctx.table("samples", samples[-300:], "completions of held-out prompts by step")

    def plot(self) -> None:
        """Report the plot of the run so far, and write it."""
        lines = read_metrics(self.ctx.folder / "metrics.jsonl")
        self.report_diagnosis()
        if lines:
            found = newest_diagnosis(self.ctx.folder)
            figure = draw(lines, found)
            write_atomically(self.ctx.folder / "training.svg", svg(figure))
            self.ctx.markdown("curve", picture(figure, found["sentence"] if found else "metrics"), "by step")


def newest_diagnosis(folder: Path) -> Mapping[str, Any]:
    """The newest line of diagnosis.jsonl; empty without one."""
    path = folder / "diagnosis.jsonl"
    lines = read_lines(path) if path.exists() else []
    return lines[-1] if lines else {}


def draw(lines: Sequence[Metrics], diagnosis: Mapping[str, Any]) -> "Figure":
    """The panels of a run; a vertical line marks the step whose weights the rule prefers."""
    # Not pyplot, which keeps every figure in a global list.
    from matplotlib.figure import Figure

    rows = -(-len(PANELS) // COLUMNS)
    figure = Figure(figsize=(10, 2.6 * rows), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(rows, COLUMNS).flat, PANELS.items(), strict=True):
        for name in expanded(names, lines):
            draw_curve(axes, lines, name)
        if diagnosis.get("is_over"):
            axes.axvline(diagnosis["best_step"], color="black", linewidth=0.8, linestyle="--")
        axes.set_title(title, fontsize=9)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if axes.get_legend_handles_labels()[0]:
            axes.legend(fontsize=6)
    return figure


def expanded(names: Sequence[str], lines: Sequence[Metrics]) -> list[str]:
    """The names of metrics that some line has, with one for each kind."""
    known = list(dict.fromkeys(name for line in lines for name in line))
    kinds = list(dict.fromkeys(name.split("/")[1] for name in known if name.startswith("kind/")))
    wanted = [
        filled for name in names for filled in ([name.format(kind) for kind in kinds] if "{}" in name else [name])
    ]
    return [name for name in wanted if name in known]


def draw_curve(axes: "Axes", lines: Sequence[Metrics], name: str) -> None:
    """One metric by step. A metric of few steps, such as a validation, has a marker at each."""
    # The SFT model's validation is step 0; a metric without one has another name there, or none.
    first = [(0, line[before]) for line in lines[:1] if (before := before_name(name)) != name and before in line]
    points = thinned([*first, *((line["step"], line[name]) for line in lines if name in line)])
    label = name.split("/")[1].replace("_", " ") if name.startswith("kind/") else name
    axes.plot(
        *zip(*points, strict=True),
        label=label,
        linewidth=1,
        marker="o" if len(points) <= MAX_MARKERS else "",
        markersize=2,
    )


def rewarded_alone(prompts: Sequence[Prompt], verifiable_weight: float) -> set[str]:
    """The kinds of prompts whose only reward is the reward model's; "all" stands for prompts that name no kind."""
    return {prompt.kind or "all" for prompt in prompts if prompt.answer is None or not verifiable_weight}


def unranked_prompts(alone: set[str], unranked: Mapping[str, float]) -> dict[str, float]:
    """Of the kinds rewarded by the reward model alone, those that it cannot rank, with the accuracy. `unranked`: by kind or kind/fault."""
    return {name: accuracy for name, accuracy in unranked.items() if alone & {name, name.rpartition("/")[0]}}


def unranked_warning(found: Mapping[str, float]) -> str:
    """One sentence about kinds that are rewarded by a model that cannot rank them."""
    kinds = ", ".join(f"{name} ({accuracy:.0%} of held-out pairs)" for name, accuracy in sorted(found.items()))
    return (
        f"the reward model alone rewards prompts whose completions it cannot rank: {kinds}. Give these prompts answers, more preference "
        "pairs of these kinds, or leave them out"
    )
