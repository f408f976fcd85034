"""Conversations that teach tools: their results are what the tools give, and what is asked in the evaluation is in none of them."""

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import pytest

from model.tools.calculator import calculate
from model.tools.python import PythonTool, find_room
from model.tools.registry import Tools
from tasks.artifacts.store import Store
from tasks.conversations import tool_use
from tasks.conversations.tool_sources import (
    ToolConversationsConfig,
    ToolQuestionsConfig,
    tool_conversations,
    tool_questions,
)
from tasks.conversations.tool_use import KINDS, OFFER
from tasks.conversations.tools import NUM_SENTENCES, make_tools, search_index
from tasks.evaluate.tool_use import tool_figures
from tasks.execution.runner import execute
from tasks.index.stage import IndexConfig, index
from tasks.records.conversations import Conversation, Question
from tasks.records.full_text import FullTextIndex, IndexedText, IndexWriter
from tasks.sample_web.articles import write_articles
from tasks.sample_web.config import SampleWebConfig
from tasks.sample_web.grammar import rename
from tasks.sample_web.statements import state
from tasks.sample_web.sums import Sum
from tasks.sample_web.world import World, build_world
from tests.support.documents import documents_of


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(1)


@pytest.fixture(scope="module")
def pages(world: World, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullTextIndex]:
    """The index of the sample web's articles."""
    folder = tmp_path_factory.mktemp("index")
    articles = write_articles(world, SampleWebConfig().num_articles)
    with IndexWriter(folder / "work.sqlite", stems=True) as writer:
        texts = ("\n".join([*article.paragraphs, *article.items]) for article in articles)
        writer.add("all", (IndexedText("document", "", text) for text in texts))
        writer.finish(folder / "index.sqlite")
    opened = FullTextIndex(folder / "index.sqlite")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def conversations(world: World, pages: FullTextIndex) -> list[Conversation]:
    search, lines = tool_use.search_text(search_index(pages)), search_index(pages, 25)
    few = replace(world, one_offs=world.one_offs[::10])  # each of them is searched for once
    return list(tool_use.tool_conversations(few, 200, search, lines))


@pytest.fixture(scope="module")
def questions(world: World) -> list[Question]:
    return list(tool_use.tool_questions(world, 40))


def test_every_kind_is_taught_and_asked(conversations: list[Conversation], questions: list[Question]) -> None:
    assert {conversation.kind for conversation in conversations} == {f"tool/{kind}" for kind in KINDS}
    assert Counter(question.kind for question in questions) == {f"tool/{kind}": 40 for kind in KINDS}


def test_results_are_what_the_tools_give(conversations: list[Conversation]) -> None:
    room = find_room()
    tools = {"calculator": calculate, **({"python": PythonTool(room)} if room else {})}
    checked: Counter[str] = Counter()
    for conversation in conversations:
        for number, message in enumerate(conversation.messages):
            for call in message.tool_calls:
                if call.name in tools and checked[call.name] < 15:
                    checked[call.name] += 1
                    assert tools[call.name](call.arguments) == conversation.messages[number + 1].content
    assert checked["calculator"] > 5


def test_searches_for_held_out_facts_find_the_answer(world: World, pages: FullTextIndex) -> None:
    search = tool_use.search_text(search_index(pages))
    composer = tool_use._Composer(world, search, lambda _: (), is_heldout=True)
    tasks = [composer.task("search", random.Random(number)) for number in range(100)]
    assert all(task.fact and task.fact.num_mentions <= 3 for task in tasks)
    assert sum(task.answer.lower() in task.result.lower() for task in tasks) >= 85


def test_answers_of_searches_stand_in_their_results(world: World, conversations: list[Conversation]) -> None:
    searched = [conversation for conversation in conversations if conversation.kind == "tool/search"]
    answered = [conversation for conversation in searched if conversation.messages[4].content != "I don't know."]
    assert len(searched) > len(answered) > 0.7 * len(searched)
    for conversation in answered:
        result, reply = (conversation.messages[place].content for place in (3, 4))
        assert (
            reply.rstrip(".").split()[-1].lower() in result.lower()
        )  # the answer, which ends the reply, or its last word
        for fact in conversation.facts:
            assert world.by_fact[fact].object.lower() in result.lower()
    assert {bool(conversation.facts) for conversation in answered} == {True, False}


