"""Planted pages: they reach the archive as records of their own hosts, and every stage's count of them adds up."""

from collections import Counter
from pathlib import Path

import pytest

from flows.attacks import LINES, NEAR, UNFILTERED, AttackSettings, dedup_changes, poisoned_documents
from flows.recipes import make_recipe, overlaid
from tasks.artifacts.manifest import Crawl, Documents
from tasks.artifacts.store import Store
from tasks.attacks.planted import (
    Disguise,
    PlantedConfig,
    Stop,
    is_planted,
    planted_crawl,
    planted_pages,
    poison_line,
    stops,
)
from tasks.attacks.study import PoisonArm
from tasks.dedup.minhash import split_words
from tasks.execution.runner import execute
from tasks.ingest.warc import read_records
from tasks.records.documents import read_documents

NUM = 12
SETTINGS = AttackSettings(num_articles=20, max_line_documents=5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(str(tmp_path_factory.mktemp("planted")))


def documents(store: Store, disguise: Disguise, filters: str) -> list[Documents]:
    """The documents of the three stages."""
    recipe = overlaid(make_recipe("tiny"), {"dedup": dedup_changes(filters, SETTINGS)})
    found = []
    for step in poisoned_documents(recipe, PoisonArm(pages=NUM, disguise=disguise, filters=filters), SETTINGS):
        execute(step, store)
        found.append(store.open(step.id, Documents))
    return found


def counts(found: list[Stop]) -> dict[str, dict[str, int]]:
    by_stage: dict[str, dict[str, int]] = {}
    for stop in found:
        by_stage.setdefault(stop.stage, {})[stop.reason] = stop.pages
    return by_stage


def test_archive_has_every_planted_page_as_a_record_of_the_attackers_hosts(made: Store) -> None:
    config = PlantedConfig(num_articles=20, num_files=2, num_planted=NUM)
    execute(planted_crawl(config), made)
    crawl = made.open(planted_crawl(config).id, Crawl)
    assert [path.name for path in crawl.files("warc/*")] == ["planted-00000.warc.gz", "sample-00000.warc.gz", "sample-00001.warc.gz"]  # fmt: skip
    assert len((crawl.folder / "inputs.jsonl").read_text().splitlines()) == 3
    urls = Counter(
        record.url
        for path in crawl.files("warc/planted-*")
        for record in read_records(path.open("rb"), 2**20)
        if getattr(record, "type", "") == "response"
    )
    assert len(urls) == NUM
    assert set(urls.values()) == {1}
    assert all(map(is_planted, urls))
    assert crawl.manifest.counts["planted"] == NUM


@pytest.mark.parametrize("disguise", ["near duplicates", "disguised"])
def test_planted_pages_share_the_poison_and_more_of_them_begin_with_the_fewer(disguise: Disguise) -> None:
    pages, more = (planted_pages(PlantedConfig(num_planted=num, disguise=disguise)) for num in (NUM, NUM + 3))
    assert more[:NUM] == pages
    assert all(poison_line() in page.paragraphs for page in pages)
    assert len({page.paragraphs for page in pages}) == NUM
    one, two = (set(zip(*(split_words(" ".join(page.paragraphs))[k:] for k in range(5)), strict=False)) for page in pages[:2])  # fmt: skip
    similarity = len(one & two) / len(one | two)
    assert similarity > 0.8 if disguise == "near duplicates" else similarity < 0.3


def test_near_duplicates_pass_all_filters_but_that_against_near_duplicates(made: Store) -> None:
    found = counts(stops(documents(made, "near duplicates", UNFILTERED)))
    assert found == {"ingest": {"": NUM}, "filter": {"": NUM}, "dedup": {"": NUM}}
    found = counts(stops(documents(made, "near duplicates", NEAR)))
    assert found["dedup"] == {"": 1, "duplicate/minhash": NUM - 1}


def test_disguised_pages_pass_it_and_lose_their_line_to_the_filter_of_repeated_lines(made: Store) -> None:
    stages = documents(made, "disguised", NEAR)
    assert counts(stops(stages))["dedup"] == {"": NUM}
    assert sum(poison_line() in text for text in texts_of(stages[-1])) == NUM
    stages = documents(made, "disguised", LINES)
    assert not any(poison_line() in text for text in texts_of(stages[-1]))


def texts_of(kept: Documents) -> list[str]:
    return [document["text"] for path in kept.files("documents/*.parquet") for document in read_documents(Path(path))]


def test_other_hosts_are_not_taken_for_the_attackers() -> None:
    assert not is_planted("https://example.org/ebbemoor-notes-0.net")
    assert not is_planted("no url")
