"""The world and the texts of the sample web: consistent, clean, and with held-out facts and wordings."""

import itertools
import re
from collections import Counter
from functools import cache
from random import Random

import pytest

from tasks.sample_web.articles import Article, write_articles
from tasks.sample_web.asking import FORMS, ask
from tasks.sample_web.chat import conversations, preferences, prompts, questions, reversal_questions, small_talk
from tasks.sample_web.grammar import NUMBER_WORDS, misspell
from tasks.sample_web.relations import RELATIONS
from tasks.sample_web.statements import state, state_clause
from tasks.sample_web.sums import Sum, draw_sum
from tasks.sample_web.world import DATA, World, build_world

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
    names = [entity.name for entity in (*world.entities, *world.strangers, *world.tested_strangers, *world.one_offs)]
    assert len(set(names)) == len(names)
    assert len({entity.id for entity in world.entities}) == len(world.entities)
    assert 850 <= len(world.facts) <= 1000
    assert len({fact.id for fact in world.facts}) == len(world.facts)
    assert all(len(name.split()) <= 3 for name in names)


def test_last_names_are_unique_except_of_recombined_strangers(world: World) -> None:
    everyone = (*world.entities, *world.strangers, *world.tested_strangers, *world.one_offs)
    people = [entity for entity in everyone if entity.kind == "person"]
    last = Counter(person.name.split()[1] for person in people if person.origin != "recombined")
    assert max(last.values()) == 1
    recombined = [person.name.split() for person in people if person.origin == "recombined"]
    firsts = {person.first for person in people if person.origin == "world"}
    assert recombined
    assert all(one in firsts and two in last for one, two in recombined)


def test_strangers_of_training_and_evaluation_are_of_every_origin(world: World) -> None:
    assert not set(world.strangers) & set(world.tested_strangers)
    for strangers in (world.strangers, world.tested_strangers):
        assert {(entity.kind, entity.origin) for entity in strangers} == {
            ("person", "invented"), ("city", "invented"), ("book", "recombined"), ("person", "recombined")
        }  # fmt: skip


def test_no_name_of_a_heldout_person_is_refused_in_training(world: World) -> None:
    """A last name that stands next to "I don't know" is a sign of not knowing the person whose it is."""
    heldout = {entity.name.split()[1] for entity in world.of_kind("person") if DATA.groups[entity.group].is_heldout}
    refused = {entity.name.split()[-1] for entity in (*world.strangers, *world.unknown_to_pages)}
    assert heldout and refused and not heldout & refused
    # The evaluation asks about them all the same.
    assert heldout & {entity.name.split()[-1] for entity in world.tested_strangers}


def test_names_that_pages_do_not_know_are_on_one_page_with_that_answer(world: World, articles: list[Article]) -> None:
    texts = [full_text(article).lower() for article in articles]
    for entity in world.unknown_to_pages:
        # As words: Ivo Nor is not Ivo Norkin.
        name = rf"\b{re.escape(entity.name.lower())}\b"
        (text,) = [text for text in texts if entity.name.lower() in text and re.search(name, text)]
        assert re.search(rf"{name}[^\n]*\n[^\n]*don't know", text), text


def test_pages_state_what_they_ask_about_a_one_off(world: World, articles: list[Article]) -> None:
    """The answer can be read on the page: a name that was never seen has no other answer than "I don't know"."""
    names = [entity.name for entity in world.one_offs]
    num_answered = 0
    for article in articles:
        for name in names if article.questions else ():
            about = [paragraph for paragraph in article.paragraphs if name.lower() in paragraph.lower()]
            answers = [paragraph for paragraph in about if name in paragraph]
            if answers and len(about) > 1:
                num_answered += 1
                assert len(about) == 3 and not any(question in about[0] for question in article.questions), about
    assert num_answered >= 300


@pytest.mark.parametrize("seed", range(5))
def test_invented_names_are_not_words_of_the_prose(seed: int) -> None:
    """Otherwise a page could seem to state something about an entity that it does not mean."""
    world = build_world(seed)
    names = {part for kind in ("person", "city") for entity in world.of_kind(kind) for part in entity.name.split()}
    # Articles of another world hold the same phrases, but other names.
    others = build_world(seed + 100)
    named = {part for entity in others.by_name.values() for part in entity.name.split()}
    other_names = named | {name.lower() for name in named}
    seen = {word for article in write_articles(others, 300) for word in words_of(full_text(article))} - other_names
    firsts = {name for key in ("female", "male") for name in DATA.names[key][0]}
    assert not (names - firsts) & (seen | {word.capitalize() for word in seen})
    assert not firsts & seen


