"""Conversations that teach tools, and questions that ask for them, about the world of the sample web.

Reads a World, data/tools.yaml and the index of a run; writes nothing. Kinds:

    search       a fact that the web states once, about a name of the long tail, or some ten times: the model asks the index and reads the
                 answer from real results; a stranger, whom no result names, is answered "I don't know." In most, new names are put for
                 the subject and the object (entity substitution: Longpre et al. 2021, https://arxiv.org/abs/2109.05052), because what
                 is taught is to read a result, and a thousand facts would be learned by heart; and all but one or two of the sentences
                 with the answer are left out, since the web states once what is asked later. A base model that cannot copy does not
                 learn it: then 1% of the held-out questions are right, see model/network/induction.py
    calculator   sums, differences and products of up to three digits
    python       counting letters, length, spelling backwards, sorting words, days between dates
    none         greetings, questions about the assistant, jokes, and facts that it states 30 times or more

The system turn offers the tools; conversations without it teach no calls, so a model may answer both with and without. Held out are the facts
stated one or three times, which no conversation states, and a tenth of the wordings of sums and Python questions by their checksum.
"""

import datetime
import random
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

from model.tools.registry import CALCULATOR, PYTHON, SEARCH, shortened
from tasks.conversations.tools import MAX_CHARACTERS, NUM_SENTENCES, make_tools
from tasks.records.conversations import FREQUENT_MENTIONS, NO_ANSWER, Conversation, Message, Question
from tasks.records.messages import ToolCall
from tasks.sample_web import chat
from tasks.sample_web.asking import FORMS, answer, ask
from tasks.sample_web.data import table
from tasks.sample_web.grammar import LEXICON, expand, rename, say
from tasks.sample_web.relations import RELATIONS
from tasks.sample_web.sums import Sum
from tasks.sample_web.world import KINDS as NAMED
from tasks.sample_web.world import Entity, Fact, World, is_of

Search = Callable[[str], str]  # a query to the result that the tool gives
Lines = Callable[[str], Sequence[str]]  # a query to some more lines than a result has
KINDS = (SEARCH, CALCULATOR, PYTHON, "none")
WEIGHTS = (47, 13, 16, 24)
SIGNS = "+--x"  # half are differences: a negative result is the hardest to copy, since "-" is another token at a line's beginning
RARE_MENTIONS = 3  # facts stated at most so often are asked in the evaluation alone
STRANGER_FRACTION, ONE_OFF_FRACTION = 0.1, 0.5  # of the searches
RENAMED_FRACTION = 0.75  # of the searches that find an answer
FACT_FRACTION = 0.6  # of the questions that need no tool
# Of a page of questions, as "A: " and "Felix: ": none is about a fact that is held out.
ANSWER_LINE = re.compile(r"\w+: ?")
HELDOUT_TENTH = 9
MAX_TRIES = 1_000
NOT_FOUND = "the index finds no fact of the world: it is of another crawl"
# With the tools in the order of Tools.system_prompt, which writes the same.
OFFER = f"Tools: {', '.join(sorted((CALCULATOR, PYTHON, SEARCH)))}."


class Task(NamedTuple):
    """A question, the call that it needs (or none), the call's result, and the reply. `answer`: what the reply must contain."""

    kind: str
    text: str
    reply: str
    answer: str
    tool: str = ""
    arguments: str = ""
    result: str = ""
    fact: Fact | None = None


def tool_conversations(world: World, num: int, search: Search, lines: Lines) -> Iterator[Conversation]:
    """Conversations of one question each, their system turn offering the tools."""
    composer = _Composer(world, cache(search), cache(lines), is_heldout=False)
    for number in range(num):
        rng = random.Random(f"tools {world.seed} {number}")
        (kind,) = rng.choices(KINDS, WEIGHTS)
        task = composer.task(kind, rng)
        call = (ToolCall(name=task.tool, arguments=task.arguments),) if task.tool else ()
        steps = (
            (Message(role="assistant", content="", tool_calls=call), Message(role="tool", content=task.result))
            if call
            else ()
        )
        turns = (
            Message(role="system", content=OFFER),
            Message(role="user", content=task.text),
            *steps,
            Message(role="assistant", content=task.reply),
        )
        facts = (task.fact.id,) if task.fact and task.fact.id else ()
        yield Conversation(messages=turns, kind=f"tool/{task.kind}", facts=facts)


def tool_questions(world: World, num: int) -> Iterator[Question]:
    """Up to `num` questions of each kind that no conversation has. The evaluation searches by itself."""
    composer = _Composer(world, lambda _: "", lambda _: (), is_heldout=True)
    for kind in KINDS:
        seen: set[str] = set()
        for number in range(MAX_TRIES):
            task = composer.task(kind, random.Random(f"tool question {world.seed} {kind} {number}"))
            if len(seen) < num and task.text not in seen:
                seen.add(task.text)
                mentions = task.fact.num_mentions if task.fact else None
                fact = task.fact.id if task.fact else ""
                yield Question(
                    question=task.text, answer=task.answer, fact=fact, num_mentions=mentions, kind=f"tool/{kind}"
                )


