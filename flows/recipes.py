"""Recipes: a whole run as one frozen, typed value, a config for each stage.

Reads recipe files: those of this package (flows/builtin_recipes/) and a user's own, which say what they extend and what differs. Reads
the config.json of a base model. Writes nothing. The defaults of all configs are `tiny`.
"""

import difflib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from flows import recipe_files
from flows.recipe_files import MAX_SHOWN, KeyPath, RecipeText, shown
from model.config import Config
from model.errors import UserError
from tasks.dedup.stage import DedupConfig
from tasks.evaluate.stage import EvaluateConfig
from tasks.export.stage import ExportConfig
from tasks.filter.stage import FilterConfig
from tasks.index.stage import IndexConfig
from tasks.ingest.stage import IngestConfig
from tasks.posttrain.reward import RewardConfig
from tasks.posttrain.rlhf import RLHFConfig
from tasks.posttrain.sft import SFTConfig
from tasks.pretrain.stage import PretrainConfig
from tasks.probe.stage import ProbeConfig
from tasks.tokenizer.encode import TokenizeConfig
from tasks.tokenizer.train import TokenizerConfig

StageName = Literal[
    "ingest",
    "filter",
    "dedup",
    "index",
    "tokenizer",
    "tokenize",
    "pretrain",
    "probe",
    "sft",
    "reward",
    "rlhf",
    "evaluate",
    "export",
]
STAGE_NAMES: tuple[StageName, ...] = get_args(StageName)
RecipeName = Literal["tiny", "tools", "reasoning", "gaming", "lab", "small", "gpt2", "study"]  # each a file of BUILTIN
RECIPES: tuple[RecipeName, ...] = get_args(RecipeName)
BUILTIN = Path(__file__).parent / "builtin_recipes"
MAX_EXTENDS = 8
# Learning rates from an open-weights model on: of Llama 2 (Touvron et al. 2023), whose fine-tuning's is taken for pretraining too
BASE_MODEL_RATES = {"pretrain": 2e-5, "sft": 2e-5, "reward": 1e-5, "rlhf": 1e-6}


class Recipe(Config):
    """The settings of every stage."""

    # A folder of the store has this name (STORE/recipes/NAME), so no slash and no leading dot.
    name: str = Field(
        "tiny",
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$",
        description="The name that the run's latest artifacts are found by: that of the recipe, or of its file.",
    )
    world_seed: int = Field(
        1, ge=0, description="The seed of the sample web, and of the conversations and questions about it."
    )
    ingest: IngestConfig = Field(IngestConfig())
    filter: FilterConfig = Field(FilterConfig())
    dedup: DedupConfig = Field(DedupConfig())
    index: IndexConfig = Field(IndexConfig())
    tokenizer: TokenizerConfig = Field(TokenizerConfig())
    tokenize: TokenizeConfig = Field(TokenizeConfig())
    pretrain: PretrainConfig = Field(PretrainConfig())
    probe: ProbeConfig = Field(ProbeConfig())
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


def make_recipe(
    source: str,
    inputs: Iterable[str] = (),
    max_files: int = 0,
    settings: Iterable[str] = (),
    base_model: str = "",
    text: str = "",
) -> Recipe:
    """The recipe of a name or a file, or the one that `text` is, with what differs from it.

    `inputs`, `max_files`: other web archive files. `base_model`: the folder of a model to take as the base model. `settings`:
    STAGE.FIELD=VALUE. Raises UserError with the place, field, value and what is allowed.
    """
    recipe = from_text(recipe_files.parse(text, "recipe"), "custom") if text.strip() else load(source)
    # Changes are made to plain values and validated once at the end: two settings that are only valid together can be
    # given in any order.
    values = recipe.model_dump()
    if inputs := list(inputs):
        # The recipe's own max_files belongs to its own inputs: with others, 0 means all of them again.
        values["ingest"] |= {"inputs": inputs, "max_files": max_files}
        values["export"]["other_name_reply"] = ""  # suits the names of the sample web
    elif max_files:
        values["ingest"]["max_files"] = max_files
    if base_model:
        _start_from(values, str(Path(base_model).expanduser()))
    for setting in settings:
        _set(values, setting)
    return _validated(values)


def load(source: str) -> Recipe:
    """The recipe of that name, or of the file at that path."""
    if source in RECIPES:
        return from_text(recipe_files.read(BUILTIN / f"{source}.yaml"), source)
    if not is_file_name(source):
        raise UserError(
            f"there is no recipe {source[:MAX_SHOWN]!r}: take one of {', '.join(RECIPES)}, or a file, my-recipe.yaml"
        )
    path = Path(source).expanduser()
    # "my recipe (2).yaml" is named my-recipe-2.
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", path.stem).strip("-_.")[:64]
    return from_text(recipe_files.read(path), name or "custom", path.parent)


def is_file_name(source: str) -> bool:
    """Whether a recipe is named by a file."""
    return source.endswith((".yaml", ".yml")) or "/" in source


def from_text(text: RecipeText, name: str, folder: Path | None = None, depth: int = 0) -> Recipe:
    """The recipe that a text says what differs from. `name`: of a text that sets no name. `folder`: of files that it extends."""
    # In this order, so that a `name` in the file wins.
    changes = {"name": name, **text.values}
    extends = changes.pop("extends", "tiny")
    # tiny.yaml is empty but for comments and extends nothing: the defaults of the configs are tiny.
    is_built_in = text.origin == str(BUILTIN / "tiny.yaml")
    base = Recipe() if is_built_in else _extended(extends, text.place(("extends",)), folder, depth)
    return _validated(_overlaid(base, changes), text)


