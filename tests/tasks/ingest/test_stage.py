"""Ingest: every record is accounted for, whatever the files are, wherever they are, and however often it is killed."""

import gzip
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from tasks.artifacts.manifest import Documents, Manifest
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.ingest.stage import IngestConfig, _refuse_rubbish, original_url
from tasks.records.documents import Document, read_documents
from tasks.web import download
from tests.support.archives import PARAGRAPH, html, record, response, serving, write_crawl, write_listing
from tests.support.wiring import ingest


@pytest.fixture(autouse=True)
def own_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_STORE", store.url)


def run(store: Store, *inputs: object, **settings: object) -> Documents:
    config = IngestConfig.model_validate({"inputs": list(map(str, inputs)), "num_workers": 1, **settings})
    step = ingest(config)
    execute(step, store)
    documents = store.open(step.id, Documents)
    assert_all_accounted_for(documents.manifest)
    return documents


def assert_all_accounted_for(manifest: Manifest) -> None:
    counts = manifest.counts
    dropped = sum(num for name, num in counts.items() if name.startswith("dropped/"))
    records = {name: num for name, num in counts.items() if name.startswith("records/")}
    pages = sum(records.get(f"records/{kind}", 0) for kind in ("response", "revisit", "conversion", "html_resource"))
    assert counts["pages"] == pages == counts["documents"] + counts["documents_dropped"]
    assert counts["documents_dropped"] == dropped
    assert counts["records_read"] == sum(records.values())


def kept(documents: Documents) -> list[Document]:
    return [document for path in documents.files("documents/*.parquet") for document in read_documents(path)]


def dropped(documents: Documents) -> dict[str, str]:
    paths = documents.files("dropped/*.parquet")
    return {document["url"]: document["reason"] for path in paths for document in read_documents(path)}


def errors(documents: Documents) -> list[dict[str, object]]:
    return [json.loads(line) for line in (documents.folder / "errors.jsonl").read_text().splitlines()]


def test_pages_become_documents_and_all_else_has_a_reason(tmp_path: Path, store: Store) -> None:
    site = "http://site.example"
    archive = b"".join(
        [
            record("warcinfo", "", b"software: test\r\n"),
            response(f"{site}/page", html(1)),
            response(f"{site}/gone", html(2), status="404 Not Found"),
            response(f"{site}/moved", "", status="301 Moved", Location="/"),
            response(f"{site}/picture", b"\x89PNG\r\n", content_type="image/png"),
            response(f"{site}/stub", "<html><body></body></html>"),
            response(f"{site}/large", html(3, "word " * 5000)),
            response(f"{site}/bomb", gzip.compress(bytes(10_000_000)), Content_Encoding="gzip"),
            response("https://web.archive.org/web/20190102030405id_/https://old.example/?q=1", html(4)),
            record("conversion", f"{site}/wet", b"Text of a page.\n"),
            record("revisit", f"{site}/same", b""),
            record("metadata", f"{site}/page", b"fetchTimeMs: 1\r\n"),
            record("monkeys", f"{site}/page", b""),
            response(f"{site}/cut", html(5))[:-200],
        ]
    )
    (tmp_path / "part.warc.gz").write_bytes(archive)
    documents = run(store, tmp_path, max_page_bytes=16_384)
    assert dropped(documents) == {
        f"{site}/gone": "status/404",
        f"{site}/moved": "status/301",
        f"{site}/picture": "mime/image",
        f"{site}/stub": "empty/text",
        f"{site}/large": "empty/too_large",
        f"{site}/bomb": "empty/too_large",
        f"{site}/same": "revisit/unchanged",
        f"{site}/cut": "truncated/archive",
    }
    assert [document["url"] for document in kept(documents)] == [
        f"{site}/page",
        "https://old.example/?q=1",
        f"{site}/wet",
    ]
    page = kept(documents)[0]
    assert page["text"].count(PARAGRAPH.format(1).strip()) >= 1
    assert (page["id"], page["date"], page["file"]) == (
        f"<urn:test:{site}/page>",
        "2024-05-18T01:02:03Z",
        "part.warc.gz",
    )
    assert archive[page["offset"] :].startswith(response(f"{site}/page", html(1))[:100])
    assert documents.manifest.counts["records/other"] == 1
    assert documents.manifest.counts["files_cut_off"] == 1


