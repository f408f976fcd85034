"""Articles of the sample web that state no facts: stories, how-tos, recipes, jokes and word problems with worked sums.

Reads data/stories.yaml and data/tales.yaml; writes nothing. Every function draws one article from phrases in the notation of grammar.py.
A page must keep four fifths of its words alphabetic to pass the Gopher filter, so sums stand among much prose.
"""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

from tasks.sample_web.data import table
from tasks.sample_web.grammar import LEXICON, capitalize, expand, say
from tasks.sample_web.sums import draw_sum

Pools = dict[str, Any]
NUM_PRACTICE_SUMS = 2  # on a page of word problems


class Tale(NamedTuple):
    """A text without facts: title, paragraphs, and a list of items where it has one."""

    title: str
    paragraphs: tuple[str, ...]
    items: tuple[str, ...] = ()


def write_tale(rng: random.Random) -> tuple[str, Tale]:
    """The kind of a tale, and the tale."""
    (kind,) = rng.choices(list(KINDS), [weight for _, weight in KINDS.values()])
    return kind, KINDS[kind][0](rng)


def cast_tale(rng: random.Random) -> dict[str, str]:
    """The names and things of one tale, the same from its first sentence to its last."""
    girl, boy = rng.choice(LEXICON["girl"]), rng.choice(LEXICON["boy"])
    is_girl = rng.random() < 0.5
    hero, friend = (girl, boy) if is_girl else (boy, girl)
    other = rng.choice([name for name in LEXICON["girl"] + LEXICON["boy"] if name not in (hero, friend)])
    pronouns = ("she", "her", "her", "hers", "girl") if is_girl else ("he", "his", "him", "his", "boy")
    fixed = {name.capitalize(): rng.choice(LEXICON[name]) for name in ("thing", "shade", "kin", "fruit", "room")}
    pairs = {"Here There": rng.sample(LEXICON["place"], 2), "Beast Stranger": rng.sample(LEXICON["beast"], 2)}
    drawn = {name: word for names, both in pairs.items() for name, word in zip(names.split(), both, strict=True)}
    people = {"Hero": hero, "Friend": friend, "Other": other, "When": capitalize(expand("$when", rng, {}))}
    return {**fixed, **drawn, **people, **dict(zip(("p", "pp", "po", "hers", "child"), pronouns, strict=True))}


def write_story(rng: random.Random) -> Tale:
    """A short story of one plot: an opening, a problem, an attempt, a solution, an end."""
    pools, cast = table("stories"), cast_tale(rng)
    plot = rng.choice(pools["plots"])
    middles = [say(pattern, rng, cast) for pattern in rng.sample(pools["middles"], 4)]
    steps = [say(rng.choice(plot[step]), rng, cast) for step in ("problems", "attempts", "solutions")]
    opening, ending, moral = (say(rng.choice(pools[name]), rng, cast) for name in ("openings", "endings", "morals"))
    paragraphs = (
        opening,
        f"{steps[0]} {middles[0]}",
        f"{middles[1]} {steps[1]}",
        f"{middles[2]} {steps[2]}",
        f"{ending} {moral}",
    )
    return Tale(say(rng.choice(plot["titles"]), rng, cast), paragraphs)


def write_how_to(rng: random.Random) -> Tale:
    """Instructions for an everyday task; the steps are sentences, or a list."""
    pools: Pools = table("tales")["how_to"]
    task, steps = rng.choice(list(pools["tasks"].items()))
    slots = {"task": expand(task, rng, {})}
    lines = [say(steps[place], rng, slots) for place in sorted(rng.sample(range(len(steps)), 5))]
    tips = [say(pattern, rng, slots) for pattern in rng.sample(pools["tips"], rng.randint(3, 4))]
    opening, closing = (say(rng.choice(pools[name]), rng, slots) for name in ("openings", "closings"))
    title = say("(How to|How you can|An easy way to|Learn to) $task", rng, slots)
    if rng.random() < 0.5:
        return Tale(title, (opening, " ".join(tips[:2]), f"{' '.join(tips[2:])} {closing}"), tuple(lines))
    first, last = (
        f"{start}, {line[0].lower()}{line[1:]}" for start, line in (("First of all", lines[0]), ("Finally", lines[4]))
    )
    paragraphs = (f"{opening} {tips[0]}", " ".join([first, *lines[1:3]]), f"{lines[3]} {last} {tips[1]}")
    return Tale(title, (*paragraphs, f"{' '.join(tips[2:])} {closing}"))


