"""A JSON schema as a grammar: every output that it allows is valid, and has its properties in the order of the schema.

Reads and writes nothing. Supported is what the grammar can guarantee: types, enum, const, properties and required, items, lengths, anyOf, oneOf
of branches that are apart, $ref to the schema's own definitions. What would limit the output further (pattern, minimum ...) is refused,
and not ignored.
"""

import json
from collections.abc import Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

from model.serve.errors import ApiError
from model.serve.grammar import Alt, Chars, Node, Repeat, Seq, Text, optional
from model.serve.schema_overlap import Overlaps

MAX_NODES = 2_000
MAX_DEPTH = 12  # of nested schemas, references among them
ANY_DEPTH = 4  # of nested values where the schema allows any
MAX_PROPERTIES = 128  # of an object
MAX_COUNT = 512  # of minLength, maxItems and the like: each count is a state
KNOWN = {
    "type", "enum", "const", "properties", "required", "additionalProperties", "items", "minItems", "maxItems", "minLength",
    "maxLength", "anyOf", "oneOf", "$ref", "$defs", "definitions",
}  # fmt: skip
# These describe, and limit nothing.
DESCRIPTIONS = {
    "title",
    "description",
    "default",
    "examples",
    "$schema",
    "$id",
    "$comment",
    "format",
    "strict",
    "discriminator",
}
TYPES: dict[str, type | tuple[type, ...]] = {
    "object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool, "null": type(None),
}  # fmt: skip
# Keywords that say all of a value, and what may stand next to them.
HEADS = ("$ref", "const", "enum", "anyOf", "oneOf")
WITH_ALL = {"$defs", "definitions"}
WITH_VALUES = {"const", "enum", "type"} | WITH_ALL


def _byte_range(first: int, last: int) -> Chars:
    return Chars(frozenset(range(first, last + 1)))


_CONTINUATION, _HEX = _byte_range(0x80, 0xBF), Chars(frozenset(b"0123456789abcdefABCDEF"))
# A character of UTF-8 (Unicode 17, table 3-7), without what JSON has escapes for.
_PLAIN = Alt(
    (
        Chars(frozenset(range(0x20, 0x80)) - frozenset(b'"\\\x7f')),
        Seq((_byte_range(0xC2, 0xDF), _CONTINUATION)),
        Seq((_byte_range(0xE0, 0xE0), _byte_range(0xA0, 0xBF), _CONTINUATION)),
        Seq((Chars(frozenset({*range(0xE1, 0xED), 0xEE, 0xEF})), _CONTINUATION, _CONTINUATION)),
        Seq((_byte_range(0xED, 0xED), _byte_range(0x80, 0x9F), _CONTINUATION)),
        Seq((_byte_range(0xF0, 0xF0), _byte_range(0x90, 0xBF), _CONTINUATION, _CONTINUATION)),
        Seq((_byte_range(0xF1, 0xF3), _CONTINUATION, _CONTINUATION, _CONTINUATION)),
        Seq((_byte_range(0xF4, 0xF4), _byte_range(0x80, 0x8F), _CONTINUATION, _CONTINUATION)),
    )
)
# \u without surrogates, which would have to come in pairs.
_CODE = Alt(
    (
        Seq((Chars(frozenset(b"0123456789abcefABCEF")), _HEX, _HEX, _HEX)),
        Seq((Chars(frozenset(b"dD")), Chars(frozenset(b"01234567")), _HEX, _HEX)),
    )
)
_ESCAPED = Seq((Text(b"\\"), Alt((Chars(frozenset(b'"\\/bfnrt')), Seq((Text(b"u"), _CODE))))))
_CHARACTER = Alt((_PLAIN, _ESCAPED))
_DIGIT = Chars(frozenset(b"0123456789"))
# Bounded: a number with endless digits would never end.
_INTEGER = Seq((optional(Text(b"-")), Alt((Text(b"0"), Seq((Chars(frozenset(b"123456789")), Repeat(_DIGIT, 0, 15)))))))
_NUMBER = Seq(
    (
        _INTEGER,
        optional(Seq((Text(b"."), Repeat(_DIGIT, 1, 15)))),
        optional(Seq((Chars(frozenset(b"eE")), optional(Chars(frozenset(b"+-"))), Repeat(_DIGIT, 1, 2)))),
    )
)
_SPACE = optional(Text(b" "))
_COMMA, _COLON = Seq((Text(b","), _SPACE)), Seq((Text(b":"), _SPACE))


