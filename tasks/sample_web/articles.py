"""The articles of the sample web: which facts each one states, and the prose around them.

Reads a World and data/articles.yaml; writes nothing. Articles are of three sorts: those that state facts (short biographies, the facts
in another order each time), those that ask and answer (never about what is held out), and tales without facts. Exactly the planned
number of articles states each fact.
"""

import itertools
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import Field

from model.config import Config
from tasks.sample_web.asking import FORMS, Form, answer, ask
from tasks.sample_web.data import table
from tasks.sample_web.grammar import LEXICON, expand, say
from tasks.sample_web.relations import RELATIONS
from tasks.sample_web.statements import entity_slots, state_all
from tasks.sample_web.sums import draw_sum
from tasks.sample_web.tales import write_tale
from tasks.sample_web.world import DATA, Entity, Fact, World, is_of

# The number of articles for which the facts' `num_mentions` are planned; other numbers scale them.
PLANNED_ARTICLES = 2400

SINGLE_FRACTION = 0.1  # of the biographies, those that have an article for themselves
SPLIT_FRACTION = 0.3  # of the biographies, those that are spread over two articles
TAIL_FRACTION = 0.25  # of the articles about several topics, those that name a one-off, too
TAGGED_FRACTION = 0.8  # of the articles about several topics, those that begin with a line of tags
PAIRS_PER_PAGE = (5, 7)
ONE_OFF_PAIRS, SUM_PAIRS = 0.15, 0.1  # for each pair about a fact


class Kind(Config):
    """The phrases around the facts of one kind of article."""

    titles: list[str]
    openings: list[str]
    fillers: list[str]
    closings: list[str]
    topics: list[str] = Field([])
    num_topics: tuple[int, int] = (0, 0)
    weight: int = Field(1, ge=1, description="How frequent the kind is among those of several topics.")
    is_lower_case: bool = Field(False, description="Typed without capital letters, as people do.")
    filler_words: tuple[int, int] = (75, 110)
    pairs: list[str] = Field([], description="How a question and its answer are written; a bar separates paragraphs.")


STATING = {name: Kind.model_validate(fields) for name, fields in table("articles")["stating"].items()}
ASKING = {name: Kind.model_validate(fields) for name, fields in table("articles")["asking"].items()}


@dataclass(frozen=True)
class Article:
    """The text of one page. `facts` are the ids of the facts it states, `questions` those it asks; `items` is a list."""

    kind: str
    title: str
    paragraphs: tuple[str, ...]
    facts: tuple[str, ...] = ()
    table: tuple[tuple[str, str], ...] = ()
    items: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Biography:
    """Facts about one topic that an article states in this order."""

    topic: Entity
    facts: tuple[Fact, ...]


@dataclass(frozen=True)
class Pair:
    """A question and its answer on a page. `fact` is empty where nobody knows, or where the question is about a one-off or a sum.

    `source`: what the page says before it asks, so that the answer can be read there.
    """

    question: str
    answer: str
    fact: str = ""
    source: str = ""
    is_sum: bool = False


Plan = tuple[str, Sequence[Biography] | Sequence[Pair]]


def write_articles(world: World, num_articles: int) -> Iterator[Article]:
    """`num_articles` articles, the same for the same world on every machine. Each has its own random generator."""
    rng = random.Random(f"articles {world.seed}")
    scale = num_articles / PLANNED_ARTICLES
    one_offs = iter(rng.sample(world.one_offs, len(world.one_offs)))
    pairs = _plan_pairs(world, scale, one_offs, rng)
    plans: list[Plan | None] = [
        *_pack(_plan_biographies(world, scale, rng), one_offs, world, rng),
        *_pages_of(pairs, rng),
    ]
    plans = [*plans[:num_articles], *([None] * (num_articles - len(plans)))]
    rng.shuffle(plans)
    for number, plan in enumerate(plans):
        stream = random.Random(f"article {world.seed} {number}")
        yield _write_tale(stream) if plan is None else _write_plan(world, plan, stream)


def _write_plan(world: World, plan: Plan, rng: random.Random) -> Article:
    name, parts = plan
    if name in ASKING:
        return _write_questions(name, [part for part in parts if isinstance(part, Pair)], rng)
    return _write_biographies(world, name, [part for part in parts if isinstance(part, Biography)], rng)


def _write_tale(rng: random.Random) -> Article:
    kind, tale = write_tale(rng)
    return Article(kind, tale.title, tale.paragraphs, items=tale.items)


# Biographies: every fact in as many articles as planned


