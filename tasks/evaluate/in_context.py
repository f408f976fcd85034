"""In-context learning: what a base model does with examples in its prompt whose answers cannot be in its weights.

Reads a base model; writes nothing. All words are made up of random syllables, so that an answer can only come from the prompt (Brown et al.
2020, https://arxiv.org/abs/2005.14165: accuracy by the number of examples, 0 to 8). Two tasks:

- attribute: each example names somebody and a thing, and the thing is repeated. The prompt of a trial ends in new words, so what must be
  learned from the examples is the mapping.
- pairs: a list of word pairs; the first word of one of them is repeated, and its partner must follow, which is what induction heads do
  (Olsson et al. 2022, https://arxiv.org/abs/2209.11895). One pair can be copied, eight need the right one.
"""

import random
from typing import TYPE_CHECKING

from model.config import GenerateConfig
from tasks.markdown import Figures, name, table
from tasks.shares import share, shown

if TYPE_CHECKING:
    from model.network.transformer import Transformer
    from model.tokenizer.chat import ChatTokenizer

NUM_EXAMPLES = (0, 1, 4, 8)
TASKS = ("attribute", "pairs")
MAX_NEW_TOKENS = 12  # a made-up word has some four tokens


def in_context_figures(model: "Transformer", tokenizer: "ChatTokenizer", num_trials: int, batch: int) -> list[Figures]:
    """A row for each task: the share of right answers after each number of examples."""
    from model.inference.scoring import complete

    newline = tuple(tokenizer.encode("\n"))
    greedy = GenerateConfig(max_new_tokens=MAX_NEW_TOKENS, temperature=0.0, stop_sequences=(newline,))
    rows = []
    for task in TASKS if num_trials else ():
        shares = {}
        for number in NUM_EXAMPLES:
            trials = [make_trial(task, number, random.Random(f"{task} {trial}")) for trial in range(num_trials)]
            texts = complete(model, tokenizer, [prompt for prompt, _ in trials], greedy, batch)
            pairs = zip(texts, trials, strict=True)
            shares[str(number)] = share([first_word(text) == expected for text, (_, expected) in pairs])
        rows.append({"task": task, "accuracy": shares})
    return rows


def make_trial(task: str, num_examples: int, rng: random.Random) -> tuple[str, str]:
    """A prompt with so many examples, and the word that must follow."""
    pairs = [(made_up_word(rng).capitalize(), made_up_word(rng)) for _ in range(num_examples + 1)]
    if task == "attribute":
        lines = [f"Q: {one} has a {two}.\nA: {two}" for one, two in pairs]
        return "\n".join(lines).removesuffix(f" {pairs[-1][1]}"), pairs[-1][1]
    # Without examples nothing in the prompt says what follows: the accuracy of guessing, which is 0.
    shown_pairs = pairs[:num_examples]
    asked, expected = rng.choice(shown_pairs or pairs)
    return "\n".join([*(f"{one}: {two}" for one, two in shown_pairs), f"{asked}:"]), expected


def made_up_word(rng: random.Random) -> str:
    """Two syllables: one of 176,000 words, a few of which are English by chance."""
    return "".join(rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") + rng.choice("lmnrst") for _ in range(2))


def first_word(text: str) -> str:
    """The first word of a continuation, without the full stop."""
    return next(iter(text.split()), "").rstrip(".,")


def in_context_section(figures: Figures) -> str:
    """The section of the report card."""
    if not (rows := figures.get("in_context")):
        return ""
    cells = [[name(row["task"]), *(shown(value) for value in row["accuracy"].values())] for row in rows]
    headings = ["Task", *(f"{number} example{'' if number == '1' else 's'}" for number in rows[0]["accuracy"])]
    note = (
        "The base model continues a prompt of made-up words. attribute: each example repeats the thing that somebody has; pairs: the partner "
        "of a word in a list of so many pairs.\n\n"
    )
    return "## In-context learning\n\n" + note + table(headings, cells)
