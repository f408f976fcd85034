"""The gate: whether reinforcement learning has made a model worse than the SFT model that it started from.

Reads both models' answers to the same questions and the metrics of the policy's training; writes nothing. A policy does not pass where its right answers or
its refusals of strangers have fallen beyond chance, or the held-out gold score of its training has (model/rl/watch.py: a sign test over the
questions that one of the two answers rightly and the other does not). The export then holds the SFT model and says so.
"""

from collections.abc import Mapping, Sequence

from model.rl.watch import FALSE_ALARMS, Change, falls
from tasks.evaluate.knowledge import Answer
from tasks.markdown import Figures, table
from tasks.shares import share, shown

RIGHT, REFUSED, HELD_OUT = "right answers", "refusals of strangers", "right answers about held-out facts"


def gate_figures(chat: Mapping[str, Sequence[Answer]], metrics: Mapping[str, float]) -> Figures:
    """The comparisons of the two chat models, whether the policy passes, and one sentence. `metrics`: of the policy's artifact."""
    groups = {name: (pick(chat["assistant"], name), pick(chat["policy"], name)) for name in (RIGHT, HELD_OUT, REFUSED)}
    changes = [compare(name, *both) for name, both in groups.items()]
    fallen = {change.kind for change in falls(changes, FALSE_ALARMS / len(changes))}
    rows = [
        {"what": name, "assistant": share(before), "policy": share(after), "has_fallen": name in fallen}
        for name, (before, after) in groups.items()
    ]
    gold_fell = metrics.get("gold/has_fallen", 0.0) > 0
    return {"comparisons": rows, "passed": not fallen and not gold_fell, "sentence": sentence(rows, gold_fell)}


def pick(answers: Sequence[Answer], name: str) -> list[bool]:
    """Whether each answer of a group of questions is right. Facts that are too rare to be known are left out."""
    if name == REFUSED:
        return [answer.is_correct for answer in answers if answer.question.split == "unknown"]
    known = [answer for answer in answers if answer.is_frequent]
    is_heldout = name == HELD_OUT
    return [answer.is_correct for answer in known if (answer.question.split == "heldout_fact") == is_heldout]


def compare(name: str, before: Sequence[bool], after: Sequence[bool]) -> Change:
    """Questions that only the first model answers rightly, and those that only the second does."""
    pairs = list(zip(before, after, strict=True))
    return Change(name, pairs.count((True, False)), pairs.count((False, True)))


def sentence(rows: Sequence[Figures], gold_fell: bool) -> str:
    """What the gate found, as one sentence."""
    found = [
        f"{row['what']} fell from {row['assistant']['share']:.1%} to {row['policy']['share']:.1%}"
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
    rows = [[row["what"], shown(row["assistant"]), shown(row["policy"])] for row in gate["comparisons"]]
    return f"## Gate\n\n{gate['sentence']}\n\n" + table(["What", "SFT model", "policy"], rows)