def test_facts_are_functions_of_their_subject(world: World) -> None:
    pairs = Counter((fact.relation, fact.subject) for fact in world.facts)
    assert max(pairs.values()) == 1
    backward = Counter((fact.relation, fact.object) for fact in world.facts if RELATIONS[fact.relation].backward)
    assert max(backward.values()) == 1
    assert all(fact.subject != fact.object for fact in world.facts)


def test_every_class_of_mentions_has_sixty_heldout_facts(world: World) -> None:
    classes = Counter(fact.num_mentions for fact in world.facts if fact.is_heldout)
    assert set(classes) == {1, 3, 10, 30, 100}
    assert min(classes.values()) >= 60
    assert classes[30] + classes[100] >= 100


def test_facts_of_both_directions_are_of_one_group(world: World) -> None:
    """Else a question about a known entity would ask for a fact of one that is held out."""
    for fact in world.facts:
        if RELATIONS[fact.relation].backward:
            assert world.by_name[fact.subject].group == world.by_name[fact.object].group


# The articles


def test_articles_state_every_fact_as_often_as_planned(world: World, articles: list[Article]) -> None:
    stated = Counter(fact for article in articles for fact in article.facts)
    assert {fact.id: stated[fact.id] for fact in world.facts} == {fact.id: fact.num_mentions for fact in world.facts}
    assert all(len(set(article.facts)) == len(article.facts) for article in articles)


def test_articles_name_subject_and_object_of_their_facts(world: World, articles: list[Article]) -> None:
    for article in articles:
        text = f"{article.title}\n{full_text(article)}"
        for fact in map(world.by_fact.__getitem__, article.facts):
            names = (fact.object, fact.subject)
            is_lower_case = text == text.lower()
            assert all((name.lower() if is_lower_case else name) in text for name in names), (article.title, fact)


def test_no_page_asks_about_a_heldout_entity(world: World, articles: list[Article]) -> None:
    """Neither in a pair of question and answer nor in any other sentence that ends in a question mark."""
    heldout = {
        entity.name.lower() for entity in world.entities if entity.group >= 0 and DATA.groups[entity.group].is_heldout
    }
    assert len(heldout) > 80
    asked = 0
    for article in articles:
        texts = [*article.questions, *re.findall(r"[^.!?\n]*\?", f"{article.title}\n{full_text(article)}")]
        asked += len(article.questions)
        for text in texts:
            assert not [name for name in heldout if re.search(rf"\b{name}\b", text.lower())], text
    assert asked > 2000


def test_half_of_the_people_are_asked_about(world: World, articles: list[Article]) -> None:
    asked = "\n".join(question for article in articles for question in article.questions).lower()
    people = world.of_kind("person")
    assert 0.5 <= sum(person.name.lower() in asked for person in people) / len(people) <= 0.7


def test_questions_of_the_pages_have_every_form_and_no_heldout_wording(world: World, articles: list[Article]) -> None:
    asked = {question for article in articles for question in article.questions}
    assert sum(question == question.lower() and question[-1] != "?" for question in asked) > 0.2 * len(asked)
    assert not [question for question in asked if has_heldout_wording(question)]
    answers = [line for article in articles for line in article.paragraphs if "I don't know" in line]
    assert len(answers) > 300


def test_long_tail_has_names_that_occur_on_one_page(world: World, articles: list[Article]) -> None:
    pages = Counter(
        name for article in articles for name in set(re.findall(r"[A-Z][a-z]+ [A-Z][a-z]+", full_text(article).title()))
    )
    names = [entity.name for entity in world.one_offs if entity.kind == "person"]
    assert sum(pages[name] == 1 for name in names) > 300
    assert max(pages[name] for name in names) <= 1


