"""Ablations: arms that share what they can, verdicts that follow from the seeds, pages of hostile values."""

import json
from pathlib import Path
from typing import Any

import pytest
from lxml import html as parser

from flows.ablation import split_values, study
from flows.recipes import Recipe, make_recipe
from model.errors import UserError
from tasks.artifacts.manifest import BaseModel, Documents, Report, Tokenizer
from tasks.artifacts.store import Store
from tasks.evaluate.ablation import AblationConfig, Arm, ablation
from tasks.evaluate.ablation_report import order_of, render_ablation, render_ablation_page, scores_table, verdict
from tasks.evaluate.eval_tasks import EvalTask
from tasks.evaluate.scores import ScoresConfig, scores, task_files
from tasks.execution.runner import execute
from tests.support.tiny_models import finish, write_lines, write_model, write_tokenizer


def figures(*arms: list[float], kind: str = "text", values: tuple[str, ...] = ("a", "b", "c")) -> dict[str, Any]:
    """Figures of arms by their scores for each seed."""
    key = "bits_per_byte" if kind == "text" else "share"
    funnel = [
        {"stage": stage, "documents_in": 10, "documents": 8, "text_bytes": 800, "dropped": [{"reason": "x/y", "documents": 2, "text_bytes": 9}]}
        for stage in ("ingest", "filter", "dedup")
    ]  # fmt: skip
    arm = {"documents": funnel, "data_seconds": 3.0, "ingest_seconds": 1.0, "train_seconds": 9.0, "tokens": [2048], "epochs": 1.5}  # fmt: skip
    score = {"num": 7, "licence": "CC0", "sha256": "f" * 64}
    task = {"task": "wiki", "kind": kind, **score, "arms": [[{key: value, "low": value - 0.1, "high": value + 0.1} for value in one] for one in arms]}  # fmt: skip
    return {
        "setting": "ingest.extractor",
        "seeds": list(range(len(arms[0]))),
        "arms": [arm | {"value": value} for value in values[: len(arms)]],
        "tasks": [task],
    }


def test_order_that_every_seed_gives_is_stable() -> None:
    text = verdict(figures([1.9, 1.91, 1.92], [1.5, 1.51, 1.52], [1.7, 1.71, 1.72]))
    assert "the best first: `b` (1.5100), `c` (1.7100), `a` (1.9100)" in text
    assert "The order of arms is stable: the same with each of 3 seeds." in text
    assert "noise" not in text


def test_order_that_seeds_disagree_on_is_not_stable() -> None:
    text = verdict(figures([1.90, 1.80, 1.70], [1.75, 1.85, 1.80], kind="text"))
    assert "The order of arms is not stable over 3 seeds: seed 0: `b`, `a`; seed 1: `a`, `b`; seed 2: `a`, `b`." in text
    assert (
        "Within the noise of the seeds: `a` and `b`." in text or "Within the noise of the seeds: `b` and `a`." in text
    )


def test_of_accuracies_the_highest_is_best_and_one_seed_says_little() -> None:
    text = verdict(figures([0.4], [0.6], kind="choice"))
    assert "By mean accuracy on 1 task, the best first: `b` (60.0%), `a` (40.0%). One seed" in text
    assert order_of([1.0, 1.0], True) == [0, 1]


@pytest.mark.parametrize(
    ("arms", "best"),
    [
        (([1.9], [1.5]), "one seed"),
        (([1.9, 1.91], [1.5, 1.51]), "`b`"),
        (([1.9, 1.4], [1.5, 1.51]), "within noise"),
        (([1.9, 1.9], [1.5, 1.5]), "noise unknown"),
    ],
)
def test_table_names_the_best_arm_or_why_it_cannot(arms: tuple[list[float], ...], best: str) -> None:
    text = scores_table(figures(*arms))
    [row] = [line for line in text.splitlines() if line.startswith("| wiki")]
    assert row.split("|")[-2].strip() == best
    assert ("±" in text) is (len(arms[0]) > 1)


def test_report_has_funnel_cost_scores_and_sources() -> None:
    text = render_ablation(figures([1.9, 1.91], [1.5, 1.51]))
    assert "| `a` | 10 | 8 (80.0%) | 0.00 | 2,048 | 1.50 | 100.0 | 3 | 9 |" in text
    assert (
        "| wiki, bits per byte | 7 | 1.9050 ± 0.0071 (1.8000 to 2.0000) | 1.5050 ± 0.0071 (1.4000 to 1.6000) | `b` |"
        in text
    )
    assert "- wiki: CC0, sha256 `ffffffffffffffff`" in text


@pytest.mark.parametrize("text", ["<script>x</script>", "a | `b` <img src=x onerror=alert(1)>"])
def test_page_of_hostile_values_has_no_element_of_theirs(text: str) -> None:
    hostile = figures([1.0, 2.0], [2.0, 1.0], values=(text, "b"))
    hostile["tasks"][0] |= {"task": text, "licence": text}
    found = [
        one for one in parser.document_fromstring(render_ablation_page(hostile)).iter() if isinstance(one.tag, str)
    ]
    assert not {"script", "img"} & {element.tag for element in found}
    assert not [name for element in found for name in element.attrib if name.startswith("on")]


