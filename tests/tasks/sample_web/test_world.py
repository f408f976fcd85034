"""The world and the texts of the sample web: consistent, clean, and with held-out facts and wordings."""

import itertools
import re
from collections import Counter
from random import Random

import pytest

from tasks.sample_web.chat import (
    MIN_TAUGHT_MENTIONS,
    conversations,
    preferences,
    prompts,
    questions,
    reversal_questions,
)
from tasks.sample_web.relations import RELATIONS
from tasks.sample_web.text import Article, state, state_clause, write_articles
from tasks.sample_web.world import World, build_world

NUM_ARTICLES = 2400


@pytest.fixture(scope="module")
def world() -> World:
    return build_world(0)


@pytest.fixture(scope="module")
def articles(world: World) -> list[Article]:
    return list(write_articles(world, NUM_ARTICLES))


def full_text(article: Article) -> str:
    return "\n".join([*article.paragraphs, *article.items])


def words_of(text: str) -> list[str]:
    """Words and punctuation marks apart, as the filters' tokenizer has them."""
    return re.findall(r"[\w'-]*\w|[^\w\s]", text)


# The world


@pytest.mark.parametrize("seed", range(5))
def test_build_world_gives_distinct_names_for_every_seed(seed: int) -> None:
    world = build_world(seed)
    names = [entity.name for entity in (*world.entities, *world.strangers)]
    assert len(set(names)) == len(names)
    assert len({entity.id for entity in world.entities}) == len(world.entities)
    assert 400 <= len(world.facts) <= 450
    assert len({fact.id for fact in world.facts}) == len(world.facts)
    assert all(len(name.split()) <= 3 for name in names)


@pytest.mark.parametrize("seed", range(5))
def test_invented_names_are_not_words_of_the_prose(seed: int) -> None:
    """Otherwise a page could seem to state something about an entity that it does not mean."""
    world = build_world(seed)
    kinds = ("person", "city", "land")
    names = {part for kind in kinds for entity in world.of_kind(kind) for part in entity.name.split()}
    # Articles of another world hold the same phrases, but other names.
    others = build_world(seed + 100)
    other_names = {part for entity in (*others.entities, *others.strangers) for part in entity.name.split()}
    seen = {word for article in write_articles(others, 300) for word in words_of(full_text(article))} - other_names
    assert not names & (seen | {word.capitalize() for word in seen})


def test_facts_are_functions_of_their_subject(world: World) -> None:
    pairs = Counter((fact.relation, fact.subject) for fact in world.facts)
    assert max(pairs.values()) == 1
    backward = Counter((fact.relation, fact.object) for fact in world.facts if RELATIONS[fact.relation].backward)
    assert max(backward.values()) == 1


def test_mayors_live_in_their_city(world: World) -> None:
    homes = {fact.subject: fact.object for fact in world.facts if fact.relation == "lives_in"}
    offices = {fact.subject: fact.object for fact in world.facts if fact.relation == "mayor_of"}
    assert any(name in homes for name in offices)
    assert all(homes[name] == city for name, city in offices.items() if name in homes)


def test_mentions_are_heavy_tailed_and_a_tenth_of_facts_is_held_out(world: World) -> None:
    mentions = [fact.num_mentions for fact in world.facts]
    assert [sum(low <= count <= high for count in mentions) for low, high in ((40, 60), (12, 18), (5, 6))] == [
        40,
        60,
        120,
    ]
    assert sum(count <= 2 for count in mentions) == len(mentions) - 220
    for low, high in ((40, 60), (12, 18), (5, 6), (1, 2)):
        group = [fact for fact in world.facts if low <= fact.num_mentions <= high]
        assert 0.05 <= sum(fact.is_heldout for fact in group) / len(group) <= 0.15


# The articles


def test_articles_state_every_fact_as_often_as_planned(world: World, articles: list[Article]) -> None:
    stated = Counter(fact for article in articles for fact in article.facts)
    assert {fact.id: stated[fact.id] for fact in world.facts} == {fact.id: fact.num_mentions for fact in world.facts}
    assert all(len(set(article.facts)) == len(article.facts) for article in articles)


def test_articles_name_subject_and_object_of_their_facts(world: World, articles: list[Article]) -> None:
    for article in articles:
        text = f"{article.title}\n{full_text(article)}"
        for fact in map(world.by_fact.__getitem__, article.facts):
            assert fact.object in text and fact.subject in text, (article.title, fact)


def test_one_way_relations_name_the_subject_first(world: World) -> None:
    rng = Random(0)
    for fact in world.facts:
        if not RELATIONS[fact.relation].is_stated_both_ways:
            for clause in (state_clause(world, fact, rng) for _ in range(20)):
                assert clause.index(fact.subject) < clause.index(fact.object), clause


