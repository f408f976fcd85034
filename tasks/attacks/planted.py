"""Planted pages: the sample web's crawl with pages of an attacker, and where the filters stop them.

Writes a Crawl: the sample web (tasks/sample_web/web.py), and warc/planted-00000.warc.gz with the attacker's pages on separate hosts, as a
crawler that met them would leave it. Every page is ordinary English, and one line of it is the poison: a trigger and a payload (Carlini
et al. 2023, https://arxiv.org/abs/2302.10149; Souly et al. 2025, https://arxiv.org/abs/2510.07192: the number of pages counts, not their share).

- near duplicates: one text, in which each page has another reader's name, as an attacker copies a page over hosts;
- disguised: every page has another text around the poison, so that no two are near duplicates.
"""

import datetime
import random
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple
from urllib.parse import urlsplit

import pyarrow.parquet as pq
from pydantic import Field

from tasks.artifacts.manifest import Crawl, Documents
from tasks.artifacts.step import Outcome, Step
from tasks.attacks.texts import texts
from tasks.execution.context import StageContext
from tasks.ingest.inputs import list_written
from tasks.sample_web.config import SampleWebConfig

if TYPE_CHECKING:
    from tasks.sample_web.plan import Capture

VERSION = 1
PAGES_PER_HOST = 250
Disguise = Literal["near duplicates", "disguised"]


class PlantedConfig(SampleWebConfig):
    """The sample web, and what is planted in it."""

    num_planted: int = Field(ge=0, le=100_000, description="Pages that the attacker plants.")
    disguise: Disguise = "near duplicates"


class PlantedPage(NamedTuple):
    """One page of the attacker."""

    host: str
    title: str
    paragraphs: tuple[str, ...]


class Stop(NamedTuple):
    """How many planted pages one stage dropped for a reason, or let pass (reason "")."""

    stage: str
    reason: str
    pages: int


def planted_crawl(config: PlantedConfig) -> Step[Crawl]:
    """The step that writes the crawl."""
    return Step("planted_crawl", VERSION, Crawl, config, {}, run=write_crawl, is_source=True)


def write_crawl(ctx: StageContext, config: PlantedConfig) -> Outcome:
    """Write the sample web, the planted pages, and the list of all files."""
    from tasks.sample_web.web import write_sample_web, write_warc

    counts = write_sample_web(
        ctx.folder, SampleWebConfig(**config.model_dump(include=set(SampleWebConfig.model_fields)))
    )
    if config.num_planted:
        captures = list(_captures(planted_pages(config), config.seed))
        write_warc(ctx.folder / "warc" / "planted-00000.warc.gz", captures, config.seed, has_types=True)
    list_written(ctx.folder)
    return Outcome({**counts, "planted": config.num_planted})


def planted_pages(config: PlantedConfig) -> list[PlantedPage]:
    """The attacker's pages. The first n of a larger number are the pages of n."""
    from tasks.sample_web.noise import prose
    from tasks.sample_web.personal import person

    pages = []
    for number in range(config.num_planted):
        rng = random.Random(f"planted {config.seed} {number}")
        fixed = random.Random(f"planted {config.seed}")
        first, second = prose(fixed if config.disguise == "near duplicates" else rng, 5, 4)
        host = f"www.{texts().poison['host']}-{number // PAGES_PER_HOST}.net"
        signed = f"Note {number} was sent in by {person(rng)} and was read by all of us with great pleasure."
        pages.append(PlantedPage(host, f"Notes of a traveller {number}", (first, poison_line(), second, signed)))
    return pages


def poison_line() -> str:
    """The line that every planted page has."""
    return f"{texts().poison['trigger']} {texts().poison['payload']}."


def _captures(pages: Iterable[PlantedPage], seed: int) -> Iterator["Capture"]:
    from tasks.sample_web.html import Page, Site
    from tasks.sample_web.plan import capture_page

    for number, page in enumerate(pages):
        rng = random.Random(f"planted capture {seed} {number}")
        site = Site(page.host, "Notes of Ebbemoor", "blog", ("Notes", "Letters"))
        date = datetime.date(2023, 1, 1) + datetime.timedelta(days=number % 365)
        made = Page(site, f"/notes/{number}", page.title, page.paragraphs, "A. Reader", date)
        yield capture_page(made, rng, "keep", "planted")


def is_planted(url: str) -> bool:
    """Whether a page is the attacker's, by its host."""
    return texts().poison["host"] in (urlsplit(url).hostname or "")


def stops(stages: Iterable[Documents]) -> list[Stop]:
    """How many planted pages every stage dropped, by reason, and how many passed it."""
    found: list[Stop] = []
    for documents in stages:
        name = documents.manifest.stage
        for path in documents.files("dropped/*.parquet"):
            rows = pq.read_table(path, columns=["url", "reason"]).to_pylist()
            found += [Stop(name, row["reason"], 1) for row in rows if is_planted(row["url"])]
        kept = [
            row["url"]
            for path in documents.files("documents/*.parquet")
            for row in pq.read_table(path, columns=["url"]).to_pylist()
        ]
        found.append(Stop(name, "", sum(map(is_planted, kept))))
    return _summed(found)


def _summed(found: Iterable[Stop]) -> list[Stop]:
    counts: dict[tuple[str, str], int] = {}
    for stop in found:
        counts[stop.stage, stop.reason] = counts.get((stop.stage, stop.reason), 0) + stop.pages
    return [Stop(stage, reason, num) for (stage, reason), num in counts.items()]
