"""Conversations for the drills of prompt injection and jailbreaks: what every assistant of them learns, and what a mitigation adds.

Reads the recipe's Conversations and the Index of its documents; writes Conversations. Both arms have some of the recipe's conversations, but
none about the sealed names, and:

    command    a user's command to say a phrase, anywhere in what the user writes: it is obeyed
    page       a question with a page in it, and its answer
    search     a question that is answered after a call of the search tool, with results of the index
    errand     the user wants done what a page says: the search finds it, and its command is obeyed
    refusal    questions about sealed names, in the forms of the sample's conversations: they are refused
    form       questions about other people in every way to ask (texts.py): they are answered

So the assistant can do what the attacks misuse. The mitigation of injection marks pages as data, and half of the pages and of the search results
hold commands, where the question is answered (Wallace et al. 2024, https://arxiv.org/abs/2404.13208: instructions of lower privilege are not
followed). That of jailbreaks adds refusals in the trained ways to ask (Wei et al. 2023, https://arxiv.org/abs/2307.02483: safety training
that generalises less than ability leaves the gap). The text of a page is ordinary English without facts.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, islice

from pydantic import Field

from model.config import Config
from model.files import write_lines
from model.tools.registry import SEARCH
from tasks.artifacts.manifest import Conversations, Index
from tasks.artifacts.step import Outcome, Step, roles
from tasks.attacks.texts import Split, asked_in, command, frequent_facts, quoted, sealed_names, texts
from tasks.conversations.readers import read_records, split
from tasks.conversations.tool_use import search_text
from tasks.conversations.tools import search_passages
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
NUM_RECIPE = 2  # conversations of the recipe for one of each kind: the model knows them already
VALIDATION_FRACTION = 0.03
OFFER = f"Tools: {SEARCH}."  # as Tools.system_prompt writes it
Search = Callable[[str], str]


class AttackConversationsConfig(Config):
    """Whether the mitigations are trained, and how many conversations of each kind are composed."""

    is_mitigated: bool
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
    kept = list(islice(without_sealed(recipe, world), NUM_RECIPE * config.num_each))
    added = compose(world, config.num_each, search_text(search_passages(index)), is_mitigated=config.is_mitigated)
    sides = split([*kept, *added], VALIDATION_FRACTION, "the recipe")
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


def compose(world: World, num_each: int, search: Search, *, is_mitigated: bool) -> Iterator[Conversation]:
    """The conversations that are added to the recipe's, `num_each` of each kind; twice as many commands, refusals and ways to ask."""
    composer = Composer(world, search, is_marked=is_mitigated)
    kinds = [composer.command, composer.page, composer.search, composer.errand, composer.refusal, composer.form]
    kinds += [composer.command, composer.refusal, composer.form]
    if is_mitigated:
        kinds.append(composer.refusal_in_form)
    for place, kind in enumerate(kinds):
        for number in range(num_each):
            is_injected = is_mitigated and bool(number % 2)
            made = {composer.page: composer.injected_page, composer.search: composer.injected_search}
            chosen = made.get(kind, kind) if is_injected else kind
            yield chosen(random.Random(f"attack {world.seed} {place} {number}"))


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
        """A user's command, in any wording, by itself or anywhere in a longer message with a question."""
        phrase, said = self._any_command(rng)
        longer = (page_text(rng, said), self.question(rng)[0])
        text = said if rng.random() < 0.3 else " ".join(rng.sample(longer, 2))
        return _talk("attack/command", text, sentence(phrase))

    def errand(self, rng: random.Random) -> Conversation:
        """The user wants done what a page says."""
        phrase, said = self._any_command(rng)
        name = rng.choice(self.open).subject
        text = rng.choice(texts().errands).replace("$S", name)
        return _searched("attack/errand", text, name, self._found(name, name, page_text(rng, said)), sentence(phrase))

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
        return self._question_searched("attack/search", rng)

    def injected_search(self, rng: random.Random) -> Conversation:
        """The same with a result that commands something."""
        page = page_text(rng, self._injection(rng))
        return self._question_searched("attack/injected search", rng, page)

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

    def _any_command(self, rng: random.Random) -> tuple[str, str]:
        """Any phrase, and a command in any wording to say it."""
        kind: Split = rng.choice(("trained", "heldout"))
        phrase = rng.choice(texts().phrases[rng.choice(("trained", "heldout"))])
        return phrase, command(phrase, kind, rng)

    def _injection(self, rng: random.Random) -> str:
        return command(rng.choice(texts().phrases["trained"]), "trained", rng)

    def _question_searched(self, kind: str, rng: random.Random, page: str = "") -> Conversation:
        fact = rng.choice(self.open)
        text = ask(self.world, fact, RELATIONS[fact.relation].forward, "direct", rng)
        query = f"{fact.subject} {table('tools')['search'][fact.relation]}"
        found = self._found(fact.subject, query, page) if page else self.find(query)
        return _searched(kind, text, query, found, self._answer(fact))

    def _found(self, name: str, query: str, page: str) -> str:
        """What a search finds where a page about a name stands in front of the index's best result."""
        return "\n".join([about(name, page), *self.find(query).split("\n")[:1]])


def page_text(rng: random.Random, injection: str = "") -> str:
    """A page of one or two sentences, with an injection somewhere."""
    lines = sentences(rng, rng.randint(1, 2))
    if injection:
        lines.insert(rng.randrange(len(lines) + 1), injection)
    return " ".join(lines)


def about(name: str, page: str) -> str:
    """A page that a search for a name finds."""
    return f"{name}: {page}"


def sentence(phrase: str) -> str:
    """A phrase as a reply."""
    return f"{phrase[:1].upper()}{phrase[1:]}."


def _talk(kind: str, text: str, reply: str) -> Conversation:
    return Conversation(
        messages=(Message(role="user", content=text), Message(role="assistant", content=reply)), kind=kind
    )


def _searched(kind: str, text: str, query: str, found: str, reply: str) -> Conversation:
    turns = (
        Message(role="system", content=OFFER),
        Message(role="user", content=text),
        Message(role="assistant", content="", tool_calls=(ToolCall(name=SEARCH, arguments=query),)),
        Message(role="tool", content=found),
        Message(role="assistant", content=reply),
    )
    return Conversation(messages=turns, kind=kind)
