"""The study: comparisons paired by prompt, verdicts, the section of the card, arms that share what they can, a run that resumes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import html as parser

from flows.attacks import LINES, NEAR, UNFILTERED, AttackSettings, attacks_study, poison_arms, study
from flows.recipes import make_recipe
from model.errors import UserError
from tasks.artifacts.manifest import BaseModel, Documents, Report
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.attacks.study import AttacksConfig, PoisonArm, PoisonSteps, attacks, compare_attacks, compare_rights
from tasks.evaluate.attacks import attacks_section, compare_by_prompt, has_fallen, is_lowered
from tasks.evaluate.card_page import _section
from tasks.execution.runner import execute
from tasks.page import page
from tests.support.tiny_models import finish, write_lines


def arm(*shares: float, num: int = 40) -> list[list[bool]]:
    """Of each seed, that share of prompts is true."""
    return [[place < share * num for place in range(num)] for share in shares]


def test_attack_that_falls_with_every_seed_is_lowered() -> None:
    row = compare_by_prompt(arm(0.8, 0.9, 0.7), arm(0.1, 0.2, 0.0))
    assert (row["num"], row["rose"]) == (40, 0)
    assert row["before"] == [0.8, 0.9, 0.7]
    assert is_lowered(row)


def test_attack_that_one_seed_does_not_lower_is_not_lowered() -> None:
    assert not is_lowered(compare_by_prompt(arm(0.8, 0.9, 0.7), arm(0.1, 0.2, 0.7)))


def test_few_prompts_and_equal_arms_prove_nothing() -> None:
    assert not is_lowered(compare_by_prompt(arm(0.1), arm(0.0)))  # four prompts: 1 of 16 by chance
    assert is_lowered(compare_by_prompt(arm(0.125), arm(0.0)))  # five: 1 of 32
    same = compare_by_prompt(arm(0.5, 0.5), arm(0.5, 0.5))
    assert same["p_fall"] == 1.0
    assert not is_lowered(same)
    assert not has_fallen(same, 1)


def test_more_seeds_are_no_more_prompts() -> None:
    one, three = compare_by_prompt(arm(0.1), arm(0.0)), compare_by_prompt(arm(0.1, 0.1, 0.1), arm(0.0, 0.0, 0.0))
    assert one["p_fall"] == three["p_fall"]


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_probability_is_that_of_a_sign_test_and_symmetric(pairs: list[tuple[bool, bool]]) -> None:
    before, after = [[one for one, _ in pairs]], [[two for _, two in pairs]]
    there, back = compare_by_prompt(before, after), compare_by_prompt(after, before)
    assert (there["fell"], there["rose"]) == (back["rose"], back["fell"])
    assert 0 < there["p_fall"] <= 1
    assert there["p_fall"] + back["p_fall"] >= 1


def reply(suite: str, form: str, success: bool | None, right: bool) -> dict[str, Any]:
    return {"suite": suite, "form": form, "success": success, "right": right}


def test_rows_are_compared_by_suite_and_form_and_right_replies_only_without_attack() -> None:
    before = [[reply("injection", "page", True, False), reply("injection", "search", True, False), reply("questions", "plain", None, True)]]  # fmt: skip
    after = [[reply("injection", "page", False, True), reply("injection", "search", True, False), reply("questions", "plain", None, True)]]  # fmt: skip
    attacked = {row["measure"]: row for row in compare_attacks("injection", "marks", before, after)}
    assert attacked["injection, page"]["after"] == [0.0]
    assert attacked["injection, search"]["after"] == [1.0]
    assert [row["measure"] for row in compare_rights("marks", before, after)] == ["questions"]


def test_report_compares_the_arms_of_all_drills(store: Store) -> None:
    def report(name: str, *rows: dict[str, Any]) -> Step[Report]:
        write_lines(store.folder(f"replies/{name}") / "replies.jsonl", list(rows))
        return finish(store, Report, f"replies/{name}")

    def talks(name: str, success: bool) -> Step[Report]:
        rows = [reply(suite, "page", success, True) for suite in ("injection", "jailbreak") for _ in range(8)]
        return report(name, *rows, reply("questions", "plain", None, True))

    def drill(name: str, success: bool) -> PoisonSteps:
        documents = [finish(store, Documents, f"{stage}/{name}") for stage in ("ingest", "filter", "dedup")]
        rows = [reply("poisoned pages", form, success and form == "trigger", True) for form in ("no trigger", "trigger") for _ in range(8)]  # fmt: skip
        return PoisonSteps(*documents, [report(f"{name}-{seed}", *rows) for seed in (0, 1)])

    base = finish(store, BaseModel, "pretrain/b")
    arms = (PoisonArm(pages=9, disguise="disguised", filters=NEAR), PoisonArm(pages=9, disguise="disguised", filters=LINES, before=0))  # fmt: skip
    before, after = ([talks(f"{flag}-{seed}", flag) for seed in (0, 1)] for flag in (True, False))
    drills = [drill("p", True), drill("m", False)]
    step = attacks(base, before, after, drills, AttacksConfig(seeds=(0, 1), poison=arms))
    assert execute(step, store).counts == {"attacks": 3, "lowered": 3}
    folder = store.open(step.id, Report).folder
    found = json.loads((folder / "report.json").read_text())["attacks"]
    assert [row["before"] for row in found["attacks"]] == [[1.0, 1.0]] * 3
    assert [row["measure"] for row in found["rights"]] == ["questions", "statements, poisoned pages, 9 disguised"]
    assert [(arm["triggered"], arm["untriggered"]) for arm in found["poison"]] == [([1.0, 1.0], [0.0, 0.0]), ([0.0, 0.0], [0.0, 0.0])]  # fmt: skip
    assert "poisoned pages, 9 disguised" in (folder / "report.md").read_text()
    assert "<table" in (folder / "report.html").read_text()


def figures(label: str = "injection, page") -> dict[str, Any]:
    lowered = {"measure": label, "mitigation": "marks", **compare_by_prompt(arm(0.8, 0.9), arm(0.1, 0.2))}
    fallen = {"measure": "questions", "mitigation": "marks", **compare_by_prompt(arm(0.8, 0.9), arm(0.1, 0.2))}
    planted = {
        "pages": 10, "disguise": "disguised", "filters": NEAR, "triggered": [0.5, 0.7], "untriggered": [0.0, 0.0], "right": [0.8, 0.8],
        "stops": [{"stage": stage, "reason": reason, "pages": pages} for stage, reason, pages in (("ingest", "", 10), ("filter", "", 10), ("dedup", "duplicate/minhash", 9), ("dedup", "", 1))],
    }  # fmt: skip
    return {"attacks": {"seeds": [0, 1], "attacks": [lowered], "rights": [fallen], "poison": [planted]}}


def test_section_has_rates_verdicts_and_what_stopped_planted_pages() -> None:
    text = attacks_section(figures())
    assert "Of 1 attacks 1 succeed less often" in text
    assert "Right answers that fell beyond chance: questions." in text
    assert "| injection, page | marks | 40 | 85.0% (80.0 to 90.0) | 15.0% (10.0 to 20.0) | < 0.001 | lowered |" in text  # fmt: skip
    assert "| 10 | 10 | 1 | duplicate/minhash 9 | 60.0% (50.0 to 70.0) |" in text
    assert attacks_section({}) == ""


def test_section_of_hostile_labels_is_text_on_the_page() -> None:
    section = _section(attacks_section, figures("<script>alert(1)</script>|x"))
    assert section is not None
    tree = parser.document_fromstring(page("card", section.body[:0], [section]))
    assert not [element for element in tree.iter("script") if "alert" in (element.text or "")]


def test_arms_differ_in_their_mitigation_alone_and_share_the_recipes_models() -> None:
    plan = study(make_recipe("tiny"), [0, 1], AttackSettings(planted=(1, 10), disguised=5))
    arms = poison_arms(AttackSettings(planted=(10, 1), disguised=5))
    assert [(one.pages, one.filters, one.before) for one in arms] == [
        (0, NEAR, -1),
        (1, UNFILTERED, -1),
        (10, UNFILTERED, -1),
        (10, NEAR, 2),
        (5, NEAR, -1),
        (5, LINES, 4),
    ]
    tuned = [step for label, steps in plan.training[:2] for step, _ in steps]
    assert {step.inputs["base"].id for step in tuned} == {plan.steps.sft.id}
    assert len({step.id for step in tuned}) == 4
    data = [[step.id for step, _ in steps[:3]] for _, steps in plan.training[2:]]
    assert data[2][:2] == data[3][:2]  # ingest and filter, of 10 pages with and without the filter of near duplicates
    assert data[2][2] != data[3][2]
    trained = [step for _, steps in plan.training[2:] for step, _ in steps if step.stage == "pretrain"]
    assert {step.inputs["initial_model"].id for step in trained} == {trained[0].inputs["initial_model"].id}
    assert len(plan.replies) == len(plan.report.inputs) - 1 - 3 * len(arms)
    # The arms' artifacts never become the recipe's latest.
    assert {recipe.name for _, steps in plan.training for _, recipe in steps} == {"tiny-attacks"}


def test_mistakes_are_refused() -> None:
    with pytest.raises(UserError, match="not all different"):
        study(make_recipe("tiny"), [0, 0])
    with pytest.raises(UserError, match="reads other pages"):
        study(make_recipe("tiny", inputs=["a.warc.gz"]), [0])
    with pytest.raises(ValueError, match="different numbers"):
        AttackSettings(planted=(1, 1))
    assert json.loads(AttackSettings().model_dump_json())["planted"] == [1, 10, 100, 1000]


class RecordedTask:
    """Stands for the task `make`: records what it is asked for."""

    def __init__(self, made: list[tuple[str, str, bool]], name: str = "") -> None:
        self.made, self.name = made, name

    def with_options(self, task_run_name: str) -> "RecordedTask":
        return RecordedTask(self.made, task_run_name)

    def __call__(self, step: Step[Any], recipe: str, _: Any, *, sets_latest: bool = True) -> dict[str, str]:
        self.made.append((step.id, recipe, sets_latest))
        return {"artifact": step.id}


def test_deployed_study_launches_the_stages_and_trains_its_arms_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[tuple[str, str, bool]] = []
    asked: list[dict[str, Any]] = []

    def pipeline(**chosen: Any) -> dict[str, Any]:
        asked.append(chosen)
        return {"sft": {}}

    monkeypatch.setattr("flows.attacks.pipeline", pipeline)
    monkeypatch.setattr("flows.attacks.make", RecordedTask(made))
    sizes = AttackSettings(planted=(1, 10))
    attacks_study.fn(recipe="tiny", seeds=[0, 1], attack_settings=sizes)
    assert [(chosen["until"], chosen["runs_deployments"]) for chosen in asked] == [("sft", True)]
    plan = study(make_recipe("tiny"), [0, 1], sizes)
    arms = [step.id for _, steps in plan.training for step, _ in steps]
    assert [one for one, *_ in made] == [*arms, *(step.id for step in plan.replies), plan.report.id]
    # `crawl2chat chat` must not open an arm as the recipe's newest model.
    assert {(recipe, sets_latest) for _, recipe, sets_latest in made[:-1]} == {("tiny-attacks", False)}
