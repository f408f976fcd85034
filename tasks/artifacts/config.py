"""The settings of a stage, and the fingerprint that names its result before it is computed.

A fingerprint is a hash of the stage, its version, the config fields that shape the result, and the fingerprints of the inputs (the
idea of Nix derivations, and of marin's artifacts). Where and how a stage runs is not in it. Reads and writes nothing.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo


def _is_runtime(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("runtime"))


def identity(config: BaseModel) -> dict[str, Any]:
    """The fields of `config` that shape the result, as JSON values."""
    values = config.model_dump(mode="json")
    # Recursive, because a nested config has runtime fields too: a number of workers in it must not name another artifact.
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if _is_runtime(info):
            del values[name]
        elif isinstance(value, BaseModel):
            values[name] = identity(value)
        elif isinstance(value, list) and all(isinstance(item, BaseModel) for item in value):
            values[name] = list(map(identity, value))
    return values


def fingerprint(stage: str, version: int, config: BaseModel, inputs: Mapping[str, str]) -> str:
    """The name of what `stage` makes of `inputs` (role to fingerprint): 16 hexadecimal digits."""
    # The inputs by fingerprint, never by the digest of their bytes: a name has to be known before anything is made. Whether the bytes
    # are still those that were read is another question, which `up_to_date` asks of the manifest.
    parts = {"stage": stage, "version": version, "config": identity(config), "inputs": dict(inputs)}
    # sort_keys: the order in which a recipe names its settings shapes nothing. 16 digits are 64 bits: among a million artifacts two
    # are equal by chance with a probability of 3 in 10^8.
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]
