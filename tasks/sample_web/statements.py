"""Statements of facts: the slots of a relation's patterns, clauses and sentences.

Reads a World; writes nothing. A sentence is composed (frame x clause x the subject's form), so that two articles rarely state a fact in the
same words: knowledge that is always stated in one wording cannot be extracted by another (Allen-Zhu and Li 2023, section 4).
"""

import random
import re
from collections.abc import Sequence

from tasks.sample_web.data import table
from tasks.sample_web.grammar import expand, possessive, say
from tasks.sample_web.relations import RELATIONS
from tasks.sample_web.world import DATA, Entity, Fact, World

FRAMED_FRACTION = 0.2  # of the statements, those with words around the clause: "As every child knows, ..."
PAIRED_FRACTION = 0.25  # of neighbouring facts about one subject, those stated in one sentence
REVERSED_FRACTION = 0.4  # of the statements of relations that are stated in both directions
_PRONOUNS = {"she": ("her", "her", "woman"), "he": ("his", "him", "man"), "it": ("its", "it", "thing")}


def entity_slots(entity: Entity) -> dict[str, str]:
    """The slots that name an entity: $T and $named, $lower, $first, $p and its forms, $human (woman or man)."""
    own, objective, human = _PRONOUNS[entity.pronoun]
    named = {"T": entity.name, "named": entity.name, "lower": entity.name.lower(), "first": entity.first}
    return {**named, "p": entity.pronoun, "pp": own, "po": objective, "human": human}


def fact_slots(world: World, fact: Fact, form: str = "") -> dict[str, str]:
    """The slots of a relation's patterns; `form` is how the subject is called, by default its name."""
    subject, target = world.by_name[fact.subject], world.by_name[fact.object]
    slots = entity_slots(subject)
    form = form or subject.name
    is_pronoun = form == subject.pronoun
    slots |= {
        "S": form,
        "So": subject.first if is_pronoun else form,
        "Ss": slots["pp"] if is_pronoun else possessive(form),
    }
    return slots | {"O": target.name, "Os": possessive(target.name), "Opp": _PRONOUNS[target.pronoun][0]}


def state_clause(
    world: World, fact: Fact, rng: random.Random, is_known: bool = False, is_backward: bool = False
) -> str:
    """A clause that states a fact, without capital letter or full stop. `is_known`: the subject was just named."""
    relation, subject = RELATIONS[fact.relation], world.by_name[fact.subject]
    if is_backward:
        return expand(rng.choice(relation.reversed_statements), rng, fact_slots(world, fact))
    form = expand(DATA.subject_forms[subject.kind], rng, entity_slots(subject)) if is_known else ""
    return expand(rng.choice(relation.statements), rng, fact_slots(world, fact, form))


def state(world: World, fact: Fact, rng: random.Random, is_known: bool = False, is_backward: bool = False) -> str:
    """A sentence that states a fact."""
    clause = state_clause(world, fact, rng, is_known, is_backward)
    frame = rng.choice(table("words")["frames"]) if rng.random() < FRAMED_FRACTION else "$clause."
    return say(frame, rng, {"clause": clause})


def state_all(world: World, topic: Entity, facts: Sequence[Fact], rng: random.Random) -> list[str]:
    """A short biography: sentences for the facts about the topic in their order, sometimes two facts in one sentence."""
    stated: list[str] = []
    waiting, is_known = list(facts), False
    while waiting:
        fact = waiting.pop(0)
        is_subject = fact.subject == topic.name
        is_pair = is_subject and bool(waiting) and waiting[0].subject == topic.name
        if is_pair and rng.random() < PAIRED_FRACTION and _predicates(fact) and _predicates(waiting[0]):
            stated.append(_state_two(world, fact, waiting.pop(0), rng))
            is_known = True
            continue
        is_reversible = world.states_both_ways(RELATIONS[fact.relation])
        is_backward = is_reversible and (not is_subject or rng.random() < REVERSED_FRACTION)
        stated.append(state(world, fact, rng, is_known=is_subject and is_known, is_backward=is_backward))
        is_known = is_subject and not is_backward
    return stated


def _predicates(fact: Fact) -> list[str]:
    """The statements that can share their subject with another one."""
    statements = RELATIONS[fact.relation].statements
    return [pattern.removeprefix("$S ") for pattern in statements if re.match(r"\$S (?!.*(,| and ))", pattern)]


def _state_two(world: World, first: Fact, second: Fact, rng: random.Random) -> str:
    """Two facts of one subject in one sentence: "Ada lives in Tolmar and works as a baker"."""
    rest = expand(rng.choice(_predicates(second)), rng, fact_slots(world, second))
    joined = f"$S {rng.choice(_predicates(first))} and $rest."
    return say(joined, rng, {**fact_slots(world, first), "rest": rest})