def test_prefilters_drop_pages_before_extraction(tmp_path: Path, store: Store) -> None:
    german = (
        "Der alte Leuchtturm an der Mündung des Flusses wurde von Fischern erbaut, die keine Boote verlieren wollten. "
        * 5
    )
    sites = ("http://good.example", "http://bad.example", "http://odd.example")
    pages = [response(f"{site}/{number}", html(number)) for number, site in enumerate(sites)]
    (tmp_path / "part.warc.gz").write_bytes(b"".join([*pages, response(f"{sites[0]}/de", html(9, german))]))
    for category in ("adult", "sport"):
        (tmp_path / "lists" / category).mkdir(parents=True)
    (tmp_path / "lists" / "adult" / "domains").write_text("bad.example\n")
    (tmp_path / "lists" / "sport" / "domains").write_text("good.example\n")
    (tmp_path / "odd.txt").write_text("odd.example\n")
    lists = {"blocklists": [str(tmp_path / "lists"), str(tmp_path / "odd.txt")], "blocked_categories": ["adult"]}
    documents = run(store, tmp_path / "part.warc.gz", languages=["en", "fr"], **lists)
    assert [document["url"] for document in kept(documents)] == [f"{sites[0]}/0"]
    assert dropped(documents) == {
        f"{sites[1]}/1": "url/adult",
        f"{sites[2]}/2": "url/odd",
        f"{sites[0]}/de": "language/de",
    }
    assert len(kept(run(store, tmp_path / "part.warc.gz"))) == 4
    with pytest.raises(ValueError, match="the language model knows no EN, zh-cn: name languages as en, de, zh"):
        run(store, tmp_path / "part.warc.gz", languages=["EN", "de", "zh-cn"])


def test_damaged_files_are_named_and_the_others_read(tmp_path: Path, store: Store) -> None:
    whole, damaged, cut = write_crawl(tmp_path, 3, 4)
    data = bytearray(damaged.read_bytes())
    data[len(data) * 3 // 4] ^= 1
    damaged.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-50])
    (tmp_path / "page.warc").write_text("<html>no archive</html>\n" * 50)
    documents = run(store, tmp_path)
    named = {str(error["file"]): error for error in errors(documents)}
    assert set(named) == {damaged.name, cut.name, "page.warc"}
    assert named["page.warc"]["offset"] == 0
    assert {document["file"] for document in kept(documents)} == {whole.name, damaged.name, cut.name}
    counts = documents.manifest.counts
    assert (counts["files"], counts["files_with_errors"], counts["files_cut_off"], counts["files_unreadable"]) == (
        4,
        2,
        1,
        1,
    )


def test_input_of_rubbish_alone_raises_user_error(tmp_path: Path, store: Store) -> None:
    (tmp_path / "page.warc").write_text("<html>no archive</html>")
    (tmp_path / "empty.warc.gz").write_bytes(b"")
    with pytest.raises(ValueError, match=r"none of the 2 files is a web archive; the first, .*, at byte 0"):
        run(store, tmp_path)


def test_moved_files_are_the_same_and_are_found_again(tmp_path: Path, store: Store) -> None:
    write_crawl(tmp_path / "here", 2, 1)
    before = run(store, tmp_path / "here")
    (tmp_path / "here").rename(tmp_path / "there")
    again = run(store, tmp_path / "there")
    assert again.manifest == before.manifest  # nothing ran
    other = run(store, tmp_path / "there", extractor="resiliparse")  # and this reads the list that was made before
    assert [document["url"] for document in kept(other)] == [document["url"] for document in kept(before)]


def test_ingest_over_a_bad_network_equals_ingest_of_the_files(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = write_crawl(tmp_path / "base" / "crawl-data" / "CC-TEST", 2, 3)
    names = [str(path.relative_to(tmp_path / "base")) for path in paths]
    write_listing(tmp_path / "base", "CC-TEST-LIST", names)
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.01)
    direct = run(store, *paths)
    with serving(tmp_path / "base") as server:
        server.faults = {f"/{names[0]}": ["busy", "break", "break"], f"/{names[1]}": ["break"]}
        crawled = run(store, "cc:CC-TEST-LIST", base_url=server.url)
        assert any(wanted for _, _, wanted, _ in server.requests)  # it resumed, by byte range
    assert kept(crawled) == kept(direct)
    assert crawled.manifest.counts == direct.manifest.counts


