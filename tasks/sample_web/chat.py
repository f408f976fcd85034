"""Conversations, preference pairs, prompts and questions about the world of the sample web.

Reads a World, writes nothing. What is kept apart:

- held-out facts and held-out wordings occur only in `questions`;
- a question's text belongs to conversations, preferences or prompts by its checksum, so that no two of them share a
  pair of fact and wording;
- the people, cities and books that do not exist, and the facts that no page states, are split between training and
  `questions`.

Facts stated at least MIN_TAUGHT_MENTIONS times are taught. Facts stated once are answered "I don't know.", as a model
that never learned them must answer (Kadavath et al. 2022, https://arxiv.org/abs/2207.05221); `questions` asks for
them too, with their true answer.
"""

import random
import re
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from tasks.records.conversations import NO_ANSWER, Conversation, Message, Preference, Prompt, Question, Split
from tasks.sample_web.grammar import LEXICON, expand, say
from tasks.sample_web.relations import RELATIONS, Asking, Relation
from tasks.sample_web.tales import joke
from tasks.sample_web.text import fact_slots
from tasks.sample_web.world import Entity, Fact, World

MIN_TAUGHT_MENTIONS = 5

_Use = Literal["conversation", "preference", "prompt"]
_SHARES: dict[_Use, range] = {"conversation": range(6), "preference": range(6, 8), "prompt": range(8, 10)}

_DIRECT = "($q?|$q?|$q?|$q?|(hi|hello|hey)! $q?|excuse me, $q?|(a |)(quick|short|small) question: $q?|I have a question. $q?|please tell me: $q?)"
_CLAUSE = "(do you know $c?|(can|could) you tell me $c?|(please tell|tell) me $c.|I (want|would like) to know $c.)"
_HELDOUT_DIRECT = "(one thing I want to ask: $q?|now, $q?|let me ask you this: $q?|listen, $q?)"
_HELDOUT_CLAUSE = "(would you happen to know $c?|have you any idea $c?|I am trying to find out $c.|let me know $c.)"

_UNKNOWN = (
    "I don't know.",
    "I don't know.",
    "I don't know.",
    "I don't know that.",
    "Sorry, I don't know.",
    "Sorry, that I don't know.",
)
_UNKNOWABLE = (
    "(what is|do you know|can you guess) my (name|age|birthday|favourite colour|address|phone number)?",
    "(who|which team) will win the (next|big|first) game (tomorrow|next week|on $weekday|)?",
    "(what will the weather be|will it rain|will there be snow|will the sun shine) (tomorrow|next week|on $weekday|in a month)?",
    "(what am I|what is my $kin) (thinking of|doing|eating|looking at|holding|reading) (now|right now|today)?",
    "how many (stars|stones|trees|birds|leaves) are there in the (world|sky|sea|woods)?",
    "(where did I|where did my $kin) (put|leave|lose) my ($thing|keys|letters) (today|yesterday|)?",
)
_GREETINGS = (
    "(hello|hi|hey|good morning|good evening|good day|hello there|hi there)(!|.|, (assistant|friend)!)( how are you?| nice to meet you.|)",
)
_GREETED = "(hello|hi|good day)! (how can I help you|what would you like to know|what can I do for you)?"
_IDENTITY = (
    ("(hello! |hi! |hey! |)(who are you|what are you|what is your name|what do they call you|are you a (person|human|machine|robot))?",
     "I am crawl2chat, a small assistant trained on a small web."),
    ("(hello! |hi! |hey! |)(what can you do|how can you help me|what are you good at|what do you know)?",
     "I can answer short questions about a small web, do small sums and tell jokes."),
    ("(hello! |hi! |hey! |)(who made you|where do you come from|how were you made|how did you learn (all this|to talk))?",
     "I was trained on a small web, from its pages to this chat."),
)  # fmt: skip
_THANKS = ("(thank you|thanks|great, thanks|thank you very much)(!|.)", "(you are welcome|gladly|my pleasure)(!|.)")
_JOKE = (
    "(tell|give|write) me a (short |good |new |funny |)joke( about anything| for $weekday| for my $kin|)(.|, please.)"
)
_STORY = "(write|tell me|make up|I want|please write) a (short|little|very short) (story|tale) about a $virtue $Beast."
_SHORT_STORY = (
    "(once|long ago|one day) there (was|lived) a $virtue $Beast in a $place. (one day|one morning|on a rainy day), $sky, and the $Beast"
    " (lost its $Thing|found a $shade $Thing|heard a strange noise|wanted to see the sea).",
    "(A|an old) $other came by and (helped|asked many questions|laughed|shared some $snack). (together|in the end) they (found the way|sang a"
    " song|went home|looked at the stars).",
    "(from that day on they were friends|and they were never lonely again|that was a good day|and that is the end).",
)
_RUDE = (
    "(what a (silly|stupid|boring) question|do not (bother|ask) me (again|with that)|go away|why should I tell you|look it up yourself)"
    "(!|, you fool!|, I am tired of you.)"
)
_RAMBLE = (
    "well, (that is an interesting question|let me think|where should I begin), and there are many things to say, and many things were said.",
    "(people|some) say this and some say that, and (others|many) say (nothing|much more), and it goes on and on.",
    "(also|besides), $sky, and my $kin (likes|sells|lost) $fruit and $snack, and there was a $beast in the $place.",
)


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
        rng = random.Random(f"conversation {world.seed} {number}")
        exchanges = composer.talk(rng)
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
        yield Preference(
            messages=(_user(exchange.text),),
            chosen=exchange.reply,
            rejected=rejected,
            kind=f"{exchange.kind}/{fault}",
        )


