"""The articles of the sample web: which facts each one states, and the prose around them.

Reads a World, writes nothing. Facts are distributed so that exactly the planned number of articles states each;
an article's sentences are composed (frame x clause x subject form), so that two articles rarely state a fact in the
same words.
"""

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tasks.sample_web.grammar import LEXICON, STATEMENTS, SUBJECT_FORMS, expand, say
from tasks.sample_web.kinds import (
    ANSWERED,
    ASIDES,
    ASKED,
    BOOK_REVIEW,
    CITY_GUIDE,
    DIALOGUE,
    DIARY,
    EVENT_REPORT,
    FIELD_NOTES,
    MATCH_REPORT,
    NEWS,
    PROFILE,
    QUESTIONS,
    TALKED,
    THOUGHTS,
    Kind,
)
from tasks.sample_web.relations import RELATIONS, Asking
from tasks.sample_web.stories import Tale, story
from tasks.sample_web.tales import how_to, jokes, recipe, word_problems
from tasks.sample_web.world import Entity, Fact, World

# The number of articles for which the facts' `num_mentions` are planned; other numbers scale them.
PLANNED_ARTICLES = 2400

_FACTS_PER_ARTICLE = (1, 2, 2, 3, 3, 4)
_TALES = {
    "story": (story, 40),
    "how-to": (how_to, 14),
    "recipe": (recipe, 14),
    "jokes": (jokes, 8),
    "word problems": (word_problems, 24),
}
_KINDS_OF_TOPIC: dict[str, tuple[str, ...]] = {
    "person": ("profile", "profile", "profile", "news", "questions", "dialogue", "diary"),
    "city": ("city guide", "city guide", "city guide", "news", "questions", "dialogue", "diary"),
    "land": ("news", "questions", "dialogue"),
    "team": ("match report", "match report", "news", "questions", "dialogue"),
    "book": ("book review", "book review", "questions", "dialogue", "diary"),
    "event": ("event report", "event report", "news", "questions", "diary"),
    "river": ("field notes", "field notes", "questions", "dialogue"),
    "mountain": ("field notes", "field notes", "questions", "dialogue"),
    "animal": ("field notes", "field notes", "questions", "dialogue"),
    "invention": ("news", "questions", "dialogue"),
}
_PROSE = {
    "profile": PROFILE,
    "city guide": CITY_GUIDE,
    "news": NEWS,
    "book review": BOOK_REVIEW,
    "event report": EVENT_REPORT,
    "match report": MATCH_REPORT,
    "field notes": FIELD_NOTES,
    "diary": DIARY,
}
_PRONOUNS = {"she": ("her", "her", "woman"), "he": ("his", "him", "man"), "it": ("its", "it", "thing")}


@dataclass(frozen=True)
class Article:
    """The text of one page. `facts` are the ids of the facts it states; `items` is a list."""

    kind: str
    title: str
    paragraphs: tuple[str, ...]
    facts: tuple[str, ...] = ()
    table: tuple[tuple[str, str], ...] = ()
    items: tuple[str, ...] = ()


def write_articles(world: World, num_articles: int) -> Iterator[Article]:
    """`num_articles` articles, the same for the same world on every machine. Each has its own random generator."""
    rng = random.Random(f"articles {world.seed}")
    bundles = _deal_facts(world, num_articles / PLANNED_ARTICLES, rng)[:num_articles]
    slots = [*bundles, *([None] * (num_articles - len(bundles)))]
    rng.shuffle(slots)
    for number, bundle in enumerate(slots):
        stream = random.Random(f"article {world.seed} {number}")
        yield _write_tale(stream) if bundle is None else _write_bundle(world, bundle, stream)


@dataclass(frozen=True)
class _Bundle:
    topic: Entity
    facts: tuple[Fact, ...]


def _deal_facts(world: World, scale: float, rng: random.Random) -> list[_Bundle]:
    """Bundles of facts, if possible about one topic. Every fact occurs as often as planned."""
    remaining = {fact.id: int(fact.num_mentions * scale + rng.random()) for fact in world.facts}
    bundles = []
    while left := [fact for fact in world.facts if remaining[fact.id]]:
        anchor = _draw_fact(left, remaining, rng)
        is_backward = RELATIONS[anchor.relation].is_stated_both_ways and rng.random() < 0.5
        topic = anchor.object if is_backward else anchor.subject
        chosen = [anchor]
        for _ in range(rng.choice(_FACTS_PER_ARTICLE) - 1):
            others = [fact for fact in left if fact not in chosen]
            related = [fact for fact in others if topic in (fact.subject, fact.object)]
            if others:
                chosen.append(_draw_fact(related or others, remaining, rng))
        for fact in chosen:
            remaining[fact.id] -= 1
        bundles.append(_Bundle(world.by_name[topic], tuple(chosen)))
    return bundles


def _draw_fact(facts: Sequence[Fact], remaining: dict[str, int], rng: random.Random) -> Fact:
    return rng.choices(facts, [remaining[fact.id] for fact in facts])[0]


