"""Sums for pages and conversations: a question, a short answer, and the way to it digit by digit.

Reads data/tales.yaml; writes nothing. The steps of written arithmetic let a model compute one digit at a time what it cannot compute at
once (Nye et al. 2021, https://arxiv.org/abs/2112.00114). They need a tokenizer that keeps digits apart.
"""

import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from tasks.sample_web.data import table
from tasks.sample_web.grammar import NUMBER_WORDS, expand, say


@dataclass(frozen=True)
class Sum:
    """`first` `sign` `second` is `result`; the sign is +, - or x, and x has a second number of one digit."""

    sign: str
    first: int
    second: int

    @property
    def result(self) -> int:
        """The result."""
        return {"+": self.first + self.second, "-": self.first - self.second, "x": self.first * self.second}[self.sign]

    @property
    def is_heldout(self) -> bool:
        """A tenth of the sums of numbers of two digits and more: no page and no conversation has them, the evaluation asks for them."""
        return (
            min(self.first, self.second) > 9
            and zlib.crc32(f"{self.first} {self.sign} {self.second}".encode()) % 10 == 9
        )

    @property
    def answer(self) -> str:
        """The result as a sentence that ends in it."""
        return f"{self.first} {self.sign} {self.second} is {self.result}."

    @property
    def worked(self) -> str:
        """The steps from the ones on, then the answer."""
        return self._work()

    def worked_wrong(self, rng: random.Random) -> str:
        """The steps with one that is wrong by one, and the answer that then follows. As a model errs: mostly in what it has carried."""
        num_steps = len(str(max(self.first, self.second)))
        while (wrong := self._work(rng.randrange(num_steps), rng.choice((-1, 1)))).endswith(f" {self.result}."):
            pass
        return wrong

    def _work(self, slip_at: int = 0, slip: int = 0) -> str:
        """The steps and the answer; `slip` is added to the result of a step, unless that would be negative."""
        pools = table("tales")["sums"]
        wordings = pools[self.sign]
        digits, others = ([int(digit) for digit in reversed(str(number))] for number in (self.first, self.second))
        others += [others[0] if self.sign == "x" else 0] * (len(digits) - len(others))
        digits += [0] * (len(others) - len(digits))
        steps: list[str] = []
        carried = total = 0
        for place, digit, other in zip(pools["places"], digits, others, strict=False):
            result = {"+": digit + other + carried, "-": digit - other - carried, "x": digit * other + carried}[
                self.sign
            ]
            if slip_at == len(steps) and (result >= 0) == (result + slip >= 0):
                result += slip
            borrowed = int(result < 0)
            spelled = {"a": digit + 10 * borrowed, "b": other, "c": carried, "r": result + 10 * borrowed}
            slots = {name: _spell(number) for name, number in spelled.items()}
            is_last = len(steps) == len(digits) - 1
            written = result if is_last else result % 10
            total += written * 10 ** len(steps)
            pattern = wordings["carried"] if carried else wordings["step"]
            carried = borrowed if self.sign == "-" else (0 if is_last else result // 10)
            pattern += wordings["carries"] if carried else ""
            step = expand(pattern, random.Random(), slots | {"w": str(written), "k": _spell(carried)})
            steps.append(say(place, random.Random(), {"step": step}))
        return " ".join([*steps, f"So {self.first} {self.sign} {self.second} is {total}."])

    def question(self, rng: random.Random) -> str:
        """A question for the result."""
        pools = table("tales")["sums"]
        slots = {"A": str(self.first), "B": str(self.second), "Sign": self.sign, "Word": pools["words"][self.sign]}
        return say(rng.choice(pools["questions"]), rng, slots)


def _spell(number: int) -> str:
    """Small numbers in words, as they are spoken: a page of digits would not be one of prose for the Gopher filter."""
    return NUMBER_WORDS[number] if number < len(NUMBER_WORDS) else str(number)


def draw_sum(rng: random.Random, num_digits: int = 2) -> Sum:
    """A sum that is not held out. Most have numbers of `num_digits` digits, the others of fewer; most are additions.

    A model of a million parameters learns one kind in some 300,000 tokens of worked sums, two kinds in twice as many.
    """
    return not_heldout(lambda: _draw(rng, num_digits))


def draw_small_sum(rng: random.Random) -> Sum:
    """A sum of two digits, or of numbers up to 20."""
    if rng.random() < 0.6:
        one, two = sorted(rng.choices(range(10), k=2))
        return rng.choice((Sum("+", one, two), Sum("+", two, one), Sum("-", two, one)))
    total = rng.randint(0, 20)
    part = rng.randint(0, total)
    return rng.choice((Sum("+", part, total - part), Sum("-", total, part)))


def not_heldout(draw: Callable[[], Sum]) -> Sum:
    """The first drawn sum that is not held out."""
    while (drawn := draw()).is_heldout:
        pass
    return drawn


def _draw(rng: random.Random, num_digits: int) -> Sum:
    (sign,) = rng.choices("+-x", (5, 2, 1))
    first, second = (
        rng.randrange(10 ** (rng.randint(1, num_digits) if rng.random() < 0.25 else num_digits)) for _ in range(2)
    )
    if sign == "x":
        return Sum(sign, first, rng.randint(2, 9))
    return Sum(sign, max(first, second), min(first, second)) if sign == "-" else Sum(sign, first, second)