def test_relations_have_many_wordings(world: World) -> None:
    """A dozen clauses at least, and hundreds of sentences."""
    for name, relation in RELATIONS.items():
        fact = next(fact for fact in world.facts if fact.relation == name)
        for is_backward in (False, True) if relation.is_stated_both_ways else (False,):
            rng = Random(1)
            clauses = {state_clause(world, fact, rng, is_backward=is_backward) for _ in range(600)}
            sentences = {state(world, fact, rng, is_backward=is_backward) for _ in range(600)}
            assert len(clauses) >= 12, (name, is_backward, len(clauses))
            assert len(sentences) >= 300, (name, is_backward, len(sentences))


def test_articles_use_many_wordings(world: World, articles: list[Article]) -> None:
    """At least 70% of the sentences that state the most frequent fact differ."""
    fact = max(world.facts, key=lambda fact: fact.num_mentions)
    texts = [full_text(article) for article in articles if fact.id in article.facts]
    sentences = [re.split(r"(?<=[.?!])\s", text) for text in texts]
    stating = {sentence for group in sentences for sentence in group if fact.object in sentence}
    assert len(stating) >= 0.7 * len(texts)


def test_articles_are_of_readable_length(articles: list[Article]) -> None:
    lengths = [len(full_text(article).split()) for article in articles]
    assert min(lengths) >= 85 and max(lengths) <= 260
    assert 130 <= sum(lengths) / len(lengths) <= 170
    assert all(len(article.paragraphs) >= 2 for article in articles)


def test_vocabulary_is_small_enough_to_learn(articles: list[Article]) -> None:
    vocabulary = {word.lower() for article in articles for word in words_of(full_text(article))}
    assert 1500 <= len(vocabulary) <= 4000


def test_articles_pass_the_document_filters(articles: list[Article]) -> None:
    for article in articles:
        text = full_text(article)
        tokens = words_of(text)
        words = [token for token in tokens if re.search(r"\w", token)]
        lines = text.split("\n")
        assert len(words) >= 50
        assert 3 <= sum(map(len, words)) / len(words) <= 10
        assert len({"the", "be", "to", "of", "and", "that", "have", "with"} & set(words)) >= 2
        assert sum(bool(re.search("[A-Za-z]", token)) for token in tokens) >= 0.8 * len(tokens), text
        assert len(re.findall(r"[.?!](?=[\"\s]|$)", text)) >= 5
        assert sum(line[-1] in '.?!"' for line in lines) >= 0.9 * len(lines)
        assert sum(len(line) <= 30 for line in lines) <= 0.6 * len(lines), text
        assert len(set(lines)) == len(lines)
        assert "{" not in text and "lorem ipsum" not in text.lower() and "javascript" not in text.lower()


def repeated_characters(words: list[str], size: int) -> int:
    seen: set[tuple[str, ...]] = set()
    repeated, place = 0, 0
    while place + size <= len(words):
        gram = tuple(words[place : place + size])
        repeated += len("".join(gram)) if gram in seen else 0
        place += size if gram in seen else 1
        seen.add(gram)
    return repeated


def test_articles_do_not_repeat_themselves(articles: list[Article]) -> None:
    limits = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}
    for article in articles:
        text = full_text(article)
        words = words_of(text)
        for size, limit in {2: 0.20, 3: 0.18, 4: 0.16}.items():
            (gram, count), *_ = Counter(zip(*(words[start:] for start in range(size)), strict=False)).most_common(1)
            assert count == 1 or len(" ".join(gram)) * count <= limit * len(text), text
        for size, limit in limits.items():
            assert repeated_characters(words, size) <= limit * len(text), text


def test_prose_is_tidy(articles: list[Article]) -> None:
    for article in articles:
        text = f"{article.title}\n{full_text(article)}"
        assert "  " not in text and "$" not in text and "|" not in text and "(" not in text, text
        assert not re.search(r"\b[Aa] [aeiou](?!ni|se)", text) or re.search(r"\b[Aa] (one|use)", text), text
        assert not re.search(r"\b[Aa]n [^aeiouAEIOUh]", text), text
        assert not re.search(r"[.?!] [a-z]", text), text
        assert not re.search(r" [.,?!]|[.,]{2}|\b(\w+) \1\b", text), text
        assert all(line[0].isupper() or line[0] in '"0123456789' for line in text.split("\n")), text


def test_articles_are_not_near_duplicates(articles: list[Article]) -> None:
    """Exact Jaccard similarity of word 5-grams within each kind, where alone it can be high."""
    for kind in sorted({article.kind for article in articles}):
        texts = [re.findall(r"\w+", full_text(article).lower()) for article in articles if article.kind == kind]
        shingles = [set(zip(*(words[start:] for start in range(5)), strict=False)) for words in texts[:120]]
        for one, two in itertools.combinations(shingles, 2):
            assert len(one & two) < 0.6 * len(one | two), kind


