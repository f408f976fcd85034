"""The invented world behind the sample web: people, cities, teams, books, rivers, events, and their facts.

Reads nothing, writes nothing: `build_world(seed)` is a pure function. How often a fact is stated follows a heavy-tailed
distribution, as in a real crawl, so that knowledge can be measured by frequency (Kandpal et al. 2023,
https://arxiv.org/abs/2211.08411). About a tenth of the facts of each frequency class is held out: stated on the web,
never in a conversation.
"""

import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tasks.sample_web.relations import RELATIONS, Relation
from tasks.sample_web.tables import words

# (number of facts, fewest and most articles that state one); the last class takes all remaining facts.
FREQUENCY_CLASSES = ((40, 46, 54), (60, 13, 17), (120, 5, 6), (None, 1, 2))
HELDOUT_FRACTION = 0.1

_NUM_ENTITIES = {"person": 60, "city": 20, "land": 5, "team": 12, "river": 8, "mountain": 6, "water": 4, "animal": 8}
_NUM_STRANGERS = 40

# The syllables of each kind of name; a name takes one of each group.
_ONSETS = words("B|Br|D|Dr|F|G|Gr|H|J|K|L|M|N|P|R|S|St|T|Tr|V|W|Z")
_VOWELS = words("a|e|i|o|u")
_SYLLABLES: dict[str, tuple[tuple[str, ...], ...]] = {
    "female": ((*_ONSETS, ""), _VOWELS, words("l|m|n|r|v|d|s|nn"), words("a|a|ina|ia")),
    "male": ((*_ONSETS, ""), _VOWELS, words("l|m|n|r|v|lt|nd"), words("o|o|an|ik|or")),
    "last": (_ONSETS, _VOWELS, words("l|n|r|m"), words("low|mer|wick|dal|vik|ley|gar|kin|by|sen")),
    "city": (_ONSETS, _VOWELS, words("l|n|r|m"), words("mar|dale|port|ham|vale|bury|more|haven|stead")),
    "land": (_ONSETS, _VOWELS, words("r|v|l|st|nd"), words("ia|land|ova")),
    "team": (_ONSETS, _VOWELS, words("v|k|z"), words("ar|on|in")),
    "river": (words("Is|Ul|Tes|Va|Si|Bra|Do|Or|Li|Ne|Ya|Em"), words("na|ska|ren|lo")),
    "mountain": (words("Ke|Gra|Ho|Thu|Ba|Ska|Dru|Fro"), words("rk|rn|nd|sh|lt")),
    "water": (words("Sel|Mor|Ond|Tav|Liss|Wyr"), words("ane|ova|eth|ine")),
    "animal": (words("tol|lum|gri|sno|pib|mar|zor|wub|kaz|dul"), words("vi|ba|ko|pen|rel")),
}  # fmt: skip
_REFUSED = ("Homo", "Urina", "Salmon", "Stanley", "Denham", "Horn", "Bark", "Siren", "Nina", "Maria", "Julia", "Harlow")

_TEAM_FIRST = words("Sporting|Racing|Union|Athletic|Dynamo|Olympic|Royal|Star|Rapid|Inter|Real|Central")
_BOOK_FIRST = words("Silver|Hidden|Quiet|Broken|Golden|Paper|Winter|Midnight|Crooked|Wooden|Burning|Distant")
_BOOK_SECOND = words("Lamp|Door|Garden|Crown|Letter|Ladder|Bridge|Shadow|Lantern|Island|Mirror|Orchard")
_EVENT_FIRST = words("Kite|Candle|Apple|Drum|Snow|Mask|Boat|Bell|Honey|Ribbon|Shadow|Pumpkin")
_EVENT_SECOND = words("Festival|Fair|Parade|Market|Feast|Race")
_INVENTION_FIRST = words("cloud|rain|pocket|moon|steam|whisper|paper|wind|sleep|shadow")
_INVENTION_SECOND = words("clock|engine|lamp|mill|press|compass|ladder|kettle|piano|brush")

