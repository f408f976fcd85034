"""Recipes: a whole run as one frozen, typed value, a config for each stage.

Reads nothing but the config.json of a base model, writes nothing. The defaults of the configs are `tiny`, so that
a stage's form in the Prefect UI starts from it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, ValidationError, model_validator

from model.config import Config, ModelShape, OptimConfig, TrainConfig, explained
from model.errors import UserError
from model.planning.presets import preset
from tasks.dedup.stage import DedupConfig
from tasks.evaluate.stage import EvaluateConfig
from tasks.export.stage import ExportConfig
from tasks.filter.stage import FilterConfig
from tasks.ingest.stage import IngestConfig
from tasks.posttrain.reward import RewardConfig
from tasks.posttrain.rlhf import RLHFConfig
from tasks.posttrain.sft import SFTConfig
from tasks.pretrain.stage import PretrainConfig
from tasks.tokenizer.encode import TokenizeConfig
from tasks.tokenizer.train import TokenizerConfig

StageName = Literal[
    "ingest", "filter", "dedup", "tokenizer", "tokenize", "pretrain", "sft", "reward", "rlhf", "evaluate", "export"
]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)
RecipeName = Literal["tiny", "small", "gpt2", "study"]


class Recipe(Config):
    """The settings of every stage."""

    world_seed: int = Field(
        1, ge=0, description="The seed of the sample web, and of the conversations and questions about it."
    )
    ingest: IngestConfig = Field(IngestConfig())
    filter: FilterConfig = Field(FilterConfig())
    dedup: DedupConfig = Field(DedupConfig())
    tokenizer: TokenizerConfig = Field(TokenizerConfig())
    tokenize: TokenizeConfig = Field(TokenizeConfig())
    pretrain: PretrainConfig = Field(PretrainConfig())
    sft: SFTConfig = Field(SFTConfig())
    reward: RewardConfig = Field(RewardConfig())
    rlhf: RLHFConfig = Field(RLHFConfig())
    evaluate: EvaluateConfig = Field(EvaluateConfig())
    export: ExportConfig = Field(ExportConfig())

    @model_validator(mode="after")
    def _one_vocabulary(self) -> Self:
        if (model := self.pretrain.initial_model) and not self.tokenizer.vocabulary:
            raise ValueError(
                f"pretrain.initial_model is {model!r} and tokenizer.vocabulary is not set: set it to the tokenizer.json in that "
                f"folder, or give --base-model {model} instead of both"
            )
        return self


def tiny() -> Recipe:
    """A laptop, a quarter of an hour: the sample web, a model of some 2 M parameters."""
    return Recipe()


def small() -> Recipe:
    """One GPU, some hours: two Common Crawl files, a model of some 30 M parameters."""
    return Recipe(
        ingest=IngestConfig(inputs=["cc:CC-MAIN-2024-22"], max_files=2, languages=["en"]),
        filter=FilterConfig(blocklists=["ut1"]),
        tokenizer=TokenizerConfig(vocab_size=16_384),
        pretrain=PretrainConfig(
            model=ModelShape(num_layers=8, width=512, num_heads=8, num_kv_heads=8, head_width=64, ff_width=1408),
            train=TrainConfig(
                num_steps=10_000, batch_tokens=65_536, sequence_tokens=1024, dtype="bfloat16", is_compiled=True
            ),
            optim=OptimConfig(learning_rate=1e-3),
        ),
    )


def gpt2() -> Recipe:
    """One node of 8 GPUs: a hundred Common Crawl files, GPT-2's 124 M parameters in Qwen3's layout."""
    return Recipe(
        ingest=IngestConfig(inputs=["cc:CC-MAIN-2024-22"], max_files=100, languages=["en"]),
        filter=FilterConfig(blocklists=["ut1"]),
        tokenizer=TokenizerConfig(vocab_size=50_304),
        pretrain=PretrainConfig(
            model=preset("gpt2").model.shape,
            train=TrainConfig(
                num_steps=19_000,
                batch_tokens=524_288,
                sequence_tokens=1024,
                dtype="bfloat16",
                is_compiled=True,
                zero_stage=1,
                num_ranks=8,
            ),
            optim=preset("gpt2").optim,
        ),
    )


def study() -> Recipe:
    """A laptop, a quarter of an hour of `crawl2chat scaling`: one Common Crawl file, a base model that smaller ones foretell.

    Real text, since losses on the sample web's follow no law at this size: they fall in a step when its templates are learned.
    """
    return Recipe(
        ingest=IngestConfig(inputs=["cc:CC-MAIN-2024-22"], max_files=1, languages=["en"], extractor="resiliparse"),
        tokenizer=TokenizerConfig(vocab_size=1024),
        pretrain=PretrainConfig(
            model=ModelShape(num_layers=6, width=96, num_heads=6, num_kv_heads=6, head_width=16, ff_width=256),
            train=TrainConfig(
                num_steps=2560,
                batch_tokens=512,
                sequence_tokens=128,
                eval_every_steps=640,
                eval_sequences=512,
                num_ranks=2,
            ),
            optim=OptimConfig(learning_rate=2.5e-3),
        ),
    )


RECIPES = {"tiny": tiny, "small": small, "gpt2": gpt2, "study": study}
# Learning rates from an open-weights model on: of Llama 2 (Touvron et al. 2023), whose fine-tuning's is taken for pretraining too
BASE_MODEL_RATES = {"pretrain": 2e-5, "sft": 2e-5, "reward": 1e-5, "rlhf": 1e-6}


def make_recipe(
    name: str,
    inputs: Iterable[str] = (),
    max_files: int = 0,
    settings: Iterable[str] = (),
    base_model: str = "",
) -> Recipe:
    """The recipe of that name with other inputs, `STAGE.FIELD=VALUE` settings, and the model in a folder as its base model.

    Raises ValueError with the stage, field, value and what is allowed.
    """
    if name not in RECIPES:
        raise UserError(f"there is no recipe {name!r}: take one of {', '.join(RECIPES)}")
    values = RECIPES[name]().model_dump()
    if inputs := list(inputs):
        values["ingest"] |= {"inputs": inputs, "max_files": max_files}
    elif max_files:
        values["ingest"]["max_files"] = max_files
    if base_model:
        _start_from(values, base_model)
    for setting in settings:
        _set(values, setting)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(explained(error)) from None


def overlaid(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with changes laid over it, by field and field of a field. Raises UserError."""
    try:
        return Recipe.model_validate(_overlaid(recipe, changes))
    except ValidationError as error:
        raise UserError(explained(error)) from None


