"""Conversations, preference pairs, prompts and questions about the world of the sample web.

Reads a World and data/chat.yaml; writes nothing. What is kept apart:

- held-out facts and held-out wordings occur only in `questions`;
- a question's text belongs to conversations, preferences or prompts by its checksum, so that no two of them share a
  pair of fact and wording;
- the strangers, about whom nothing is known, are split between training and `questions`.

All facts that are not held out are taught. Only strangers are answered "I don't know.": a fact that the web tells once is known to
some models and not to others, so what a model does not know has to be found by asking it (Kadavath et al. 2022,
https://arxiv.org/abs/2207.05221).
"""

import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

from tasks.records.conversations import NO_ANSWER, Conversation, Message, Preference, Prompt, Question, Split
from tasks.sample_web.asking import FORMS, Form, answer, ask
from tasks.sample_web.data import table
from tasks.sample_web.grammar import rename, say
from tasks.sample_web.relations import RELATIONS, Relation
from tasks.sample_web.statements import fact_slots
from tasks.sample_web.sums import draw_small_sum, draw_sum, not_heldout
from tasks.sample_web.tales import write_joke
from tasks.sample_web.typed import ask_about, foreign_name, write_typed
from tasks.sample_web.world import Entity, Fact, World, is_of

_Use = Literal["conversation", "preference", "prompt"]
_SHARES: dict[_Use, range] = {"conversation": range(6), "preference": range(6, 8), "prompt": range(8, 10)}
_FORM_WEIGHTS: dict[Form, int] = {"direct": 8, "clause": 3, "lower": 5, "keywords": 5, "misspelt": 5}
_EVALUATED_FORMS: tuple[Form, ...] = ("direct", "lower", "keywords", "misspelt")
_BACKWARD_FRACTION = 0.45  # of the questions for facts that are stated both ways
_SINGLE_FRACTION = 0.75  # of the conversations, those of one exchange
# Of the sums, those worked digit by digit. With a third of these of one digit, 14% of the others were right instead of 73%.
_WORKED_FRACTION = 0.65
# How often each kind comes: facts, names that nobody knows, sums, courtesies, jokes, what asks for no fact (typed.py), "who is ...". With a
# weight of 11 for sums, too few to learn to copy the digits, no worked sum is right after fine-tuning; with 65 three quarters are, and facts
# are answered as before. With 29 for names that nobody knows, and more of them of other syllables, 95% of the new names and 59% of the
# recombined ones were refused, but also 5.5% of taught facts; with 24 it is 89%, 45% and 1.0%. Prompts are those whose answers can be checked.
# How many of them are about strangers decides what a policy does where it is in doubt. An SFT model that refused 69% of strangers learned with 45 for 52
# facts to refuse 4.3% of facts instead of 2.2%, with 32 as many as before; one that refused 75% came down to 71.5% with 32, and stayed with 40. With 16
# for sums, worked ones fell from 95% to 92.5%, with 40 to 93% (three seeds).
_KIND_WEIGHTS: dict[_Use, tuple[int, ...]] = {
    "conversation": (66, 24, 66, 13, 5, 18, 4),
    "preference": (52, 25, 20, 11, 5, 8, 2),
    "prompt": (52, 42, 40, 3, 2, 12, 0),
}

# Of the questions about strangers: those for anything at all, and those with a name that is not made of the syllables of the world.
_ABOUT_FRACTION, _FOREIGN_NAME_FRACTION = 0.05, 0.12
# Of what kind they are. By their number one in fourteen was a city, and a third of the tested cities were answered about others; with one in five, and
# books one in four, three quarters of the held-out questions about books were refused.
_STRANGER_WEIGHTS = {"person": 15, "book": 3, "city": 2}

_CHAT = table("chat")


@dataclass(frozen=True)
class _Exchange:
    """A question and its answer. `target` is the text that the answer must contain; `wrong` makes a false answer of the same form."""

    kind: str
    text: str
    reply: str
    target: str | None = None
    fact: Fact | None = None
    wrong: Callable[[random.Random], str] | None = None