def choices(texts: Sequence[str]) -> Node:
    """One of several texts."""
    return _tree(sorted({text.encode("utf-8", "replace") for text in texts}))


def _tree(texts: Sequence[bytes]) -> Node:
    """Sorted texts, with what several begin with only once: a state of the grammar then has few places."""
    if len(texts) == 1:
        return Text(texts[0])
    groups = [list(group) for _, group in groupby(texts, lambda text: text[:1])]
    if len(groups) > 1:
        return Alt(tuple(map(_tree, groups)))
    # What the first and the last of sorted texts begin with, all do.
    first, last = texts[0], texts[-1]
    length = next((place for place, byte in enumerate(first) if byte != last[place]), len(first))
    return Seq((Text(first[:length]), _tree([text[length:] for text in texts])))


@cache
def any_value(depth: int = ANY_DEPTH) -> Node:
    """Any JSON, nested at most `depth` deep."""
    parts: list[Node] = [_string(0, None), _NUMBER, choices(["true", "false", "null"])]
    if depth:
        below = any_value(depth - 1)
        parts += [_object_of(below), _array(below, 0, None)]
    return Alt(tuple(parts))


def any_object() -> Node:
    """Any JSON object."""
    return _object_of(any_value(ANY_DEPTH - 1))


def schema_grammar(schema: Mapping[str, Any], param: str) -> Node:
    """The grammar of a schema. Raises ApiError that names `param` where a schema is wrong or asks for what is not supported."""
    return _Compiler(schema, param).compile(schema, 0)