def _write_tale(rng: random.Random) -> Article:
    (kind,) = rng.choices(list(_TALES), [weight for _, weight in _TALES.values()])
    tale: Tale = _TALES[kind][0](rng)
    return Article(kind, tale.title, tale.paragraphs, items=tale.items)


def _write_bundle(world: World, bundle: _Bundle, rng: random.Random) -> Article:
    kind = rng.choice(_KINDS_OF_TOPIC[bundle.topic.kind])
    fact_ids = tuple(fact.id for fact in bundle.facts)
    if kind in ("questions", "dialogue"):
        title, paragraphs = (_answer_questions if kind == "questions" else _write_dialogue)(world, bundle, rng)
        return Article(kind, title, paragraphs, fact_ids)
    title, paragraphs = _write_prose(world, bundle, _PROSE[kind], rng)
    return Article(kind, title, paragraphs, fact_ids, _infobox(bundle, rng) if kind not in ("diary", "news") else ())


def _infobox(bundle: _Bundle, rng: random.Random) -> tuple[tuple[str, str], ...]:
    """A table of the facts about the topic, on a third of the pages."""
    cells = [
        (RELATIONS[fact.relation].label, fact.object) for fact in bundle.facts if fact.subject == bundle.topic.name
    ]
    return (("Name", bundle.topic.name), *cells) if cells and rng.random() < 0.33 else ()


# Stating a fact


def entity_slots(entity: Entity) -> dict[str, str]:
    """The slots that name an entity: $T and $named, $first, $p and its forms, $human (woman or man)."""
    possessive, objective, human = _PRONOUNS[entity.pronoun]
    named = {"T": entity.named, "named": entity.named, "first": entity.first}
    return {**named, "p": entity.pronoun, "pp": possessive, "po": objective, "human": human}


def fact_slots(world: World, fact: Fact, form: str = "") -> dict[str, str]:
    """The slots of a relation's patterns; `form` is how the subject is called, by default its name."""
    subject, target = world.by_name[fact.subject], world.by_name[fact.object]
    form = form or subject.named
    is_pronoun = form == subject.pronoun
    slots = entity_slots(subject)
    possessive = slots["pp"] if is_pronoun else f"{form}'" if form.endswith("s") else f"{form}'s"
    return {**slots, "S": form, "So": subject.first if is_pronoun else form, "Ss": possessive, "O": target.named}


def state_clause(
    world: World, fact: Fact, rng: random.Random, is_known: bool = False, is_backward: bool = False
) -> str:
    """A clause that states a fact, without capital letter or full stop. `is_known`: the subject was just named."""
    relation, subject = RELATIONS[fact.relation], world.by_name[fact.subject]
    if is_backward:
        return expand(rng.choice(relation.reversed_statements), rng, fact_slots(world, fact))
    form = expand(SUBJECT_FORMS[subject.kind], rng, entity_slots(subject)) if is_known else ""
    return expand(rng.choice(relation.statements), rng, fact_slots(world, fact, form))


def state(world: World, fact: Fact, rng: random.Random, is_known: bool = False, is_backward: bool = False) -> str:
    """A sentence that states a fact."""
    clause = state_clause(world, fact, rng, is_known, is_backward)
    return say(rng.choice(STATEMENTS), rng, {"clause": clause})


def state_plainly(
    world: World, fact: Fact, rng: random.Random, is_known: bool = False, is_backward: bool = False
) -> str:
    """The same as an answer: nothing before the clause."""
    return say(rng.choice(STATEMENTS[:4]), rng, {"clause": state_clause(world, fact, rng, is_known, is_backward)})


def _predicates(fact: Fact) -> list[str]:
    """The statements that can share their subject with another one."""
    statements = RELATIONS[fact.relation].statements
    return [pattern.removeprefix("$S ") for pattern in statements if re.match(r"\$S (?!.*(,| and ))", pattern)]


def _state_two(world: World, first: Fact, second: Fact, rng: random.Random) -> str:
    """Two facts of one subject in one sentence: "Ada lives in Tolmar and works as a baker"."""
    rest = expand(rng.choice(_predicates(second)), rng, fact_slots(world, second))
    joined = f"$S {rng.choice(_predicates(first))} and $rest."
    return say(joined, rng, {**fact_slots(world, first), "rest": rest})


def ask(world: World, fact: Fact, asking: Asking, rng: random.Random) -> str:
    """A direct question for a fact, in a wording of the training split."""
    return say(f"{rng.choice(asking.asks)}?", rng, fact_slots(world, fact))


# The kinds of article


