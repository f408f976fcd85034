"""The invented world behind the sample web: people, cities and books, their facts, and the strangers that have none.

Reads data/world.yaml and the relations; writes nothing. `build_world(seed)` is a pure function. How often a fact is stated follows the
groups of world.yaml, so that knowledge can be measured by frequency (Kandpal et al. 2023, https://arxiv.org/abs/2211.08411). A fact is
held out if no page and no conversation asks about its subject: knowledge must then pass from statements to answers by itself (Allen-Zhu
and Li 2023, https://arxiv.org/abs/2309.14316, section 4). Subject and object of a fact that is asked in both directions are of one group.
"""

import random
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice, product
from typing import Literal

from pydantic import Field

from model.config import Config
from tasks.sample_web.data import table
from tasks.sample_web.relations import RELATIONS, Relation

Origin = Literal["world", "value", "invented", "recombined", "one-off"]
KINDS = ("person", "city", "book")
# The origin of names that are made like known ones, by their group in DATA.strangers.
NEW_NAMES: dict[str, Origin] = {"invented": "invented", "one_off": "one-off", "on_pages": "invented"}


class Group(Config):
    """Entities whose facts are stated equally often."""

    mentions: int = Field(ge=1, description="Articles that tell each fact.")
    is_heldout: bool = Field(description="Whether no page and no conversation asks about them.")
    person: int = Field(ge=0)
    city: int = Field(ge=0)
    book: int = Field(ge=0)


class WorldData(Config):
    """What data/world.yaml holds."""

    groups: list[Group]
    questions_per_fact: int = Field(ge=0)
    strangers: dict[str, dict[str, int]]
    names: dict[str, list[list[str]]]
    refused: list[str]
    values: dict[str, list[str]]
    subject_forms: dict[str, str]


DATA = WorldData.model_validate(table("world"))


@dataclass(frozen=True)
class Entity:
    """A person, city or book, or a value such as a food or a year. `pronoun` is she, he or it; `group` counts the groups of DATA."""

    id: str
    kind: str
    name: str
    pronoun: str = "it"
    origin: Origin = "world"
    group: int = -1

    @property
    def first(self) -> str:
        """The short name: a person's first name."""
        return self.name.split()[0] if self.kind == "person" else self.name


@dataclass(frozen=True)
class Fact:
    """`subject` and `object` are names of entities; `num_mentions` is how many articles state it, those that ask for it included."""

    id: str
    relation: str
    subject: str
    object: str
    num_mentions: int
    is_heldout: bool


@dataclass(frozen=True)
class World:
    """All entities and facts.

    `strangers` have no facts, for questions without an answer; `tested_strangers` occur in questions alone. `one_offs` occur on one page that
    states facts about them, `unknown_to_pages` on one that asks about them, where nobody knows.
    """

    seed: int
    entities: tuple[Entity, ...]
    facts: tuple[Fact, ...]
    strangers: tuple[Entity, ...]
    tested_strangers: tuple[Entity, ...]
    one_offs: tuple[Entity, ...]
    unknown_to_pages: tuple[Entity, ...]
    has_reversed_pages: bool = False

    @cached_property
    def by_name(self) -> dict[str, Entity]:
        """Entities, strangers and one-offs by name."""
        strangers = (*self.strangers, *self.tested_strangers, *self.unknown_to_pages)
        everyone = (*self.entities, *strangers, *self.one_offs)
        return {entity.name: entity for entity in everyone}

    @cached_property
    def by_fact(self) -> dict[str, Fact]:
        """Facts by id."""
        return {fact.id: fact for fact in self.facts}

    @cached_property
    def of_subject(self) -> dict[str, list[Fact]]:
        """Facts by the name of their subject."""
        found: dict[str, list[Fact]] = {}
        for fact in self.facts:
            found.setdefault(fact.subject, []).append(fact)
        return found

    def states_both_ways(self, relation: Relation) -> bool:
        """Whether pages name the object of a relation first, too."""
        return relation.is_stated_both_ways or (self.has_reversed_pages and bool(relation.reversed_statements))

    def of_kind(self, kind: str) -> list[Entity]:
        """The entities of a kind; "woman" is a person whose pronoun is she."""
        return [entity for entity in self.entities if is_of(entity, kind)]


def is_of(entity: Entity, kind: str) -> bool:
    """Whether an entity is of a kind."""
    return entity.kind == "person" and entity.pronoun == "she" if kind == "woman" else entity.kind == kind


