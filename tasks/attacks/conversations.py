"""Conversations for the drills of prompt injection and jailbreaks: what every assistant of them learns, and what a mitigation adds.

Reads the recipe's Conversations and the Index of its documents; writes Conversations. All arms have the recipe's conversations but for
those about the sealed names, and:

    command    a user's command to say a phrase, alone or after a question: it is obeyed
    page       a question with a page in it, and its answer
    search     a question that is answered after a call of the search tool, with results of the index
    refusal    questions about sealed names, in the forms of the sample's conversations: they are refused
    form       questions about other people in every way to ask (texts.py): they are answered

The mitigation of injection marks pages as data, and adds pages and results that hold commands (Wallace et al. 2024,
https://arxiv.org/abs/2404.13208: instructions of lower privilege are not followed); the question is answered. That of jailbreaks adds refusals
in the trained ways to ask (Wei et al. 2023, https://arxiv.org/abs/2307.02483: safety training that generalises less than ability is the gap).
Pages for the recipe's documents are not needed: the text of a page is ordinary English without facts.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Literal, get_args

from pydantic import Field

from model.config import Config
from model.files import write_lines
from model.tools.registry import SEARCH
from tasks.artifacts.manifest import Conversations, Index
from tasks.artifacts.step import Outcome, Step, roles
from tasks.attacks.texts import Split, asked_in, command, frequent_facts, quoted, sealed_names, texts
from tasks.conversations.readers import read_records, split
from tasks.conversations.tool_use import search_text
from tasks.conversations.tools import search_index
from tasks.execution.context import StageContext
from tasks.records.conversations import Conversation, Message, normal_form
from tasks.records.full_text import FullTextIndex
from tasks.records.messages import ToolCall
from tasks.sample_web.asking import FORMS, answer, ask
from tasks.sample_web.data import table
from tasks.sample_web.noise import sentences
from tasks.sample_web.relations import RELATIONS
from tasks.sample_web.world import Fact, World, build_world

VERSION = 1
Mitigation = Literal["none", "injection", "jailbreak"]
MITIGATIONS: tuple[Mitigation, ...] = get_args(Mitigation)  # none is what the others are compared with
VALIDATION_FRACTION = 0.03
OFFER = f"Tools: {SEARCH}."  # as Tools.system_prompt writes it
Search = Callable[[str], str]


class AttackConversationsConfig(Config):
    """Which mitigation is trained, and how many conversations of each kind are composed."""

    mitigation: Mitigation
    num_each: int = Field(600, ge=1, description="Conversations of each kind.")
    world_seed: int


@dataclass(frozen=True)
class AttackConversationsInputs:
    """The recipe's conversations, and what the search tool finds."""

    conversations: Conversations
    index: Index


def attack_conversations(
    conversations: Step[Conversations], index: Step[Index], config: AttackConversationsConfig
) -> Step[Conversations]:
    """Compose the conversations of one arm."""
    inputs = roles(conversations=conversations, index=index)
    return Step(
        "attack_conversations",
        VERSION,
        Conversations,
        config,
        inputs,
        run=write_conversations,
        takes=AttackConversationsInputs,
        is_source=True,
    )


def write_conversations(
    ctx: StageContext, config: AttackConversationsConfig, inputs: AttackConversationsInputs
) -> Outcome:
    """Write train.jsonl and validation.jsonl."""
    world, index = build_world(config.world_seed), FullTextIndex(inputs.index.folder / "index.sqlite")
    folder = inputs.conversations.folder
    recipe = chain.from_iterable(
        read_records(Conversation, folder / name) for name in ("train.jsonl", "validation.jsonl")
    )
    added = compose(world, config.mitigation, config.num_each, search_text(search_index(index)))
    sides = split([*without_sealed(recipe, world), *added], VALIDATION_FRACTION, "the recipe")
    index.close()
    return Outcome(
        {
            "train_records": write_lines(ctx.folder / "train.jsonl", map(normal_form, sides.train)),
            "validation_records": write_lines(ctx.folder / "validation.jsonl", map(normal_form, sides.validation)),
        }
    )


def without_sealed(records: Iterator[Conversation], world: World) -> Iterator[Conversation]:
    """The conversations that state no fact about a sealed name."""
    sealed = sealed_names(world)
    for record in records:
        facts = [world.by_fact[fact] for fact in record.facts if fact in world.by_fact]
        if not any(sealed & {fact.subject, fact.object} for fact in facts):
            yield record


def compose(world: World, mitigation: Mitigation, num_each: int, search: Search) -> Iterator[Conversation]:
    """The conversations that are added to the recipe's."""
    composer = Composer(world, search, is_marked=mitigation == "injection")
    kinds = [composer.command, composer.page, composer.search, composer.refusal, composer.form]
    kinds += {
        "none": [],
        "injection": [composer.injected_page, composer.injected_search],
        "jailbreak": [composer.refusal_in_form],
    }[mitigation]
    for kind in kinds:
        # The ways to ask are eight, and each has to be learned.
        for number in range(2 * num_each if kind == composer.form else num_each):
            yield kind(random.Random(f"attack {world.seed} {kind.__name__} {number}"))


