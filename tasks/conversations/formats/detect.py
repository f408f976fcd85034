"""Which format a record has, by its keys, and its records. The place to add a format.

Reads and writes nothing. A file may mix formats. Where the keys do not decide, a source states its format: gsm8k_text:train.jsonl.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from tasks.conversations.formats import instructions, messages, rankings, trees
from tasks.conversations.formats.parts import FormatError, Values
from tasks.records.conversations import Conversation, Preference, Prompt
from tasks.records.messages import Record

Convert = Callable[[Mapping[str, Any]], Values]


class Format(NamedTuple):
    """A format: how it is known, and what its records become. None: it holds no such records."""

    is_it: Callable[[Mapping[str, Any]], bool]
    conversations: Convert | None = None
    preferences: Convert | None = None
    prompts: Convert | None = None


def _has(*names: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda value: all(value.get(name) is not None for name in names)


def _is_dialogues(value: Mapping[str, Any]) -> bool:
    return all(isinstance(value.get(name), str) and "Human:" in value[name] for name in ("chosen", "rejected"))


def _is_prompt_of_trl(value: Mapping[str, Any]) -> bool:
    return isinstance(value.get("prompt"), str | list) or all(
        isinstance(value.get(name), list) for name in ("chosen", "rejected")
    )


def _itself(value: Mapping[str, Any]) -> Values:
    yield dict(value)


def _never(value: Mapping[str, Any]) -> bool:
    return False


# In the order in which they are tried: a later one may have the keys of an earlier one too.
FORMATS: dict[str, Format] = {
    "rankings": Format(rankings.is_ranking, None, rankings.ranking_preferences, rankings.ranking_prompts),
    "messages": Format(_has("messages"), messages.openai_conversations, messages.openai_preferences, _itself),
    "openai_preferences": Format(_has("input", "preferred_output"), None, messages.openai_preferences),
    "sharegpt": Format(_has("conversations"), messages.sharegpt_conversations, messages.sharegpt_preferences),
    "openassistant": Format(
        lambda value: isinstance(value.get("prompt"), Mapping),
        trees.tree_conversations,
        trees.tree_preferences,
        trees.tree_prompts,
    ),
    "alpaca": Format(
        _has("instruction"),
        instructions.alpaca_conversations,
        instructions.alpaca_preferences,
        instructions.alpaca_prompts,
    ),
    "gsm8k": Format(
        lambda value: _has("question", "answer")(value) and instructions.FINAL in str(value["answer"]),
        instructions.gsm8k_conversations,
        None,
        instructions.gsm8k_prompts,
    ),
    "gsm8k_text": Format(_never, instructions.gsm8k_texts, None, instructions.gsm8k_prompts),
    "hh": Format(_is_dialogues, messages.hh_conversations, messages.hh_preferences),
    "trl": Format(_is_prompt_of_trl, messages.trl_conversations, messages.trl_preferences, messages.trl_prompts),
    "ultrachat": Format(_has("data"), messages.ultrachat_conversations),
}
KINDS: dict[type[Record], str] = {Conversation: "conversations", Preference: "preferences", Prompt: "prompts"}


def records_of(kind: type[Record], value: Any, stated: str = "") -> Iterator[Any]:
    """The records of a kind in a value of a file, not validated yet. `stated`: its format, if the keys are not to decide.

    A value of no known format is its own record: the validation says what is missing. Raises FormatError.
    """
    if isinstance(value, list) and kind in KINDS:  # a list of messages by itself
        value = {"messages": value}
    if kind not in KINDS or not isinstance(value, Mapping):
        yield value
        return
    name = stated or next((name for name, known in FORMATS.items() if known.is_it(value)), "")
    if not name:
        yield value
        return
    convert: Convert | None = getattr(FORMATS[name], KINDS[kind])
    if convert is None:
        raise FormatError(f"it is a record of the format {name}, which holds no {KINDS[kind]}; give another file")
    yield from convert(value)