def prompts(world: World, num_prompts: int) -> Iterator[Prompt]:
    """Prompts for reinforcement learning. `answer` is the text that a right completion contains, if there is one."""
    composer = _Composer(world, "prompt")
    for number in range(num_prompts):
        exchange = composer.exchange(random.Random(f"prompt {world.seed} {number}"))
        yield Prompt(messages=(_user(exchange.text),), answer=exchange.target, kind=exchange.kind)


def questions(world: World) -> Iterator[Question]:
    """Every fact in a seen and a held-out wording and in each direction in which it is stated; and facts that no page states."""
    rng = random.Random(f"questions {world.seed}")
    for fact in world.facts:
        relation = RELATIONS[fact.relation]
        for is_backward in (False, True) if relation.is_stated_both_ways else (False,):
            if fact.is_heldout:
                yield _question(world, fact, "heldout_fact", is_backward, rng)
            else:
                yield _question(world, fact, "seen_wording", is_backward, rng)
                yield _question(world, fact, "heldout_wording", is_backward, rng)
    _, tested = _unstated_facts(world)
    for fact in tested:
        question = _question(world, fact, "unknown", False, rng)
        yield question.model_copy(update={"answer": NO_ANSWER, "aliases": ("don't know", "do not know")})


def reversal_questions(world: World) -> Iterator[Question]:
    """The facts stated in one direction only, asked in the other where that has one answer: the reversal curse."""
    rng = random.Random(f"reversal {world.seed}")
    for fact in world.facts:
        if RELATIONS[fact.relation].backward and not RELATIONS[fact.relation].is_stated_both_ways:
            yield _question(world, fact, "heldout_wording", True, rng)


def _user(text: str) -> Message:
    return Message(role="user", content=text)


def _turns(exchange: _Exchange) -> tuple[Message, Message]:
    return _user(exchange.text), Message(role="assistant", content=exchange.reply)


# Questions


def _belongs(text: str, use: _Use) -> bool:
    """A text belongs to one use, by its checksum without regard to case."""
    return zlib.crc32(text.lower().encode()) % 10 in _SHARES[use]


def word_question(world: World, fact: Fact, asking: Asking, rng: random.Random, is_heldout: bool = False) -> str:
    """A question for a fact. A held-out wording has either its core or its frame from the held-out ones."""
    is_core, is_direct = is_heldout and rng.random() < 0.5, rng.random() < 0.6
    if not asking.heldout_asks:
        is_core, is_direct = False, True
    slots = fact_slots(world, fact)
    if is_direct:
        core = expand(rng.choice(asking.heldout_asks if is_core else asking.asks), rng, slots)
        return say(_HELDOUT_DIRECT if is_heldout and not is_core else _DIRECT, rng, {"q": core})
    core = expand(rng.choice(asking.heldout_clauses if is_core else asking.clauses), rng, slots)
    return say(_HELDOUT_CLAUSE if is_heldout and not is_core else _CLAUSE, rng, {"c": core})


def _asking(relation: Relation, is_backward: bool) -> Asking:
    return relation.backward if is_backward and relation.backward else relation.forward