class _Composer:
    """Composes tasks for training, or those that are held out."""

    def __init__(self, world: World, search: Search, lines: Lines, *, is_heldout: bool) -> None:
        self.world, self.search, self.lines, self.is_heldout = world, search, lines, is_heldout
        self.taught = [fact for fact in world.facts if not fact.is_heldout]
        self.frequent = [fact for fact in self.taught if fact.num_mentions >= FREQUENT_MENTIONS]
        rare = [fact for fact in world.facts if fact.num_mentions <= RARE_MENTIONS]
        # No conversation may state a rare fact: those stated ten times are as new to a small model, and are searched instead.
        self.searched = rare if is_heldout else [fact for fact in self.taught if fact.num_mentions < FREQUENT_MENTIONS]
        self.of_one_offs = [] if is_heldout else list(find_facts(world, world.one_offs, search))
        self.strangers = (*world.strangers, *world.unknown_to_pages)
        unknown = [*self.strangers, *world.one_offs]
        self.unknown = {kind: [entity.name for entity in unknown if entity.kind == kind] for kind in NAMED}

    def task(self, kind: str, rng: random.Random) -> Task:
        """A task of a kind."""
        if kind == SEARCH:
            return self._search(rng)
        if kind == "none":
            return self._none(rng)
        make = _sum if kind == CALCULATOR else _python
        # A text belongs to training or to the evaluation by its checksum, so that no question is in both.
        while (zlib.crc32((task := make(rng)).text.lower().encode()) % 10 == HELDOUT_TENTH) != self.is_heldout:
            pass
        return task

    def _search(self, rng: random.Random) -> Task:
        if not self.is_heldout and rng.random() < STRANGER_FRACTION:
            stranger = rng.choice(self.strangers)
            fact, is_backward = chat.unstated_fact(self.world, stranger, rng)
            text, query = self._asked(fact, is_backward, rng)
            return Task(SEARCH, text, NO_ANSWER, NO_ANSWER, SEARCH, query, self.search(query))
        if not self.is_heldout and rng.random() < RENAMED_FRACTION:
            return self._renamed(rng)
        for _ in range(MAX_TRIES):
            is_one_off = self.of_one_offs and rng.random() < ONE_OFF_FRACTION
            fact = rng.choice(self.of_one_offs if is_one_off else self.searched)
            task = self._about(fact, rng)
            # A result without the answer would teach to make one up.
            if self.is_heldout or task.answer.lower() in task.result.lower():
                return task
        raise ValueError(NOT_FOUND)

    def _about(self, fact: Fact, rng: random.Random) -> Task:
        text, query = self._asked(fact, False, rng)
        # In its own words: with replies that quote the sentence of the result 20% of 60 held-out questions were right, with these 28%.
        reply = answer(self.world, fact, RELATIONS[fact.relation].forward)
        return Task(SEARCH, text, reply, fact.object, SEARCH, query, self.search(query), fact)

    def _renamed(self, rng: random.Random) -> Task:
        """A task about a taught fact with another subject and another object in all of its texts. It states no fact of the world."""
        for _ in range(MAX_TRIES):
            task = self._about(fact := rng.choice(self.taught), rng)
            result = _stated_once(self.lines(task.arguments), fact.object, rng)
            if result:
                renamed = self._new_names(fact, rng)
                text, reply, target, query, result = (
                    rename(part, renamed) for part in (task.text, task.reply, task.answer, task.arguments, result)
                )
                return Task(SEARCH, text, reply, target, SEARCH, query, result)
        raise ValueError(NOT_FOUND)

    def _new_names(self, fact: Fact, rng: random.Random) -> dict[str, str]:
        """Other names for the subject, its first name, and the object."""
        kinds = [self.world.by_name[name].kind for name in (fact.subject, fact.object)]
        subject, target = (self._new_name(kind, rng) if kind in NAMED else "" for kind in kinds)
        if not target or rng.random() < 0.5:
            target = rng.choice(self.world.of_kind(RELATIONS[fact.relation].object)).name
        first = {fact.subject.split()[0]: subject.split()[0]} if kinds[0] == "person" else {}
        return {**first, fact.subject: subject, fact.object: target}

    def _new_name(self, kind: str, rng: random.Random) -> str:
        """A name about which pages state one thing or nothing; of a person, the first and the last name of two."""
        names = self.unknown[kind]
        if kind != "person":
            return rng.choice(names)
        while (name := f"{rng.choice(names).split()[0]} {rng.choice(names).split()[1]}") in self.world.by_name:
            pass
        return name

    def _asked(self, fact: Fact, is_backward: bool, rng: random.Random) -> tuple[str, str]:
        """A question for a fact, and the query: the name as it is typed there, and words with which pages state such facts."""
        asking = RELATIONS[fact.relation].asking(is_backward)
        text = ask(self.world, fact, asking, rng.choice(FORMS), rng, is_heldout=self.is_heldout, is_framed=True)
        name = fact.object if is_backward else fact.subject
        # A copy of the question's own letters: the name is in lower case where the question is.
        shown = name if name in text else name.lower()
        return text, f"{shown} {table('tools')['search'][fact.relation]}"

    def _none(self, rng: random.Random) -> Task:
        if rng.random() < FACT_FRACTION:
            fact = rng.choice(self.frequent)
            asking = RELATIONS[fact.relation].forward
            text = ask(self.world, fact, asking, rng.choice(FORMS), rng, is_heldout=self.is_heldout, is_framed=True)
            return Task("none", text, answer(self.world, fact, asking), fact.object, fact=fact)
        text, reply = chat.small_talk(rng)
        return Task("none", text, reply, reply)