class _Compiler:
    def __init__(self, root: Mapping[str, Any], param: str) -> None:
        self.root, self.param, self.num_nodes = root, param, 0
        self.overlaps = Overlaps(self._resolve, self._types, _is_of_type)

    def _refuse(self, reason: str) -> ApiError:
        return ApiError(400, f"{self.param}: {reason}", self.param)

    def compile(self, schema: Any, depth: int) -> Node:
        self.num_nodes += 1
        if schema is True or schema == {}:
            return any_value()
        if not isinstance(schema, Mapping):
            raise self._refuse("a schema is an object")
        if depth > MAX_DEPTH or self.num_nodes > MAX_NODES:
            raise self._refuse(f"the schema is larger than {MAX_NODES} parts, or nested deeper than {MAX_DEPTH}")
        if unknown := sorted(map(str, schema.keys() - KNOWN - DESCRIPTIONS)):
            raise self._refuse(f"the keyword {unknown[0][:40]!r} is not supported")
        head = next((name for name in HEADS if name in schema), "")
        if not head:
            return Alt(tuple(self._of_type(name, schema, depth) for name in self._types(schema)))
        allowed = WITH_VALUES if head in ("const", "enum") else WITH_ALL
        # Both would have to hold, and a grammar has no "and".
        if others := sorted(schema.keys() - allowed - DESCRIPTIONS - {head}):
            raise self._refuse(f"{others[0]!r} next to {head!r} is not supported: keep one of them")
        if head == "$ref":
            return self.compile(self._resolve(schema["$ref"]), depth + 1)
        if head in ("const", "enum"):
            return self._values(schema)
        branches = self._list(schema[head], head)
        compiled = Alt(tuple(self.compile(branch, depth + 1) for branch in branches))
        if head == "oneOf" and (pair := self.overlaps.first(branches)):
            raise self._refuse(
                f"the branches {pair[0]} and {pair[1]} of oneOf may allow the same, which would be invalid: use anyOf, or a required "
                "property that has another const in each"
            )
        return compiled

    def _types(self, schema: Mapping[str, Any]) -> list[str]:
        types = schema.get("type", "object" if "properties" in schema else list(TYPES))
        names = types if isinstance(types, list) else [types]
        if not names or any(not isinstance(name, str) or name not in TYPES for name in names):
            raise self._refuse(f"type {str(types)[:40]!r} is unknown; use {', '.join(TYPES)}")
        return names

    def _of_type(self, name: str, schema: Mapping[str, Any], depth: int) -> Node:
        if name == "object":
            return self._object(schema, depth)
        if name == "array":
            items = self.compile(schema.get("items", True), depth + 1)
            return _array(items, *self._counts(schema, "minItems", "maxItems"))
        if name == "string":
            return _string(*self._counts(schema, "minLength", "maxLength"))
        simple = {"number": _NUMBER, "integer": _INTEGER, "boolean": choices(["true", "false"]), "null": Text(b"null")}
        return simple[name]

    def _counts(self, schema: Mapping[str, Any], least: str, most: str) -> tuple[int, int | None]:
        low, high = schema.get(least, 0), schema.get(most)
        for name, value in ((least, low), (most, 0 if high is None else high)):
            if type(value) is not int or not 0 <= value <= MAX_COUNT:
                raise self._refuse(f"{name} must be a whole number from 0 to {MAX_COUNT}")
        if high is not None and high < low:
            raise self._refuse(f"{most} is less than {least}")
        return low, high

    def _object(self, schema: Mapping[str, Any], depth: int) -> Node:
        properties, required = schema.get("properties", {}), self._list(schema.get("required", []), "required")
        if not isinstance(properties, Mapping) or len(properties) > MAX_PROPERTIES:
            raise self._refuse(f"properties must be an object with at most {MAX_PROPERTIES} of them")
        if missing := [name for name in required if not isinstance(name, str) or name not in properties]:
            raise self._refuse(f"the required {str(missing[0])[:40]!r} is not among the properties")
        if not properties:
            more = schema.get("additionalProperties", True)
            return Text(b"{}") if more is False else _object_of(self.compile(more, depth + 1))
        members = [
            (Seq((_literal(name), _COLON, self.compile(value, depth + 1))), name in required)
            for name, value in properties.items()
        ]
        # From the last to the first: what may follow when another member came before, and when none has.
        after, alone = Text(b""), Text(b"")
        for member, is_required in reversed(members):
            with_comma, first = Seq((_COMMA, member, after)), Seq((member, after))
            after, alone = (with_comma, first) if is_required else (Alt((with_comma, after)), Alt((first, alone)))  # type: ignore[assignment]
        return Seq((Text(b"{"), alone, Text(b"}")))

    def _values(self, schema: Mapping[str, Any]) -> Node:
        """The values that const, enum and type all allow, as they are written."""
        types = self._types(schema)
        values = self._list(schema["enum"], "enum") if "enum" in schema else [schema["const"]]
        texts = [_json(value) for value in values if any(_is_of_type(value, name) for name in types)]
        if "const" in schema:
            texts = [text for text in texts if text == _json(schema["const"])]
        if not texts:
            raise self._refuse("const, enum and type together allow no value")
        return choices(texts)

    def _list(self, values: Any, name: str) -> list[Any]:
        if not isinstance(values, list) or (not values and name != "required"):
            raise self._refuse(f"{name} must be a list that is not empty")
        self.num_nodes += len(values)
        return values

    def _resolve(self, reference: Any) -> Any:
        place: Any = self.root
        names = str(reference).split("/")
        if names[0] != "#":
            raise self._refuse("only references into the schema itself (#/$defs/NAME) are supported")
        for name in names[1:]:
            if not isinstance(place, Mapping) or name not in place:
                raise self._refuse(f"there is no {str(reference)[:80]!r} in the schema")
            place = place[name]
        return place


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _is_of_type(value: Any, name: str) -> bool:
    # In Python True is an int; JSON's 1.0 is an integer.
    if name == "integer" and isinstance(value, float):
        return value.is_integer()
    return isinstance(value, TYPES[name]) and (name == "boolean" or not isinstance(value, bool))


def _literal(text: str) -> Text:
    return Text(_json(text).encode("utf-8", "replace"))


def _string(least: int, most: int | None) -> Node:
    return Seq((Text(b'"'), Repeat(_CHARACTER, least, most), Text(b'"')))


def _array(item: Node, least: int, most: int | None) -> Node:
    if most == 0:
        return Text(b"[]")
    more = Repeat(Seq((_COMMA, item)), max(0, least - 1), None if most is None else most - 1)
    whole = Seq((Text(b"["), item, more, Text(b"]")))
    return whole if least else Alt((Text(b"[]"), whole))


def _object_of(value: Node) -> Node:
    member = Seq((_string(0, None), _COLON, value))
    return Alt((Text(b"{}"), Seq((Text(b"{"), member, Repeat(Seq((_COMMA, member))), Text(b"}")))))
