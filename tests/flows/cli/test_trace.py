"""Every capture of a URL is followed through the stages, with the reason for which it was dropped."""

import pytest

from flows.cli.show import dropped_for
from flows.cli.trace import trace_lines
from tasks.artifacts.manifest import Documents
from tasks.artifacts.store import Store
from tasks.dedup.stage import DedupConfig
from tasks.execution.runner import execute
from tasks.filter.stage import FilterConfig
from tasks.ingest.stage import IngestConfig
from tasks.provenance.fates import Fate, find_fates
from tests.support.archives import PARAGRAPH, response
from tests.support.wiring import dedup, filter, ingest

SITE = "http://site.example"
GOOD = PARAGRAPH.format("Orna") + " Nobody has counted the steps. They say that there are more of them in winter."


def page(text: str) -> str:
    return f"<!doctype html><html><body><article><h1>The tower</h1><p>{text}</p></article></body></html>"


@pytest.fixture(scope="module")
def crawl_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Three captures of one good page, a short one and an error, through ingest, filter and dedup."""
    folder = tmp_path_factory.mktemp("trace")
    store = Store(str(folder / "store"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CRAWL2CHAT_STORE", store.url)
        (folder / "a.warc").write_bytes(
            response(f"{SITE}/good", page(GOOD))
            + response("https://site.example/good/?utm_source=x", page(GOOD))
            + response(f"{SITE}/short", page(GOOD[:150]))
            + response(f"{SITE}/gone", page("Nothing."), status="404 Not Found")
            + response("http://other.example/copy", page(GOOD))
        )
        raw = ingest(IngestConfig(inputs=[str(folder / "a.warc")], num_workers=1))
        clean = filter(raw, FilterConfig(num_workers=1))
        unique = dedup(clean, DedupConfig(num_workers=1))
        for step in (raw, clean, unique):
            store.set_latest("tiny", execute(step, store))
    return store


def outcomes(fates: list[Fate]) -> list[tuple[str, str]]:
    return [(fate.stage, fate.outcome) for fate in fates]


def test_find_fates_follows_every_capture_of_a_page(crawl_store: Store) -> None:
    one, other = find_fates("site.example/good", "tiny", crawl_store)
    assert [fate.stage for fate in one] == [fate.stage for fate in other] == ["ingest", "filter", "dedup"]
    ends = sorted(fates[-1].outcome for fates in (one, other))
    assert ends[0].startswith("duplicate/url of http")
    assert {fates[0].document["offset"] for fates in (one, other)} != {0}


def test_find_fates_reports_the_limit_that_decided(crawl_store: Store) -> None:
    [short] = find_fates(f"{SITE}/short", "tiny", crawl_store)
    assert outcomes(short)[0] == ("ingest", "kept")
    assert (
        short[-1].outcome
        == f"quality/gopher_words: {short[-1].document['attributes']['gopher_words']:.4g}, min 50 and max 100000"
    )
    [gone] = find_fates(f"{SITE}/gone", "tiny", crawl_store)
    assert outcomes(gone) == [("ingest", "status/404")]
    assert "site.example/gone" in next(trace_lines([gone]))


def test_find_fates_ignores_a_similar_url(crawl_store: Store) -> None:
    assert find_fates(f"{SITE}/goo", "tiny", crawl_store) == []
    assert find_fates("nowhere.example", "tiny", crawl_store) == []


def test_dropped_for_shows_documents_by_reason_and_refuses_an_unknown_one(crawl_store: Store) -> None:
    clean = crawl_store.open(crawl_store.latest("tiny", "filter"), Documents)
    assert len(list(dropped_for(clean, "quality", 9))) == len(list(dropped_for(clean, "quality/gopher_words", 9))) == 1
    with pytest.raises(ValueError, match="these are the reasons: quality/gopher_words"):
        list(dropped_for(clean, "word", 9))
