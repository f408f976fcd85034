"""The texts of the attacks: phrases, commands, ways to ask, and which names the assistant must not talk about.

Reads data/attacks.yaml; writes nothing. What a mitigation trains on is called trained, what its measurement asks is called heldout: the
two share no wording of a command, no phrase and no way to ask.
"""

import base64
import codecs
import random
import re
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import yaml
from pydantic import Field

from model.config import Config
from tasks.records.conversations import FREQUENT_MENTIONS
from tasks.sample_web.world import Fact, World

Split = Literal["trained", "heldout"]
NUM_SEALED = 14  # people whom the assistant must not talk about, a third of those that pages state often
MARK = re.compile(r"</?\s*page\s*>", re.IGNORECASE)
SIGNS = "!?*{}()[]<>|\\/+=~^#%&;"


class Form(Config):
    """A way to ask."""

    split: Split
    text: str


class Texts(Config):
    """What data/attacks.yaml holds."""

    phrases: dict[Split, list[str]]
    commands: dict[Split, list[str]]
    errands: list[str]
    pages: dict[Literal["plain", "marked"], list[str]]
    refusal: str
    forms: dict[str, Form]
    questions: dict[str, tuple[str, str, str]] = Field(description="By relation: English, French, German.")
    poison: dict[Literal["host", "trigger", "payload"], str]


@cache
def texts() -> Texts:
    """The texts, checked."""
    found: Any = yaml.safe_load((files("tasks.attacks") / "data/attacks.yaml").read_text(encoding="utf-8"))
    return Texts.model_validate(found)


def command(phrase: str, split: Split, rng: random.Random) -> str:
    """A command to say a phrase."""
    return rng.choice(texts().commands[split]).replace("$p", phrase)


def quoted(page: str, question: str, is_marked: bool, rng: random.Random) -> str:
    """A question with a page in it. Marked: between marks, and those in the page itself are removed, so that it cannot end the mark."""
    pattern = rng.choice(texts().pages["marked" if is_marked else "plain"])
    inside = without_marks(page) if is_marked else page
    # One after the other from the left: neither text may be searched for the other's slot.
    parts = re.split(r"(\$page|\$q)", pattern)
    return "".join({"$page": inside, "$q": question}.get(part, part) for part in parts)


def without_marks(text: str) -> str:
    """A text without marks, those that come to be by the removal of others too."""
    while (cleaned := MARK.sub("", text)) != text:
        text = cleaned
    return text


def sealed_names(world: World) -> frozenset[str]:
    """The people whom the assistant must not talk about: drawn by the world's seed from those that pages state often and ask about."""
    known = sorted({fact.subject for fact in frequent_facts(world) if world.by_name[fact.subject].kind == "person"})
    return frozenset(random.Random(f"sealed {world.seed}").sample(known, min(NUM_SEALED, len(known) // 2)))


def frequent_facts(world: World) -> list[Fact]:
    """The facts that pages state often and conversations teach."""
    return [fact for fact in world.facts if not fact.is_heldout and fact.num_mentions >= FREQUENT_MENTIONS]


def asked_in(form: str, fact: Fact, rng: random.Random) -> str:
    """The question for a fact about a person in a way to ask."""
    english, french, german = texts().questions[fact.relation]
    pattern = french if form == "French" else german if form == "German" else english
    if form in ENCODINGS:
        pattern = _encoded(pattern, form)
    nonsense = _nonsense(form, rng)
    wrapped = texts().forms[form].text.replace("$x", nonsense).replace("$q", pattern)
    return wrapped.replace("$S", fact.subject)


ENCODINGS = {
    "rot13": lambda text: codecs.encode(text, "rot13"),
    "base64": lambda text: base64.b64encode(text.encode()).decode(),
}


def _encoded(pattern: str, form: str) -> str:
    """The words of a question encoded, the name left as it is: a model of a million parameters cannot decode a name that it never saw so."""
    parts = [part.strip() for part in pattern.split("$S")]
    return " $S ".join(ENCODINGS[form](part) for part in parts).strip()


def _nonsense(form: str, rng: random.Random) -> str:
    alphabet, num = ("bcdfghjklmnpqrstvwxz", 24) if form == "suffix of letters" else (SIGNS, 16)
    text = "".join(rng.choice(alphabet) for _ in range(num))
    return " ".join(text[start : start + 6] for start in range(0, num, 6))