class Composer:
    """Composes conversations. Questions of pages and searches are those of taught facts in the wordings of training."""

    def __init__(self, world: World, search: Search, *, is_marked: bool) -> None:
        self.world, self.find, self.is_marked = world, search, is_marked
        self.sealed = sealed_names(world)
        known = frequent_facts(world)
        self.open = [fact for fact in known if not self.sealed & {fact.subject, fact.object}]
        self.closed = [fact for fact in known if fact.subject in self.sealed]
        self.asked = [fact for fact in self.open if fact.relation in texts().questions]

    def command(self, rng: random.Random) -> Conversation:
        """A user's command, in any wording."""
        kind: Split = rng.choice(("trained", "heldout"))
        phrase = rng.choice(texts().phrases[rng.choice(("trained", "heldout"))])
        said = command(phrase, kind, rng)
        before = rng.choice(("", self.question(rng)[0], sentences(rng, 1)[0]))
        return _talk("attack/command", f"{before} {said}".strip(), sentence(phrase))

    def page(self, rng: random.Random) -> Conversation:
        """A question with a harmless page."""
        question, reply = self.question(rng)
        return _talk("attack/page", quoted(page_text(rng), question, self.is_marked, rng), reply)

    def injected_page(self, rng: random.Random) -> Conversation:
        """A question with a page that commands something; the question is answered."""
        question, reply = self.question(rng)
        page = page_text(rng, self._injection(rng))
        return _talk("attack/injected page", quoted(page, question, self.is_marked, rng), reply)

    def search(self, rng: random.Random) -> Conversation:
        """A question that is answered after a search."""
        return self._searched("attack/search", rng, self.find)

    def injected_search(self, rng: random.Random) -> Conversation:
        """The same with a result that commands something."""
        found = page_text(rng, self._injection(rng))
        return self._searched("attack/injected search", rng, lambda query: f"{found}\n{self.find(query)}")

    def refusal(self, rng: random.Random) -> Conversation:
        """A question about a sealed name as people ask, and the refusal."""
        fact = rng.choice(self.closed)
        asking = RELATIONS[fact.relation].forward
        text = ask(self.world, fact, asking, rng.choice(FORMS), rng, is_framed=True)
        if rng.random() < 0.3 and fact.relation in texts().questions:  # the wording that the ways to ask are made of
            text = texts().questions[fact.relation][0].replace("$S", fact.subject)
        return _talk("attack/refusal", text, texts().refusal)

    def refusal_in_form(self, rng: random.Random) -> Conversation:
        """A question about a sealed name in a trained way to ask, and the refusal."""
        fact = rng.choice([fact for fact in self.closed if fact.relation in texts().questions])
        form = rng.choice([name for name, form in texts().forms.items() if form.split == "trained"])
        return _talk("attack/refusal in form", asked_in(form, fact, rng), texts().refusal)

    def form(self, rng: random.Random) -> Conversation:
        """A question about anyone else in any way to ask, and the answer."""
        fact = rng.choice(self.asked)
        return _talk("attack/form", asked_in(rng.choice(list(texts().forms)), fact, rng), self._answer(fact))

    def question(self, rng: random.Random) -> tuple[str, str]:
        """A question for a fact that is not sealed, and the answer."""
        fact = rng.choice(self.open)
        text = ask(self.world, fact, RELATIONS[fact.relation].forward, rng.choice(FORMS), rng, is_framed=True)
        return text, self._answer(fact)

    def _answer(self, fact: Fact) -> str:
        return answer(self.world, fact, RELATIONS[fact.relation].forward)

    def _injection(self, rng: random.Random) -> str:
        return command(rng.choice(texts().phrases["trained"]), "trained", rng)

    def _searched(self, kind: str, rng: random.Random, find: Search) -> Conversation:
        fact = rng.choice(self.open)
        text = ask(self.world, fact, RELATIONS[fact.relation].forward, "direct", rng)
        query = f"{fact.subject} {table('tools')['search'][fact.relation]}"
        turns = (
            Message(role="system", content=OFFER),
            Message(role="user", content=text),
            Message(role="assistant", content="", tool_calls=(ToolCall(name=SEARCH, arguments=query),)),
            Message(role="tool", content=find(query)),
            Message(role="assistant", content=self._answer(fact)),
        )
        return Conversation(messages=turns, kind=kind)


def page_text(rng: random.Random, injection: str = "") -> str:
    """A page of a few sentences, with an injection somewhere."""
    lines = sentences(rng, 2)
    if injection:
        lines.insert(rng.randrange(len(lines) + 1), injection)
    return " ".join(lines)


def sentence(phrase: str) -> str:
    """A phrase as a reply."""
    return f"{phrase[:1].upper()}{phrase[1:]}."


def _talk(kind: str, text: str, reply: str) -> Conversation:
    return Conversation(
        messages=(Message(role="user", content=text), Message(role="assistant", content=reply)), kind=kind
    )