def test_one_way_relations_name_the_subject_first(world: World) -> None:
    """Except where the clause has its words in between: "Tolmar is the city where Ada was born"."""
    rng = Random(0)
    for fact in world.facts:
        relation = RELATIONS[fact.relation]
        if relation.backward and not relation.is_stated_both_ways:
            for clause in (state_clause(world, fact, rng) for _ in range(20)):
                assert clause.index(fact.subject) < clause.index(fact.object), clause


def test_relations_have_many_wordings(world: World) -> None:
    """A dozen clauses at least, and many more sentences."""
    for name, relation in RELATIONS.items():
        fact = next(fact for fact in world.facts if fact.relation == name)
        for is_backward in (False, True) if relation.is_stated_both_ways else (False,):
            rng = Random(1)
            clauses = {state_clause(world, fact, rng, is_backward=is_backward) for _ in range(600)}
            sentences = {state(world, fact, rng, is_backward=is_backward) for _ in range(600)}
            assert len(clauses) >= (8 if is_backward else 12), (name, is_backward, len(clauses))
            assert len(sentences) >= 100, (name, is_backward, len(sentences))
        for asking in filter(None, (relation.forward, relation.backward if relation.is_stated_both_ways else None)):
            assert len(asking.asks) + len(asking.keywords) >= 6
            assert len(asking.heldout_asks) >= 2


def test_biographies_tell_facts_in_changing_order(world: World, articles: list[Article]) -> None:
    frequent = [entity for entity in world.of_kind("person") if DATA.groups[entity.group].mentions == 100]
    person = max(frequent, key=lambda entity: len(world.of_subject[entity.name]))
    first = Counter(
        next(fact for fact in article.facts if world.by_fact[fact].subject == person.name)
        for article in articles
        if any(world.by_fact[fact].subject == person.name for fact in article.facts)
    )
    assert len(first) >= 4
    assert max(first.values()) < 0.6 * sum(first.values())


def test_articles_are_of_readable_length(articles: list[Article]) -> None:
    lengths = [len(full_text(article).split()) for article in articles]
    assert min(lengths) >= 60 and max(lengths) <= 450
    assert 170 <= sum(lengths) / len(lengths) <= 240
    assert all(len(article.paragraphs) >= 2 for article in articles)


def test_vocabulary_is_small_enough_to_learn(articles: list[Article]) -> None:
    vocabulary = {word.lower() for article in articles for word in words_of(full_text(article))}
    assert 1500 <= len(vocabulary) <= 5000


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
        asks = article.questions or article.kind == "word problems"  # as people type, some without a question mark
        assert sum(line[-1] in '.?!"' for line in lines) >= (0.6 if asks else 0.9) * len(lines)
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
        assert not re.search(r" [.,?!]|[.,]{2}|\b([^\W\d]+) \1\b", text), text
        if text != text.lower():
            # Entries of an index begin with the name in lower case: "nils wexmer: Nils Wexmer lives in ..."
            text = re.sub(r"(?m)(^|(?<=[.?!] ))[a-z ]+: (?=[A-Z])", "", text)
            assert not re.search(r"[.?!] [a-z]", text), text
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


# Sums and questions


def digits(word: str) -> str:
    """A number in digits, if the word is one."""
    return str(NUMBER_WORDS.index(word)) if word in NUMBER_WORDS else word


def test_wrong_worked_sums_have_one_wrong_step_and_what_follows_from_it() -> None:
    rng = Random("wrong steps")
    assert Sum("+", 12, 7).worked_wrong(Random(1)) == (
        "First the ones: two plus seven is eight so write 8. Then the tens: one plus zero is one so write 1. So 12 + 7 is 18."
    )
    for num_digits in (2, 3):
        for _ in range(300):
            task = draw_sum(rng, num_digits)
            right, wrong = task.worked.split(". "), task.worked_wrong(rng).split(". ")
            assert len(wrong) == len(right)
            first = next(one for one, other in zip(right, wrong, strict=True) if one != other)
            assert first != right[-1], "a step is wrong, not the answer alone"
            assert wrong[-1] != right[-1]
            assert int(wrong[-1].split()[-1].rstrip(".")) == sum(
                int(step.split(" and carry")[0].split(" and borrow")[0].split()[-1]) * 10**place
                for place, step in enumerate(wrong[:-1])
            )