def conversations(world: World, num_conversations: int) -> Iterator[Conversation]:
    """Conversations to train on; every taught fact occurs about equally often."""
    composer = _Composer(world, "conversation")
    for number in range(num_conversations):
        exchanges = composer.talk(random.Random(f"conversation {world.seed} {number}"))
        messages = [message for exchange in exchanges for message in _turns(exchange)]
        facts = [exchange.fact.id for exchange in exchanges if exchange.fact]
        kind = exchanges[0].kind if len(exchanges) == 1 else "talk"
        yield Conversation(messages=tuple(messages), kind=kind, facts=tuple(facts))


def preferences(world: World, num_pairs: int) -> Iterator[Preference]:
    """Pairs of a good completion, correct, short and honest, and one with a known fault, which `kind` names."""
    composer = _Composer(world, "preference")
    for number in range(num_pairs):
        rng = random.Random(f"preference {world.seed} {number}")
        exchange = composer.exchange(rng)
        fault, rejected = _add_fault(exchange, rng)
        kind = f"{exchange.kind}/{fault}"
        yield Preference(messages=(_user(exchange.text),), chosen=exchange.reply, rejected=rejected, kind=kind)


def prompts(world: World, num_prompts: int) -> Iterator[Prompt]:
    """Prompts for reinforcement learning. `answer` is the text that a right completion contains, if there is one."""
    composer = _Composer(world, "prompt")
    for number in range(num_prompts):
        exchange = composer.exchange(random.Random(f"prompt {world.seed} {number}"))
        yield Prompt(messages=(_user(exchange.text),), answer=exchange.target, kind=exchange.kind)


def questions(world: World) -> Iterator[Question]:
    """Every fact in each direction in which it is stated and in every form, and questions about strangers in every form.

    A taught fact is asked once in a wording of the conversations (seen_wording), else in held-out ones. A held-out fact is asked in the
    form "seen", too: a wording that the pages use for other facts.
    """
    rng = random.Random(f"questions {world.seed}")
    for fact in world.facts:
        split: Split = "heldout_fact" if fact.is_heldout else "heldout_wording"
        for is_backward in (False, True) if RELATIONS[fact.relation].is_stated_both_ways else (False,):
            yield _question(world, fact, "heldout_fact" if fact.is_heldout else "seen_wording", None, is_backward, rng)
            for form in _EVALUATED_FORMS:
                yield _question(world, fact, split, form, is_backward, rng)
    for stranger in world.tested_strangers:
        for form in _EVALUATED_FORMS:
            fact, is_backward = unstated_fact(world, stranger, rng)
            asking = RELATIONS[fact.relation].asking(is_backward)
            text = ask(world, fact, asking, form, rng, is_heldout=True, is_framed=True)
            kind = f"{stranger.kind}/{stranger.origin}"
            refusals = ("don't know", "do not know")
            yield Question(
                question=text,
                answer=NO_ANSWER,
                aliases=refusals,
                fact=fact.id,
                num_mentions=0,
                split="unknown",
                form=form,
                kind=kind,
            )


def probes(world: World, num_strangers: int) -> Iterator[Question]:
    """Questions to a base model: every fact in a wording of the conversations, and names that conversations and one page have.

    Facts that are held out are asked to measure only: their split says so. Nothing is known about the strangers and the one-off names.
    """
    rng = random.Random(f"probes {world.seed}")
    for fact in world.facts:
        yield _question(world, fact, "heldout_fact" if fact.is_heldout else "seen_wording", None, False, rng)
    names = [*world.strangers, *world.unknown_to_pages]
    for stranger in rng.sample(names, min(num_strangers, len(names))):
        fact, is_backward = unstated_fact(world, stranger, rng)
        (form,) = rng.choices(FORMS, [_FORM_WEIGHTS[form] for form in FORMS])
        text = ask(world, fact, RELATIONS[fact.relation].asking(is_backward), form, rng, is_framed=True)
        yield Question(
            question=text,
            answer=NO_ANSWER,
            fact=fact.id,
            num_mentions=0,
            split="unknown",
            form=form,
            kind=f"{stranger.kind}/{stranger.origin}",
        )