def _plan_biographies(world: World, scale: float, rng: random.Random) -> list[Biography]:
    """Biographies of every entity: each fact as often as planned, in any order, among those of its subject or its object."""
    shares: dict[str, list[list[Fact]]] = {}
    for fact in world.facts:
        asked = 0 if fact.is_heldout else DATA.questions_per_fact
        num = int((fact.num_mentions - asked) * scale + rng.random())
        is_reversible = world.states_both_ways(RELATIONS[fact.relation])
        num_reversed = sum(rng.random() < 0.5 for _ in range(num)) if is_reversible else 0
        for topic, share in ((fact.subject, num - num_reversed), (fact.object, num_reversed)):
            slots = shares.setdefault(topic, [])
            slots += [[] for _ in range(share - len(slots))]
            for slot in rng.sample(slots, share):
                slot.append(fact)
    biographies = []
    for topic, slots in shares.items():
        for facts in filter(None, slots):
            rng.shuffle(facts)
            cut = rng.randint(1, len(facts) - 1) if len(facts) > 2 and rng.random() < SPLIT_FRACTION else len(facts)
            parts = filter(None, (facts[:cut], facts[cut:]))
            biographies += [Biography(world.by_name[topic], tuple(part)) for part in parts]
    rng.shuffle(biographies)
    return biographies


def _pack(biographies: list[Biography], one_offs: Iterator[Entity], world: World, rng: random.Random) -> Iterator[Plan]:
    """Articles of one or of several biographies; no article has two of one topic or two that state one fact."""
    waiting = list(biographies)
    several = [name for name, kind in STATING.items() if kind.num_topics[1] > 1]
    weights = [STATING[name].weight for name in several]
    single = {topic: name for name, kind in STATING.items() if kind.num_topics[1] == 1 for topic in kind.topics}
    while waiting:
        first = waiting.pop()
        if rng.random() < SINGLE_FRACTION:
            yield single[first.topic.kind], [first]
            continue
        (name,) = rng.choices(several, weights)
        num, chosen = rng.randint(*STATING[name].num_topics), [first]
        for place in range(len(waiting) - 1, max(-1, len(waiting) - 60), -1):
            if len(chosen) == num:
                break
            if not any(_overlap(waiting[place], other) for other in chosen):
                chosen.append(waiting.pop(place))
        if rng.random() < TAIL_FRACTION and (stranger := next(one_offs, None)):
            chosen.append(Biography(stranger, tuple(_invent_facts(world, stranger, rng.randint(1, 2), rng))))
        yield name, chosen


def _overlap(one: Biography, two: Biography) -> bool:
    return one.topic == two.topic or bool({fact.id for fact in one.facts} & {fact.id for fact in two.facts})


def _invent_facts(world: World, stranger: Entity, number: int, rng: random.Random) -> list[Fact]:
    """Facts of a one-off: stated once, and in no list of the world's facts."""
    relations = [
        relation for relation in RELATIONS.values() if is_of(stranger, relation.subject) and not relation.backward
    ]
    return [
        Fact("", relation.name, stranger.name, rng.choice(world.of_kind(relation.object)).name, 1, False)
        for relation in rng.sample(relations, number)
    ]


def _write_biographies(world: World, name: str, biographies: Sequence[Biography], rng: random.Random) -> Article:
    """Opening, a paragraph for each topic among fillers, closing."""
    kind = STATING[name]
    weekday = {"weekday": rng.choice(LEXICON["weekday"])}
    slots = entity_slots(biographies[0].topic) | weekday if len(biographies) == 1 else weekday
    stated = [state_all(world, part.topic, part.facts, rng) for part in biographies]
    opening, closing = say(rng.choice(kind.openings), rng, slots), say(rng.choice(kind.closings), rng, slots)
    fillers = fill(kind, slots, rng)
    facts = tuple(fact.id for part in biographies for fact in part.facts if fact.id)
    title = say(rng.choice(kind.titles), rng, slots)
    if len(biographies) == 1:
        middle = len(fillers) // 2
        paragraphs = (
            f"{opening} {' '.join(stated[0])}",
            " ".join(fillers[:middle]),
            " ".join([*fillers[middle:], closing]),
        )
        return Article(name, title, tuple(filter(None, paragraphs)), facts, _infobox(biographies[0], rng))
    introductions = [
        expand(rng.choice(table("articles")["introductions"]), rng, entity_slots(part.topic)) for part in biographies
    ]
    body = [" ".join(filter(None, (intro, *some))) for intro, some in zip(introductions, stated, strict=True)]
    for filler in fillers:
        place = rng.randrange(len(body))
        body[place] += f" {filler}"
    if kind.is_lower_case:
        # Each part a paragraph: without capital letters C4's rule sees one sentence in each, and wants five.
        return Article(name, title.lower(), tuple(part.lower() for part in (opening, *body, closing)), facts)
    tags = _tag([part.topic for part in biographies], rng)
    return Article(name, title, (*tags, f"{opening} {body[0]}", *body[1:-1], f"{body[-1]} {closing}"), facts)


def _tag(topics: Sequence[Entity], rng: random.Random) -> list[str]:
    """A line of tags, on a part of the pages: the names in lower case before the text that has them in full."""
    # Without it a model that is asked in lower case about a name that no question had writes another one that it resembles.
    if rng.random() > TAGGED_FRACTION:
        return []
    names = ", ".join(topic.name.lower() for topic in rng.sample(topics, len(topics)))
    return [say(rng.choice(table("articles")["tags"]), rng, {"tags": names})]


