"""Formats of one task and its solution: Alpaca's, self-instruct's and GSM8K's.

- Alpaca (Taori et al. 2023): `instruction`, `input` and `output`; LLaMA-Factory's variant with `system`, `history` and, for preferences, `chosen`
  and `rejected`. Self-instruct's seed tasks (Wang et al. 2023, https://arxiv.org/abs/2212.10560) have several `instances` of an input and
  output. The instruction and its input are the user's turn, with a blank line between them, without Alpaca's frame around them: the
  conversation format marks the turns.
- GSM8K (Cobbe et al. 2021, https://arxiv.org/abs/2110.14168): `question` and `answer`, in which <<48/2=24>> stands after an expression and before
  its value, and the final answer after ####. The annotations become calls of the tool `calculator`, each with its result, or are left
  out (`gsm8k_text`).
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.conversations.formats.parts import (
    FormatError,
    Message,
    Values,
    assistant,
    list_of,
    object_of,
    pair,
    text_of,
    user,
    with_system,
)
from tasks.records.mistakes import shown

CALCULATION = re.compile(r"<<([^<>=]*)=([^<>]*)>>")
FINAL = "####"


def alpaca_conversations(value: Mapping[str, Any]) -> Values:
    """The instruction with its output, or with that of each instance."""
    instances = list_of(value, "instances") if "instances" in value else [value]
    for instance in instances:
        fields = object_of(instance, "an instance")
        yield {"messages": [*_alpaca_prompt(value, fields), assistant(text_of(fields, "output"))]}


def alpaca_preferences(value: Mapping[str, Any]) -> Values:
    """The instruction with two outputs."""
    sides = [[assistant(text_of(value, name))] for name in ("chosen", "rejected")]
    yield pair(_alpaca_prompt(value, value), *sides)


def alpaca_prompts(value: Mapping[str, Any]) -> Values:
    """The instruction alone: an output is one of many right ones, so it is no answer to compare with."""
    yield {"messages": _alpaca_prompt(value, value)}


def _alpaca_prompt(value: Mapping[str, Any], instance: Mapping[str, Any]) -> list[Message]:
    instruction, given = text_of(value, "instruction"), text_of(instance, "input", "")
    text = f"{instruction}\n\n{given}" if given.strip() else instruction
    return with_system(text_of(value, "system", ""), [*_history(value), user(text)])


def _history(value: Mapping[str, Any]) -> Iterator[Message]:
    for turn in value.get("history") or []:
        if not isinstance(turn, list) or len(turn) != 2:
            raise FormatError(f"history has {shown(turn)}; write pairs of a question and its reply")
        yield from (user(turn[0]), assistant(turn[1]))


def gsm8k_conversations(value: Mapping[str, Any]) -> Values:
    """The question, the solution with its calculations as tool calls, and the final answer after ####."""
    *steps, rest = CALCULATION.split(_solution(value))
    messages = [user(text_of(value, "question"))]
    # Text, expression, value, text, ...: a call ends a turn, and the text after its result begins the next.
    for text, expression, result in zip(steps[::3], steps[1::3], steps[2::3], strict=True):
        call = {"name": "calculator", "arguments": expression.strip()}
        messages += [assistant(text, tool_calls=[call]), {"role": "tool", "content": result.strip()}]
    yield {"messages": [*messages, assistant(rest)]}


def gsm8k_texts(value: Mapping[str, Any]) -> Values:
    """The same without annotations."""
    yield {"messages": [user(text_of(value, "question")), assistant(CALCULATION.sub("", _solution(value)))]}


def gsm8k_prompts(value: Mapping[str, Any]) -> Values:
    """The question with its final answer, which makes a completion verifiable."""
    answer = _solution(value).rpartition(FINAL)[2].strip()
    yield {"messages": [user(text_of(value, "question"))], "answer": answer}


def _solution(value: Mapping[str, Any]) -> str:
    solution = text_of(value, "answer")
    if not solution.rpartition(FINAL)[2].strip() or FINAL not in solution:
        raise FormatError(f"answer is {shown(solution)}; end it with {FINAL} and the final answer")
    return solution
