"""Questions about facts, in the forms in which people type them, and their answers.

Reads a World; writes nothing. A question has a form: "direct", "clause" ("tell me ..."), "lower" (lower case, no question mark),
"keywords" and "misspelt". In each form the words of a held-out question are others than those of pages and conversations. The frames
around a question ("excuse me, ...") are in data/chat.yaml.
"""

import random
from typing import Literal, get_args

from tasks.sample_web.data import table
from tasks.sample_web.grammar import expand, misspell, say
from tasks.sample_web.relations import Asking
from tasks.sample_web.statements import fact_slots
from tasks.sample_web.world import Fact, World

Form = Literal["direct", "clause", "lower", "keywords", "misspelt"]
FORMS: tuple[Form, ...] = get_args(Form)


def ask(
    world: World,
    fact: Fact,
    asking: Asking,
    form: Form,
    rng: random.Random,
    is_heldout: bool = False,
    is_framed: bool = False,
) -> str:
    """A question for a fact. `is_framed`: as in a conversation, with words around the question."""
    slots = fact_slots(world, fact)
    if form == "keywords":
        return expand(rng.choice(asking.heldout_keywords if is_heldout else asking.keywords), rng, slots).lower()
    if form == "clause":
        clause = expand(rng.choice(asking.heldout_clauses if is_heldout else asking.clauses), rng, slots)
        return say(_frame("clauses", is_heldout and rng.random() < 0.5), rng, {"c": clause})
    core = expand(rng.choice(asking.heldout_asks if is_heldout else asking.asks), rng, slots)
    if form == "lower":
        return core.lower() if rng.random() < 0.8 else f"{core.lower()}?"
    if form == "misspelt":
        wrong = misspell(core, rng, kept=(fact.subject, fact.object))
        return say("$q?", rng, {"q": wrong}) if rng.random() < 0.5 else wrong.lower()
    return say(_frame("questions", is_heldout and rng.random() < 0.5) if is_framed else "$q?", rng, {"q": core})


def _frame(kind: str, is_heldout: bool) -> str:
    return str(table("chat")["heldout_frames" if is_heldout else "frames"][kind])


def answer(world: World, fact: Fact, asking: Asking) -> str:
    """The sentence that answers a question for a fact; it ends in the answer."""
    return say(asking.answer, random.Random(), fact_slots(world, fact))
