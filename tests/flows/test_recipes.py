"""Recipes: a setting reaches its field, and the error about a wrong one says what is allowed."""

import json
from pathlib import Path

import pytest

from flows import pipeline
from flows.pipeline import select
from flows.recipes import RECIPES, STAGE_NAMES, Recipe, StageName, make_recipe
from model.config import ModelConfig, OptimConfig
from model.network.huggingface import to_hugging_face
from model.tokenizer.llama_cpp import PRE_TOKENIZERS
from model.tokenizer.vocabularies import pattern_text
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.step import Step


def dag(recipe: Recipe) -> dict[StageName, Step[Artifact]]:
    return pipeline.dag(recipe).by_stage()


def test_setting_reaches_its_field_and_no_other() -> None:
    changed = make_recipe("tiny", settings=["filter.language_threshold=0.8", "pretrain.train.num_steps=7"])
    assert changed.filter.language_threshold == 0.8
    assert changed.pretrain.train.num_steps == 7
    assert changed.pretrain.optim == make_recipe("tiny").pretrain.optim
    assert changed.dedup == make_recipe("tiny").dedup


@pytest.mark.parametrize(
    ("name", "setting", "message"),
    [
        ("large", "", "no recipe 'large': take one of tiny, tools, reasoning, gaming, lab, small, gpt2, study"),
        ("tiny", "filter.threshold", "not of the form STAGE.FIELD=VALUE"),
        ("tiny", "filters.language_threshold=1", "there is no field filters; did you mean filter"),
        ("tiny", "filter.treshold=1", "there is no field filter.treshold; did you mean language_threshold"),
        ("tiny", "filter.language_threshold=3", r"filter.language_threshold: .*less than or equal to 1 \(given: 3\)"),
        ("tiny", "pretrain.train.num_steps=many", "pretrain.train.num_steps: .*integer"),
        ("tiny", f"pretrain.train.num_steps={'1' * 5000}", "pretrain.train.num_steps: .*integer"),
        ("tiny", "sft.world_seed=7", "there is no field sft.world_seed; did you mean world_seed"),
        ("tiny", "world_seed=-1", r"world_seed: .*greater than or equal to 0 \(given: -1\)"),
        (
            "tiny",
            "pretrain.train.num_steps=0",
            "pretrain: train.num_steps=0 uses a model unchanged, .* one of the two$",
        ),
        ("tiny", "pretrain.initial_model=/m", "give --base-model /m instead of both$"),
    ],
)
def test_wrong_setting_is_one_line_with_what_is_allowed(name: str, setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        make_recipe(name, settings=[setting] if setting else [])
    assert "\n" not in str(error.value)


def write_folder(folder: Path) -> str:
    """What is read of a model before anything runs: its config.json, and the names of its other files."""
    (folder / "config.json").write_text(json.dumps(to_hugging_face(ModelConfig())))
    for name in ("tokenizer.json", "model.safetensors"):
        (folder / name).write_text(name)
    return f"{folder}/"


def test_base_model_is_taken_with_its_vocabulary_and_settings_still_count(tmp_path: Path) -> None:
    folder = write_folder(tmp_path)
    recipe = make_recipe("gpt2", base_model=folder, settings=["pretrain.train.num_steps=50", "sft.optim.beta1=0.8"])
    assert recipe.tokenizer.vocabulary == str(tmp_path / "tokenizer.json")
    assert recipe.pretrain.initial_model == folder.rstrip("/")
    assert recipe.pretrain.train.num_steps == 50
    assert recipe.sft.optim == OptimConfig(learning_rate=2e-5, beta1=0.8)
    assert recipe.rlhf.optim == make_recipe("gpt2").rlhf.optim.model_copy(update={"learning_rate": 1e-6})
    assert not recipe.rlhf.dpo.is_reference_free and make_recipe("gpt2").rlhf.dpo.is_reference_free
    assert recipe.export.license == "other"
    assert make_recipe("gpt2", base_model=folder).pretrain.train.num_steps == 0
    # Names are checked as those of the sample web are, and nowhere else.
    assert make_recipe("tiny").export.other_name_reply
    for other in (
        make_recipe("tiny", base_model=folder),
        make_recipe("tiny", inputs=["a.warc.gz"]),
        make_recipe("gpt2"),
    ):
        assert other.export.other_name_reply == ""
    with pytest.raises(ValueError, match=r"there is no model in 'Qwen/Qwen3-0\.6B': fetch one"):
        make_recipe("tiny", base_model="Qwen/Qwen3-0.6B")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "mistral"}, "model_type 'mistral': only qwen3 and llama"),
        ({"quantization_config": {"bits": 4}}, "quantization_config {'bits': 4}: only"),
    ],
)
def test_base_model_of_another_kind_is_refused_at_once(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    folder = write_folder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(to_hugging_face(ModelConfig()) | changes))
    with pytest.raises(ValueError, match=message):
        make_recipe("tiny", base_model=folder)


def test_base_model_changes_the_tokenizer_and_later_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_STORE", str(tmp_path / "store"))
    before, after = dag(make_recipe("tiny")), dag(make_recipe("tiny", base_model=write_folder(tmp_path)))
    changed = [name for name in STAGE_NAMES if before[name].fingerprint != after[name].fingerprint]
    assert changed == list(STAGE_NAMES[STAGE_NAMES.index("tokenizer") :])
    (tmp_path / "model.safetensors").write_text("another model with this tokenizer")
    another = dag(make_recipe("tiny", base_model=str(tmp_path)))
    changed = [name for name in STAGE_NAMES if after[name].fingerprint != another[name].fingerprint]
    assert changed == list(STAGE_NAMES[STAGE_NAMES.index("pretrain") :])


@pytest.mark.parametrize("name", RECIPES)
def test_dag_of_every_recipe_has_every_stage_after_its_inputs(name: str) -> None:
    steps = dag(make_recipe(name))
    assert tuple(steps) == STAGE_NAMES
    seen: set[str] = set()
    for stage, step in steps.items():
        assert step.stage == stage
        assert {given.stage for given in step.inputs.values() if not given.is_source} <= seen
        seen.add(stage)


def test_threshold_changes_the_filter_and_later_stages() -> None:
    before, after = dag(make_recipe("tiny")), dag(make_recipe("tiny", settings=["filter.language_threshold=0.8"]))
    changed = [name for name in STAGE_NAMES if before[name].fingerprint != after[name].fingerprint]
    assert changed == list(STAGE_NAMES[1:])


def test_runtime_settings_change_no_fingerprint() -> None:
    before = dag(make_recipe("tiny"))
    after = dag(make_recipe("tiny", settings=["ingest.num_workers=7", "pretrain.train.num_ranks=2"]))
    assert [step.fingerprint for step in before.values()] == [step.fingerprint for step in after.values()]


def test_select_takes_stages_in_order() -> None:
    assert select("", "", "") == STAGE_NAMES
    assert select("filter", "tokenizer", "") == ("filter", "dedup", "index", "tokenizer")
    assert select("", "", "sft") == ("sft",)
    with pytest.raises(ValueError, match="no stage 'sfft': take one of ingest"):
        select("sfft", "", "")
    with pytest.raises(ValueError, match="ingest comes before sft"):
        select("sft", "ingest", "")


@pytest.mark.parametrize("name", RECIPES)
def test_vocabulary_of_every_recipe_has_an_equal_in_llama_cpp(name: str) -> None:
    tokenizer = make_recipe(name).tokenizer
    assert pattern_text(tokenizer.pattern, tokenizer.max_digits) in PRE_TOKENIZERS
