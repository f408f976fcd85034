"""Forms: a stage's settings for a person to change in the Prefect UI. Reads and writes nothing.

A form has every field of a config with its title, description and bounds, and no value: a field that is left empty keeps the value
of the chosen recipe. Only what was filled in is sent, so that a form does not override a recipe with defaults.
"""

from copy import copy
from typing import Any

from pydantic import BaseModel, ConfigDict, create_model, model_serializer
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from model.config import Config


class Form(BaseModel):
    """The fields that a person filled in."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_serializer(mode="plain")
    def filled(self) -> dict[str, Any]:
        """The filled fields alone, by name."""
        return {
            name: value.filled() if isinstance(value, Form) else value
            for name in sorted(self.model_fields_set)
            for value in [getattr(self, name)]
        }


def form_of(example: Config) -> type[Form]:
    """The form of a config, with forms for the configs in it. Descriptions state the example's values: those of the recipe tiny."""
    kind = type(example)
    fields: dict[str, Any] = {name: _empty(info, getattr(example, name)) for name, info in kind.model_fields.items()}
    return create_model(f"{kind.__name__}Form", __base__=Form, __doc__=kind.__doc__, **fields)


def _empty(info: FieldInfo, value: object) -> tuple[Any, FieldInfo]:
    """The type and the field without a default: it is neither required nor filled in."""
    field, kind = copy(info), info.annotation
    field.default, field.default_factory = PydanticUndefined, _nothing
    if isinstance(value, Config) and isinstance(kind, type):
        field.annotation = form_of(value)
    elif value not in ("", [], {}, (), None):
        field.description = f"{info.description} The recipe tiny has {value!r}."
    return field.annotation, field


def _nothing() -> None:
    return None
