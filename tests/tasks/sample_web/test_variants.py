"""Variants of the sample web: what the settings add, and that they add nothing else."""

import re
from collections import Counter
from random import Random

import pytest

from tasks.sample_web.articles import Article, write_articles
from tasks.sample_web.chat import reversal_questions
from tasks.sample_web.config import SampleWebConfig
from tasks.sample_web.relations import RELATIONS
from tasks.sample_web.statements import state_clause
from tasks.sample_web.variants import CHOSEN_MENTIONS, PASSAGE_PAGES, build_variant, chosen_facts, repeat_passages
from tasks.sample_web.world import World, build_world

REVERSED = SampleWebConfig(seed=0, reversed_pages=True)


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(0)


def words_of(article: Article) -> list[str]:
    return " ".join(article.paragraphs).split()


def test_variant_without_settings_is_the_plain_world(world: World) -> None:
    assert build_variant(SampleWebConfig(seed=0)) == world


def test_extra_mentions_are_of_thirty_rare_heldout_facts(world: World) -> None:
    varied = build_variant(SampleWebConfig(seed=0, extra_mentions=27))
    more = {fact.id for fact, plain in zip(varied.facts, world.facts, strict=True) if fact != plain}
    assert more == {fact.id for fact in chosen_facts(world)} and len(more) == 30
    assert all(world.by_fact[fact].is_heldout for fact in more)
    assert {varied.by_fact[fact].num_mentions for fact in more} == {CHOSEN_MENTIONS + 27}
    # Others are left of the same frequency, to compare with.
    assert sum(fact.num_mentions == CHOSEN_MENTIONS for fact in varied.facts) >= 30


def test_extra_mentions_are_stated_on_so_many_pages(world: World) -> None:
    varied = build_variant(SampleWebConfig(seed=0, extra_mentions=27))
    stated = Counter(fact for article in write_articles(varied, 2400) for fact in article.facts)
    assert {fact.id: stated[fact.id] for fact in varied.facts} == {fact.id: fact.num_mentions for fact in varied.facts}


def test_reversed_pages_state_and_ask_in_both_directions(world: World) -> None:
    one_way = {name for name, relation in RELATIONS.items() if relation.is_one_way}
    assert one_way == {fact.fact.split(":")[0] for fact in reversal_questions(world)}
    for settings, expected in ((SampleWebConfig(seed=0), 0), (REVERSED, 10)):
        articles = list(write_articles(build_variant(settings), 480))
        asked = [
            text
            for article in articles
            for text in article.questions
            if re.search(r"(?i)(child|of whom|who (calls|has)|as mother)", text)
        ]
        assert (len(asked) > expected) == bool(expected)
        text = "\n".join(paragraph for article in articles for paragraph in article.paragraphs)
        assert (len(re.findall(r"\b(?:child|child is) called [A-Z]", text)) > expected) == bool(expected)


def test_reversed_statements_name_the_object_first(world: World) -> None:
    rng = Random(0)
    for fact in world.facts:
        if RELATIONS[fact.relation].is_one_way:
            for clause in (state_clause(world, fact, rng, is_backward=True) for _ in range(20)):
                assert clause.index(fact.object) < clause.index(fact.subject), clause


def test_passages_stand_word_for_word_on_as_many_pages(world: World) -> None:
    articles = list(write_articles(world, 480))
    repeated = repeat_passages(articles, 0)
    added = [
        paragraph
        for plain, article in zip(articles, repeated, strict=True)
        for paragraph in set(article.paragraphs) - set(plain.paragraphs)
    ]
    assert Counter(Counter(added).values()) == dict.fromkeys(PASSAGE_PAGES, 2)
    assert repeat_passages(articles, 0) == repeated != repeat_passages(articles, 1)
    # Apart from these passages no two pages have so many words in a row in common: what is counted once is new.
    grams = Counter(
        gram
        for article in articles
        for gram in set(zip(*(words_of(article)[start:] for start in range(60)), strict=False))
    )
    assert max(grams.values()) == 1
    assert not [text for text in set(added) if added.count(text) == 1 and tuple(text.split()[:60]) in grams]