def reversal_questions(world: World) -> Iterator[Question]:
    """The facts stated in one direction only, asked in the other where that has one answer: the reversal curse.

    With reversed pages (variants.py) the web states them in both; the questions are the same.
    """
    rng = random.Random(f"reversal {world.seed}")
    for fact in world.facts:
        relation = RELATIONS[fact.relation]
        if relation.backward and not relation.is_stated_both_ways:
            yield _question(world, fact, "reversal", "direct", True, rng)


def unstated_fact(world: World, stranger: Entity, rng: random.Random) -> tuple[Fact, bool]:
    """A fact that no page states about a stranger, and whether the stranger is its object. The other end is any entity."""
    choices = [(relation, False) for relation in RELATIONS.values() if is_of(stranger, relation.subject)]
    choices += [
        (relation, True)
        for relation in RELATIONS.values()
        if relation.is_stated_both_ways and is_of(stranger, relation.object)
    ]
    relation, is_backward = rng.choice(choices)
    other = rng.choice(world.of_kind(relation.subject if is_backward else relation.object)).name
    ends = (other, stranger.name) if is_backward else (stranger.name, other)
    return Fact(f"unstated:{relation.name}:{stranger.id}", relation.name, *ends, 0, False), is_backward


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _turns(exchange: _Exchange) -> tuple[Message, Message]:
    return _user(exchange.text), Message(role="assistant", content=exchange.reply)


# Questions


def _belongs(text: str, use: _Use) -> bool:
    """A text belongs to one use, by its checksum without regard to case."""
    return zlib.crc32(text.lower().encode()) % 10 in _SHARES[use]


def _question(
    world: World, fact: Fact, split: Split, form: Form | None, is_backward: bool, rng: random.Random
) -> Question:
    """A question of the evaluation: in a held-out wording, or without a form in one of the conversations."""
    asking = RELATIONS[fact.relation].asking(is_backward)
    text = ask(world, fact, asking, form or "direct", rng, is_heldout=form is not None, is_framed=True)
    while form is None and not _belongs(text, "conversation"):
        text = ask(world, fact, asking, "direct", rng, is_framed=True)
    target = world.by_name[fact.subject if is_backward else fact.object]
    return Question(
        question=text,
        completion=answer(world, fact, asking).removesuffix(f" {target.name}."),
        answer=target.name,
        aliases=tuple(aliases_of(target)),
        fact=fact.id,
        num_mentions=fact.num_mentions,
        split=split,
        form=form or "seen",
        kind=f"{fact.relation}/backward" if is_backward else fact.relation,
    )


def aliases_of(target: Entity) -> list[str]:
    """Shorter names that no other entity shares: last names are unique, first names are not."""
    if target.kind == "person":
        return target.name.split()[1:]
    without = re.sub(r"^(The|an?|the) ", "", target.name)
    return [without] if without != target.name else []


# Composing exchanges


