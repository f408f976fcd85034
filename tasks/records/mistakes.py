"""Mistakes in records, as one line: field, problem, value, remedy. Reads and writes nothing."""

import json
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

SHOWN_CHARACTERS = 80  # of a wrong value


def mistake(field: str, problem: str, remedy: str) -> PydanticCustomError:
    """An error for a validator to raise. `field` is relative to the record or value that is validated."""
    # The text is a value and not the template, in which braces from a user's data could be taken for placeholders.
    return PydanticCustomError("record", "{problem}", {"field": field, "problem": problem, "remedy": remedy})


def explain(error: ValidationError) -> str:
    """The first mistake of a record as one line."""
    # The first alone: one mistake often causes others, and a reader corrects one at a time.
    detail = error.errors(include_url=False)[0]
    # messages[3].content, as a person would write it in code.
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in detail["loc"]).lstrip(".")
    if detail["type"] == "record":
        context = detail["ctx"]
        # The place in `loc` ends at the value that a validator was given; the validator adds the rest.
        separator = "." if name and context["field"] and not context["field"].startswith("[") else ""
        return f"{name}{separator}{context['field']} {context['problem']}; {context['remedy']}".lstrip()
    if detail["type"] == "missing":
        names = ", ".join(map(shown, list(detail["input"])[:8]))
        return f"{name} is missing; the fields given are {names or 'none'}"
    return f"{name or 'the record'} is {shown(detail['input'])}; {_remedy(detail)}"


def _remedy(detail: ErrorDetails) -> str:
    match detail["type"]:
        case "string_type":
            return "write it as a string"
        case "literal_error":
            return f"write {detail['ctx']['expected']}"
        case "model_type" | "model_attributes_type":
            return "write it as a JSON object"
        case "tuple_type":
            return "write it as a list"
        case _:
            message = detail["msg"].removeprefix("Value error, ")
            return message[:1].lower() + message[1:]


def shown(value: Any) -> str:
    """A value as JSON in ASCII, cut to what fits into an error. No control characters of the data reach a terminal."""
    try:
        text = json.dumps(value)
    # Deep nesting, a value of Python that JSON lacks, or a list that holds itself.
    except (RecursionError, TypeError, ValueError):
        text = f"a {type(value).__name__}"
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}..."