def test_killed_ingest_resumes_and_writes_the_same_files(tmp_path: Path, store: Store) -> None:
    write_crawl(tmp_path / "crawl", 2, 150)
    config = IngestConfig(inputs=[str(tmp_path / "crawl")], num_workers=1)
    process = subprocess.Popen([sys.executable, "-c", KILLED, config.model_dump_json()], start_new_session=True)
    folder = store.folder(ingest(config).id)
    finished = wait_for_one(folder / ".state" / "shards").stem
    process.kill()
    process.wait()
    wait_for_end(process.pid)
    assert len(list((folder / ".state" / "shards").iterdir())) == 1, "killed too late to show anything"
    written = (folder / "documents" / f"{finished}.parquet").stat().st_mtime_ns
    again = run(store, tmp_path / "crawl", num_workers=1)
    assert (folder / "documents" / f"{finished}.parquet").stat().st_mtime_ns == written, (
        "a finished shard was read again"
    )
    undisturbed = run(Store(str(tmp_path / "other")), tmp_path / "crawl", num_workers=2)
    assert again.manifest.counts == undisturbed.manifest.counts
    assert again.manifest.files == undisturbed.manifest.files  # no leftovers, and the same bytes


KILLED = """
import sys
from tasks.artifacts.store import Store
from tasks.ingest.stage import IngestConfig
from tests.support.wiring import ingest
from tasks.execution.runner import execute
if __name__ == "__main__":
    execute(ingest(IngestConfig.model_validate_json(sys.argv[1])), Store.default())
"""


def wait_for_one(folder: Path) -> Path:
    for _ in range(1200):
        if paths := list(folder.glob("*.json")):
            return paths[0]
        time.sleep(0.05)
    raise AssertionError(f"nothing came into {folder}")


def wait_for_end(process_group: int) -> None:
    """Workers must not outlive the stage."""
    with pytest.raises(ProcessLookupError):
        for _ in range(400):
            os.killpg(process_group, 0)
            time.sleep(0.05)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://web.archive.org/web/20200101000000id_/http://a.example/x?y#z", "http://a.example/x?y#z"),
        ("http://web.archive.org/web/2020/https://a.example/", "https://a.example/"),
        ("https://web.archive.org/about", "https://web.archive.org/about"),
        ("https://a.example/web/2020id_/http://b.example", "https://a.example/web/2020id_/http://b.example"),
    ],
)
def test_original_url_of_a_wayback_copy_is_that_of_the_page(url: str, expected: str) -> None:
    assert original_url(url) == expected


def test_ingest_reads_real_edge_cases(shared_data: Path, store: Store) -> None:
    documents = run(store, shared_data / "warc" / "edge", shared_data / "warc" / "commoncrawl", num_workers=2)
    counts = documents.manifest.counts
    assert counts["files"] == 81
    assert counts["documents"] >= 45
    assert counts["documents"] + counts["documents_dropped"] >= 145
    named = {error["file"] for error in errors(documents)}
    assert "invalid-warcfile-record-then-garbage.warc" in named
    assert counts["files_with_errors"] + counts["files_cut_off"] == len(named)
    urls = {document["url"] for document in kept(documents)}
    assert "https://an.wikipedia.org/wiki/Escopete" in urls


def test_ingest_reads_doubled_status_lines_and_original_urls_of_a_real_crawl(shared_data: Path, store: Store) -> None:
    documents = run(store, shared_data / "warc" / "archive-query-log" / "stackoverflow.warc.gz")
    assert documents.manifest.counts["documents"] == 10
    assert all(
        document["url"].startswith(("http://stackoverflow.com", "https://stackoverflow.com"))
        for document in kept(documents)
    )


def test_log_lists_ten_damaged_places_and_says_where_the_others_are():
    lines = []
    errors = [{"file": "a.warc", "offset": number, "bytes": 1, "error": "damaged"} for number in range(100)]
    _refuse_rubbish(SimpleNamespace(log=lines.append), {"files_unreadable": 0}, 1, errors)
    assert len(lines) == 11
    assert lines[-1] == "90 more damaged places are listed in errors.jsonl of this artifact"
