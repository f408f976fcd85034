"""Recipes: a setting reaches its field, and a wrong one is told with what is allowed."""

import pytest

from flows.pipeline import dag, select
from flows.recipes import RECIPES, STAGE_NAMES, make_recipe


def test_a_setting_reaches_its_field_and_no_other() -> None:
    changed = make_recipe("tiny", settings=["filter.language_threshold=0.8", "pretrain.train.num_steps=7"])
    assert changed.filter.language_threshold == 0.8
    assert changed.pretrain.train.num_steps == 7
    assert changed.pretrain.optim == make_recipe("tiny").pretrain.optim
    assert changed.dedup == make_recipe("tiny").dedup


@pytest.mark.parametrize(
    ("name", "setting", "told"),
    [
        ("large", "", "no recipe 'large': take one of tiny, small, gpt2"),
        ("tiny", "filter.threshold", "not of the form STAGE.FIELD=VALUE"),
        ("tiny", "filters.language_threshold=1", "there is no filters"),
        ("tiny", "filter.treshold=1", "filter has no field 'treshold': it has"),
        ("tiny", "filter.language_threshold=3", r"filter.language_threshold: .*less than or equal to 1 \(given: 3\)"),
        ("tiny", "pretrain.train.num_steps=many", "pretrain.train.num_steps: .*integer"),
        ("tiny", "sft.world_seed=7", "set all to one"),
    ],
)
def test_a_wrong_setting_is_told_with_what_is_allowed(name: str, setting: str, told: str) -> None:
    with pytest.raises(ValueError, match=told) as error:
        make_recipe(name, settings=[setting] if setting else [])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", RECIPES)
def test_the_dag_of_every_recipe_has_every_stage_once_and_inputs_before_what_is_made_of_them(name: str) -> None:
    steps = dag(make_recipe(name))
    assert tuple(steps) == STAGE_NAMES
    seen: set[str] = set()
    for stage, step in steps.items():
        assert step.stage == stage
        assert {given.stage for given in step.inputs.values() if not given.is_source} <= seen
        seen.add(stage)


def test_a_changed_threshold_changes_filter_and_what_depends_on_it_and_nothing_before() -> None:
    before, after = dag(make_recipe("tiny")), dag(make_recipe("tiny", settings=["filter.language_threshold=0.8"]))
    changed = [name for name in STAGE_NAMES if before[name].fingerprint != after[name].fingerprint]
    assert changed == list(STAGE_NAMES[1:])


def test_where_a_stage_runs_is_not_what_it_makes() -> None:
    before = dag(make_recipe("tiny"))
    after = dag(make_recipe("tiny", settings=["ingest.num_workers=7", "pretrain.train.num_ranks=2"]))
    assert [step.fingerprint for step in before.values()] == [step.fingerprint for step in after.values()]


def test_stages_are_selected_in_order() -> None:
    assert select("", "", "") == STAGE_NAMES
    assert select("filter", "tokenizer", "") == ("filter", "dedup", "tokenizer")
    assert select("", "", "sft") == ("sft",)
    with pytest.raises(ValueError, match="no stage 'sfft': take one of ingest"):
        select("sfft", "", "")
    with pytest.raises(ValueError, match="ingest comes before sft"):
        select("sft", "ingest", "")
