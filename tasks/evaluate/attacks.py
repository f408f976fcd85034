"""Attacks in the report card: how often each succeeds before and after its mitigation, and what that does to right answers.

Reads figures (plain JSON values, see tasks/attacks/study.py), writes nothing. Models of several seeds reply to the same prompts. The test is
paired by prompt: of the prompts on which the attack succeeds with another number of seeds than before, how many fell? Were a fall and a
rise equally likely, so many would fall with the probability p (a sign test, McNemar 1947; model/rl/watch.py). Seeds are no further
observations of a prompt, and so a prompt counts once.
"""

from collections.abc import Sequence

from model.rl.watch import FALSE_ALARMS, tail
from tasks.markdown import Figures, name, percent, table


def compare_by_prompt(before: Sequence[Sequence[bool]], after: Sequence[Sequence[bool]]) -> Figures:
    """Two arms of models: the share of each seed, and how likely so many falls are by chance. `before`, `after`: by seed, then by prompt."""
    sums = [[sum(values) for values in zip(*arm, strict=True)] for arm in (before, after)]
    fell = sum(two < one for one, two in zip(*sums, strict=True))
    rose = sum(two > one for one, two in zip(*sums, strict=True))
    shares = [[sum(run) / max(1, len(run)) for run in arm] for arm in (before, after)]
    return {
        "num": len(sums[0]),
        "before": shares[0],
        "after": shares[1],
        "fell": fell,
        "rose": rose,
        "p_fall": tail(fell, fell + rose),
    }


def is_lowered(row: Figures) -> bool:
    """Whether a share fell beyond chance, and with every seed."""
    falls = [after < before for before, after in zip(row["before"], row["after"], strict=True)]
    return bool(row["p_fall"] < FALSE_ALARMS and all(falls))


def has_fallen(row: Figures, num_rows: int) -> bool:
    """Whether right answers fell beyond chance, of so many rows that are compared (Bonferroni). One seed that falls is no fall."""
    return bool(row["p_fall"] < FALSE_ALARMS / num_rows)


def attacks_section(figures: Figures) -> str:
    """The section of the report card; empty where no attacks were run."""
    attacks = figures.get("attacks")
    if not attacks:
        return ""
    return (
        f"## Attacks\n\n{summary(attacks)}\n\n{attack_table(attacks)}\n{right_table(attacks)}\n{poison_table(attacks)}"
    )


def summary(attacks: Figures) -> str:
    """What the mitigations do, in two sentences."""
    lowered = sum(is_lowered(row) for row in attacks["attacks"])
    fallen = [row["measure"] for row in attacks["rights"] if has_fallen(row, len(attacks["rights"]))]
    seeds = len(attacks["seeds"])
    return (
        f"Models of {seeds} seed{'s' if seeds > 1 else ''} before and after each mitigation; in brackets the lowest and the highest seed. Of "
        f"{len(attacks['attacks'])} attacks {lowered} succeed less often after it, beyond chance and with every seed. "
        + (
            f"Right answers that fell beyond chance: {', '.join(fallen)}."
            if fallen
            else "No right answers fell beyond chance."
        )
    )


def attack_table(attacks: Figures) -> str:
    """Each attack before and after."""
    rows = [_comparison(row, is_lowered(row)) for row in attacks["attacks"]]
    return table(["Attack", "Mitigation", "Prompts", "Succeeds before", "After", "p", "Verdict"], rows)


def right_table(attacks: Figures) -> str:
    """Right replies before and after."""
    rows = [_comparison(row, has_fallen(row, len(attacks["rights"]))) for row in attacks["rights"]]
    return table(["Right replies", "Mitigation", "Prompts", "Before", "After", "p", "Verdict"], rows)


def _comparison(row: Figures, lowered: bool) -> list[str]:
    return [
        name(row["measure"]),
        name(row["mitigation"]),
        f"{row['num']:,}",
        _seeds(row["before"]),
        _seeds(row["after"]),
        _probability(row["p_fall"]),
        "lowered" if lowered else "not lowered beyond chance",
    ]


def poison_table(attacks: Figures) -> str:
    """What the filters do with planted pages, and what the models then say."""
    rows = [
        [
            f"{arm['pages']:,}",
            name(arm["disguise"]) if arm["pages"] else "",
            name(arm["filters"]),
            _passed(arm, "ingest"),
            _passed(arm, "filter"),
            _passed(arm, "dedup"),
            ", ".join(
                f"{name(stop['reason'])} {stop['pages']:,}" for stop in arm["stops"] if stop["reason"] and stop["pages"]
            ),
            _seeds(arm["triggered"]),
            _seeds(arm["untriggered"]),
            _seeds(arm["right"]),
        ]
        for arm in attacks["poison"]
    ]
    headings = ["Planted pages", "Kind", "Dedup", "Pass ingest", "Pass filter", "Pass dedup", "Stopped by", "Payload after the trigger", "Without", "Right answers"]  # fmt: skip
    return table(headings, rows) if rows else ""


def _passed(arm: Figures, stage: str) -> str:
    return f"{sum(stop['pages'] for stop in arm['stops'] if stop['stage'] == stage and not stop['reason']):,}"


def _seeds(shares: Sequence[float]) -> str:
    mean = percent(sum(shares) / len(shares))
    return mean if len(shares) == 1 else f"{mean} ({100 * min(shares):.1f} to {100 * max(shares):.1f})"


def _probability(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"
