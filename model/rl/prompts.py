"""Prompts for reinforcement learning: which are used, and which are held out for validation.

Reads JSON Lines of {"messages": [...], "answer": ..., "kind": ...}; answer and kind may be missing or null. Writes nothing.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from model.errors import UserError
from model.files import read_lines
from model.rl.config import RLConfig
from model.rl.watch import ALL
from model.tokenizer.chat import ChatTokenizer

OTHER = "other"  # the kind of prompts that name none, and of the rarest kinds of a file that names many
MAX_KINDS = 12  # each has a dozen metrics in every line


class Prompt(NamedTuple):
    """A conversation up to the assistant's turn."""

    text: str  # of the last turn
    tokens: list[int]
    answer: str | None  # that a right completion gives, see model/inference/answers.py
    kind: str = OTHER  # such as "arithmetic": metrics are also reported by kind


def read_prompts(paths: Sequence[str], tokenizer: ChatTokenizer, config: RLConfig) -> list[Prompt]:
    """The prompts of at most max_prompt_tokens tokens. Raises UserError if no prompt is that short."""
    prompts = []
    for record in (record for path in paths for record in read_lines(path)):
        answer = record.get("answer")  # some files have numbers here
        # With the opening of the assistant's turn, so that a completion begins with the reply itself.
        tokens = tokenizer.render_prompt(record["messages"])
        text, kind = record["messages"][-1]["content"], kind_name(str(record.get("kind") or ""))
        prompts.append(Prompt(text, tokens, None if answer is None else str(answer), kind))
    # Left out rather than cut off: half a question has another answer.
    fitting = [prompt for prompt in prompts if len(prompt.tokens) <= config.max_prompt_tokens]
    if not fitting:
        raise UserError(
            f"none of the {len(prompts)} prompts in {', '.join(paths)} has at most max_prompt_tokens={config.max_prompt_tokens} "
            "tokens: raise max_prompt_tokens or give shorter prompts"
        )
    return with_few_kinds(fitting)


def kind_name(kind: str) -> str:
    """A kind as a part of a metric's name: its letters and digits, at most 40. "all" is the name of all prompts together."""
    name = re.sub(r"\W+", "_", kind).strip("_")[:40]
    return OTHER if name in ("", ALL) else name


def with_few_kinds(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts, those of all but the MAX_KINDS most frequent kinds as of the kind OTHER."""
    frequent = {kind for kind, _ in Counter(prompt.kind for prompt in prompts).most_common(MAX_KINDS)}
    return [prompt if prompt.kind in frequent else prompt._replace(kind=OTHER) for prompt in prompts]


def split_prompts(prompts: Sequence[Prompt], config: RLConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to train on, and held-out ones. A prompt is never on both sides.

    Few prompts, or many copies of few, can all fall on the held-out side. Then none is held out: a file that passed its check
    before the run must not stop the last training stage of it.
    """
    # Drawn with the seed, since a file may be sorted.
    order = np.random.default_rng(config.seed).permutation(len(prompts))
    num_heldout = min(round(config.validation_fraction * len(prompts)), config.max_validation_prompts)
    heldout = [prompts[index] for index in order[:num_heldout]]
    # Two files may hold the same prompt, and a copy on both sides would inflate the validation. All turns count: many
    # conversations end in "Why?".
    known = {tuple(prompt.tokens) for prompt in heldout}
    rest = [prompts[index] for index in order[num_heldout:] if tuple(prompts[index].tokens) not in known]
    return (rest, heldout) if rest else (list(prompts), [])
