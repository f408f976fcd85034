"""Variants of the sample web, for experiments on what a model learns: the same world, and pages that state more.

Reads a World and its articles; writes nothing. Without these settings the pages are those of the plain world, byte for byte.

- Reversed pages: relations that are stated in one direction are stated and asked in both (the reversal curse, Berglund et al. 2023,
  https://arxiv.org/abs/2309.12288).
- Extra mentions: some rare facts are stated on more pages. Which ones is drawn, so that what they gain is the effect of the mentions.
- Repeated passages: texts that stand word for word on many pages, as a licence does, next to such that stand on one. They lie within
  pages that differ, since deduplication leaves one of equal pages (recital, Carlini et al. 2023, https://arxiv.org/abs/2202.07646).
"""

import random
from collections.abc import Sequence
from dataclasses import replace

from tasks.sample_web.articles import PLANNED_ARTICLES, Article
from tasks.sample_web.config import SampleWebConfig
from tasks.sample_web.tales import write_story
from tasks.sample_web.world import Fact, World, build_world

NUM_CHOSEN = 30
CHOSEN_MENTIONS = 3  # a class of data/world.yaml that is held out: no page asks about these facts
PASSAGE_PAGES = (1, 5, 30)
NUM_PASSAGES = 10  # for each of these numbers of pages
PASSAGE_WORDS = 110  # some 130 tokens, more than what evaluation reads and compares


def build_variant(config: SampleWebConfig) -> World:
    """The world of the settings. Without extra mentions its facts are those of `build_world`."""
    world = build_world(config.seed)
    chosen = {fact.id for fact in chosen_facts(world)} if config.extra_mentions else set()
    facts = tuple(
        replace(fact, num_mentions=fact.num_mentions + config.extra_mentions) if fact.id in chosen else fact
        for fact in world.facts
    )
    return replace(world, facts=facts, has_reversed_pages=config.reversed_pages)


def chosen_facts(world: World) -> list[Fact]:
    """The held-out facts that extra mentions are about, drawn by the seed among those that are stated CHOSEN_MENTIONS times."""
    rare = [fact for fact in world.facts if fact.is_heldout and fact.num_mentions == CHOSEN_MENTIONS]
    return random.Random(f"chosen {world.seed}").sample(rare, min(NUM_CHOSEN, len(rare)))


def repeat_passages(articles: Sequence[Article], seed: int) -> list[Article]:
    """The articles, some with one of the passages as one more paragraph. Fewer articles than planned have fewer passages."""
    rng = random.Random(f"passages {seed}")
    number = max(1, NUM_PASSAGES * len(articles) // PLANNED_ARTICLES)
    places = [(_write_passage(rng), pages) for pages in PASSAGE_PAGES for _ in range(number)]
    added = list(articles)
    # Each article has one passage at most: two together would make its pages near duplicates.
    waiting = rng.sample(range(len(added)), len(added))
    for passage, pages in places:
        for place in [waiting.pop() for _ in range(min(pages, len(waiting)))]:
            paragraphs = added[place].paragraphs
            added[place] = replace(added[place], paragraphs=(*paragraphs[:-1], passage, paragraphs[-1]))
    return added


def _write_passage(rng: random.Random) -> str:
    """The first PASSAGE_WORDS of several stories, so that no page but its own has the same words in a row."""
    words: list[str] = []
    while len(words) < PASSAGE_WORDS:
        # The second paragraphs: openings have few wordings, and would be the same in several passages.
        words += write_story(rng).paragraphs[1].split()
    return f"{' '.join(words[:PASSAGE_WORDS]).rstrip('.,;')}."