def _overlaid(config: Config, changes: Mapping[str, Any]) -> dict[str, Any]:
    values = config.model_dump()
    for name, value in changes.items():
        part = getattr(config, name, None)
        values[name] = _overlaid(part, value) if isinstance(part, Config) and isinstance(value, Mapping) else value
    return values


def _start_from(values: dict[str, Any], folder: str) -> None:
    """Take the model in a folder as it is, with its vocabulary; learn from there on in the steps that suit a trained model.

    Raises ValueError where it is none that is read here, before a stage has run in vain.
    """
    from model.network.huggingface import read_config

    if not Path(folder, "config.json").is_file():
        raise UserError(
            f"there is no model in {folder!r}: fetch one, `hf download Qwen/Qwen3-0.6B`, and give its folder"
        )
    read_config(Path(folder))
    values["tokenizer"]["vocabulary"] = f"{folder.rstrip('/')}/tokenizer.json"
    values["pretrain"]["initial_model"] = folder
    values["pretrain"]["train"]["num_steps"] = 0
    values["export"]["license"] = "other"
    for stage, rate in BASE_MODEL_RATES.items():
        values[stage]["optim"] |= {"optimizer": "adamw", "learning_rate": rate}


def _set(values: dict[str, Any], setting: str) -> None:
    path, equals, text = setting.partition("=")
    *parents, field = path.split(".")
    if not equals or (not parents and field not in values):
        raise UserError(
            f"setting {setting!r} is not of the form STAGE.FIELD=VALUE, such as filter.language_threshold=0.7"
        )
    for number, name in enumerate(parents):
        if not isinstance(values.get(name), dict):
            raise UserError(
                f"setting {setting!r}: there is no {'.'.join(parents[: number + 1])}: there are {', '.join(values)}"
            )
        values = values[name]
    if field not in values:
        raise UserError(f"setting {setting!r}: {'.'.join(parents)} has no field {field!r}: it has {', '.join(values)}")
    try:
        values[field] = json.loads(text)
    except json.JSONDecodeError:
        values[field] = text
