"""What the formats share: checked access to fields, and messages. Reads and writes nothing."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tasks.records.mistakes import shown

Values = Iterator[dict[str, Any]]
"""Records as JSON values, before their validation."""
Message = dict[str, Any]


class FormatError(ValueError):
    """A record that is not of its format: the field, what is wrong with it, and the remedy, in one line."""


def text_of(value: Mapping[str, Any], name: str, default: str | None = None) -> str:
    """A field that has to be a string. A null counts as absent."""
    found = default if value.get(name) is None else value[name]
    if not isinstance(found, str):
        problem = "missing" if found is None else shown(found)
        raise FormatError(f"{name} is {problem}; write it as a string")
    return found


def list_of(value: Mapping[str, Any], name: str) -> list[Any]:
    """A field that has to be a list."""
    found = value.get(name)
    if not isinstance(found, list):
        raise FormatError(f"{name} is {'missing' if found is None else shown(found)}; write it as a list")
    return found


def object_of(value: Any, name: str) -> Mapping[str, Any]:
    """A value that has to be an object."""
    if not isinstance(value, Mapping):
        raise FormatError(f"{name} is {shown(value)}; write it as a JSON object")
    return value


def parsed(text: str, name: str) -> Any:
    """The JSON value that a string holds, as some formats write tool calls."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        raise FormatError(f"{name} is {shown(text)}; write JSON in it") from None


def user(text: str) -> Message:
    """A user's turn."""
    return {"role": "user", "content": text}


def assistant(text: str, **fields: Any) -> Message:
    """An assistant's turn."""
    return {"role": "assistant", "content": text, **fields}


def with_system(text: str, messages: Iterable[Message]) -> list[Message]:
    """Messages after a system turn; without one where the text is blank."""
    return [*([{"role": "system", "content": text}] if text.strip() else []), *messages]


def with_tools(messages: list[Any], tools: Any) -> list[Any]:
    """Messages whose system turn ends with the definitions of the tools that the assistant may call, one a line.

    Training on calls without the definitions that the model was given would teach it to invent tools.
    """
    tools = parsed(tools, "tools") if isinstance(tools, str) and tools.strip() else tools
    if not tools or tools == "":
        return messages
    if not isinstance(tools, list):
        raise FormatError(f"tools is {shown(tools)}; write it as a list")
    text = "\n".join(["Tools:", *(json.dumps(tool, ensure_ascii=False) for tool in tools)])
    first = messages[0] if messages else None
    if (
        isinstance(first, Mapping)
        and first.get("role") in ("system", "developer")
        and isinstance(first.get("content"), str)
    ):
        return [{**first, "content": f"{first['content']}\n\n{text}"}, *messages[1:]]
    return [{"role": "system", "content": text}, *messages]


def pair(prompt: list[Any], chosen: list[Any], rejected: list[Any]) -> dict[str, Any]:
    """A preference pair of two conversations: they are compared at the first turn in which they differ, an assistant's."""
    ours, theirs = [*prompt, *chosen], [*prompt, *rejected]
    place = next((n for n, (left, right) in enumerate(zip(ours, theirs, strict=False)) if left != right), None)
    if place is None:
        place = min(len(ours), len(theirs)) - 1  # a tie, or one of them ends there
    completions = [object_of(side[place], "completion") if 0 <= place < len(side) else {} for side in (ours, theirs)]
    if any(side.get("role") != "assistant" for side in completions):
        raise FormatError(
            f"the two conversations differ first in turn {place + 1}, which is not the assistant's; remove the record"
        )
    return {
        "messages": ours[:place],
        "chosen": completions[0].get("content"),
        "rejected": completions[1].get("content"),
    }