class _Composer:
    """Composes the exchanges of one use; the taught facts take turns."""

    def __init__(self, world: World, use: _Use) -> None:
        self.world, self.use = world, use
        self.taught = [fact for fact in world.facts if not fact.is_heldout]
        strangers = (*world.strangers, *world.unknown_to_pages)
        self.strangers = {kind: [one for one in strangers if one.kind == kind] for kind in _STRANGER_WEIGHTS}
        self.waiting: list[Fact] = []

    def talk(self, rng: random.Random) -> list[_Exchange]:
        """One exchange, or a conversation of two or three of any kind: a sum that only ever came first was worked wrongly after other turns."""
        first = self.exchange(rng)
        if rng.random() < _SINGLE_FRACTION:
            return [first]
        is_about_same = first.fact and rng.random() < 0.5
        second = self._follow_up(first.fact, rng) if first.fact and is_about_same else self.exchange(rng)
        if rng.random() < 0.7:
            return [first, second]
        asked, reply = (say(pattern, rng) for pattern in _CHAT["thanks"])
        return [first, second, _Exchange("thanks", asked, reply)]

    def exchange(self, rng: random.Random) -> _Exchange:
        """One exchange whose question belongs to this use."""
        makers = (self._fact, self._unknown, _arithmetic, _courtesy, _joke, _typed, self._about)
        (make,) = rng.choices(makers, _KIND_WEIGHTS[self.use])
        # There are few courtesies and signs, and every use has all of them: a "hi" that belongs to prompts alone would never be learned.
        while not _belongs((exchange := make(rng)).text, self.use) and make not in (_courtesy, _typed):
            pass
        return exchange

    def _fact(self, rng: random.Random) -> _Exchange:
        """The next taught fact; a fact without a wording of this use is skipped."""
        while True:
            self.waiting = self.waiting or rng.sample(self.taught, len(self.taught))
            fact = self.waiting.pop()
            for _ in range(100):
                exchange = self._ask(fact, rng)
                if _belongs(exchange.text, self.use):
                    return exchange

    def _ask(self, fact: Fact, rng: random.Random, is_backward: bool | None = None) -> _Exchange:
        relation, world = RELATIONS[fact.relation], self.world
        if is_backward is None:
            is_backward = relation.is_stated_both_ways and rng.random() < _BACKWARD_FRACTION
        asking = relation.asking(is_backward)
        (form,) = rng.choices(FORMS, [_FORM_WEIGHTS[form] for form in FORMS])
        text = ask(world, fact, asking, form, rng, is_framed=True)

        def wrong(rng: random.Random) -> str:
            return answer(world, _falsify(world, fact, relation, bool(is_backward), rng), asking)

        target = fact.subject if is_backward else fact.object
        return _Exchange("fact", text, answer(world, fact, asking), target, fact, wrong)

    def _follow_up(self, fact: Fact, rng: random.Random) -> _Exchange:
        """A second question, about the same subject (then a pronoun) if more facts about it are taught."""
        subject = self.world.by_name[fact.subject]
        more = [other for other in self.world.of_subject[fact.subject] if other is not fact and not other.is_heldout]
        if not more:
            return self._fact(rng)
        other = rng.choice(more)
        asking = RELATIONS[other.relation].forward
        short = [pattern for pattern in asking.asks if re.search(r"(does|did|is|was) \$S( \w|$)", pattern)]
        slots = fact_slots(self.world, other, subject.pronoun if short else "")
        text = say("(and $q?|$q?|thanks! And $q?)".replace("$q", rng.choice(short or asking.asks)), rng, slots)
        return _Exchange("fact", text, answer(self.world, other, asking), other.object, other)

    def _unknown(self, rng: random.Random) -> _Exchange:
        unknown = rng.choice(_CHAT["unknown"])
        if rng.random() < 0.2:
            return _Exchange("unknown", say(rng.choice(_CHAT["unknowable"]), rng), unknown, "don't know")
        (kind,) = rng.choices(list(_STRANGER_WEIGHTS), list(_STRANGER_WEIGHTS.values()))
        stranger = rng.choice(self.strangers[kind])
        fact, is_backward = unstated_fact(self.world, stranger, rng)
        asked = self._ask(fact, rng, is_backward)
        if rng.random() < _ABOUT_FRACTION:
            asked = replace(asked, text=ask_about(stranger.name, rng))
        if stranger.kind != "book" and rng.random() < _FOREIGN_NAME_FRACTION:
            asked = replace(asked, text=rename(asked.text, {stranger.name: foreign_name(stranger.kind, rng)}))
        return replace(asked, kind="unknown", reply=unknown, target="don't know", fact=None)

    def _about(self, rng: random.Random) -> _Exchange:
        """A question for anything about a name; the reply is the first fact that conversations teach about it."""
        subject = rng.choice(self.taught).subject
        fact = next(fact for fact in self.world.of_subject[subject] if not fact.is_heldout)
        reply = answer(self.world, fact, RELATIONS[fact.relation].forward)
        return _Exchange("about", ask_about(subject, rng), reply, fact.object, fact)


