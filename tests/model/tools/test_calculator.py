"""The calculator: exact results, and expressions that are wrong or too large."""

import contextlib
import random
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.tools.calculator import MAX_CHARACTERS, calculate, written
from model.tools.registry import ToolError


@pytest.mark.parametrize(
    ("expression", "value"),
    {
        "12*7": "84",
        "123 x 456 = ?": "56088",
        "1,200 + 3": "1203",
        "0.1+0.2": "0.3",
        "1/3": "about 0.3333333333 (1/3)",
        "-2^2": "-4",
        "2^3^2": "512",
        "2**-2": "0.25",
        "(1+2)*(3-4)": "-3",
        "7 % 3": "1",
        "8 ÷ 4 × 3 − 1": "5",
        "1.5e3": "1500",
        "-1/8": "-0.125",
        "2^1000": f"{str(2**1000)[:60]}... (302 digits)",
    }.items(),
)
def test_value_is_exact(expression: str, value: str) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "", " ", "1+", "*2", "(1", "1)", "1 2", "1,2", "1_000", "1/0", "1%0", "0^-1", "2^0.5", "9^9^9", "9999^1000", "1e9999", "1e-9999",
        "x", "__import__('os')", "1;2", "1 if 1 else 2", "١+١", "1" * (MAX_CHARACTERS + 1), "(" * 100 + "1" + ")" * 100, "-" * 100 + "1",
        "2^" * 100 + "2", "*".join(["2^1000"] * 9),
    ],
)  # fmt: skip
def test_wrong_or_large_expression_is_a_tool_error(expression: str) -> None:
    with pytest.raises(ToolError):
        calculate(expression)


@given(st.integers(-999, 999), st.sampled_from("+-*/"), st.integers(-999, 999))
def test_two_numbers_equal_fractions(first: int, sign: str, second: int) -> None:
    if sign == "/" and second == 0:
        return
    expected = {
        "+": first + second,
        "-": first - second,
        "*": first * second,
        "/": Fraction(first, second) if second else 0,
    }[sign]
    assert calculate(f"{first}{sign}{second}") == written(Fraction(expected))


@given(st.text(alphabet="0123456789.,()+-*/%^ exX×÷e_", max_size=60))
@settings(max_examples=300)
def test_any_text_gives_a_value_or_a_tool_error(text: str) -> None:
    with contextlib.suppress(ToolError):
        assert calculate(text)


def test_large_expressions_are_refused_before_they_are_computed() -> None:
    rng = random.Random(1)
    for _ in range(50):
        parts = [f"({rng.randint(1, 9)}^{rng.randint(900, 1000)}/7)" for _ in range(20)]
        with pytest.raises(ToolError):
            calculate("+".join(parts) + "^1000")