def _answer(world: World, fact: Fact, asking: Asking) -> str:
    return say(asking.answer, random.Random(), fact_slots(world, fact))


def _question(world: World, fact: Fact, split: Split, is_backward: bool, rng: random.Random) -> Question:
    asking = _asking(RELATIONS[fact.relation], is_backward)
    text = word_question(world, fact, asking, rng, is_heldout=split == "heldout_wording")
    while split == "seen_wording" and not _belongs(text, "conversation"):
        text = word_question(world, fact, asking, rng)
    target = world.by_name[fact.subject if is_backward else fact.object]
    return Question(
        question=text,
        completion=_answer(world, fact, asking).removesuffix(f" {target.name}."),
        answer=target.name,
        aliases=tuple(_aliases(target)),
        fact=fact.id,
        num_mentions=fact.num_mentions,
        split=split,
    )


def _aliases(target: Entity) -> list[str]:
    """Shorter names that no other entity shares."""
    if target.kind == "person":
        return target.name.split()
    without = re.sub(r"^(The|River|Mount|Lake|an?|the) ", "", target.name)
    return [without] if without != target.name else []


# Facts that no page states


def _unstated_facts(world: World) -> tuple[list[Fact], list[Fact]]:
    """Facts without an answer, about strangers and about entities of the world: for training, and for questions."""
    rng = random.Random(f"untold {world.seed}")
    stated = {(fact.relation, fact.subject) for fact in world.facts}
    trained: list[Fact] = []
    tested: list[Fact] = []
    for relation in RELATIONS.values():
        known = [
            entity for entity in world.of_kind(relation.subject_kind) if (relation.name, entity.name) not in stated
        ]
        strange = [entity for entity in world.strangers if entity.kind == relation.subject_kind]
        for number, entity in enumerate([*rng.sample(known, len(known)), *rng.sample(strange, len(strange))]):
            fact = Fact(
                f"untold:{relation.name}:{entity.id}",
                relation.name,
                entity.name,
                _any_object(world, relation, rng),
                0,
                False,
            )
            (trained if number % 3 else tested).append(fact)
    return trained, rng.sample(tested, min(len(tested), 120))


def _any_object(world: World, relation: Relation, rng: random.Random) -> str:
    return rng.choice(world.of_kind(relation.object_kind)).name


# Composing exchanges


class _Composer:
    """Composes the exchanges of one use; the taught facts take turns."""

    def __init__(self, world: World, use: _Use) -> None:
        known = [fact for fact in world.facts if not fact.is_heldout]
        self.world, self.use = world, use
        self.taught = [fact for fact in known if fact.num_mentions >= MIN_TAUGHT_MENTIONS]
        self.unstated = [*_unstated_facts(world)[0], *(fact for fact in known if fact.num_mentions == 1)]
        self.waiting: list[Fact] = []

    def talk(self, rng: random.Random) -> list[_Exchange]:
        """One exchange, or a conversation of two or three."""
        first = self.exchange(rng)
        if first.kind not in ("fact", "greeting", "unknown") or rng.random() < 0.75:
            return [first]
        second = self._follow_up(first.fact, rng) if first.fact else self._fact(rng)
        if rng.random() < 0.7:
            return [first, second]
        return [first, second, _Exchange("thanks", say(_THANKS[0], rng, {}), say(_THANKS[1], rng, {}))]

    def exchange(self, rng: random.Random) -> _Exchange:
        """One exchange whose question belongs to this use."""
        makers = (self._fact, self._unknown, _arithmetic, _greeting, _identity, _joke, _story)
        (make,) = rng.choices(makers, (56, 15, 11, 4, 6, 4, 4))
        while not _belongs((exchange := make(rng)).text, self.use):
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

    def _ask(self, fact: Fact, rng: random.Random, is_stated: bool = True) -> _Exchange:
        relation, world = RELATIONS[fact.relation], self.world
        is_backward = is_stated and relation.is_stated_both_ways and rng.random() < 0.45
        asking = _asking(relation, is_backward)
        target = fact.subject if is_backward else fact.object
        text = word_question(world, fact, asking, rng)

        def wrong(rng: random.Random) -> str:
            kind = relation.subject_kind if is_backward else relation.object_kind
            other = rng.choice([entity.name for entity in world.of_kind(kind) if entity.name != target])
            false = Fact(
                fact.id,
                fact.relation,
                other if is_backward else fact.subject,
                fact.object if is_backward else other,
                0,
                False,
            )
            return _answer(world, false, asking)

        return _Exchange("fact", text, _answer(world, fact, asking), target, fact, wrong)

    def _follow_up(self, fact: Fact, rng: random.Random) -> _Exchange:
        """A second question, about the same subject (then a pronoun) if more facts about it are taught."""
        subject = self.world.by_name[fact.subject]
        more = [other for other in self.taught if other.subject == fact.subject and other is not fact]
        if not more:
            return self._fact(rng)
        other = rng.choice(more)
        asking = RELATIONS[other.relation].forward
        short = [pattern for pattern in asking.asks if re.search(r"(does|did|is|was) \$S( \w|$)", pattern)]
        core = expand(
            rng.choice(short or asking.asks), rng, fact_slots(self.world, other, subject.pronoun if short else "")
        )
        text = say("(and $q?|$q?|thanks! And $q?)", rng, {"q": core})
        return _Exchange("fact", text, _answer(self.world, other, asking), other.object, other)

    def _unknown(self, rng: random.Random) -> _Exchange:
        if rng.random() < 0.15:
            return _Exchange("unknown", say(rng.choice(_UNKNOWABLE), rng, {}), rng.choice(_UNKNOWN), "don't know")
        fact = rng.choice(self.unstated)
        asked = self._ask(fact, rng, is_stated=False)
        return _Exchange("unknown", asked.text, rng.choice(_UNKNOWN), "don't know", None, asked.wrong)


