"""The turns of a conversation, as every record of chat data holds them.

The message list is that of OpenAI's fine-tuning files (https://platform.openai.com/docs/guides/supervised-fine-tuning) and of
Hugging Face chat templates; model/tokenizer/README.md shows tool calls and their results. Departures: no images and no audio, and
turns alternate, since a chat model is always asked that way: after a user's turn the assistant's, and after each call of a tool its result.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, FailFast, Field, field_validator, model_serializer, model_validator

from tasks.records.mistakes import mistake, shown

Role = Literal["system", "user", "assistant", "tool"]
Text = Annotated[str, Field(strict=True)]
OTHER_ROLES = {
    "developer": "system",
    "function": "tool",
}  # OpenAI's names, the first of newer files, the second of older ones


class Record(BaseModel):
    """A frozen record. Unknown fields are ignored, and a null in an optional field means that it is absent."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        optional = {name for name, field in cls.model_fields.items() if not field.is_required()}
        return {name: item for name, item in value.items() if item is not None or name not in optional}


class ToolCall(Record):
    """A call of a tool by the assistant. `arguments` is the text that the tool gets."""

    name: Text
    arguments: Text

    @model_validator(mode="before")
    @classmethod
    def _from_openai(cls, value: Any) -> Any:
        """OpenAI's form, in which name and arguments are those of a `function`; arguments as an object are written as JSON."""
        if not isinstance(value, Mapping):
            return value
        call = value["function"] if isinstance(value.get("function"), Mapping) else value
        is_json = isinstance(call.get("arguments"), Mapping | list)
        return {**call, "arguments": json.dumps(call["arguments"], ensure_ascii=False)} if is_json else call

    @field_validator("name")
    @classmethod
    def _is_named(cls, name: str) -> str:
        if not name.strip():
            raise mistake("", "is blank", "write the name of the tool")
        return name


class Message(Record):
    """One turn. `weight` 0 keeps an assistant's turn as context that is not learned, as in OpenAI's files."""

    role: Role
    content: Text
    tool_calls: Annotated[tuple[ToolCall, ...], FailFast()] = ()
    weight: Literal[0, 1] = 1

    @model_validator(mode="before")
    @classmethod
    def _from_openai(cls, value: Any) -> Any:
        """OpenAI's other forms: roles of other names, content as a list of parts or, with tool calls, null, and one `function_call`."""
        if not isinstance(value, Mapping):
            return value
        message = dict(value)
        # An empty object or a null is no audio.
        if message.get("audio"):
            raise mistake("audio", "is set, and only text is supported", "remove the record")
        role = message.get("role")
        if isinstance(role, str):
            role = message["role"] = OTHER_ROLES.get(role, role)
        if call := message.get("function_call"):
            message["tool_calls"] = [call]
        calls = message.get("tool_calls")
        if calls and role != "assistant":
            raise mistake("tool_calls", f"is set in a turn of the {shown(role)}", "let the assistant call tools")
        if "content" in message or calls:
            content = message.get("content")
            message["content"] = "" if content is None and calls else _joined(content)
        # Other roles are never learned, so their weight is not looked at.
        message["weight"] = _checked_weight(message.get("weight")) if role == "assistant" else 1
        return message

    @model_serializer
    def _serialize(self) -> dict[str, Any]:
        # Defaults are left out: records without weights and tool calls keep the form that they have in users' files.
        plain: dict[str, Any] = {"role": self.role, "content": self.content}
        calls = [{"name": call.name, "arguments": call.arguments} for call in self.tool_calls]
        return plain | ({"tool_calls": calls} if calls else {}) | ({} if self.weight else {"weight": 0})


def _joined(content: Any) -> Any:
    """Text parts, joined by line feeds as vLLM does for models that read text only; what is not a list stays as it is."""
    if content is None:
        raise mistake("content", "is null", "write the text of the turn, or remove the record")
    if not isinstance(content, list):
        return content
    for number, part in enumerate(content):
        if not (isinstance(part, Mapping) and part.get("type") == "text" and isinstance(part.get("text"), str)):
            remedy = 'give text parts only, {"type": "text", "text": "..."}, or remove the record'
            raise mistake(f"content[{number}]", f"is {shown(part)}, and only text is supported", remedy)
    return "\n".join(part["text"] for part in content)


def _checked_weight(weight: Any) -> int:
    if weight is None:
        return 1
    # True equals 1 in Python. 1.0 equals it as well, and JSON writers that know one kind of number write it so.
    if isinstance(weight, bool) or weight not in (0, 1):
        raise mistake("weight", f"is {shown(weight)}", "write 1 for a turn to learn, 0 for one to leave out")
    return int(weight)


def check_turns(messages: tuple[Message, ...]) -> tuple[Message, ...]:
    """The messages without blank system turns. Raises where a turn is not the one that is due, or is blank."""
    first_role = messages[0].role if messages else None
    expected: Role = "user"
    num_calls = 0  # that wait for their results
    for number, message in enumerate(messages):
        if message.role == "system":
            if number:
                raise mistake(f"[{number}].role", 'is "system"', "put the system turn first, and only one")
            continue
        if message.role != expected:
            raise mistake(f"[{number}].role", *_out_of_turn(message.role, expected))
        # A tool may return nothing, and a call needs no words.
        if not (message.content.strip() or message.role == "tool" or message.tool_calls):
            raise mistake(f"[{number}].content", "is blank", "write the text of the turn, or remove the record")
        num_calls = num_calls - 1 if message.role == "tool" else len(message.tool_calls)
        expected = "tool" if num_calls else "user" if message.role == "assistant" else "assistant"
    # True is 1: no message at all, or a system turn alone.
    if len(messages) == (first_role == "system"):
        raise mistake("", "holds no turn of the user", "write the question, or remove the record")
    # A blank system turn would be rendered as an empty turn.
    return messages[1:] if first_role == "system" and not messages[0].content.strip() else messages


def _out_of_turn(role: Role, expected: Role) -> tuple[str, str]:
    problem = f"is {shown(role)}, and it is the {expected}'s turn"
    if expected == "tool":
        return problem, "give one turn of role tool for each call, in their order"
    if role == "tool":
        return problem, "let the assistant's turn before it call the tool"
    return problem, "let user and assistant alternate, the user first"
