"""Whether branches of `oneOf` are apart: no output that the grammar of one writes is valid by another.

Reads and writes nothing. `oneOf` allows what exactly one branch allows, and a grammar has no "not". So what is not proven to be apart counts as
an overlap, which json_schema.py refuses: by types, values, lengths, and properties that one branch requires and another does not know or
gives other values. The grammar writes the properties of a schema and no others, which makes more branches apart than their schemas alone.

The schemas are those that json_schema.py has compiled, and so well formed.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

Schema = Mapping[str, Any]
MAX_COMPARISONS = 20_000
NUMBERS = {"integer", "number"}


class Overlaps:
    """Comparisons of schemas. `resolve`: the schema of a $ref; `types_of`: the types that its grammar writes; `is_of_type`: of a value."""

    def __init__(
        self,
        resolve: Callable[[Any], Any],
        types_of: Callable[[Schema], list[str]],
        is_of_type: Callable[[Any, str], bool],
    ) -> None:
        self.resolve, self.types_of, self.is_of_type = resolve, types_of, is_of_type
        self.num_comparisons = 0

    def first(self, branches: Sequence[Any]) -> tuple[int, int] | None:
        """The numbers of the first two branches that may allow the same, from 1 on."""
        for place, one in enumerate(branches):
            for number, other in enumerate(branches[:place]):
                if not self.are_apart(one, other):
                    return number + 1, place + 1
        return None

    def are_apart(self, one: Any, other: Any) -> bool:
        """Whether no output of one schema is valid by the other."""
        self.num_comparisons += 1
        # A schema that refers to itself ends here too.
        if self.num_comparisons > MAX_COMPARISONS:
            return False
        one, other = self._plain(one), self._plain(other)
        if one in (True, {}) or other in (True, {}):
            return False
        for here, there in ((one, other), (other, one)):
            if branches := here.get("anyOf") or here.get("oneOf"):
                return all(self.are_apart(branch, there) for branch in branches)
        for here, there in ((one, other), (other, one)):
            if (values := values_of(here)) is not None:
                return not any(self._may_allow(there, value) for value in values)
        return all(self._are_apart_as(name, one, other) for name in self._shared_types(one, other))

    def _plain(self, schema: Any) -> Any:
        while isinstance(schema, Mapping) and "$ref" in schema and self.num_comparisons <= MAX_COMPARISONS:
            self.num_comparisons += 1
            schema = self.resolve(schema["$ref"])
        return schema

    def _may_allow(self, schema: Schema, value: Any) -> bool:
        if (values := values_of(schema)) is not None:
            return any(is_equal(value, one) for one in values)
        return any(self.is_of_type(value, name) for name in self._valid_types(schema))

    def _valid_types(self, schema: Schema) -> set[str]:
        # With properties and no type, the grammar writes objects, but whatever is no object is valid as well.
        return set(self.types_of(schema if "type" in schema else {}))

    def _shared_types(self, one: Schema, other: Schema) -> set[str]:
        """The types that the grammar of one schema writes and the other allows."""
        found: set[str] = set()
        for here, there in ((one, other), (other, one)):
            written, valid = set(self.types_of(here)), self._valid_types(there)
            # Every integer is a number.
            found |= written & valid | ({"number"} if written & NUMBERS and valid & NUMBERS else set())
        return found

    def _are_apart_as(self, name: str, one: Schema, other: Schema) -> bool:
        """Whether no value of a type is allowed by both."""
        if name == "object":
            return self._is_object_apart(one, other) and self._is_object_apart(other, one)
        least, most = {"string": ("minLength", "maxLength"), "array": ("minItems", "maxItems")}.get(name, ("", ""))
        if not least:
            return False
        pairs = ((one, other), (other, one))
        if any(most in here and here[most] < there.get(least, 0) for here, there in pairs):
            return True
        has_items = name == "array" and any(here.get(least, 0) > 0 for here in (one, other))
        return has_items and self.are_apart(one.get("items", True), other.get("items", True))

    def _is_object_apart(self, written: Schema, other: Schema) -> bool:
        """Whether no object that the grammar of one schema writes is valid by another."""
        ours, theirs = written.get("properties", {}), other.get("properties", {})
        if not ours:
            return False  # it writes any properties
        needed, theirs_needed = set(written.get("required", ())), set(other.get("required", ()))
        if theirs_needed - set(ours):
            return True
        if other.get("additionalProperties") is False and needed - set(theirs):
            return True
        both = (needed | theirs_needed) & set(ours) & set(theirs)
        return any(self.are_apart(ours[name], theirs[name]) for name in sorted(both))


def values_of(schema: Schema) -> list[Any] | None:
    """The values of const or enum; None where a schema has neither."""
    if "const" in schema:
        return [schema["const"]]
    found: list[Any] | None = schema.get("enum")
    return found


def is_equal(one: Any, other: Any) -> bool:
    """As JSON has it: 1 is 1.0 and not true."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)
