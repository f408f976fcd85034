"""The texts of a record of chat data, as training reads them. Reads and writes nothing."""

from collections.abc import Mapping
from typing import Any

COMPLETIONS = ("chosen", "rejected")


def turns(record: Mapping[str, Any]) -> list[str]:
    """The content of each turn; of a preference pair also both completions, the better first."""
    contents = [message.get("content") or "" for message in record["messages"]]
    return [*contents, *(record[name] for name in COMPLETIONS if name in record)]


def turn_name(record: Mapping[str, Any], number: int) -> str:
    """Whose turn the text of that number is: a role, or "chosen" or "rejected" of a pair."""
    messages = record["messages"]
    return str(messages[number]["role"]) if number < len(messages) else COMPLETIONS[number - len(messages)]