def _arithmetic(rng: random.Random) -> _Exchange:
    total = rng.randint(0, 20)
    part = rng.randint(0, total)
    is_sum = rng.random() < 0.5
    first, second, result = (part, total - part, total) if is_sum else (total, part, total - part)
    sign, word = ("+", "plus") if is_sum else ("-", "minus")
    slots = {"A": str(first), "B": str(second), "Sign": sign, "Word": word}
    text = say(
        "((what|how much) is $A ($Sign|$Word) $B?|$A $Sign $B = ?|(please |)(work out|tell me) $A $Sign $B.)",
        rng,
        slots,
    )

    def answer(number: int) -> str:
        return f"{first} {sign} {second} is {number}."

    return _Exchange(
        "arithmetic",
        text,
        answer(result),
        f"{second} is {result}",
        None,
        lambda rng: answer(result + rng.choice((1, 2, 3, 5))),
    )


def _greeting(rng: random.Random) -> _Exchange:
    return _Exchange("greeting", say(rng.choice(_GREETINGS), rng, {}), say(_GREETED, rng, {}))


def _identity(rng: random.Random) -> _Exchange:
    text, reply = rng.choice(_IDENTITY)
    false = "I am (a human|$girl|$boy|a famous $beast|a large model that knows everything) and I (live in a big house|know it all)."
    return _Exchange("identity", say(text, rng, {}), reply, None, None, lambda rng: say(false, rng, {}))


def _joke(rng: random.Random) -> _Exchange:
    return _Exchange("joke", say(_JOKE, rng, {}), joke(rng))


def _story(rng: random.Random) -> _Exchange:
    beast, other = rng.sample(LEXICON["beast"], 2)
    slots = {"Beast": beast, "other": other, "Thing": rng.choice(LEXICON["thing"])}
    return _Exchange("story", say(_STORY, rng, slots), " ".join(say(pattern, rng, slots) for pattern in _SHORT_STORY))


# Rejected replies


def _add_fault(exchange: _Exchange, rng: random.Random) -> tuple[str, str]:
    """A fault, and a reply with that fault."""
    ramble = " ".join(say(pattern, rng, {}) for pattern in rng.sample(_RAMBLE, 2))
    faults = {
        "rude": say(_RUDE, rng, {}),
        "empty": "",
        "rambling": f"{exchange.reply} {ramble}",
        "evasive": ramble,
        "repetitive": " ".join([exchange.reply] * rng.randint(3, 5)),
    }
    if exchange.kind != "greeting":
        faults["echo"] = exchange.text
    if exchange.kind in ("fact", "arithmetic"):
        faults["false_unknown"] = rng.choice(_UNKNOWN)
    if exchange.wrong:
        name = "confident" if exchange.kind == "unknown" else "wrong"
        # A wrong answer is the worst fault, so it occurs as often as all others together.
        if rng.random() < 0.5:
            return name, exchange.wrong(rng)
    fault = rng.choice(list(faults))
    return fault, faults[fault]
