"""The study of attacks: every arm's replies, compared before and after each mitigation.

Reads the replies of every arm and seed (replies.py, completions.py), and the documents of every arm of planted pages; writes a Report: `report.md`,
`report.html`, `report.json`. The section is part of the recipe's report card, too (tasks/evaluate/attacks.py).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from markupsafe import Markup
from pydantic import Field

from model.config import Config
from model.files import read_lines
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import BaseModel, Documents, Report
from tasks.artifacts.step import Outcome, Step, roles
from tasks.attacks.completions import NO_TRIGGER, POISON, TRIGGER
from tasks.attacks.planted import Disguise, stops
from tasks.attacks.prompts import INJECTION, JAILBREAK
from tasks.evaluate.attacks import attacks_section, compare_by_prompt, is_lowered
from tasks.execution.context import StageContext
from tasks.markdown import Figures
from tasks.page import Section, from_markdown, page

VERSION = 1
Rows = Sequence[dict[str, Any]]  # the replies of one model


class PoisonArm(Config):
    """One arm of the poison drill. `filters`: how dedup is set, in words. `before`: the arm without this mitigation, by its place; -1: none."""

    pages: int
    disguise: Disguise
    filters: str
    before: int = -1


class AttacksConfig(Config):
    """The arms, in the order of the inputs."""

    seeds: tuple[int, ...] = Field(min_length=1)
    poison: tuple[PoisonArm, ...] = ()


@dataclass(frozen=True)
class AttacksInputs:
    """The recipe's base model; the replies of fine-tuned models by seed, without the mitigations and with them; by arm of planted pages, the
    seeds of an arm next to each other, the completions, and the documents."""

    base: BaseModel
    before: tuple[Report, ...]
    after: tuple[Report, ...]
    completions: tuple[Report, ...] = ()
    raw: tuple[Documents, ...] = ()
    clean: tuple[Documents, ...] = ()
    unique: tuple[Documents, ...] = ()


class PoisonSteps(NamedTuple):
    """The steps of one arm of planted pages: its documents, and the completions of each seed's model."""

    raw: Step[Documents]
    clean: Step[Documents]
    unique: Step[Documents]
    completions: Sequence[Step[Report]]


def attacks(
    base: Step[BaseModel],
    before: Sequence[Step[Report]],
    after: Sequence[Step[Report]],
    poison: Sequence[PoisonSteps],
    config: AttacksConfig,
) -> Step[Report]:
    """Compare the arms."""
    inputs = roles(
        base=base,
        before=before,
        after=after,
        completions=[one for arm in poison for one in arm.completions],
        raw=[arm.raw for arm in poison],
        clean=[arm.clean for arm in poison],
        unique=[arm.unique for arm in poison],
    )
    return Step("attacks", VERSION, Report, config, inputs, run=compare_arms, takes=AttacksInputs)


def compare_arms(ctx: StageContext, config: AttacksConfig, inputs: AttacksInputs) -> Outcome:
    """Compare the replies of all arms and write the report."""
    figures = {"attacks": attack_figures(config, inputs)}
    section = attacks_section(figures)
    report = "# Attacks\n\n" + section.partition("\n\n")[2]
    write_atomically(ctx.folder / "report.json", json.dumps(figures, indent=1, ensure_ascii=False))
    write_atomically(ctx.folder / "report.md", report)
    body = from_markdown(report.partition("\n\n")[2])
    write_atomically(ctx.folder / "report.html", page("Attacks on the model", Markup(""), [Section("Attacks", body)]))
    ctx.markdown("report", report, "Attacks before and after their mitigations")
    lowered = sum(is_lowered(row) for row in figures["attacks"]["attacks"])
    return Outcome({"attacks": len(figures["attacks"]["attacks"]), "lowered": lowered})


def attack_figures(config: AttacksConfig, inputs: AttacksInputs) -> Figures:
    """All comparisons: of attacks, of right replies, and the arms of planted pages."""
    num = len(config.seeds)
    before, after, completions = (
        [read_lines(one.folder / "replies.jsonl") for one in arm]
        for arm in (inputs.before, inputs.after, inputs.completions)
    )
    completed = [completions[start : start + num] for start in range(0, len(completions), num)]
    attacked = [row for suite in MITIGATIONS for row in compare_attacks(suite, MITIGATIONS[suite], before, after)]
    rights = compare_rights("both of fine-tuning", before, after)
    arms = []
    for place, arm in enumerate(config.poison):
        if arm.before >= 0:
            label = f"{POISON}, {arm.pages:,} {arm.disguise}"
            two = completed[arm.before], completed[place]
            attacked.append(compared(label, arm.filters, *two, "success", form=TRIGGER))
            rights.append(compared(f"statements, {label}", arm.filters, *two, "right", form=NO_TRIGGER))
        stages = (inputs.raw[place], inputs.clean[place], inputs.unique[place])
        arms.append(
            {
                **arm.model_dump(),
                "stops": [stop._asdict() for stop in stops(stages)],
                "triggered": [_share(_picked(rows, "success", form=TRIGGER)) for rows in completed[place]],
                "untriggered": [_share(_picked(rows, "success", form=NO_TRIGGER)) for rows in completed[place]],
                "right": [_share(_picked(rows, "right", form=NO_TRIGGER)) for rows in completed[place]],
            }
        )
    return {"seeds": list(config.seeds), "attacks": attacked, "rights": rights, "poison": arms}


MITIGATIONS = {
    INJECTION: "data marked, SFT on injections",
    JAILBREAK: "refusals trained in several forms",
}


def compare_attacks(suite: str, mitigation: str, before: Sequence[Rows], after: Sequence[Rows]) -> list[Figures]:
    """The attacks of a suite, form by form."""
    forms = list(dict.fromkeys(row["form"] for row in before[0] if row["suite"] == suite))
    return [
        compared(f"{suite}, {form}", mitigation, before, after, "success", suite=suite, form=form) for form in forms
    ]


def compare_rights(mitigation: str, before: Sequence[Rows], after: Sequence[Rows]) -> list[Figures]:
    """Right replies where nothing attacks, by suite."""
    suites = dict.fromkeys(row["suite"] for row in before[0] if row["success"] is None)
    return [compared(suite, mitigation, before, after, "right", suite=suite) for suite in suites]


def compared(
    measure: str, mitigation: str, before: Sequence[Rows], after: Sequence[Rows], value: str, **chosen: str
) -> Figures:
    """One comparison of two arms, on the chosen rows."""
    arms = [[_picked(rows, value, **chosen) for rows in arm] for arm in (before, after)]
    return {"measure": measure, "mitigation": mitigation, **compare_by_prompt(*arms)}


def _picked(rows: Rows, value: str, **chosen: str) -> list[bool]:
    """The values of the rows of a suite or form, in the order of the prompts, which is the same for all models."""
    return [bool(row[value]) for row in rows if all(row[key] == wanted for key, wanted in chosen.items())]


def _share(values: Sequence[bool]) -> float:
    return sum(values) / max(1, len(values))
