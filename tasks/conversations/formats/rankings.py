"""Rankings of completions, as `crawl2chat labels export` writes them: all pairs of better and worse become preferences.

A record has `messages`, `completions` (each with `text`) and `ranks`, a number for each completion: 1 is the best, equal ranks are a tie and
give no pair. Each pair has the weight 1 / (number of pairs of the ranking), so that a ranking of 9 completions counts as much as one of 4:
the factor of InstructGPT's loss (Ouyang et al. 2022, https://arxiv.org/abs/2203.02155, equation 1). `who` ranked is counted, and kept out of the pairs.
"""

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from tasks.conversations.formats.parts import FormatError, Values, list_of, object_of, text_of
from tasks.records.mistakes import shown

MAX_COMPLETIONS = 64  # 2,016 pairs: a hostile record must not become millions


def is_ranking(value: Any) -> bool:
    """Whether a value of a file is a ranking."""
    return isinstance(value, Mapping) and all(isinstance(value.get(name), list) for name in ("completions", "ranks"))


def ranking_preferences(value: Mapping[str, Any]) -> Values:
    """Every better completion against every worse one. A blank one is never the better: nothing is to be learned from its text."""
    ranked = _ranked(value)
    pairs = [
        (better, worse)
        for better, worse in itertools.permutations(ranked, 2)
        if better[0] < worse[0] and better[1].strip()
    ]
    for (_, chosen), (_, rejected) in pairs:
        yield {"messages": value.get("messages"), "chosen": chosen, "rejected": rejected, "weight": 1 / len(pairs)}


def ranking_prompts(value: Mapping[str, Any]) -> Values:
    """What was answered."""
    yield {"messages": value.get("messages")}


def count_labels(values: Iterable[Any]) -> dict[str, int]:
    """How many of the values are rankings, and how many people gave them; empty without any."""
    people = Counter(str(value.get("who")) for value in values if is_ranking(value))
    return {"labels": people.total(), "people": len(people)} if people else {}


def _ranked(value: Mapping[str, Any]) -> list[tuple[float, str]]:
    """Rank and text of each completion."""
    ranks, completions = list_of(value, "ranks"), list_of(value, "completions")
    if len(ranks) != len(completions) or not 2 <= len(ranks) <= MAX_COMPLETIONS:
        problem = f"there are {len(completions)} completions and {len(ranks)} ranks"
        raise FormatError(f"{problem}; give a rank for each of 2 to {MAX_COMPLETIONS} completions")
    for number, rank in enumerate(ranks):
        if not isinstance(rank, int | float) or isinstance(rank, bool):
            raise FormatError(f"ranks[{number}] is {shown(rank)}; write a number, 1 for the best")
    texts = [text_of(object_of(each, f"completions[{number}]"), "text") for number, each in enumerate(completions)]
    return list(zip(ranks, texts, strict=True))
