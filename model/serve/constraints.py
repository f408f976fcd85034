"""What the output of a request must be: one of some texts, JSON of a schema, tool calls with valid arguments.

Reads and writes nothing. Grammars are kept, since clients send the same schema again and again, and a grammar gets faster by use.
"""

import json
from collections.abc import Sequence
from typing import Any

from model.serve.errors import ApiError, too_large
from model.serve.grammar import Alt, Chars, Grammar, GrammarMask, GrammarTooLarge, Node, Repeat, Seq, Special, Text
from model.serve.json_schema import any_object, choices, schema_grammar
from model.serve.requests import ChatBody, SamplingBody
from model.serve.served import ServedModel
from model.tokenizer.chat import TOOL_END, TOOL_START, TURN_SEP

MAX_CHARACTERS, MAX_KEPT = 65_536, 32
MAX_CALLS = 4  # of one turn
ANY_TEXT = Repeat(Chars(frozenset(range(256))))


def _grammar(served: ServedModel, wanted: dict[str, Any]) -> Grammar:
    """The grammar of an output. Raises ApiError where it cannot be made."""
    key = json.dumps(wanted)
    if len(key) > MAX_CHARACTERS:
        raise ApiError(
            400, f"schema, choices and tools together have more than {MAX_CHARACTERS} characters", wanted.get("param")
        )
    kept = served.grammars
    if key not in kept or kept[key].is_large:
        node = _output(wanted) or ANY_TEXT
        kept[key] = Grammar(_with_calls(served, node, wanted) if "tools" in wanted else node, served.vocabulary)
        if len(kept) > MAX_KEPT:
            kept.popitem(last=False)
    kept.move_to_end(key)
    return kept[key]


def mask_of(served: ServedModel, body: SamplingBody, end_tokens: Sequence[int]) -> GrammarMask | None:
    """The mask of a completion of a request; None where it may be anything. Raises ApiError where what is asked for is not supported."""
    wanted: dict[str, Any] = {}
    if body.guided_choice:
        wanted["choices"] = body.guided_choice
    elif body.guided_json is not None:
        wanted["schema"], wanted["param"] = body.guided_json, "guided_json"
    elif body.response_format.type == "json_schema":
        wanted["schema"], wanted["param"] = body.response_format.json_schema.json_schema, "response_format"
    elif body.response_format.type == "json_object":
        wanted["any_json"] = True
    if isinstance(body, ChatBody) and body.tools and body.tool_choice != "none":
        wanted |= {"tools": functions(body), "choice": body.tool_choice, "is_parallel": body.parallel_tool_calls}
    if not wanted:
        return None
    try:
        return GrammarMask(_grammar(served, wanted), end_tokens)
    except RecursionError:
        raise ApiError(400, "the schema is nested too deep", wanted.get("param")) from None
    except GrammarTooLarge as error:
        raise too_large(error) from None


def _output(wanted: dict[str, Any]) -> Node | None:
    if "choices" in wanted:
        return choices(wanted["choices"])
    if "schema" in wanted:
        return schema_grammar(wanted["schema"], wanted["param"])
    return any_object() if wanted.get("any_json") else None


def _with_calls(served: ServedModel, text: Node, wanted: dict[str, Any]) -> Node:
    """A text, or tool calls with arguments that their schemas allow; only calls where the client requires one."""
    special = served.tokenizer.special
    chosen, choice = wanted["tools"], wanted["choice"]
    if isinstance(choice, dict):
        name = choice.get("function", {}).get("name") if isinstance(choice.get("function"), dict) else None
        chosen = [function for function in chosen if function["name"] == name]
        if not chosen:
            raise ApiError(400, "tool_choice names none of the tools", "tool_choice")
    calls = [
        Seq(
            (
                Special(special[TOOL_START]),
                Text(function["name"].encode()),
                Special(special[TURN_SEP]),
                schema_grammar(function["parameters"], "tools") if function["parameters"] else Text(b"{}"),
                Special(special[TOOL_END]),
            )
        )
        for function in chosen
    ]
    call = Alt(tuple(calls))
    if choice == "required" or isinstance(choice, dict):
        # One call: a small model that must call would call until its tokens are used up.
        return call
    return Seq((text, Repeat(call, 0, MAX_CALLS if wanted["is_parallel"] else 1)))


def functions(body: ChatBody) -> list[dict[str, Any]]:
    """The tools that a client offers, each with name, description and parameters. Raises ApiError."""
    found = []
    for number, tool in enumerate(body.tools):
        function = tool.get("function")
        if tool.get("type", "function") != "function" or not isinstance(function, dict):
            raise ApiError(400, f"tools.{number} is no function", "tools")
        name, parameters = function.get("name"), function.get("parameters") or {}
        if not isinstance(name, str) or not name.isascii() or not name.replace("_", "").replace("-", "").isalnum():
            raise ApiError(400, f"tools.{number}: a name has letters, digits, _ and -", "tools")
        if len(name) > 64 or not isinstance(parameters, dict):
            raise ApiError(
                400, f"tools.{number}: the name is longer than 64 letters, or parameters is no object", "tools"
            )
        description = function.get("description", "")
        found.append(
            {"name": name, "description": description if isinstance(description, str) else "", "parameters": parameters}
        )
    return found
