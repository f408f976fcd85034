"""A calculator: exact arithmetic of fractions over a small grammar, without `eval`.

Reads and writes nothing.

    sum     = product (("+" | "-") product)*
    product = power (("*" | "/" | "%") power)*
    power   = ("-" | "+") power | atom ("^" power)?        -2^2 is -4, as in Python
    atom    = number | "(" sum ")"

Numbers are decimals: 12, 1,200, 0.5, .5, 1e3. x, × and · multiply, ÷ and : divide, ** is ^. What a model writes may be hostile:
lengths, depth and the size of every intermediate result are limited, so that no expression takes more than some milliseconds.
"""

import re
from fractions import Fraction

from model.tools.registry import ToolError

MAX_CHARACTERS = 400
MAX_DEPTH = 40  # of parentheses, signs and powers: each is some Python frames, of which there are 1,000
MAX_BITS = 4_096  # of a numerator or denominator: some 1,200 digits, multiplied in microseconds
MAX_EXPONENT = 1_000
SHOWN_DIGITS = 60  # a longer integer is shown by its first digits and their number
DECIMAL_PLACES = 10

TOKEN = re.compile(
    r"\s*(?:(\d[\d_,]*(?:\.\d*)?(?:[eE][+-]?\d{1,4})?|\.\d+(?:[eE][+-]?\d{1,4})?)|(\*\*|[-+*/%^()]))", re.ASCII
)
# Decimal points of digits group in threes alone: "1,200" is a number, "1,2" is not.
GROUPED = re.compile(r"\d{1,3}(,\d{3})+(?!\d)", re.ASCII)
SIGNS = str.maketrans({"×": "*", "·": "*", "x": "*", "X": "*", "÷": "/", ":": "/", "−": "-", "–": "-", "=": " ", "?": " "})  # fmt: skip


def calculate(expression: str) -> str:
    """The value of an expression: an integer, an exact decimal, or a fraction with its value rounded. Raises ToolError."""
    if len(expression) > MAX_CHARACTERS:
        raise ToolError(f"the expression has more than {MAX_CHARACTERS} characters")
    return written(_Parser(expression.translate(SIGNS)).value())


class _Parser:
    """Recursive descent over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.tokens = _tokens(text)
        self.place = 0
        self.depth = 0

    def value(self) -> Fraction:
        """The value of the whole text."""
        result = self._sum()
        if self.place < len(self.tokens):
            raise ToolError(f"cannot read the expression from {self.tokens[self.place][:20]!r} on")
        return result

    def _next(self, *signs: str) -> str:
        """The next token if it is one of `signs`, which is then read; else ""."""
        if self.place < len(self.tokens) and self.tokens[self.place] in signs:
            self.place += 1
            return self.tokens[self.place - 1]
        return ""

    def _sum(self) -> Fraction:
        result = self._product()
        while sign := self._next("+", "-"):
            other = self._product()
            result = _limited(result + other if sign == "+" else result - other)
        return result

    def _product(self) -> Fraction:
        result = self._power()
        while sign := self._next("*", "/", "%"):
            other = self._power()
            if sign != "*" and not other:
                raise ToolError("division by zero")
            result = _limited(result * other if sign == "*" else result / other if sign == "/" else result % other)
        return result

    def _power(self) -> Fraction:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ToolError(f"the expression is nested more than {MAX_DEPTH} deep")
        if sign := self._next("-", "+"):
            result = -self._power() if sign == "-" else self._power()
        else:
            result = self._atom()
            if self._next("^", "**"):
                result = _raised(result, self._power())
        self.depth -= 1
        return result

    def _atom(self) -> Fraction:
        if self._next("("):
            result = self._sum()
            if not self._next(")"):
                raise ToolError("a parenthesis is not closed")
            return result
        if self.place == len(self.tokens):
            raise ToolError("the expression ends too early")
        token = self.tokens[self.place]
        if token[0] not in "0123456789.":
            raise ToolError(f"a number is missing before {token!r}")
        self.place += 1
        return _limited(Fraction(token))


def _tokens(text: str) -> list[str]:
    found, place = [], 0
    text = GROUPED.sub(lambda match: match[0].replace(",", ""), text).strip()
    while place < len(text):
        match = TOKEN.match(text, place)
        if match is None or (match[1] and ("," in match[1] or "_" in match[1])):
            raise ToolError(f"cannot read the expression from {text[place : place + 20]!r} on")
        if match[1] and abs(int(re.split("[eE]", match[1] + "e0")[1])) > MAX_EXPONENT:
            raise ToolError(f"an exponent is greater than {MAX_EXPONENT}")
        found.append(match[1] or match[2])
        place = match.end()
    return found


def _raised(base: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1:
        raise ToolError("an exponent must be an integer")
    if abs(exponent) > MAX_EXPONENT:
        raise ToolError(f"an exponent is greater than {MAX_EXPONENT}")
    if not base and exponent < 0:
        raise ToolError("division by zero")
    # Before the power is computed: its size is known from the base's.
    if max(_bits(base) * abs(int(exponent)), 1) > MAX_BITS:
        raise ToolError("the result is too large")
    return base ** int(exponent)


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length()) - 1


def _limited(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise ToolError("the result is too large")
    return value


def written(value: Fraction) -> str:
    """The value as text: exact where its decimals end, else rounded, with the fraction."""
    if value.denominator == 1:
        digits = str(value.numerator)
        return (
            digits if len(digits) <= SHOWN_DIGITS else f"{digits[:SHOWN_DIGITS]}... ({len(digits.lstrip('-'))} digits)"
        )
    # Decimals end where 10 to some power is a multiple of the denominator.
    places = next((n for n in range(1, DECIMAL_PLACES + 1) if not (10**n) % value.denominator), 0)
    rounded = _decimal(value, places or DECIMAL_PLACES)
    if places or len(str(value.denominator)) > DECIMAL_PLACES:
        return rounded if places else f"about {rounded}"
    return f"about {rounded} ({value})"


def _decimal(value: Fraction, places: int) -> str:
    scaled = round(abs(value) * 10**places)
    whole, part = divmod(scaled, 10**places)
    sign = "-" if value < 0 and scaled else ""
    shown = str(whole) if len(str(whole)) <= SHOWN_DIGITS else f"{str(whole)[:SHOWN_DIGITS]}..."
    return f"{sign}{shown}.{part:0{places}d}"
