"""The stages as flows: the forms that a person fills in, and what a flow makes of them."""

from typing import Any

import pytest
from prefect.flows import load_flow_from_entrypoint
from pydantic import ValidationError

from flows.forms import BASIC, MAX_CONTENTS, SECTIONS, difference, form_of, offer_artifacts
from flows.launch import parameters
from flows.pipeline import dag
from flows.recipes import STAGE_NAMES, StageName, load, make_recipe, overlaid
from flows.stages import FORMS, with_named_inputs
from model.config import Config, TrainConfig
from model.errors import UserError
from tasks.artifacts.manifest import Artifact, Crawl, Documents, Policy, RewardModel
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tests.support.tiny_models import finish


@pytest.fixture(autouse=True)
def own_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_STORE", store.url)


def schema_of(stage: str) -> dict[str, Any]:
    flow = load_flow_from_entrypoint(f"flows/stages.py:{stage}")
    assert flow.name == stage
    return flow.parameters.model_dump()


def fields_of(schema: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The fields of a form by path in the config, through the forms in it and the sections that belong to the form itself."""
    fields: dict[str, Any] = {}
    for name, field in schema["properties"].items():
        choices = [part["$ref"].rpartition("/")[2] for part in field.get("anyOf", ()) if "$ref" in part]
        reference = field.get("$ref") or next((part["$ref"] for part in field.get("allOf", ())), "")
        if choices[:1] == ["Unchanged"]:
            fields |= fields_of(definitions[choices[1]], definitions)
        elif reference:
            inner = definitions[reference.rpartition("/")[2]]
            fields |= {f"{name}.{path}": value for path, value in fields_of(inner, definitions).items()}
        else:
            fields[name] = field
    return fields


BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "enum", "minLength", "minItems")


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_form_has_every_field_of_the_config_with_its_bounds_and_no_value(stage: StageName) -> None:
    config = getattr(load("tiny"), stage)
    schema, original = schema_of(stage), type(config).model_json_schema()
    form = schema["definitions"][f"{type(config).__name__}Form"]
    found, expected = fields_of(form, schema["definitions"]), fields_of(original, original.get("$defs", {}))
    assert found.keys() == expected.keys()
    for path, field in expected.items():
        assert found[path]["description"].startswith(field["description"]), path
        assert "default" not in found[path], path
        assert {name: found[path].get(name) for name in BOUNDS} == {name: field.get(name) for name in BOUNDS}, path
    assert not any("required" in one for one in schema["definitions"].values() if one["title"].endswith("Form"))
    assert schema["properties"]["config"]["default"] == {}
    assert all("description" in field for field in schema["properties"].values())


def test_form_has_a_parameter_for_every_input_that_a_stage_makes() -> None:
    assert list(schema_of("rlhf")["properties"]) == [
        "recipe",
        "assistant",
        "reward_model",
        "tokenizer",
        "config",
        "force",
        "recipe_yaml",
        "sources",
    ]
    described = schema_of("filter")["properties"]["documents"]
    assert (described["default"], described["description"]) == (
        "latest",
        "Artifact of ingest: STAGE/FINGERPRINT, or latest.",
    )


def test_form_refuses_a_value_out_of_bounds_and_an_unknown_field() -> None:
    form = form_of({"tiny": load("tiny").filter})
    assert form().filled() == {}
    assert form.model_validate({"language_threshold": 0.8}).filled() == {"language_threshold": 0.8}
    for wrong in (
        {"language_threshold": 3},
        {"treshold": 0.5},
        {"quality_classifier": {"quality_model": {"num_epochs": 0}}},
    ):
        with pytest.raises(ValidationError):
            form.model_validate(wrong)


@pytest.mark.parametrize("name", ["small", "gpt2", "study"])
def test_empty_form_of_a_recipe_is_the_recipe(name: str) -> None:
    """A form of `ingest` for the recipe `small` once ran the sample web of `tiny`."""
    recipe = load(name)
    for stage in STAGE_NAMES:
        form = form_of({"tiny": getattr(load("tiny"), stage)})
        assert overlaid(recipe, {stage: form().filled()}) == recipe
    form = form_of({"tiny": load("tiny").pretrain})
    filled = form.model_validate({"train": {"num_steps": 7}, "advanced": {"mixture": {"tokenize/a": 1}}})
    changed = overlaid(recipe, {"pretrain": filled.filled()})
    assert changed.pretrain.train == recipe.pretrain.train.model_copy(update={"num_steps": 7})
    assert changed.pretrain.mixture == {"tokenize/a": 1}
    assert changed.ingest == recipe.ingest


def test_sections_are_filled_in_under_the_names_of_the_config() -> None:
    form = form_of({"tiny": load("tiny").filter})
    changes = {
        "language_threshold": 0.8,
        "max_gopher_words": 9,
        "quality_model": {"num_epochs": 3},
        "languages": ["de"],
    }
    grouped = form.grouped(changes)
    assert grouped == {
        "languages": ["de"],
        "language_threshold": 0.8,
        "gopher_rules": {"max_gopher_words": 9},
        "quality_classifier": {"quality_model": {"num_epochs": 3}},
    }
    assert form.model_validate(grouped).filled() == changes
    assert form.model_validate({"gopher_rules": {}, "c4_rules": {}}).filled() == {}


def test_form_shows_few_fields_at_once() -> None:
    """Prefect's UI draws some 80 pixels a field. All fields of filter at once were ten screens."""
    for stage in STAGE_NAMES:
        schema = schema_of(stage)
        shown, pending = 0, [schema["definitions"][f"{type(getattr(load('tiny'), stage)).__name__}Form"]]
        while pending:
            for field in pending.pop()["properties"].values():
                shown += 1
                if "$ref" in field:
                    pending.append(schema["definitions"][field["$ref"].rpartition("/")[2]])
        assert shown <= 24, stage


def test_basic_fields_and_sections_are_of_the_configs() -> None:
    """A field that was renamed would silently move into a section, and an empty section would be left."""
    configs = [getattr(load("tiny"), stage) for stage in STAGE_NAMES]
    configs += [part for config in configs for _, part in config if isinstance(part, Config)]
    by_name = {type(config).__name__: type(config) for config in configs}
    for kind, names in BASIC.items():
        assert set(names) <= set(by_name[kind].model_fields), kind
    for kind, sections in SECTIONS.items():
        for section, marks in sections.items():
            assert all(any(mark in name for name in by_name[kind].model_fields) for mark in marks), (kind, section)


def test_description_states_bounds_and_the_values_of_the_recipes() -> None:
    recipes = {"a": TrainConfig(num_steps=7), "b": TrainConfig(num_steps=9)}
    fields = form_of(recipes).model_fields
    assert (fields["num_steps"].description or "").endswith("At least 0. Recipes: a 7, b 9.")
    assert (fields["sequence_tokens"].description or "").endswith("At least 2, at most 1,048,576. Recipes have 256.")
    assert len(fields["advanced"].description or "") < MAX_CONTENTS + 30


def test_difference_of_configs_is_what_was_changed() -> None:
    base = load("tiny").pretrain
    changed = base.model_copy(update={"train": base.train.model_copy(update={"num_steps": 5})})
    assert difference(changed, base) == {"train": {"num_steps": 5}}
    assert difference(base, base) == {}


def test_offered_artifacts_can_be_chosen_or_typed() -> None:
    flow = load_flow_from_entrypoint("flows/stages.py:filter")
    schema = offer_artifacts(flow.parameters.model_dump_for_openapi(), {"documents": ["latest", "ingest/a"]})
    field = schema["properties"]["documents"]
    assert [choice.get("enum") for choice in field["anyOf"]] == [None, ["latest", "ingest/a"]]
    assert "type" not in field
    assert field["default"] == "latest"
    assert offer_artifacts(schema, {}) == schema


def made(store: Store, steps: dict[StageName, Step[Artifact]]) -> None:
    """The artifact of every stage, empty, as latest of tiny."""
    for step in steps.values():
        inputs = {role: given.id for role, given in step.inputs.items()}
        for _, source in step.sources():
            finish(store, source.kind, source.id)
        finish(store, step.kind, step.id, inputs=inputs)
        manifest = store.find(step.id)
        assert manifest is not None
        store.set_latest("tiny", manifest)


@pytest.mark.parametrize("stage", STAGE_NAMES)
def test_deployed_stage_makes_the_artifact_that_the_pipeline_asks_for(store: Store, stage: StageName) -> None:
    """Also where the files that the recipe names are not on the worker's machine."""
    changes = ["world_seed=3", "filter.min_gopher_words=7", "sft.num_conversations=5"]
    steps = dag(make_recipe("tiny", settings=changes)).by_stage()
    made(store, steps)
    asked = parameters(steps[stage], load("tiny"), force=False)
    # What the server and Prefect's engine do with the parameters of a run.
    form = FORMS[stage].model_validate(asked["config"])
    names = {role: value for role, value in asked.items() if role in steps[stage].inputs}
    elsewhere = overlaid(load("tiny"), {stage: form.filled(), "world_seed": 9})
    step = with_named_inputs(dag(elsewhere).by_stage()[stage], names, "tiny", asked["sources"])
    assert step.id == steps[stage].id


def test_latest_artifacts_of_the_recipe_are_the_inputs(store: Store) -> None:
    steps = dag(load("tiny")).by_stage()
    made(store, steps)
    names = {role: "latest" for role, given in steps["evaluate"].inputs.items() if not given.is_source}
    assert with_named_inputs(steps["evaluate"], names, "tiny", {}).id == steps["evaluate"].id


def test_crawl_goes_with_the_documents_that_were_made_of_it(store: Store) -> None:
    finish(store, Crawl, "crawl/other")
    finish(store, Documents, "ingest/other", inputs={"crawl": "crawl/other"})
    step = with_named_inputs(dag(load("tiny")).filter, {"documents": "other"}, "tiny", {})
    sources = dict(step.sources())
    assert step.inputs["documents"].id == "ingest/other"
    assert sources["attributes"].inputs["crawl"].id == "crawl/other"
    assert sources["attributes"].inputs["documents"].id == "ingest/other"


def test_artifact_of_another_kind_is_refused(store: Store) -> None:
    finish(store, RewardModel, "rlhf/x")
    with pytest.raises(UserError, match="is of kind RewardModel, and Policy is needed"):
        with_named_inputs(dag(load("tiny")).export, {"policy": "rlhf/x"}, "tiny", {})
    assert Policy.__name__ == dag(load("tiny")).rlhf.kind.__name__


def test_every_config_of_a_recipe_is_a_config() -> None:
    assert all(isinstance(step.settings, Config) for step in dag(load("tiny")))