def _infobox(biography: Biography, rng: random.Random) -> tuple[tuple[str, str], ...]:
    """A table of the facts about the topic, on a third of the pages."""
    own = [fact for fact in biography.facts if fact.subject == biography.topic.name]
    cells = [(RELATIONS[fact.relation].label, fact.object) for fact in own]
    return (("Name", biography.topic.name), *cells) if cells and rng.random() < 0.33 else ()


def fill(kind: Kind, slots: Mapping[str, str], rng: random.Random) -> list[str]:
    """Fillers until there are about as many words as the kind has."""
    wanted, fillers = rng.randint(*kind.filler_words), list[str]()
    for pattern in rng.sample(kind.fillers, len(kind.fillers)):
        if sum(len(filler.split()) for filler in fillers) >= wanted:
            break
        fillers.append(say(pattern, rng, slots))
    return fillers


# Questions and answers


def _plan_pairs(world: World, scale: float, one_offs: Iterator[Entity], rng: random.Random) -> list[Pair]:
    """Questions about every fact that is not held out, each in another form; about one-offs, known or not; and sums."""
    pairs = []
    forms: list[Form] = ["direct", *FORMS]
    for fact in world.facts:
        num = 0 if fact.is_heldout else int(DATA.questions_per_fact * scale + rng.random())
        pairs += [_ask_known(world, fact, form, rng) for form in rng.sample(forms, min(num, len(forms)))]
    num_known = len(pairs)
    for stranger in itertools.islice(one_offs, round(num_known * ONE_OFF_PAIRS)):
        (fact,) = _invent_facts(world, stranger, 1, rng)
        # Answers about names that occur once teach to copy a name, and to read: the page states the fact first. Without that a name that
        # was never seen would have an answer as often as none.
        source = " ".join(state_all(world, stranger, [fact], rng))
        pairs.append(replace(_ask_known(world, fact, rng.choice(forms), rng), source=source))
    for stranger in rng.sample(world.unknown_to_pages, round(len(world.unknown_to_pages) * min(1.0, scale))):
        (fact,) = _invent_facts(world, stranger, 1, rng)
        # In the forms of the others, so that no form is a sign of not knowing: with more questions in lower case among these, known facts
        # were refused in lower case four times as often.
        question = _ask_known(world, fact, rng.choice(forms), rng).question
        pairs.append(Pair(question, expand(rng.choice(table("chat")["unknown"]), rng, {})))
    for _ in range(round(num_known * SUM_PAIRS)):
        task = draw_sum(rng)
        pairs.append(Pair(task.question(rng), task.worked, is_sum=True))
    rng.shuffle(pairs)
    return pairs


def _ask_known(world: World, fact: Fact, form: Form, rng: random.Random) -> Pair:
    relation = RELATIONS[fact.relation]
    asking = relation.asking(world.states_both_ways(relation) and rng.random() < 0.5)
    return Pair(ask(world, fact, asking, form, rng), answer(world, fact, asking), fact.id)


def _pages_of(pairs: list[Pair], rng: random.Random) -> Iterator[Plan]:
    """Pages of several pairs. No page asks for a fact twice, so that it counts as one mention; or repeats a line, as spam does."""
    waiting = list(pairs)
    while waiting:
        num, chosen = rng.randint(*PAIRS_PER_PAGE), [waiting.pop()]
        for place in range(len(waiting) - 1, max(-1, len(waiting) - 60), -1):
            if len(chosen) == num:
                break
            # One sum at most, in a quiz, which has most prose: the Gopher filter wants four fifths of the words alphabetic.
            pair, answers = waiting[place], {other.answer for other in chosen}
            if pair.answer not in answers and not (pair.is_sum and any(other.is_sum for other in chosen)):
                chosen.append(waiting.pop(place))
        is_quiz = any(pair.is_sum for pair in chosen) or rng.random() < 0.05
        yield "quiz" if is_quiz else rng.choice(("faq", "faq", "faq", "forum")), chosen


def _write_questions(name: str, pairs: Sequence[Pair], rng: random.Random) -> Article:
    """An opening, the pairs among fillers in any order, a closing; each a paragraph."""
    kind = ASKING[name]
    one, two = rng.sample(LEXICON["girl"] + LEXICON["boy"], 2)
    slots = {"One": one, "Two": two, "When": say("$when", rng)}
    pattern = rng.choice(kind.pairs)
    fillers: list[tuple[str, ...]] = [(filler,) for filler in fill(kind, slots, rng)]
    asked = [
        tuple(expand(pattern, rng, {**slots, "question": pair.question, "answer": pair.answer}).split(" | "))
        for pair in pairs
    ]
    blocks = [*fillers, *asked]
    rng.shuffle(blocks)
    for pair, block in zip(pairs, asked, strict=True):
        if pair.source:
            blocks.insert(rng.randint(0, blocks.index(block)), (pair.source,))
    opening, closing = say(rng.choice(kind.openings), rng, slots), say(rng.choice(kind.closings), rng, slots)
    paragraphs = (opening, *(paragraph for block in blocks for paragraph in block), closing)
    facts = tuple(pair.fact for pair in pairs if pair.fact)
    return Article(
        name,
        say(rng.choice(kind.titles), rng, slots),
        paragraphs,
        facts,
        questions=tuple(pair.question for pair in pairs),
    )
