"""A search, step by step: what each question got to."""

from typing import Any

from tasks.evaluate.report_card import tools_section
from tasks.evaluate.tool_use import search_steps, tool_figures


def answer(query: str, result: str, is_correct: bool = False, fact: str = "has_pet:edda-magrell") -> dict[str, Any]:
    calls = [{"name": "search", "arguments": query, "result": result}] if query else []
    return {"kind": "tool/search", "fact": fact, "answer": "goat", "calls": calls, "is_correct": is_correct}


def test_each_step_is_measured_on_those_that_passed_the_one_before() -> None:
    answers = [
        answer("", "", is_correct=True),  # knew it without a search
        answer("edda magrall pet", "Her pet is a goat."),
        answer("Edda  Magrell pet", "nothing found"),
        answer("edda magrell pet", "A GOAT is the pet of Edda Magrell."),
        answer("edda magrell pet", "The pet of Edda Magrell is a goat.", is_correct=True),
        answer("edda magrell pet", "goat", is_correct=True, fact=""),  # of a user, who names no fact
        answer("edda magrell pet", "goat") | {"kind": "tool/none"},
    ]
    steps = search_steps(answers)
    assert {step: (passed["share"], passed["num"]) for step, passed in steps.items()} == {
        "searched": (0.8, 5),
        "for the name": (0.75, 4),
        "answer found": (2 / 3, 3),
        "answer given": (0.5, 2),
    }
    card = tools_section({"tools": tool_figures(answers), "search_steps": steps})
    assert "| answer given | 50.0% (" in card
    assert "step by step" not in tools_section({"tools": tool_figures([]), "search_steps": search_steps([])})
