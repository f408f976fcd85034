"""What reinforcement learning did, by kind of prompt, and what the reward model cannot rank.

Reads the metrics and the diagnosis of the Policy; writes nothing. The held-out prompts were completed greedily before and after training, so that
reward and gold score of both are compared on the same prompts (model/rl/trainer.py).
"""

import re
from collections.abc import Mapping

from model.files import read_lines
from model.inference.unranked_kinds import unranked_kinds
from tasks.artifacts.manifest import Policy
from tasks.markdown import Figures, name, one_line, percent, table
from tasks.shares import shown, wilson_interval

COLUMNS = {"gold_mean": "held-out gold score", "reward_mean": "reward", "completion_tokens_mean": "tokens"}


def rl_figures(policy: Policy) -> Figures:
    """The metrics of held-out prompts by kind before and after training, the diagnosis, and the step whose weights were kept."""
    metrics = policy.manifest.metrics
    kinds = sorted({found[1] for metric in metrics if (found := re.fullmatch(r"kind/(.*)/before_reward_mean", metric))})
    path = policy.folder / "diagnosis.jsonl"
    lines = read_lines(path) if path.exists() else []
    return {
        "kinds": [
            {"kind": kind} | before_and_after(metrics, f"kind/{kind}/before_", f"kind/{kind}/validation_")
            for kind in kinds
        ],
        "diagnosis": lines[-1] if lines else None,
        "kept_step": policy.manifest.counts.get("kept_step"),
        "unranked": {name.partition("/")[2]: value for name, value in metrics.items() if name.startswith("unranked/")},
    }


def before_and_after(metrics: Mapping[str, float], before: str, after: str) -> Figures:
    """The metrics of COLUMNS under both prefixes, None where one was not measured."""
    return {column: [metrics.get(prefix + column) for prefix in (before, after)] for column in COLUMNS}


def rl_section(figures: Figures) -> str:
    """The section of the report card; empty where no prompt was held out."""
    found = figures.get("rl")
    if not found or not found["kinds"]:
        return ""
    text = "## Reinforcement learning\n\n"
    if found["diagnosis"]:
        text += f"After {found['diagnosis']['step']:,} steps: {found['diagnosis']['sentence']}. "
        text += f"The weights are those after step {found['kept_step']:,}.\n\n"
    if found["unranked"]:
        kinds = ", ".join(f"{one_line(kind)} ({percent(value)})" for kind, value in sorted(found["unranked"].items()))
        text += f"Rewarded by a reward model alone that cannot rank them: {kinds}.\n\n"
    rows = [
        [name(row["kind"]), *("–" if value is None else f"{value:.2f}" for column in COLUMNS for value in row[column])]
        for row in found["kinds"]
    ]
    headings = [f"{title}, {model}" for title in COLUMNS.values() for model in ("SFT model", "policy")]
    return text + table(["Held-out prompts, greedy", *headings], rows)


def ranking_section(reward: Mapping[str, float]) -> str:
    """The reward model on held-out pairs, by kind of prompt and by fault; empty where there were no pairs."""
    kinds = [metric.removeprefix("pair_accuracy/") for metric in reward if metric.startswith("pair_accuracy/")]
    rows = [[one_line(kind), ranked(reward, kind)] for kind in kinds if reward.get(f"pairs/{kind}")]
    if not rows:
        return ""
    lacks = ", ".join(f"{one_line(kind)} ({percent(value)})" for kind, value in unranked_kinds(reward).items())
    note = (
        f"It cannot distinguish good from bad in: {lacks}. "
        if lacks
        else "It ranks at least 80% of every kind with 10 pairs or more. "
    )
    note += (
        f"Expected calibration error {percent(reward['pairs_calibration_error'])}; correlation of the score with the length "
        f"{reward['pairs_length_correlation']:.2f}.\n\n"
    )
    return f"### Reward model, held-out pairs\n\n{note}" + table(
        ["Kind of prompt / fault of the rejected reply", "Ranked correctly"], rows
    )


def ranked(reward: Mapping[str, float], kind: str) -> str:
    """The share of pairs of a kind that are ranked correctly, with its interval."""
    num = round(reward[f"pairs/{kind}"])
    low, high = wilson_interval(round(reward[f"pair_accuracy/{kind}"] * num), num)
    return shown({"share": reward[f"pair_accuracy/{kind}"], "num": num, "low": low, "high": high})
