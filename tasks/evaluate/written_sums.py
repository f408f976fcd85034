"""Tokens to think: the same sums by the same model, answered at once and worked digit by digit.

Reads a chat model; writes nothing. A model computes a fixed amount for each token. The digits of a sum that it writes at once have to be found
within the first of them; written arithmetic spreads the work over many tokens (Nye et al. 2021, https://arxiv.org/abs/2112.00114). The
beginning of the reply is given, "47 + 38 is" or "First the ones:", so that the model has no choice of the way.

The sums are of two numbers of two digits. They are held out: no page and no conversation of the sample web has one of them
(tasks/sample_web/sums.py).
"""

import random
import re
from itertools import product
from typing import TYPE_CHECKING

from model.config import GenerateConfig
from tasks.markdown import Figures, table
from tasks.sample_web.sums import Sum
from tasks.shares import shown

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer

AT_ONCE, WORKED = "at once", "worked"
MAX_NEW_TOKENS = {AT_ONCE: 8, WORKED: 96}  # worked: some 65 tokens, digit by digit


def make_sums(num_sums: int) -> list[Sum]:
    """Different held-out sums of two-digit numbers, at most all 800 or so."""
    heldout = [task for task in (Sum("+", *pair) for pair in product(range(10, 100), repeat=2)) if task.is_heldout]
    return random.Random("written sums").sample(heldout, min(num_sums, len(heldout)))


def work_sums(model: "Transformer", tokenizer: "ChatTokenizer", num_sums: int, batch: int) -> dict[str, list[bool]]:
    """Whether each result is right, at once and worked."""
    from model.inference.cpu_kernels import make_decoder
    from model.inference.generate import generate

    sums, decoder = make_sums(num_sums), make_decoder(model)
    found = {}
    for way in (AT_ONCE, WORKED):
        is_right = []
        for start in range(0, len(sums), batch):
            group = sums[start : start + batch]
            prompts = [sum_prompt(tokenizer, task, way) for task in group]
            greedy = GenerateConfig(max_new_tokens=MAX_NEW_TOKENS[way], temperature=0.0)
            written = generate(decoder, prompts, greedy, tokenizer.turn_end)
            is_right += [
                result_of(tokenizer.decode(tokens), way) == task.result
                for task, tokens in zip(group, written, strict=True)
            ]
        found[way] = is_right
    return found


def sum_prompt(tokenizer: "ChatTokenizer", task: Sum, way: str) -> list[int]:
    """The tokens of a question and of the beginning of its reply."""
    question = task.question(random.Random(f"{task.first} {task.second}"))
    worked = task.worked
    opening = worked[: worked.index(":") + 1] if way == WORKED else task.answer.removesuffix(f" {task.result}.")
    return [*tokenizer.render_prompt([{"role": "user", "content": question}]), *tokenizer.encode_content(opening)]


def result_of(text: str, way: str) -> int | None:
    """The result that a continuation gives: its first number, or the last one of the steps."""
    numbers = re.findall(r"\d+", text)
    return int(numbers[0 if way == AT_ONCE else -1]) if numbers else None


def sums_section(figures: Figures) -> str:
    """The section of the report card; empty where no sums were asked."""
    if not (sums := figures.get("sums")):
        return ""
    rows = [[way, *(shown(shares[way]) for shares in sums.values())] for way in (AT_ONCE, WORKED)]
    note = "Sums of two numbers of two digits, answered in the place of the result or worked digit by digit first.\n\n"
    return "## Tokens to think\n\n" + note + table(["Answered", *sums], rows)
