"""The Python tool: what it computes, and what it says where it cannot."""

import pytest

from model.tools import python
from model.tools.python import LACKS, Limits, PythonTool, find_room, works
from model.tools.registry import ToolError

ROOMS = [room for room in LACKS if works(room)]


@pytest.fixture(params=ROOMS)
def tool(request: pytest.FixtureRequest) -> PythonTool:
    return PythonTool(request.param)


@pytest.mark.parametrize(
    ("code", "output"),
    [
        ("print('banana'.count('a'))", "3"),
        ("sorted('banana')", "['a', 'a', 'a', 'b', 'n', 'n']"),
        ("import datetime\n(datetime.date(2024, 3, 1) - datetime.date(2024, 2, 1)).days", "29"),
        ("print('one')\n'two'", "one\ntwo"),
        ("import sys\nprint('half')\nsys.exit()\nprint('rest')", "half"),
        ("'\\ud800é'", "\\ud800é"),
        ("", ""),
        ("x = 1", ""),
    ],
)
def test_output_and_last_value(tool: PythonTool, code: str, output: str) -> None:
    assert tool(code) == output


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('before')\n1/0", "before\nZeroDivisionError: division by zero"),
        ("def", "SyntaxError: invalid syntax"),
        ("input()", "EOFError"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("'a\0b'", "source code string cannot contain null bytes"),
    ],
)
def test_error_of_the_code_is_its_last_line(tool: PythonTool, code: str, message: str) -> None:
    with pytest.raises(ToolError, match=message):
        tool(code)


def test_sets_have_the_same_order_each_time(tool: PythonTool) -> None:
    code = "list({'lemon', 'apple', 'pear', 'plum', 'fig'})"
    assert len({tool(code) for _ in range(3)}) == 1


def test_calls_share_nothing(tool: PythonTool) -> None:
    tool("import math; math.pi = 3; x = 5")
    assert tool("import math; [math.pi > 3.1, 'x' in globals()]") == "[True, False]"


def test_long_code_is_refused(tool: PythonTool) -> None:
    with pytest.raises(ToolError, match="more than 16384 bytes"):
        tool("#" * 20_000)


def test_fallback_says_what_it_lacks() -> None:
    assert PythonTool("seccomp").lacks
    assert LACKS["bubblewrap"] == ()


def test_room_without_bwrap_is_the_fallback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python, "find_bwrap", lambda: None)
    assert find_room.__wrapped__() == "seccomp"
    with pytest.raises(ToolError, match="bwrap is not installed"):
        PythonTool("bubblewrap", Limits())


def test_machine_without_a_filter_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(python.seccomp, "is_supported", lambda: False)
    assert find_room.__wrapped__() is None
