"""Forms: a stage's settings for a person to change in the Prefect UI. Reads and writes nothing.

A form has every field of a config with its title, description and bounds, and no value: a field that is left empty keeps the value
of the chosen recipe. Only what was filled in is sent, so that a form does not override a recipe with defaults.

A config of a hundred fields would be a form of ten screens. So the settings that a person changes most, BASIC, are at the top, and the
others in sections that are folded. Prefect's UI (3.8.8) folds nothing by itself: it draws an object with all its fields. A union it
draws as a choice with the form of the chosen type alone, and begins with the first. A section is therefore a union of an empty object
and of its fields.
"""

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any, ClassVar

from annotated_types import Ge, Gt, Le, Lt, MultipleOf
from pydantic import BaseModel, ConfigDict, Field, create_model, model_serializer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from model.config import Config

# By the name of the config: the fields that are shown at once. Of a config that is not listed all are.
BASIC: dict[str, tuple[str, ...]] = {
    "IngestConfig": ("inputs", "max_files", "extractor", "languages", "sample", "num_workers"),
    "FilterConfig": ("languages", "language_threshold", "pii_action", "num_workers"),
    "DedupConfig": ("jaccard_threshold", "against", "keep_signatures", "num_workers"),
    "TokenizerConfig": ("vocab_size", "vocabulary"),
    "PretrainConfig": ("initial_model", "model", "train", "optim"),
    "ProbeConfig": ("questions", "max_questions", "num_samples", "known_fraction", "unknown_fraction"),
    "SFTConfig": ("conversations", "num_conversations", "train", "optim"),
    "RewardConfig": ("preferences", "num_pairs", "train", "optim"),
    "RLHFConfig": ("algorithm", "prompts", "num_prompts", "train", "optim"),
    "EvaluateConfig": ("questions", "max_questions"),
    "ModelShape": ("num_layers", "width", "num_heads"),
    "TrainConfig": ("num_steps", "batch_tokens", "sequence_tokens", "num_ranks"),
    "RLConfig": ("num_steps", "prompts_per_step", "completions_per_prompt", "num_ranks"),
    "OptimConfig": ("learning_rate",),
}
# Sections by a part of the fields' names. What no section takes is in the last one, ADVANCED.
SECTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "FilterConfig": {
        "gopher_rules": ("_gopher_", "stop_words"),
        "c4_rules": ("_c4_",),
        "fineweb_rules": ("_fineweb_",),
        "addresses": ("block", "suspicious"),
        "personal_data": ("pii",),
        "quality_classifier": ("quality",),
    },
    "IngestConfig": {"addresses": ("block",), "limits": ("max_",)},
}
ADVANCED = "advanced"
MAX_SHOWN, MAX_CONTENTS = 60, 120  # characters in a description: of a value, of the names in a section


class Form(BaseModel):
    """The fields that a person filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    sections: ClassVar[Mapping[str, type["Form"]]] = {}  # of fields that belong to this form's config
    parts: ClassVar[Mapping[str, type["Form"]]] = {}  # of configs in this form's config

    @model_serializer(mode="plain")
    def filled(self) -> dict[str, Any]:
        """The filled fields alone, by the names that they have in the config."""
        fields: dict[str, Any] = {}
        for name in sorted(self.model_fields_set):
            value = getattr(self, name)
            part = value.filled() if isinstance(value, Form) else value
            fields |= part if name in self.sections else {name: part}
        return fields

    @classmethod
    def grouped(cls, changes: Mapping[str, Any]) -> dict[str, Any]:
        """The parameter of a deployment that fills these fields of the config in: the inverse of `filled`."""
        found: dict[str, Any] = {}
        for name in cls.model_fields:
            if name in cls.sections:
                if inner := cls.sections[name].grouped(changes):
                    found[name] = inner
            elif name in changes:
                found[name] = cls.parts[name].grouped(changes[name]) if name in cls.parts else changes[name]
        return found


class Unchanged(Form, title="as in the recipe", json_schema_extra=lambda schema: schema.pop("description")):
    """A section that is folded: it changes nothing. The UI would print this sentence in each."""


def form_of(examples: Mapping[str, Config]) -> type[Form]:
    """The form of a config, with forms for the configs in it. `examples`: the config by recipe, for the descriptions."""
    kind = type(next(iter(examples.values())))
    basic = BASIC.get(kind.__name__, tuple(kind.model_fields))
    named = SECTIONS.get(kind.__name__, {})
    members: dict[str, list[str]] = {name: [] for name in (*named, ADVANCED)}
    for field in kind.model_fields:
        if field not in basic:
            fits = (name for name, marks in named.items() if any(mark in field for mark in marks))
            members[next(fits, ADVANCED)].append(field)
    # Its title names the choice that unfolds the section.
    sections = {
        name: _form(examples, f"{kind.__name__}_{name}", "changed", fields)
        for name, fields in members.items()
        if fields
    }
    folded = {
        name: (
            Unchanged | section,
            Field(default_factory=_nothing, title=_title(name), description=_contents(members[name])),
        )
        for name, section in sections.items()
    }
    name = f"{kind.__name__}Form"
    return _form(examples, name, name, [field for field in basic if field in kind.model_fields], folded, sections)


def difference(config: Config, base: Config) -> dict[str, Any]:
    """The fields of a config, as JSON values, that differ from those of `base`; of a config in it likewise."""
    ours, theirs = config.model_dump(mode="json"), base.model_dump(mode="json")
    found: dict[str, Any] = {}
    for name, value in ours.items():
        if value != theirs[name]:
            part, other = getattr(config, name), getattr(base, name)
            both = isinstance(part, Config) and type(part) is type(other)
            found[name] = difference(part, other) if both else value
    return found


def offer_artifacts(schema: dict[str, Any], choices: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The schema of a flow's parameters with a list to choose from. `choices`: ids by parameter, those that exist now."""
    # The field to type in comes first, since the UI draws a value that is not on the list, of a run that is copied, as an empty choice.
    offered = {
        role: {
            "anyOf": [
                {"type": "string", "title": "by name"},
                {"type": "string", "enum": [*ids], "title": "from a list"},
            ]
        }
        for role, ids in choices.items()
    }
    changed = {
        name: {key: value for key, value in field.items() if name not in offered or key != "type"}
        | offered.get(name, {})
        for name, field in schema["properties"].items()
    }
    return schema | {"properties": changed}


