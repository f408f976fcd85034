"""Formats whose records are lists of messages: OpenAI's, TRL's, ShareGPT's, UltraChat's, and Anthropic's HH-RLHF.

- OpenAI (https://platform.openai.com/docs/guides/supervised-fine-tuning): `messages` with `weight`, tool calls and `tools`; preferences as
  `input`, `preferred_output`, `non_preferred_output`. LLaMA-Factory's variant has `loss_weight`, and `value` in the parts of a text.
- TRL (https://huggingface.co/docs/trl/dataset_formats): `messages`, or `prompt` with `completion` or with `chosen` and `rejected`, each a string or
  a list of messages; `chosen` and `rejected` alone hold their common prompt.
- ShareGPT: `conversations` of `from` and `value`; function_call and observation as LLaMA-Factory has them; `chosen` and `rejected`.
- UltraChat (Ding et al. 2023, https://arxiv.org/abs/2305.14233): `data`, texts of user and assistant in turn. UltraChat 200k has `messages`.
- HH-RLHF (Bai et al. 2022, https://arxiv.org/abs/2204.05862): `chosen` and `rejected`, whole dialogues in one string each. As conversations,
  the chosen one is taken.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

from tasks.conversations.formats.parts import (
    FormatError,
    Message,
    Values,
    assistant,
    list_of,
    object_of,
    pair,
    parsed,
    text_of,
    user,
    with_system,
    with_tools,
)
from tasks.records.mistakes import shown

SHAREGPT_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
    "observation": "tool",
    "function_response": "tool",
    "tool": "tool",
}
HH_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")


def openai_conversations(value: Mapping[str, Any]) -> Values:
    """The record itself, with the definitions of its tools in the system turn."""
    messages = [_openai_message(message) for message in list_of(value, "messages")]
    yield {**value, "messages": with_tools(messages, value.get("tools") or value.get("functions"))}


def openai_preferences(value: Mapping[str, Any]) -> Values:
    """The pair of OpenAI's preference files, or a record that has `messages`, `chosen` and `rejected` already."""
    if "messages" in value:
        yield dict(value)
        return
    asked = object_of(value.get("input"), "input")
    sides = [list_of(value, name) for name in ("preferred_output", "non_preferred_output")]
    yield pair(with_tools(list_of(asked, "messages"), asked.get("tools")), *sides)


def _openai_message(message: Any) -> Any:
    if not isinstance(message, Mapping):
        return message  # its validation says what is wrong
    made = dict(message)
    if "loss_weight" in made:
        made["weight"] = made.pop("loss_weight")
    content = made.get("content")
    if isinstance(content, list) and any(isinstance(part, Mapping) and "value" in part for part in content):
        calls = [part for part in content if isinstance(part, Mapping) and part.get("type") == "tool_call"]
        texts = [part for part in content if part not in calls]
        made["content"] = [{**part, "text": part.get("value")} if isinstance(part, Mapping) else part for part in texts]
        if calls:
            made["tool_calls"] = [parsed(text_of(part, "value"), "tool_call") for part in calls]
    return made


def trl_conversations(value: Mapping[str, Any]) -> Values:
    """A prompt with its completion."""
    yield {"messages": [*_turns(value.get("prompt"), "user"), *_turns(value.get("completion"), "assistant")]}


def trl_preferences(value: Mapping[str, Any]) -> Values:
    """A prompt with two completions. Where these begin with the user's turn, they hold the prompt themselves."""
    sides = [_turns(value.get(name), "assistant") for name in ("chosen", "rejected")]
    holds_prompt = all(side and isinstance(side[0], Mapping) and side[0].get("role") != "assistant" for side in sides)
    yield pair([] if holds_prompt else _turns(value.get("prompt"), "user"), *sides)


def trl_prompts(value: Mapping[str, Any]) -> Values:
    """A prompt alone. Other fields, such as its answer, are kept."""
    yield {**value, "messages": _turns(value.get("prompt"), "user")}


def _turns(value: Any, role: str) -> list[Any]:
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if not isinstance(value, list):
        raise FormatError(f"the turn of the {role} is {shown(value)}; write it as a string or a list of messages")
    return value


def sharegpt_conversations(value: Mapping[str, Any]) -> Values:
    """The conversation of `from` and `value`; of a preference pair, with the chosen reply."""
    yield {"messages": _sharegpt(value) + ([_sharegpt_message(value["chosen"])] if value.get("chosen") else [])}


def sharegpt_preferences(value: Mapping[str, Any]) -> Values:
    """The conversation with two replies to its last turn."""
    sides = [[_sharegpt_message(value.get(name))] for name in ("chosen", "rejected")]
    yield pair(_sharegpt(value), *sides)


def _sharegpt(value: Mapping[str, Any]) -> list[Message]:
    messages = [_sharegpt_message(message) for message in list_of(value, "conversations")]
    return with_tools(with_system(text_of(value, "system", ""), messages), value.get("tools"))


def _sharegpt_message(message: Any) -> Message:
    fields = object_of(message, "a turn of conversations")
    speaker, text = text_of(fields, "from"), text_of(fields, "value")
    if speaker == "function_call":
        calls = parsed(text, "value of a function_call")
        return assistant("", tool_calls=calls if isinstance(calls, list) else [calls])
    if speaker not in SHAREGPT_ROLES:
        raise FormatError(f"from is {shown(speaker)}; write one of {', '.join([*SHAREGPT_ROLES, 'function_call'])}")
    return {"role": SHAREGPT_ROLES[speaker], "content": text}


def ultrachat_conversations(value: Mapping[str, Any]) -> Values:
    """Texts of user and assistant in turn."""
    yield {"messages": [(assistant if n % 2 else user)(text) for n, text in enumerate(list_of(value, "data"))]}


def hh_conversations(value: Mapping[str, Any]) -> Values:
    """The chosen dialogue."""
    yield {"messages": _dialogue(value, "chosen")}


def hh_preferences(value: Mapping[str, Any]) -> Values:
    """The two dialogues at the turn in which they differ."""
    yield pair([], _dialogue(value, "chosen"), _dialogue(value, "rejected"))


def _dialogue(value: Mapping[str, Any], name: str) -> list[Message]:
    before, *pieces = HH_TURN.split(text_of(value, name))
    if before.strip() or not pieces:
        raise FormatError(f"{name} is {json.dumps(before[:60])}; begin it with Human:")
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    return [(user if speaker == "Human" else assistant)(text.strip()) for speaker, text in turns]