def _extended(extends: object, place: str, folder: Path | None, depth: int) -> Recipe:
    """The recipe that is extended: one of the package, or a file next to the one that extends it."""
    if extends in RECIPES:
        return load(str(extends))
    if folder is None or not isinstance(extends, str) or not is_file_name(extends):
        alternative = "" if folder is None else ", or a file, other-recipe.yaml"
        raise UserError(
            f"{place}: extends: there is no recipe {shown(extends)}: take one of {', '.join(RECIPES)}{alternative}"
        )
    if depth == MAX_EXTENDS:
        raise UserError(f"{place}: extends: {MAX_EXTENDS} files extend each other, in a circle perhaps: extend fewer")
    path = folder / Path(extends).expanduser()
    return from_text(recipe_files.read(path), "custom", path.parent, depth + 1)


def overlaid(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """The recipe with changes laid over it, by field and field of a field. Raises UserError."""
    return _validated(_overlaid(recipe, changes))


def _overlaid(config: Config, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a config with changes; a config without changes (`ingest:` alone on a line) stays as it is."""
    values = config.model_dump()
    for name, value in changes.items():
        # A name that is no field is kept, and validation then reports it with its line.
        part: Any = getattr(config, name, None) if name in type(config).model_fields else None
        # A mapping of weights (pretrain.mixture) is a value and is replaced whole; only configs are merged.
        is_part = isinstance(part, Config) and (value is None or isinstance(value, Mapping))
        values[name] = _overlaid(part, value or {}) if is_part else value
    return values


def _validated(values: Mapping[str, Any], text: RecipeText | None = None) -> Recipe:
    """Raises UserError for the first wrong value, with its place in a file."""
    return recipe_files.validated(Recipe, values, text, _meant)


def _meant(path: KeyPath) -> str:
    """What an unknown field may have been meant to be: a field of a similar name there, or one of that name elsewhere."""
    here = [name for *parents, name in _field_paths() if tuple(parents) == path[:-1]]
    # 0.6 is difflib's default: learning_rte finds learning_rate, a random word finds nothing.
    similar = difflib.get_close_matches(path[-1], here, 1, 0.6)
    elsewhere = [".".join(other) for other in _field_paths() if other[-1] == path[-1]]
    found = similar or elsewhere[:1]
    return f"; did you mean {found[0]}?" if found else ""


def _field_paths(config: Config | None = None, parents: KeyPath = ()) -> Iterator[KeyPath]:
    """The paths of all fields of a recipe."""
    config = Recipe() if config is None else config
    for name in type(config).model_fields:
        yield (*parents, name)
        if isinstance(part := getattr(config, name), Config):
            yield from _field_paths(part, (*parents, name))


def _start_from(values: dict[str, Any], folder: str) -> None:
    """Take the model in a folder as it is, with its vocabulary; train it with learning rates that suit a trained model.

    Raises UserError where it is not a model that is read here, before a stage runs in vain.
    """
    from model.network.huggingface import read_config

    if not Path(folder, "config.json").is_file():
        raise UserError(
            f"there is no model in {folder!r}: fetch one, `hf download Qwen/Qwen3-0.6B`, and give its folder"
        )
    read_config(Path(folder))
    values["tokenizer"]["vocabulary"] = f"{folder.rstrip('/')}/tokenizer.json"
    values["pretrain"]["initial_model"] = folder
    # The model is taken as it is, unless --set gives steps: settings are applied after this.
    values["pretrain"]["train"]["num_steps"] = 0
    # The licence of the weights is that of their makers.
    values["export"]["license"] = "other"
    values["export"]["other_name_reply"] = ""  # suits the names of the sample web
    values["sft"]["starts_from_letters"] = False  # its own tokens that end a text are better
    values["rlhf"]["gain_rate_factor"] = 0.0  # the rates above are those of all weights
    # DPO's own loss and beta (Rafailov et al. 2023): the sample's is for a model that makes a few kinds of replies.
    values["rlhf"]["dpo"] |= {"is_reference_free": False, "beta": 0.1}
    for stage, rate in BASE_MODEL_RATES.items():
        # The rates above are AdamW's; Muon's have another scale.
        values[stage]["optim"] |= {"optimizer": "adamw", "learning_rate": rate}


def _set(values: dict[str, Any], setting: str) -> None:
    """Change one setting, STAGE.FIELD=VALUE; VALUE is JSON, or text. Raises UserError where there is no such field."""
    name, equals, text = setting.partition("=")
    path = tuple(name.split("."))
    if not equals or (len(path) == 1 and name not in values):
        raise UserError(
            f"setting {setting!r} is not of the form STAGE.FIELD=VALUE, such as filter.language_threshold=0.7"
        )
    # Down the plain values of the recipe: a field that is misspelt is reported with the path up to it.
    for number, part in enumerate(path):
        if not isinstance(values, dict) or part not in values:
            unknown = path[: number + 1]
            raise UserError(f"setting {setting!r}: there is no field {'.'.join(unknown)}{_meant(unknown)}")
        if number < len(path) - 1:
            values = values[part]
    try:
        values[path[-1]] = json.loads(text)
    # ValueError: no JSON, or an integer of more than 4,300 digits, which Python does not read.
    except (ValueError, RecursionError):
        values[path[-1]] = text