def _write_prose(world: World, bundle: _Bundle, kind: Kind, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """Opening, facts among fillers, facts about others, closing."""
    is_diary = kind is DIARY
    slots = entity_slots(bundle.topic) | ({"weekday": rng.choice(LEXICON["weekday"])} if is_diary else {})
    own = [fact for fact in bundle.facts if bundle.topic.name in (fact.subject, fact.object)]
    stated = _state_all(world, bundle.topic, own, rng)
    intro = say(rng.choice(THOUGHTS), rng, slots) if is_diary else ""
    opening, closing = say(rng.choice(kind.openings), rng, slots), say(rng.choice(kind.closings), rng, slots)
    asides = " ".join(
        f"{_introduce(world, fact, rng)} {state(world, fact, rng, True)}" for fact in bundle.facts if fact not in own
    )
    fixed = " ".join([opening, intro, *stated, asides, closing])
    fillers = _fill(kind.fillers, slots, rng.randint(110, 190) - len(fixed.split()), rng)
    cut = len(fillers) // 2 if is_diary or rng.random() < 0.3 else 0
    if cut:
        first, second = [opening, *fillers[:cut]], [intro, *stated]
    else:
        first, second = [opening, stated[0], *fillers[:1]], stated[1:]
    rest = fillers[cut or 1 :]
    middle = len(rest) // 2
    parts = (first, [*second, *rest[:middle]], rest[middle:], [asides, closing])
    paragraphs = (" ".join(sentence for sentence in part if sentence) for part in parts)
    return say(rng.choice(kind.titles), rng, slots), tuple(paragraph for paragraph in paragraphs if paragraph)


def _state_all(world: World, topic: Entity, facts: Sequence[Fact], rng: random.Random) -> list[str]:
    """Sentences for the facts about the topic in order, sometimes two facts in one sentence."""
    stated: list[str] = []
    waiting, is_known = list(facts), False
    while waiting:
        fact = waiting.pop(0)
        is_subject = fact.subject == topic.name
        is_pair = is_subject and bool(waiting) and waiting[0].subject == topic.name
        if is_pair and _predicates(fact) and _predicates(waiting[0]) and rng.random() < 0.4:
            stated.append(_state_two(world, fact, waiting.pop(0), rng))
            is_known = True
            continue
        is_backward = not is_subject and RELATIONS[fact.relation].is_stated_both_ways
        stated.append(state(world, fact, rng, is_known=is_subject and is_known, is_backward=is_backward))
        is_known = is_subject
    return stated


def _introduce(world: World, fact: Fact, rng: random.Random) -> str:
    return say(rng.choice(ASIDES), rng, entity_slots(world.by_name[fact.subject]))


def _fill(patterns: Sequence[str], slots: dict[str, str], num_words: int, rng: random.Random) -> list[str]:
    """Fillers, at least two, until there are about `num_words` words."""
    fillers: list[str] = []
    for pattern in rng.sample(patterns, len(patterns)):
        if len(fillers) >= 2 and sum(len(filler.split()) for filler in fillers) >= num_words:
            break
        fillers.append(say(pattern, rng, slots))
    return fillers


def _question_and_answer(world: World, topic: Entity, fact: Fact, rng: random.Random) -> dict[str, str]:
    relation = RELATIONS[fact.relation]
    is_backward = relation.is_stated_both_ways and fact.object == topic.name
    asking = relation.backward if is_backward and relation.backward else relation.forward
    plain = state_plainly(world, fact, rng, is_known=True, is_backward=is_backward)
    news = state_plainly(world, fact, rng, is_backward=is_backward)
    return {"question": ask(world, fact, asking, rng), "told": plain, "news": news}


def _answer_questions(world: World, bundle: _Bundle, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    slots = entity_slots(bundle.topic)
    asked, answered = rng.sample(ASKED, len(bundle.facts)), rng.sample(ANSWERED, len(bundle.facts))
    pairs = [
        say(f"{question} {answer}", rng, _question_and_answer(world, bundle.topic, fact, rng))
        for question, answer, fact in zip(asked, answered, bundle.facts, strict=True)
    ]
    return _frame(QUESTIONS, pairs, slots, rng)


def _write_dialogue(world: World, bundle: _Bundle, rng: random.Random) -> tuple[str, tuple[str, ...]]:
    one, two = rng.sample(LEXICON["girl"] + LEXICON["boy"], 2)
    cast = {"One": one, "Two": two, "When": say("$when", rng, {})}
    lines = [
        say(pattern, rng, {**cast, **_question_and_answer(world, bundle.topic, fact, rng)})
        for pattern, fact in zip(rng.sample(TALKED, len(bundle.facts)), bundle.facts, strict=True)
    ]
    return _frame(DIALOGUE, lines, cast, rng)


def _frame(kind: Kind, lines: list[str], slots: dict[str, str], rng: random.Random) -> tuple[str, tuple[str, ...]]:
    """An opening, the lines among fillers in any order, a closing; each a paragraph."""
    opening, closing = say(rng.choice(kind.openings), rng, slots), say(rng.choice(kind.closings), rng, slots)
    fixed = " ".join([opening, *lines, closing])
    mixed = [*lines, *_fill(kind.fillers, slots, rng.randint(110, 170) - len(fixed.split()), rng)]
    rng.shuffle(mixed)
    return say(rng.choice(kind.titles), rng, slots), (opening, *mixed, closing)