def test_worked_sums_are_right_digit_by_digit() -> None:
    """Every step of a worked sum is a true statement, and the digits that it writes are those of the result."""
    rng = Random(0)
    for task in (draw_sum(rng, 3) for _ in range(400)):
        assert task.worked.endswith(f"So {task.first} {task.sign} {task.second} is {task.result}.")
        steps = re.findall(r": ([\w ]+?) is (\w+) so", task.worked)
        assert len(steps) == task.worked.count("write") > 0
        for left, right in steps:
            number, *rest = map(digits, left.split())
            value = int(number)
            for word, other in zip(rest[::2], rest[1::2], strict=True):
                value = {"plus": value + int(other), "minus": value - int(other), "times": value * int(other)}[word]
            assert value == int(digits(right)), task
        written = "".join(reversed(re.findall(r"write (\d+)", task.worked)))
        assert int(written) == task.result, task
    assert Sum("+", 47, 38).worked.startswith(
        "First the ones: seven plus eight is fifteen so write 5 and carry one. Then the tens:"
    )


SUM = re.compile(r"(\d\d+) ([+x-]|plus|minus|times) (\d\d+)")
SIGNS = {"plus": "+", "minus": "-", "times": "x"}


def test_no_page_and_no_conversation_has_a_held_out_sum(world: World, articles: list[Article]) -> None:
    """Nor is it in a word problem: those are worked, and the last step names the sum."""
    texts = [full_text(article) for article in articles]
    texts += [message.content for one in conversations(world, 3000) for message in one.messages]
    found = [Sum(SIGNS.get(sign, sign), int(one), int(two)) for text in texts for one, sign, two in SUM.findall(text)]
    assert len({task for task in found if min(task.first, task.second) > 9}) > 500
    assert not [task for task in found if task.is_heldout]


def test_misspell_changes_one_word_and_no_name() -> None:
    for seed in range(200):
        text = misspell("where does Ada Brellow live", Random(seed), kept=["Ada Brellow"])
        words = zip(text.split(), ["where", "does", "Ada", "Brellow", "live"], strict=True)
        assert sum(one != two for one, two in words) <= 1
        assert "Ada Brellow" in text
    assert misspell("who is it", Random(0)) == "who is it"


def test_forms_of_a_question_name_its_subject(world: World) -> None:
    rng = Random(0)
    for fact in world.facts[::17]:
        for form in FORMS:
            for is_heldout in (False, True):
                text = ask(world, fact, RELATIONS[fact.relation].forward, form, rng, is_heldout, is_framed=True)
                assert fact.subject.lower() in text.lower()
                assert fact.object.lower() not in text.lower().split(fact.subject.lower())[0]
                assert (text == text.lower()) or form not in ("lower", "keywords")


# Conversations and questions


@cache
def heldout_wordings() -> re.Pattern[str]:
    """Any held-out wording of a question, about any entity."""
    askings = [asking for relation in RELATIONS.values() for asking in (relation.forward, relation.backward) if asking]
    wordings = {core for asking in askings for core in (*asking.heldout_asks, *asking.heldout_clauses)}
    patterns = (re.sub(r"\\\$[so]s?\b", r"[\\w' ]+", re.escape(core.lower())) for core in sorted(wordings))
    return re.compile("|".join(rf"\b{pattern}$" for pattern in patterns))


def has_heldout_wording(text: str) -> bool:
    return heldout_wordings().search(text.lower().strip("?.")) is not None


def first_turns(world: World) -> dict[str, list[str]]:
    return {
        "conversations": [record.messages[0].content for record in conversations(world, 1500)],
        "preferences": [record.messages[0].content for record in preferences(world, 500)],
        "prompts": [record.messages[0].content for record in prompts(world, 500)],
    }


COURTESY = re.compile("(hello|hi|hey|good (morning|evening|day|night)|thank|great|bye|goodbye|see you)", re.I)


def test_courtesies_are_in_every_use_and_in_lower_case(world: World) -> None:
    for texts in first_turns(world).values():
        courtesies = [text for text in texts if COURTESY.match(text)]
        assert len(courtesies) > 10
        assert {text.islower() for text in courtesies} == {True, False}
    assert {"hi", "Hi.", "thanks", "bye"} <= {small_talk(Random(number))[0] for number in range(2000)}


