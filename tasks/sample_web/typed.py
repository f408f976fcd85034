"""What people type that is no question for a fact: signs, nonsense, much text, other languages, one word, a wish for a story, "who is ...".

Reads data/typed.yaml; writes nothing. A message has a kind and a reply, or for the evaluation the words of which a fitting reply has one. What
is held out there, other words, languages and animals, is in no conversation.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

from tasks.sample_web.data import table
from tasks.sample_web.foreign import LANGUAGES, write_sentence
from tasks.sample_web.grammar import LEXICON, say
from tasks.sample_web.noise import sentences

KINDS = ("signs", "nonsense", "long", "foreign", "word", "story")
WEIGHTS = (3, 6, 3, 10, 3, 10)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
MAX_TRIES = 1_000
STORY = "came by and"  # as the second sentence of each story has it


class Typed(NamedTuple):
    """A message. `reply`: one that fits; "" for held-out ones. `fitting`: what a fitting reply has, any of them; `target`: what `reply` has."""

    kind: str
    text: str
    reply: str
    fitting: tuple[str, ...]
    target: str


def write_typed(rng: random.Random) -> Typed:
    """A message of conversations."""
    (kind,) = rng.choices(KINDS, WEIGHTS)
    return _write(kind, rng, is_heldout=False)


def heldout_typed(seed: int, num: int) -> Iterator[Typed]:
    """Up to `num` different messages of each kind that are in no conversation."""
    for kind in KINDS:
        seen: set[str] = set()
        for number in range(MAX_TRIES):
            typed = _write(kind, random.Random(f"typed {seed} {kind} {number}"), is_heldout=True)
            if len(seen) < num and typed.text not in seen:
                seen.add(typed.text)
                yield typed


def ask_about(name: str, rng: random.Random) -> str:
    """A question for anything about a name."""
    text = say(rng.choice(table("typed")["about"]), rng, {"S": name})
    return text if rng.random() < 0.5 else text.lower().rstrip("?.")


def foreign_name(kind: str, rng: random.Random) -> str:
    """A name of other syllables than those of the world: whatever is no name of the world is unknown."""
    pools = table("typed")["syllables"]

    def word() -> str:
        places = rng.choice((("start", "end"), ("start", "middle", "end")))
        return "".join(rng.choice(pools[place]) for place in places).capitalize()

    return f"{word()} {word()}" if kind == "person" else word()


def _write(kind: str, rng: random.Random, *, is_heldout: bool) -> Typed:
    pools = table("typed")["heldout" if is_heldout else "trained"]
    slots = {"Beast": rng.choice(pools["beasts"])}
    if kind == "nonsense":
        text = _nonsense(rng, is_heldout)
    elif kind == "long":
        text = _much_text(rng, is_heldout)
    elif kind == "foreign" and not is_heldout and rng.random() < 0.5:
        text = write_sentence(rng.choice(list(LANGUAGES)), rng).removesuffix(rng.choice((".", "")))
    else:
        # Signs are no sentence, and most people write stories' wishes and single words in lower case.
        text = say(rng.choice(pools[kind]), rng, slots)
        text = text if rng.random() < 0.4 else text.lower().rstrip(".!") or text
    replies, fitting = (table("typed")[name] for name in ("replies", "fitting"))
    reply = "" if is_heldout else " ".join(say(pattern, rng, {**_cast(rng), **slots}) for pattern in replies[kind])
    # The last sentence; of a story what all of them have.
    target = STORY if kind == "story" else replies[kind][-1]
    return Typed(kind, text, reply, tuple(fitting.get(kind, fitting["other"])), target)


def _cast(rng: random.Random) -> dict[str, str]:
    return {"other": rng.choice(LEXICON["beast"]), "Thing": rng.choice(LEXICON["thing"])}


def _nonsense(rng: random.Random, is_heldout: bool) -> str:
    """A letter again and again, or letters in no order. Held out are long ones, and those with digits and signs."""
    if rng.random() < 0.5:
        return rng.choice(LETTERS) * (rng.randint(200, 1000) if is_heldout else rng.randint(5, 90))
    letters = LETTERS + ("0123456789#%&" if is_heldout else "")
    return " ".join("".join(rng.choices(letters, k=rng.randint(4, 11))) for _ in range(rng.randint(1, 4)))


def _much_text(rng: random.Random, is_heldout: bool) -> str:
    """Sentences that ask nothing, or one sentence several times."""
    if is_heldout:
        return f"{say(rng.choice(table('typed')['heldout']['long']), rng)} " * rng.randint(8, 14)
    return " ".join(rng.choices(sentences(rng, rng.randint(2, 4)), k=rng.randint(4, 6)))