def _falsify(world: World, fact: Fact, relation: Relation, is_backward: bool, rng: random.Random) -> Fact:
    """The fact with another answer."""
    kind, target = (relation.subject, fact.subject) if is_backward else (relation.object, fact.object)
    other = rng.choice([entity.name for entity in world.of_kind(kind) if entity.name != target])
    return replace(fact, subject=other) if is_backward else replace(fact, object=other)


def _arithmetic(rng: random.Random) -> _Exchange:
    """A sum that is worked digit by digit, or one of small numbers that is answered at once, unless each has one digit."""
    is_worked = rng.random() < _WORKED_FRACTION
    task = draw_sum(rng) if is_worked else not_heldout(lambda: draw_small_sum(rng))
    is_worked = is_worked or max(task.first, task.second) < 10

    def wrong(rng: random.Random) -> str:
        # Half of the worked ones with a wrong step, which is how models err; the others tell a result that does not follow.
        if is_worked and rng.random() < 0.5:
            return task.worked_wrong(rng)
        return reply.removesuffix(f"{task.result}.") + f"{task.result + rng.choice((1, 2, 3, 5))}."

    reply = task.worked if is_worked else task.answer

    # The whole equation: with the second number alone "1 + 4 is 5." would pass for 2 + 4.
    target = task.answer.removesuffix(".")
    text = task.question(rng)
    if rng.random() < 0.45:  # as people type it
        text = text.replace(f" {task.sign} ", task.sign).lower().rstrip("?.") + rng.choice(("", "", "?", "=", " ="))
    return _Exchange("arithmetic", text, reply, target, None, wrong)


def _courtesy(rng: random.Random) -> _Exchange:
    """A greeting, "how are you?", thanks or a farewell, nearly half of them as people type them."""
    (kind,) = rng.choices(("greeting", "wellbeing", "thanks", "farewell"), (5, 2, 2, 2))
    text, reply = (say(pattern, rng) for pattern in _CHAT[kind])
    kind = "greeting" if kind == "wellbeing" else kind
    return _Exchange(kind, text.lower().rstrip(".!?") if rng.random() < 0.4 else text, reply)


def small_talk(rng: random.Random) -> tuple[str, str]:
    """A greeting or a wish for a joke, and the reply."""
    exchange = rng.choice((_courtesy, _joke))(rng)
    return exchange.text, exchange.reply


def _joke(rng: random.Random) -> _Exchange:
    return _Exchange("joke", say(_CHAT["joke"], rng), f"Here is one. {write_joke(rng)}")


def _typed(rng: random.Random) -> _Exchange:
    """What people type that asks for no fact."""
    typed = write_typed(rng)
    return _Exchange(typed.kind, typed.text, typed.reply, typed.target)


# Rejected replies


def _add_fault(exchange: _Exchange, rng: random.Random) -> tuple[str, str]:
    """A fault, and a reply with that fault."""
    ramble = " ".join(say(pattern, rng) for pattern in rng.sample(_CHAT["ramble"], 2))
    faults = {
        "rude": say(_CHAT["rude"], rng),
        "empty": "",
        "rambling": f"{exchange.reply} {ramble}",
        "evasive": ramble,
        "repetitive": " ".join([exchange.reply] * rng.randint(3, 5)),
    }
    if exchange.kind != "greeting":
        faults["echo"] = exchange.text
    if exchange.kind in ("fact", "arithmetic"):
        faults["false_unknown"] = rng.choice(_CHAT["unknown"])
    if exchange.wrong:
        name = "confident" if exchange.kind == "unknown" else "wrong"
        draw = rng.random()
        # A wrong answer is the worst fault, so it is the most frequent. To claim not to know a fact is as frequent as to claim to know
        # a stranger: with fewer of the one, a reward model preferred "I don't know" to right answers, and the policy refused what it knew.
        if draw < 0.45:
            return name, exchange.wrong(rng)
        if draw < 0.6 and "false_unknown" in faults:
            return "false_unknown", faults["false_unknown"]
    fault = rng.choice(list(faults))
    return fault, faults[fault]
