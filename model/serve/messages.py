"""Messages in OpenAI's shape to those of the tokenizer. Reads and writes nothing."""

from collections.abc import Sequence
from typing import Any

from model.serve.errors import ApiError
from model.serve.requests import Message
from model.tokenizer.chat import ROLES, whole_characters


def conversation(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Turns for ChatTokenizer. Raises ApiError for a role or a content that no model here reads."""
    return [_turn(number, message) for number, message in enumerate(messages)]


def _turn(number: int, message: Message) -> dict[str, Any]:
    # OpenAI's newer name of the system role.
    role = "system" if message.role == "developer" else message.role
    if role not in ROLES:
        raise ApiError(
            400, f"messages.{number}: role {role[:40]!r} is unknown; use one of {', '.join(ROLES)}", "messages"
        )
    turn: dict[str, Any] = {"role": role, "content": whole_characters(_text(number, message))}
    calls = {"tool_calls": message.tool_calls} if message.tool_calls else {}
    return turn | calls | ({} if message.weight else {"weight": 0})


def _text(number: int, message: Message) -> str:
    if isinstance(message.content, str):
        return message.content
    parts = [part.get("text") for part in message.content if part.get("type") == "text"]
    if len(parts) < len(message.content) or not all(isinstance(part, str) for part in parts):
        raise ApiError(400, f"messages.{number}: only text parts can be read", "messages")
    return "".join(map(str, parts))