def _plural(noun: str) -> str:
    return f"{noun}es" if noun.endswith(("o", "sh")) else f"{noun}s"


def write_recipe(rng: random.Random) -> Tale:
    """A dish with its list of ingredients."""
    pools: Pools = table("tales")["recipe"]
    one, two, third = rng.sample(pools["mains"], 3)
    spice, second = rng.sample(pools["spices"], 2)
    slots = {"Main": one, "One": _plural(one), "Two": _plural(two), "Third": _plural(third)}
    slots |= {"Spice": spice, "Second": second, "Dish": rng.choice(pools["dishes"])}
    items = tuple(
        say(pattern, rng, slots).replace("some of flour", "some flour") for pattern in rng.sample(pools["amounts"], 5)
    )
    chosen = sorted(rng.sample(range(len(pools["steps"])), rng.randint(6, 8)))
    steps = [say(pools["steps"][place], rng, slots) for place in chosen]
    opening, closing = (say(rng.choice(pools[name]), rng, slots) for name in ("openings", "closings"))
    tip = say(rng.choice(table("tales")["how_to"]["tips"][:1]), rng, slots)
    title = capitalize(say(rng.choice(pools["titles"]), rng, slots))
    return Tale(title, (f"{opening} {tip}", " ".join(steps[:4]), " ".join(steps[4:]), closing), items)


def write_joke(rng: random.Random) -> str:
    """One short joke."""
    return say(rng.choice(table("tales")["jokes"]["jokes"]), rng, cast_tale(rng))


def write_jokes(rng: random.Random) -> Tale:
    """A page of jokes, each with a sentence before it."""
    pools: Pools = table("tales")["jokes"]
    pairs = zip(rng.sample(pools["frames"], 4), rng.sample(pools["jokes"], 4), strict=True)
    paragraphs = tuple(f"{say(frame, rng, cast_tale(rng))} {say(text, rng, cast_tale(rng))}" for frame, text in pairs)
    title = say("(Jokes|Four jokes|Short jokes|Something to laugh) for (a rainy|every|your|a long) $weekday", rng)
    return Tale(title, (*paragraphs, say(rng.choice(pools["closings"]), rng)))


def write_word_problems(rng: random.Random) -> Tale:
    """An arithmetic problem and some sums to practise, all worked digit by digit."""
    pools: Pools = table("tales")["sums"]
    cast, task = cast_tale(rng), draw_sum(rng)
    text = say(rng.choice(pools[task.sign]["texts"]), rng, {**cast, "A": str(task.first), "B": str(task.second)})
    middles = [say(pattern, rng, cast) for pattern in rng.sample(pools["middles"], len(pools["middles"]))]
    opening, closing = (say(rng.choice(pools[name]), rng) for name in ("openings", "closings"))
    title = say(
        "(Sums|Numbers|A problem|Counting|Arithmetic) (for $weekday|at home|step by step|for the class|with $boy and $girl)",
        rng,
    )
    sums = [draw_sum(rng) for _ in range(NUM_PRACTICE_SUMS)]
    practice = [part for one in sums for part in (f"Q:{one.question(rng)}", f"A:{one.worked}")]
    paragraphs = (
        f"{text} {middles[0]} {middles[1]}",
        f"{middles[2]} {task.worked} {middles[3]}",
        *practice,
        " ".join([*middles[4:], closing]),
    )
    return Tale(title, (opening, *paragraphs))


KINDS: dict[str, tuple[Callable[[random.Random], Tale], int]] = {
    "story": (write_story, 38),
    "how-to": (write_how_to, 14),
    "recipe": (write_recipe, 14),
    "jokes": (write_jokes, 8),
    "word problems": (write_word_problems, 70),
}