_VALUES: dict[str, tuple[str, ...]] = {
    "profession": (
        "baker", "teacher", "doctor", "farmer", "carpenter", "painter", "nurse", "sailor", "gardener", "tailor", "lawyer", "cook", "pilot",
        "potter", "miller", "dentist", "builder", "fisherman", "librarian", "plumber",
    ),
    "food": (
        "lentil soup", "plum cake", "fried fish", "apple pie", "mushroom stew", "cheese toast", "potato salad", "rice pudding", "corn bread",
        "onion tart", "pea soup", "roast chicken", "egg noodles", "cherry jam", "baked beans", "carrot cake", "tomato soup", "lemon pie",
    ),
    "instrument": ("violin", "flute", "trumpet", "piano", "harp", "guitar", "drum", "cello", "organ", "banjo"),
    "pet": ("cat", "dog", "parrot", "rabbit", "turtle", "goose", "pony", "goat", "hamster", "duck"),
    "colour": ("red", "blue", "green", "yellow", "white", "black", "orange", "purple", "brown", "pink", "grey", "gold"),
    "month": (
        "January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December",
    ),
    "topic": (
        "a lost ship", "a stolen violin", "two brothers", "a secret tunnel", "a blind king", "a long war", "a talking fox", "a village school",
        "a missing map", "a poor tailor", "a haunted inn", "a brave nurse", "a cruel winter", "a broken promise", "a travelling circus",
        "a lonely giant", "a clever thief", "the last dragon", "an old lighthouse", "a strange letter", "a desert journey", "twin sisters",
        "a mountain rescue", "a forgotten song",
    ),
    "habitat": (
        "hollow trees", "deep caves", "tall reeds", "dry sand", "old barns", "thick moss", "cold lakes", "rocky cliffs",
    ),
    "diet": ("pine seeds", "small snails", "red berries", "water plants", "fallen nuts", "green beetles", "sweet roots", "river crabs"),
    "product": (
        "wool", "glass", "cheese", "paper", "pottery", "boots", "honey", "clocks", "silver", "roses", "bells", "carpets", "candles", "salt",
        "knives", "hats",
    ),
    "year_of_city": tuple(str(year) for year in range(1103, 1700, 37)),
    "year_of_book": tuple(str(year) for year in range(1903, 2015, 7)),
}  # fmt: skip

_NAMED_WITH_THE = ("river", "event", "invention", "animal")


@dataclass(frozen=True)
class Entity:
    """A person or a thing, or a value such as a food or a year. `pronoun` is she, he or it."""

    id: str
    kind: str
    name: str
    pronoun: str = "it"

    @property
    def named(self) -> str:
        """The name as it stands in a sentence: "the River Orn", but "Ada Brell"."""
        return f"the {self.name}" if self.kind in _NAMED_WITH_THE else self.name

    @property
    def first(self) -> str:
        """The short name: a person's first name."""
        return self.name.split()[0] if self.kind == "person" else self.named


@dataclass(frozen=True)
class Fact:
    """`subject` and `object` are names of entities; `num_mentions` is how many of 2,400 articles state it."""

    id: str
    relation: str
    subject: str
    object: str
    num_mentions: int
    is_heldout: bool


@dataclass(frozen=True)
class World:
    """All entities and facts. `strangers` are people, cities and books without facts, for questions that have no answer."""

    seed: int
    entities: tuple[Entity, ...]
    facts: tuple[Fact, ...]
    strangers: tuple[Entity, ...]

    @cached_property
    def by_name(self) -> dict[str, Entity]:
        """Entities and strangers by name."""
        return {entity.name: entity for entity in (*self.entities, *self.strangers)}

    @cached_property
    def by_fact(self) -> dict[str, Fact]:
        """Facts by id."""
        return {fact.id: fact for fact in self.facts}

    def of_kind(self, kind: str) -> list[Entity]:
        """The entities of a kind; "woman" is a person whose pronoun is she."""
        if kind == "woman":
            return [entity for entity in self.of_kind("person") if entity.pronoun == "she"]
        return [entity for entity in self.entities if entity.kind == kind]


def build_world(seed: int) -> World:
    """The world of a seed: the same entities and facts in the same order on every machine."""
    rng = random.Random(f"world {seed}")
    names = _named_entities(rng)
    values = [
        Entity(f"{kind}-{name}".replace(" ", "-"), kind, name) for kind, group in _VALUES.items() for name in group
    ]
    known, strangers = _split_strangers(names)
    world = World(seed, (*known, *values), (), strangers)
    return replace(world, facts=_count_mentions(list(_relate(world, rng)), rng))


