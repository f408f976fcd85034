"""The registry: whatever a tool does, its result is a short text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.tools.calculator import calculate
from model.tools.registry import ToolError, ToolResult, Tools


def failing(_: str) -> str:
    raise ZeroDivisionError("a secret")


def refusing(arguments: str) -> str:
    raise ToolError(f"cannot read {arguments}")


@pytest.fixture
def tools() -> Tools:
    many = {"calculator": calculate, "failing": failing, "refusing": refusing, "long": lambda _: "x" * 10**6}
    return Tools({**many, "echo": lambda arguments: arguments}, max_characters=50)


def test_call_gives_the_result(tools: Tools) -> None:
    assert tools.run("calculator", "12*7") == ToolResult("84")


def test_unknown_tool_names_those_there_are(tools: Tools) -> None:
    assert tools.run("shell", "ls").text == "error: no such tool; there are calculator, failing, refusing, long, echo"


def test_failures_are_results_without_internals(tools: Tools) -> None:
    assert tools.run("failing", "") == ToolResult("error: the tool failed", is_error=True)
    assert tools.run("refusing", "x").text == "error: cannot read x"


def test_long_result_is_cut(tools: Tools) -> None:
    assert tools.run("long", "").text == "x" * 50 + " ..."
    assert len(tools.run("refusing", "y" * 999).text) == 54


@given(st.text(max_size=80))
def test_result_has_no_control_characters(text: str) -> None:
    result = Tools({"echo": lambda arguments: arguments}).run("echo", text).text
    assert all(sign.isprintable() or sign in "\n\t" for sign in result)


def test_system_prompt_names_the_tools_in_order() -> None:
    assert Tools({"search": refusing, "calculator": calculate}).system_prompt() == "Tools: calculator, search."