def held_out(folder: Path) -> EvalTask:
    write_lines(folder / "held.jsonl", [{"text": "the mayor of Orn is Ada Brell. " * 3}, {"text": "it is blue"}])
    return EvalTask(name="held", path=str(folder / "held.jsonl"), format="text", licence="CC0")


@pytest.fixture
def recipe() -> Recipe:
    return make_recipe("tiny")


def test_arms_share_tokenizer_and_whatever_the_setting_does_not_change(recipe: Recipe, tmp_path: Path) -> None:
    plan = study(recipe, "filter.language_threshold", ["0.5", "0.8"], [0, 1], [held_out(tmp_path)])
    first, second = ([step.id for step, _ in arm.data] for arm in plan.arms)
    assert first[0] == second[0]  # ingest
    assert first[1:] != second[1:]
    tokenizers = {step.inputs["tokenizer"].id for arm in plan.arms for step, _ in arm.training}
    assert len(tokenizers) == 1
    names = [made.name for arm in plan.arms for _, made in arm.training]
    assert names == [name for arm in range(2) for name in (f"tiny-arm-{arm}", f"tiny-arm-{arm}-seed-0", f"tiny-arm-{arm}-seed-1")]  # fmt: skip
    eval_sets = plan.arms[0].data[2][0].inputs
    assert any(role.startswith("eval_sets") for role in eval_sets)


def test_arms_of_a_tokenizer_setting_have_a_tokenizer_each(recipe: Recipe, tmp_path: Path) -> None:
    plan = study(recipe, "tokenizer.vocab_size", ["512", "1024"], [0], [held_out(tmp_path)])
    assert plan.tokenizer is None
    assert [step.stage for step, _ in plan.arms[0].training] == ["tokenizer", "tokenize", "pretrain"]


@pytest.mark.parametrize(
    ("setting", "values"),
    [
        ("ingest.extractor=trafilatura,union", ["trafilatura", "union"]),
        ('ingest.languages=["en"], ["en","de"]', ['["en"]', '["en","de"]']),
        ('a.b={"x": 1, "y": 2},{}', ['{"x": 1, "y": 2}', "{}"]),
        ('a.b="x,y",z', ['"x,y"', "z"]),
    ],
)
def test_values_are_split_at_commas_outside_of_brackets(setting: str, values: list[str]) -> None:
    assert split_values(setting) == (setting.partition("=")[0], values)


@pytest.mark.parametrize(
    "setting", ["", "ingest.extractor", "ingest.extractor=a", "ingest.extractor=a,", "ingest=a,b", "a.b=x,x"]
)
def test_setting_without_arms_is_refused(setting: str) -> None:
    with pytest.raises(UserError, match="names no arms"):
        split_values(setting)


def test_what_cannot_be_compared_is_refused(recipe: Recipe, tmp_path: Path) -> None:
    task = held_out(tmp_path)
    with pytest.raises(UserError, match="different numbers of tokens"):
        study(recipe, "pretrain.train.num_steps", ["10", "20"], [0], [task])
    with pytest.raises(UserError, match="nothing to compare the arms by"):
        study(recipe, "ingest.extractor", ["trafilatura", "union"], [0], [])
    with pytest.raises(UserError, match="not all different"):
        study(recipe, "ingest.extractor", ["trafilatura", "union"], [0, 0], [task])
    with pytest.raises(UserError, match="extractor"):
        study(recipe, "ingest.extractor", ["trafilatura", "nosuch"], [0], [task])


def test_scores_and_ablation_are_made_of_models_and_documents(store: Store, tmp_path: Path) -> None:
    encoder = write_tokenizer(store.folder("tokenizer/t"))
    tokenizer = finish(store, Tokenizer, "tokenizer/t", counts={"vocab_size": encoder.vocab_size})
    task = held_out(tmp_path)
    config = ScoresConfig(tasks=(task,), window_tokens=32)
    arms = []
    for arm in ("a", "b"):
        documents = [finish(store, Documents, f"{stage}/{arm}", counts={"documents": 3, "text_bytes": 9, "dropped/x/y": 1}) for stage in ("ingest", "filter", "dedup")]  # fmt: skip
        bases = []
        for seed in (0, 1):
            write_model(store.folder(f"pretrain/{arm}{seed}"), encoder.vocab_size)
            bases.append(
                finish(store, BaseModel, f"pretrain/{arm}{seed}", counts={"tokens": 64}, metrics={"epochs": 1.0})
            )
        arms.append(Arm(*documents, bases, [scores(base, tokenizer, task_files([task]), config) for base in bases]))
    for one in (one for arm in arms for one in arm.scores):
        assert 1 < execute(one, store).metrics["held"] < 20
    step = ablation(arms, AblationConfig(setting="x.y", values=("a", "b"), seeds=(0, 1)))
    execute(step, store)
    folder = store.open(step.id, Report).folder
    found = json.loads((folder / "report.json").read_text())
    assert [arm["documents"][0]["documents_in"] for arm in found["arms"]] == [4, 4]
    # The same weights in both arms: no difference, whatever the seed.
    assert "Within the noise of the seeds" in (folder / "report.md").read_text()
    assert "held: bits per byte" in (folder / "report.html").read_text()