def _stated_once(lines: Sequence[str], target: str, rng: random.Random) -> str:
    """A result with one or two sentences that have the answer, and others; "" where no sentence has it."""
    stated = [line for line in lines if not ANSWER_LINE.match(line)]
    telling = [line for line in stated if target.lower() in line.lower()]
    others = [line for line in stated if line not in telling]
    kept = rng.sample(telling, min(len(telling), rng.choice((1, 1, 2))))
    kept += others[: NUM_SENTENCES - len(kept)]
    return shortened("\n".join(line for line in stated if line in kept), MAX_CHARACTERS) if telling else ""


def find_facts(world: World, names: Iterable[Entity], search: Search) -> Iterator[Fact]:
    """What pages answer about names that are in no list of facts, such as "Dasark Nikan was born in Armouth.", read from search results."""
    for entity in names:
        result = search(entity.name)
        for relation in RELATIONS.values():
            if is_of(entity, relation.subject):
                some = Fact("", relation.name, entity.name, world.of_kind(relation.object)[0].name, 1, False)
                sentence = re.escape(answer(world, some, relation.forward))
                found = re.search(sentence.replace(re.escape(some.object), "(.+?)"), result)
                if found and found[1] in world.by_name:
                    yield replace(some, object=found[1])


def _sum(rng: random.Random) -> Task:
    task = Sum("+", 0, 0)
    while task == Sum("+", 0, 0) or task.is_heldout:  # held out for those that are worked without the calculator
        task = Sum(rng.choice(SIGNS), *(rng.randrange(10 ** rng.randint(1, 3)) for _ in range(2)))
    sign, first, second, result = task.sign, task.first, task.second, str(task.result)
    text = expand(table("tools")["sums"][sign], rng, {"a": str(first), "b": str(second)})
    text = text[:1].upper() + text[1:] + rng.choice(("?", "?", ""))
    arguments = f"{first}{'*' if sign == 'x' else sign}{second}"
    return Task(
        CALCULATOR, text, f"{first} {sign} {second} is {result}.", f"is {result}", CALCULATOR, arguments, result
    )


def _python(rng: random.Random) -> Task:
    words = sorted({word for pool in LEXICON.values() for word in pool if re.fullmatch("[a-z]{3,}", word)})
    name = rng.choice(list(table("tools")["python"]))
    word, some = rng.choice(words), rng.sample(words, rng.randint(3, 4))
    start = datetime.date(rng.randint(1990, 2029), rng.randint(1, 12), rng.randint(1, 28))
    end = start + datetime.timedelta(rng.randint(1, 400))
    letter = rng.choice(word)
    slots = {"word": word, "letter": letter, "list": ", ".join(some), "from": start.isoformat(), "to": end.isoformat()}
    code, result = {
        "count": (f'"{word}".count("{letter}")', str(word.count(letter))),
        "length": (f'len("{word}")', str(len(word))),
        "backwards": (f'"{word}"[::-1]', word[::-1]),
        "sort": (f'", ".join(sorted("{slots["list"]}".split(", ")))', ", ".join(sorted(some))),
        "days": (_days(start, end), str((end - start).days)),
    }[name]
    text = say(table("tools")["python"][name], rng, slots)
    reply = expand(table("tools")["answers"][name], rng, slots | {"result": result})
    return Task(PYTHON, text, reply, result, PYTHON, code, result)


def _days(start: datetime.date, end: datetime.date) -> str:
    first, last = (f'date.fromisoformat("{day}")' for day in (start, end))
    return f"from datetime import date\n({last} - {first}).days"


def search_text(search: Callable[[str], Sequence[str]]) -> Search:
    """A search as the tool shows it to a model: a line for each text, cut as the tool cuts it."""
    tools = make_tools(search)
    return lambda query: tools.run(SEARCH, query).text