def _form(
    examples: Mapping[str, Config],
    name: str,
    title: str,
    fields: Iterable[str],
    folded: Mapping[str, Any] = {},
    sections: Mapping[str, type[Form]] = {},
) -> type[Form]:
    """The form of some fields of a config, and below them the folded sections."""
    first = next(iter(examples.values()))
    parts: dict[str, type[Form]] = {}
    made: dict[str, Any] = {}
    for field in fields:
        values = {recipe: getattr(config, field) for recipe, config in examples.items()}
        if all(isinstance(value, Config) for value in values.values()):
            parts[field] = form_of(values)
        made[field] = _empty(field, type(first).model_fields[field], values, parts.get(field))
    form: type[Form] = create_model(
        name, __base__=Form, __doc__=type(first).__doc__, __cls_kwargs__={"title": title}, **made, **folded
    )
    form.sections, form.parts = dict(sections), parts
    return form


def _empty(name: str, info: FieldInfo, values: Mapping[str, object], part: type[Form] | None) -> tuple[Any, FieldInfo]:
    """The type and the field without a default: it is neither required nor filled in."""
    field = copy(info)
    field.default, field.default_factory = PydanticUndefined, _nothing
    if part:
        field.annotation, field.title = part, info.title or _title(name)
    else:
        field.description = " ".join(filter(None, (info.description, _bounds(info), _in_recipes(values))))
    return field.annotation, field


def _bounds(info: FieldInfo) -> str:
    """What a number may be, in words: the UI shows no bounds, and refuses a value only when the form is sent."""
    words = [text for constraint in info.metadata if (text := _bound(constraint))]
    return f"{', '.join(words).capitalize()}." if words else ""


def _bound(constraint: object) -> str:
    match constraint:
        case Ge(ge):
            return f"at least {ge:,}"
        case Gt(gt):
            return f"above {gt:,}"
        case Le(le):
            return f"at most {le:,}"
        case Lt(lt):
            return f"below {lt:,}"
        case MultipleOf(multiple_of):
            return f"a multiple of {multiple_of}"
    return ""


def _in_recipes(values: Mapping[str, object]) -> str:
    """The value of each recipe; nothing where it is empty in all."""
    texts = {recipe: _shown(value) for recipe, value in values.items()}
    if len(set(texts.values())) == 1:
        return f"Recipes have {text}." if (text := next(iter(texts.values()))) != "none" else ""
    return f"Recipes: {', '.join(f'{recipe} {text}' for recipe, text in texts.items())}."


def _shown(value: object) -> str:
    if value in ("", [], {}, (), None):
        return "none"
    return textwrap.shorten(str(value), MAX_SHOWN, placeholder=" ...")


def _contents(fields: Sequence[str]) -> str:
    """How many fields a section has, and the first names."""
    return f"{len(fields)} of its settings: {textwrap.shorten(', '.join(fields), MAX_CONTENTS, placeholder=' ...')}"


def _title(name: str) -> str:
    return name.replace("_", " ").capitalize().replace("Fineweb", "FineWeb")


def _nothing() -> None:
    return None