def _named_entities(rng: random.Random) -> list[Entity]:
    """All named entities; of each kind a few more than the world needs, which become the strangers."""
    last = _words(rng, "last", _NUM_ENTITIES["person"] + _NUM_STRANGERS)
    women, men = (_words(rng, kind, len(last) // 2) for kind in ("female", "male"))
    cities, lands, clubs = _words(rng, "city", 22), _words(rng, "land", 5), _words(rng, "team", 12)
    rivers, mountains, waters = _words(rng, "river", 10), _words(rng, "mountain", 6), _words(rng, "water", 4)
    animals = _words(rng, "animal", 8)
    books = _pairs(rng, _BOOK_FIRST, _BOOK_SECOND, 30)
    events = _pairs(rng, _EVENT_FIRST, _EVENT_SECOND, 12)
    inventions = _pairs(rng, _INVENTION_FIRST, _INVENTION_SECOND, 10)
    entities = []
    for number, family in enumerate(last):
        pronoun, first = ("she", women[number // 2]) if number % 2 == 0 else ("he", men[number // 2])
        entities.append(_entity("person", f"{first} {family}", pronoun))
    entities += [_entity("city", name) for name in cities]
    entities += [_entity("land", name) for name in lands]
    entities += [_entity("team", f"{first} {name}") for first, name in zip(_TEAM_FIRST, clubs, strict=True)]
    entities += [_entity("river", f"River {name}") for name in rivers]
    entities += [_entity("mountain", f"Mount {name}") for name in mountains]
    entities += [_entity("water", f"Lake {name}") for name in waters]
    entities += [_entity("animal", name) for name in animals]
    entities += [_entity("book", f"The {name}") for name in books]
    entities += [_entity("event", name) for name in events]
    entities += [_entity("invention", name) for name in inventions]
    return entities


def _entity(kind: str, name: str, pronoun: str = "it") -> Entity:
    return Entity(f"{kind}-{name.lower().replace(' ', '-')}", kind, name, pronoun)


def _words(rng: random.Random, kind: str, count: int) -> list[str]:
    """Invented names of a kind. No two start with the same three letters."""
    made: dict[str, str] = {}
    while len(made) < count:
        word = "".join(rng.choice(group) for group in _SYLLABLES[kind])
        word = word if kind == "animal" else word.capitalize()
        if word not in _REFUSED and not re.search(r"(.)\1\1", word.lower()):
            made.setdefault(word[:3].lower(), word)
    return list(made.values())


def _pairs(rng: random.Random, firsts: Sequence[str], seconds: Sequence[str], count: int) -> list[str]:
    """Two-word names. No first word is used a second time before all are used once."""
    pairs: list[str] = []
    while len(pairs) < count:
        shuffled = [rng.choice(seconds) for _ in firsts]
        pairs += [name for name in (f"{a} {b}" for a, b in zip(firsts, shuffled, strict=True)) if name not in pairs]
    return pairs[:count]


def _split_strangers(entities: list[Entity]) -> tuple[list[Entity], tuple[Entity, ...]]:
    """The entities of the world, and the strangers: of each kind, those beyond its number."""
    limits = {**_NUM_ENTITIES, "book": 24}
    known: list[Entity] = []
    strangers: list[Entity] = []
    seen: Counter[str] = Counter()
    for entity in entities:
        seen[entity.kind] += 1
        is_known = seen[entity.kind] <= limits.get(entity.kind, len(entities))
        (known if is_known else strangers).append(entity)
    return known, tuple(strangers)


def _relate(world: World, rng: random.Random) -> Iterator[Fact]:
    """The facts without their frequencies, relation by relation. A mayor lives in the mayor's city."""
    homes: dict[str, str] = {}
    subjects: dict[str, list[str]] = {}
    for relation in RELATIONS.values():
        chosen = _subjects(world, relation, subjects, rng)
        subjects[relation.name] = chosen
        for subject, drawn in zip(chosen, _objects(world, relation, chosen, rng), strict=True):
            target = homes.get(subject, drawn) if relation.name == "lives_in" else drawn
            if relation.name == "mayor_of":
                homes[subject] = target
            fact_id = f"{relation.name}:{subject}".lower().replace(" ", "-")
            yield Fact(fact_id, relation.name, subject, target, 0, False)


def _subjects(world: World, relation: Relation, subjects: dict[str, list[str]], rng: random.Random) -> list[str]:
    barred = [name for other in relation.apart_from for name in subjects[other]]
    names = [entity.name for entity in world.of_kind(relation.subject_kind) if entity.name not in barred]
    return rng.sample(names, relation.num_facts)


def _objects(world: World, relation: Relation, subjects: list[str], rng: random.Random) -> list[str]:
    """One object for each subject: distinct where the other direction is asked too, and never the subject itself."""
    names = [entity.name for entity in world.of_kind(relation.object_kind)]
    if relation.backward is None:
        return [rng.choice(names) for _ in subjects]
    while True:
        objects = rng.sample(names, len(subjects))
        if all(subject != target for subject, target in zip(subjects, objects, strict=True)):
            return objects


def _count_mentions(facts: list[Fact], rng: random.Random) -> tuple[Fact, ...]:
    """Give every fact its frequency, each relation its share of every class, and hold out a tenth of each class."""
    sizes = Counter(fact.relation for fact in facts)
    ranks = {relation: rng.sample(range(size), size) for relation, size in sizes.items()}
    order = sorted(facts, key=lambda fact: (ranks[fact.relation].pop() + rng.random()) / sizes[fact.relation])
    counted: dict[str, Fact] = {}
    for size, fewest, most in FREQUENCY_CLASSES:
        group, order = order[:size], order[len(order) if size is None else size :]
        heldout = rng.sample(range(len(group)), round(len(group) * HELDOUT_FRACTION))
        for place, fact in enumerate(group):
            counted[fact.id] = replace(fact, num_mentions=rng.randint(fewest, most), is_heldout=place in heldout)
    return tuple(counted[fact.id] for fact in facts)
