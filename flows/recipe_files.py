"""Recipe files: settings as YAML, read with the line of every value, and written with a comment for every field.

`infra/resources.yaml` is read by the same rules.

Reads YAML 1.2's core: mappings, lists, and plain or quoted scalars. `no` and `2024-05-20` are texts, `1e-3` is a number. A file may
come from a stranger: its size and depth are bounded, and aliases, tags and repeated keys are refused, since an alias in an alias
needs a few lines to name a billion values. Every error is one line with the file and the line number.
"""

import difflib
import json
import math
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from model.config import Config
from model.errors import UserError

MAX_BYTES = 200_000  # a complete recipe has some 30,000
# Settings lie three or four deep. PyYAML's composer and `_value` recurse: without a bound a file of brackets would end
# in a RecursionError.
MAX_DEPTH = 12
MAX_SHOWN = 80  # characters of a wrong value
COMMENT_COLUMNS = 120
KEYWORDS: dict[str, object] = {"": None, "~": None, "null": None, "true": True, "false": False}
# At most 31 digits: Python refuses to read integers beyond 4,300 digits, with an error that has no line number.
INTEGER = re.compile(r"[-+]?[0-9][0-9_]{0,30}")
# YAML 1.1, which PyYAML resolves by itself, wants a point and a sign in an exponent and reads 1e-3 as text; 1.2 and
# people do not.
FLOAT = re.compile(r"[-+]?(\.[0-9]{1,400}|[0-9]{1,400}(\.[0-9]{0,400})?)([eE][-+]?[0-9]{1,3})?")
PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./-]*")  # a text that needs no quotes

# YAML breaks lines at some of these and refuses the others
UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff\ud800-\udfff]")

KeyPath = tuple[str, ...]
C = TypeVar("C", bound=Config)


class RecipeText(NamedTuple):
    """The settings of one recipe file. `lines`: the line of each key and list item. `origin`: the name of the file, for messages."""

    values: dict[str, Any]
    lines: dict[KeyPath, int]
    origin: str

    def place(self, path: KeyPath) -> str:
        """FILE:LINE of a setting, or of the nearest setting around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.origin}:{self.lines.get(path, 1)}"


def read(path: Path) -> RecipeText:
    """The settings of a file. Raises UserError where it is not a recipe."""
    try:
        with path.open("rb") as stream:
            # Never more than the bound, so that /dev/zero or a weights file by mistake costs nothing.
            content = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise UserError(f"the file {str(path)[:200]!r} cannot be read ({error}): check the path") from None
    if len(content) > MAX_BYTES:
        raise UserError(f"{path}:1: the file is larger than {MAX_BYTES:,} bytes: it has only settings in it")
    try:
        # Editors on Windows put a byte order mark at the start.
        return parse(content.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: the file is not UTF-8: save it as UTF-8") from None


def parse(text: str, origin: str) -> RecipeText:
    """The settings of a text. Raises UserError where it is not a mapping, or uses what recipes do without."""
    # Again, since the text of a form does not pass through `read`.
    if len(text) > MAX_BYTES:
        raise UserError(f"{origin}:1: the text is longer than {MAX_BYTES:,} characters: it has only settings in it")
    try:
        _refuse_unsafe(text, origin)
        # compose and not load: only nodes have line numbers, and PyYAML's own resolution of scalars is that of YAML
        # 1.1.
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise UserError(
            f"{origin}:{mark.line + 1 if mark else 1}: not YAML: {error.problem or error.context}"
        ) from None
    except yaml.YAMLError as error:
        reason = str(error).partition("\n")[0]
        raise UserError(f"{origin}:1: not YAML: {reason}") from None
    lines: dict[KeyPath, int] = {}
    values = {} if node is None else _value(node, (), lines, origin)
    if not isinstance(values, dict):
        raise UserError(f"{origin}:1: settings are a mapping, such as `extends: tiny`, and this is not")
    return RecipeText(values, lines, origin)


def _refuse_unsafe(text: str, origin: str) -> None:
    """Aliases, anchors, tags and deep nesting, before anything is built of them."""
    depth = 0
    # Events are made as they are asked for, without a tree: a file that is refused here has built nothing.
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        place = f"{origin}:{event.start_mark.line + 1 if event.start_mark else 1}"
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise UserError(
                f"{place}: anchors (&) and aliases (*) are not read: write the value again, or quote the text"
            )
        if tag := getattr(event, "tag", None):
            raise UserError(f"{place}: tags (!) are not read: leave {str(tag)[:40]!r} out, or quote the text")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise UserError(f"{place}: nested more than {MAX_DEPTH} deep: no setting is")


def _value(node: yaml.Node, path: KeyPath, lines: dict[KeyPath, int], origin: str) -> Any:
    """The value of a node; notes the lines of its keys and items."""
    if isinstance(node, yaml.ScalarNode):
        return _scalar(node)
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            # PyYAML counts lines from 0, people and editors from 1.
            lines[(*path, str(number))] = item.start_mark.line + 1
        return [_value(item, (*path, str(number)), lines, origin) for number, item in enumerate(node.value)]
    assert isinstance(node, yaml.MappingNode)
    values: dict[str, Any] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise UserError(f"{origin}:{line}: a key is the name of a setting, not a list or mapping")
        name = str(key.value)
        # PyYAML takes the last of equal keys silently, and the first, often far above, would look as if it were in
        # force.
        if name in values:
            raise UserError(f"{origin}:{line}: {'.'.join((*path, name))} is set twice: remove one")
        lines[(*path, name)] = line
        values[name] = _value(value, (*path, name), lines, origin)
    return values


def _scalar(node: yaml.ScalarNode) -> object:
    """A quoted scalar is text. A plain one may be null, a boolean or a number."""
    text = str(node.value)
    if node.style is not None:
        return text
    if text in KEYWORDS:
        return KEYWORDS[text]
    if INTEGER.fullmatch(text):
        return int(text.replace("_", ""))
    # 1e999 is infinite and then no number: the field's type reports it with its text.
    number = float(text) if FLOAT.fullmatch(text) else math.inf
    return number if math.isfinite(number) else text


def validated(
    kind: type[C],
    values: Mapping[str, Any],
    text: RecipeText | None = None,
    meant: Callable[[KeyPath], str] | None = None,
) -> C:
    """The config that has these values. Raises UserError for the first wrong value, with its place in the file that it was read from.

    `meant`: what an unknown field may have been meant to be, as the end of a sentence.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        found = error.errors()
    # An unknown name is the cause where the one that was meant is missing.
    detail = next((one for one in found if one["type"] == "extra_forbidden"), found[0])
    # The items of lists are numbers in `loc` and texts in RecipeText.lines. Pydantic marks a wrong key of a mapping by a last part that no file has.
    path = tuple(str(part) for part in detail["loc"] if part != "[key]")
    if detail["type"] == "extra_forbidden":
        message = f"unknown field{meant(path) if meant else ''}"
    else:
        # The prefix is pydantic's, for errors that our validators raise.
        given = "" if isinstance(detail["input"], Mapping) else f" (given: {shown(detail['input'])})"
        message = detail["msg"].removeprefix("Value error, ") + given
    place = f"{text.place(path)}: " if text else ""
    # Without a path the error is of the whole file, such as two settings that do not fit each other.
    raise UserError(f"{place}{'.'.join(path)}: {message}" if path else f"{place}{message}")


