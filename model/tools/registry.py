"""The tools of a conversation by name: arguments in, a short plain text out, whatever happens.

Reads and writes nothing. A tool is a function from the text of its arguments to the text of its result. What a model writes may be
anything, so a tool that fails gives a result that says so, and the conversation continues.
"""

import logging
from collections.abc import Callable, Mapping
from typing import NamedTuple

logger = logging.getLogger("crawl2chat")

CALCULATOR, PYTHON, SEARCH = "calculator", "python", "search"
Tool = Callable[[str], str]
"""Arguments to result. Raises ToolError where the arguments cannot be worked with."""


class ToolError(ValueError):
    """Why a tool gives no result. The model reads the message, so it names no path and no internals."""


class ToolResult(NamedTuple):
    """What the model reads after its call."""

    text: str
    is_error: bool = False


class Tools:
    """The tools that a conversation offers. `max_characters`: a longer result is cut, since it fills the model's context."""

    def __init__(self, tools: Mapping[str, Tool], max_characters: int = 400) -> None:
        self.tools = dict(tools)
        self.max_characters = max_characters

    def run(self, name: str, arguments: str) -> ToolResult:
        """The result of a call. Never raises: an unknown tool, wrong arguments and a fault of a tool are results too."""
        tool = self.tools.get(name)
        if tool is None:
            # Not the name that the model wrote: it may be long, and the model should read what it can call.
            return ToolResult(f"error: no such tool; there are {', '.join(self.tools)}", is_error=True)
        try:
            return ToolResult(shortened(tool(arguments), self.max_characters))
        except ToolError as error:
            return ToolResult(shortened(f"error: {error}", self.max_characters), is_error=True)
        except Exception as error:
            # A fault of ours. The type alone is logged: the message may quote what a user wrote.
            logger.warning("the tool %s failed: %s", name, type(error).__name__)
            return ToolResult("error: the tool failed", is_error=True)

    def system_prompt(self) -> str:
        """The system turn that offers these tools; conversations that teach tools begin with the same one."""
        return f"Tools: {', '.join(sorted(self.tools))}."


def shortened(text: str, max_characters: int) -> str:
    """The text without control characters but line feed and tab, at most `max_characters` and the mark of the cut long."""
    # Cut first: a result may have millions of characters.
    is_cut = len(text) > max_characters
    kept = "".join(sign for sign in text[:max_characters] if sign.isprintable() or sign in "\n\t").strip()
    return f"{kept} ..." if is_cut else kept
