"""The gate: whether reinforcement learning has made a model worse than the SFT model that it started from.

Reads whether each reply of both models to the same prompts is right, by every kind that the report card counts, and the metrics of the policy's training;
writes nothing. A policy does not pass where a kind of right replies has fallen beyond chance, or the held-out gold score of its training has
(model/rl/watch.py: a sign test over the prompts that one of the two answers rightly and the other does not). The export then holds the SFT model and
says so.

There are some thirty kinds, so `level` corrects for them: a policy that is no worse fails in at most one of twenty runs.
"""

from collections.abc import Mapping, Sequence

from model.rl.watch import FALSE_ALARMS, Change, falls
from tasks.evaluate.chat_replies import Flags
from tasks.markdown import Figures, name, table
from tasks.shares import share, shown


def gate_figures(before: Flags, after: Flags, metrics: Mapping[str, float]) -> Figures:
    """The comparisons of SFT model and policy, whether the policy passes, and one sentence. `metrics`: of the policy's artifact."""
    changes = [compare(kind, flags, after[kind]) for kind, flags in before.items() if flags]
    fallen = {change.kind for change in falls(changes, level(changes))}
    rows = [
        {
            "what": change.kind,
            "assistant": share(before[change.kind]),
            "policy": share(after[change.kind]),
            "worse": change.worse,
            "better": change.better,
            "has_fallen": change.kind in fallen,
        }
        for change in changes
    ]
    gold_fell = metrics.get("gold/has_fallen", 0.0) > 0
    return {"comparisons": rows, "passed": not fallen and not gold_fell, "sentence": sentence(rows, gold_fell)}


def compare(kind: str, before: Sequence[bool], after: Sequence[bool]) -> Change:
    """Prompts that only the first model answers rightly, and those that only the second does."""
    pairs = list(zip(before, after, strict=True))
    return Change(kind, pairs.count((True, False)), pairs.count((False, True)))


def level(changes: Sequence[Change]) -> float:
    """The probability of chance below which a kind counts as fallen, so that all together give FALSE_ALARMS at most.

    Bonferroni's division by the number of comparisons, of those that could be found fallen at all (Tarone 1990, A modified Bonferroni method for
    discrete data): with n prompts that differ no probability is below 2^-n, so a kind with few of them costs the others nothing.
    """
    smallest = [2.0 ** -(change.worse + change.better) for change in changes]
    counts = range(1, len(changes) + 1)
    enough = (num for num in counts if sum(least < FALSE_ALARMS / num for least in smallest) <= num)
    return FALSE_ALARMS / next(enough, 1)


def sentence(rows: Sequence[Figures], gold_fell: bool) -> str:
    """What the gate found, as one sentence."""
    found = [
        f"{name(row['what'])} fell from {row['assistant']['share']:.1%} to {row['policy']['share']:.1%}"
        for row in rows
        if row["has_fallen"]
    ]
    if gold_fell:
        found.append("the held-out gold score of its training fell")
    if not found:
        return "The policy passes: nothing that was measured fell beyond chance below the SFT model."
    return f"The policy does not pass, and the export holds the SFT model: {' and '.join(found)}, beyond chance."


def gate_section(figures: Figures) -> str:
    """The section of the report card; empty where no gate was measured."""
    gate = figures.get("gate")
    if not gate:
        return ""
    # A card from before version 13 has no counts.
    rows = [
        [name(row["what"]), shown(row["assistant"]), shown(row["policy"])]
        + [str(row.get(count, "–")) for count in ("worse", "better")]
        for row in gate["comparisons"]
    ]
    headings = ["Right replies", "SFT model", "policy", "right before alone", "right after alone"]
    return f"## Gate\n\n{gate['sentence']}\n\n" + table(headings, rows)