def build_world(seed: int) -> World:
    """The world of a seed: the same entities and facts in the same order on every machine."""
    rng = random.Random(f"world {seed}")
    names = {kind: _names(kind, rng) for kind in KINDS}
    named = [
        _entity(kind, *next(names[kind]), group=number)
        for number, group in enumerate(DATA.groups)
        for kind in KINDS
        for _ in range(getattr(group, kind))
    ]
    values = [
        Entity(_id(kind, name), kind, name, origin="value") for kind, some in DATA.values.items() for name in some
    ]
    invented, one_offs, on_pages = (
        [
            # A new title is made of words that known titles have.
            _entity(kind, *next(names[kind]), origin="recombined" if (kind, origin) == ("book", "invented") else origin)
            for kind, number in DATA.strangers[group].items()
            for _ in range(number)
        ]
        for group, origin in NEW_NAMES.items()
    )
    people = [entity for entity in named if entity.kind == "person"]
    # Of people that pages ask about, so that no page or conversation has the name of a held-out person next to "I don't know". The
    # evaluation has strangers with their names, too.
    recombined = _recombine(people, [entity for entity in people if not DATA.groups[entity.group].is_heldout], rng)
    counts = DATA.strangers
    trained, tested = _split(invented)
    trained += tuple(islice(recombined, counts["recombined"]["person"]))
    unknown = [*on_pages, *islice(recombined, counts["recombined_on_pages"]["person"])]
    of_anybody = _recombine([*people, *trained, *unknown], people, rng)
    tested += tuple(islice(of_anybody, counts["tested_recombined"]["person"]))
    entities = (*named, *values)
    return World(seed, entities, tuple(_relate(entities, rng)), trained, tested, tuple(one_offs), tuple(unknown))


def _id(kind: str, name: str) -> str:
    return f"{kind}-{name}".lower().replace(" ", "-")


def _entity(kind: str, name: str, pronoun: str, origin: Origin = "world", group: int = -1) -> Entity:
    return Entity(_id(kind, name), kind, name, pronoun, origin, group)


def _names(kind: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """Invented names of a kind with their pronoun, each once; every second person is a woman."""
    parts = DATA.names["last" if kind == "person" else kind]
    separator = " " if kind == "book" else ""
    made = [separator.join(chosen) for chosen in product(*parts)]
    made = [name for name in made if name not in DATA.refused and not re.search(r"(.)\1\1", name.lower())]
    for number, name in enumerate(rng.sample(made, len(made))):
        if kind != "person":
            yield name, "it"
        else:
            pronoun, firsts = (("she", "female"), ("he", "male"))[number % 2]
            yield f"{rng.choice(DATA.names[firsts][0])} {name}", pronoun


def _recombine(taken: Iterable[Entity], people: Sequence[Entity], rng: random.Random) -> Iterator[Entity]:
    """Strangers made of the first name of one person and the last name of another: the hardest to tell from a known one."""
    names = {person.name for person in taken}
    while True:
        one, two = rng.sample(people, 2)
        name = f"{one.first} {two.name.split()[1]}"
        if name not in names:
            names.add(name)
            yield _entity("person", name, one.pronoun, "recombined")


def _split(strangers: Sequence[Entity]) -> tuple[tuple[Entity, ...], tuple[Entity, ...]]:
    """Five of six to train on and the sixth for the evaluation, of every kind and origin."""
    tested = {entity.id for entity in strangers[::6]}
    return tuple(entity for entity in strangers if entity.id not in tested), tuple(strangers[::6])


def _relate(entities: Sequence[Entity], rng: random.Random) -> Iterator[Fact]:
    """The facts, relation by relation and group by group."""
    for relation in RELATIONS.values():
        for number, group in enumerate(DATA.groups):
            members = [entity for entity in entities if entity.group == number]
            mentions = group.mentions + (0 if group.is_heldout else DATA.questions_per_fact)
            for subject, target in _pairs(relation, members, entities, rng):
                fact_id = f"{relation.name}:{subject.name}".lower().replace(" ", "-")
                yield Fact(fact_id, relation.name, subject.name, target.name, mentions, group.is_heldout)


def _pairs(
    relation: Relation, members: Sequence[Entity], entities: Sequence[Entity], rng: random.Random
) -> list[tuple[Entity, Entity]]:
    """Subjects of a group, each with its object: where the other direction is asked too, a distinct one of the group."""
    subjects = [entity for entity in members if is_of(entity, relation.subject)]
    subjects = rng.sample(subjects, round(relation.share * len(subjects)))
    pool = [entity for entity in (members if relation.backward else entities) if is_of(entity, relation.object)]
    if relation.backward is None:
        return [(subject, rng.choice(pool)) for subject in subjects]
    chosen = rng.sample(pool, min(len(pool), len(subjects)))
    # Nobody is the mother or the teacher of oneself.
    return [(subject, target) for subject, target in zip(subjects, chosen, strict=False) if subject != target]