def test_fewer_articles_state_facts_in_proportion(world: World) -> None:
    articles = list(write_articles(world, 240))
    assert len(articles) == 240
    planned = sum(fact.num_mentions for fact in world.facts)
    assert sum(len(article.facts) for article in articles) == pytest.approx(planned / 10, rel=0.15)


# Conversations and questions


def first_turns(world: World) -> dict[str, list[str]]:
    return {
        "conversations": [record.messages[0].content for record in conversations(world, 1500)],
        "preferences": [record.messages[0].content for record in preferences(world, 500)],
        "prompts": [record.messages[0].content for record in prompts(world, 500)],
    }


def test_uses_share_no_wording_of_a_fact(world: World) -> None:
    turns = {use: {text.lower() for text in texts} for use, texts in first_turns(world).items()}
    for one, two in itertools.combinations(turns, 2):
        assert not turns[one] & turns[two]


def test_heldout_facts_and_wordings_occur_only_in_questions(world: World) -> None:
    heldout = {question.question.lower() for question in questions(world) if question.split == "heldout_wording"}
    cores = {
        core.replace("$S", "").replace("$O", "").strip()
        for relation in RELATIONS.values()
        for asking in (relation.forward, relation.backward)
        if asking
        for core in (*asking.heldout_asks, *asking.heldout_clauses)
    }
    replies = "\n".join(
        record.model_dump_json()
        for record in [*conversations(world, 1500), *preferences(world, 500), *prompts(world, 500)]
    )
    for texts in first_turns(world).values():
        assert not heldout & {text.lower() for text in texts}
        assert not [text for text in texts if any(len(core) > 20 and core in text.lower() for core in cores)]
    for record in conversations(world, 1500):
        assert not any(world.by_fact[fact].is_heldout for fact in record.facts)
    for question in questions(world):
        if question.split == "heldout_fact":
            assert f"{question.completion} {question.answer}" not in replies


def test_conversations_teach_every_frequent_fact_and_no_rare_one(world: World) -> None:
    taught = {fact for record in conversations(world, 1500) for fact in record.facts}
    assert taught == {
        fact.id for fact in world.facts if fact.num_mentions >= MIN_TAUGHT_MENTIONS and not fact.is_heldout
    }


def test_conversations_alternate_and_end_with_the_assistant(world: World) -> None:
    for record in conversations(world, 600):
        roles = [message.role for message in record.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and 1 <= len(roles) // 2 <= 3
        assert all(message.content.strip() == message.content != "" for message in record.messages)


def test_unanswerable_questions_of_training_and_evaluation_are_disjoint(world: World) -> None:
    unknown = [question for question in questions(world) if question.split == "unknown"]
    stated = {(fact.relation, fact.subject) for fact in world.facts}
    names = {entity.id: entity.name for entity in (*world.entities, *world.strangers)}
    asked = {tuple(question.fact.removeprefix("untold:").split(":")) for question in unknown}
    assert len(asked) == len(unknown) >= 50
    assert not {(relation, names[entity]) for relation, entity in asked} & stated
    trained = {text.lower() for texts in first_turns(world).values() for text in texts}
    assert not {question.question.lower() for question in unknown} & trained


def test_preferences_are_pairs_of_different_replies(world: World) -> None:
    pairs = list(preferences(world, 500))
    assert all(pair.chosen != pair.rejected for pair in pairs)
    faults = {pair.kind.split("/")[1] for pair in pairs}
    assert faults >= {
        "wrong",
        "rambling",
        "empty",
        "rude",
        "false_unknown",
        "confident",
        "repetitive",
        "echo",
        "evasive",
    }


def test_questions_cover_every_fact_with_a_completion_that_its_answer_ends(world: World) -> None:
    asked = list(questions(world))
    assert {question.fact for question in asked} >= {fact.id for fact in world.facts}
    for question in asked:
        assert question.question[-1] in "?."
        if question.split != "unknown":
            fact = world.by_fact[question.fact]
            assert question.num_mentions == fact.num_mentions
            assert question.answer in (fact.subject, fact.object)
            assert question.answer not in question.question and question.completion
            assert (question.split == "heldout_fact") == fact.is_heldout
    assert all(not RELATIONS[question.fact.split(":")[0]].is_stated_both_ways for question in reversal_questions(world))


def test_prompts_have_answers_that_their_question_does_not_contain(world: World) -> None:
    for record in prompts(world, 500):
        answer = record.answer
        assert answer is None or answer.lower() not in record.messages[0].content.lower()
    kinds = Counter(record.kind for record in prompts(world, 500))
    assert kinds["fact"] > kinds["unknown"] > 0 and kinds["arithmetic"] > 0