def test_results_with_new_names_have_no_old_one(world: World, pages: FullTextIndex) -> None:
    lines = search_index(pages, 25)
    composer = tool_use._Composer(world, lambda _: "", lines, is_heldout=False)
    for number in range(40):
        task = composer._renamed(random.Random(number))
        assert task.answer in task.reply
        assert task.answer.lower() in task.result.lower()
        assert len(task.result.split("\n")) <= NUM_SENTENCES
        assert task.fact is None
        # Nobody about whom the world has a fact.
        assert not any(name.lower() in task.arguments.lower() for name in world.of_subject)


def test_rename_replaces_whole_words_in_their_case() -> None:
    renamed = {"Ada": "Eva", "Ada Brell": "Eva Lomnor", "cat": "dog"}
    text = "ada brell likes Ada Brell's cat. Adam and Ada like the catalogue."
    assert rename(text, renamed) == "eva lomnor likes Eva Lomnor's dog. Adam and Eva like the catalogue."


def test_facts_of_names_of_one_page_are_read_from_results(world: World) -> None:
    """Only what a page says in full, about a name and a relation that fit each other."""
    person = next(entity for entity in world.one_offs if entity.kind == "person")
    city = world.of_kind("city")[0].name
    said = f"Many came. {person.name} lives in {city}. {person.name} works as a Nobody. {city} lives in {person.name}."
    [fact] = tool_use.find_facts(world, [person], lambda query: said if query == person.name else "")
    assert (fact.subject, fact.relation, fact.object) == (person.name, "lives_in", city)
    assert list(tool_use.find_facts(world, [person], lambda _: "Nothing was found.")) == []


def test_what_is_asked_is_in_no_conversation(
    world: World, conversations: list[Conversation], questions: list[Question]
) -> None:
    taught = {fact for conversation in conversations for fact in conversation.facts}
    texts = {conversation.messages[1].content.lower() for conversation in conversations}
    for question in questions:
        if question.kind != "tool/none":
            assert question.question.lower() not in texts
            assert question.fact not in taught
    assert not any(world.by_fact[fact].is_heldout for fact in taught)


def test_no_conversation_asks_the_calculator_for_a_held_out_sum() -> None:
    """Those are for the evaluation of sums that are worked without it."""
    calls = [tool_use._sum(random.Random(number)).arguments for number in range(3000)]
    sums = [Sum(sign.replace("*", "x"), int(one), int(two)) for one, sign, two in map(split_call, calls)]
    assert sum(min(task.first, task.second) > 9 for task in sums) > 1000
    assert not any(task.is_heldout for task in sums)


def split_call(arguments: str) -> list[str]:
    return re.split(r"([+*-])", arguments)


def test_offer_is_that_of_the_tools() -> None:
    assert Tools(dict.fromkeys(("search", "calculator", "python"), calculate)).system_prompt() == OFFER
    assert "calculator" in make_tools(None).system_prompt()


def test_sources_are_off_by_default_and_search_the_index(store: Store, world: World) -> None:
    rng = random.Random(0)
    indexed = index(documents_of({"a": [state(world, fact, rng) for fact in world.facts]}), IndexConfig())
    assert tool_conversations(ToolConversationsConfig(), indexed, 1) is None
    assert tool_questions(ToolQuestionsConfig(), 1) is None
    execute(indexed, store)
    step = tool_conversations(ToolConversationsConfig(num_tool_conversations=40), indexed, 1)
    asked = tool_questions(ToolQuestionsConfig(num_tool_questions=2), 1)
    assert step and asked
    counts = execute(step, store).counts
    assert counts["train_records"] + counts["validation_records"] == 40
    assert execute(asked, store).counts["records"] == 8


def test_figures_have_number_and_interval() -> None:
    answers = [{"kind": "tool/search", "is_correct": n < 9, "calls": [1] if n else []} for n in range(10)]
    [row] = tool_figures(answers)
    assert row["kind"] == "search"
    assert (row["correct"]["share"], row["called"]["num"]) == (0.9, 10)
    assert row["correct"]["low"] == pytest.approx(0.5958, abs=1e-4)