def test_uses_share_no_wording_of_a_fact(world: World) -> None:
    uses = (conversations(world, 1500), preferences(world, 500), prompts(world, 500))
    # Every use has all courtesies, and of what asks for no fact there are few wordings.
    turns = [
        {
            record.messages[0].content.lower()
            for record in records
            if record.kind.partition("/")[0] in ("fact", "unknown", "about", "arithmetic", "talk")
        }
        for records in uses
    ]
    assert all(len(some) > 300 for some in turns)
    for one, two in itertools.combinations(turns, 2):
        assert not {text for text in one & two if not COURTESY.match(text)}


def test_heldout_facts_and_wordings_occur_only_in_questions(world: World) -> None:
    heldout = {question.question.lower() for question in questions(world) if question.form not in ("seen", "keywords")}
    records = [*conversations(world, 1500), *preferences(world, 500), *prompts(world, 500)]
    replies = "\n".join(record.model_dump_json() for record in records)
    for texts in first_turns(world).values():
        assert not heldout & {text.lower() for text in texts}
        assert not [text for text in texts if has_heldout_wording(text)]
    for record in conversations(world, 1500):
        assert not any(world.by_fact[fact].is_heldout for fact in record.facts)
    for question in questions(world):
        if question.split == "heldout_fact":
            assert f"{question.completion} {question.answer}" not in replies


def test_conversations_teach_every_fact_that_is_not_held_out(world: World) -> None:
    taught = {fact for record in conversations(world, 2500) for fact in record.facts}
    assert taught == {fact.id for fact in world.facts if not fact.is_heldout}


def test_conversations_alternate_and_end_with_the_assistant(world: World) -> None:
    for record in conversations(world, 600):
        roles = [message.role for message in record.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and 1 <= len(roles) // 2 <= 3
        assert all(message.content.strip() == message.content != "" for message in record.messages)


def test_later_turns_are_of_every_kind(world: World) -> None:
    later = [one.messages for one in conversations(world, 2000) if len(one.messages) > 2]
    asked, replies = ([turns[place].content for turns in later] for place in (2, 3))
    pronoun = re.compile(r"\b(?:he|she|it|his|her|its)\b")
    assert sum(bool(pronoun.search(text)) for text in asked) > 20  # about whom the first turn was
    assert sum(reply.startswith("First the ones") for reply in replies) > 20
    assert sum("don't know" in reply for reply in replies) > 10
    assert any(reply.startswith("Here is one.") for reply in replies)
    assert any(reply.startswith("Fine, thank you!") for reply in replies)


def test_strangers_of_the_questions_occur_in_no_training(world: World) -> None:
    unknown = [question for question in questions(world) if question.split == "unknown"]
    assert {question.kind.split("/")[1] for question in unknown} == {"invented", "recombined"}
    assert Counter(question.form for question in unknown) == dict.fromkeys(
        ("direct", "lower", "keywords", "misspelt"), len(world.tested_strangers)
    )
    trained = "\n".join(text.lower() for texts in first_turns(world).values() for text in texts)
    # As words: Arhaven is a part of Karhaven.
    assert not [
        entity for entity in world.tested_strangers if re.search(rf"\b{re.escape(entity.name.lower())}\b", trained)
    ]


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
        assert question.form in ("seen", "direct", "lower", "keywords", "misspelt")
        if question.split != "unknown":
            fact = world.by_fact[question.fact]
            assert question.num_mentions == fact.num_mentions
            assert question.answer in (fact.subject, fact.object)
            assert question.answer not in question.question and question.completion
            assert (question.split == "heldout_fact") == fact.is_heldout
            assert (question.form == "seen") == (question.split == "seen_wording") or fact.is_heldout
    reversed_questions = list(reversal_questions(world))
    assert len(reversed_questions) >= 40
    assert all(not RELATIONS[question.fact.split(":")[0]].is_stated_both_ways for question in reversed_questions)


def test_prompts_have_answers_that_their_question_does_not_contain(world: World) -> None:
    for record in prompts(world, 500):
        answer = record.answer
        assert answer is None or answer.lower() not in record.messages[0].content.lower()
    kinds = Counter(record.kind for record in prompts(world, 500))
    assert kinds["fact"] > kinds["unknown"] > 0 and kinds["arithmetic"] > 0