def similar(name: str, names: Sequence[str]) -> str:
    """What an unknown name may have been meant to be, as the end of a sentence; empty where no name is similar."""
    found = difflib.get_close_matches(name, names, 1, 0.6)
    return f"; did you mean {found[0]}?" if found else ""


def shown(value: object) -> str:
    """A wrong value as a message shows it."""
    text = repr(value)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def write(config: Config, heading: str = "", *, comments: bool = True, leave_out: frozenset[str] = frozenset()) -> str:
    """A config as YAML that `parse` reads back. `comments`: the description of every field above it."""
    top = "".join(f"# {line}\n" for line in heading.splitlines())
    return top + "\n".join(_write_fields(config, 0, comments, leave_out)) + "\n"


def _write_fields(
    config: Config, indent: int, comments: bool, leave_out: frozenset[str] = frozenset()
) -> Iterator[str]:
    margin = " " * indent
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if name in leave_out:
            continue
        if comments:
            if indent == 0:
                yield ""
            yield from (f"{margin}# {line}" for line in _comment(info, value, COMMENT_COLUMNS - indent))
        if isinstance(value, Config):
            yield f"{margin}{name}:"
            yield from _write_fields(value, indent + 2, comments)
        else:
            yield f"{margin}{name}: {_flow(value)}"


def _comment(info: FieldInfo, value: object, columns: int) -> list[str]:
    text = info.description or (type(value).__doc__ if isinstance(value, Config) else "") or ""
    return textwrap.wrap(" ".join(text.split()), columns)


def _flow(value: object) -> str:
    """A value on one line: JSON, which is YAML too, and texts without quotes where they need none."""
    # A text such as `true` or `null` needs its quotes, or it would be read back as something else.
    if isinstance(value, str) and PLAIN.fullmatch(value) and value not in KEYWORDS:
        return value
    if isinstance(value, Config):
        # A config within a list or a mapping stands on its parent's line.
        value = value.model_dump(mode="json")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_quoted(str(key))}: {_flow(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_flow, value)) + "]"
    return _quoted(value)


def _quoted(value: object) -> str:
    """JSON with the characters escaped that YAML would not take as they are."""
    return UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", json.dumps(value, ensure_ascii=False))
