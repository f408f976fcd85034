"""The sample web: the same bytes for a seed, valid WARC records, and expected outcomes that match the pages."""

import hashlib
import html
import ipaddress
import json
import random
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import phonenumbers
import pytest
import trafilatura
from warcio.archiveiterator import ArchiveIterator
from warcio.checker import Checker

from tasks.ingest.inputs import SAMPLE_VERSION
from tasks.sample_web.config import SampleWebConfig
from tasks.sample_web.html import PATHS, Site, encode_page, render_page
from tasks.sample_web.noise import JUNK, prose
from tasks.sample_web.personal import MAKERS, TRAPS, luhn_digit
from tasks.sample_web.plan import make_page, similarity
from tasks.sample_web.web import write_sample_web

CONFIG = SampleWebConfig(seed=3, num_articles=80, num_files=3)
GOLDEN_DIGESTS = {6: "4ecf22bef1665f38"}  # by SAMPLE_VERSION
EXPECTATIONS = {
    "keep",
    "duplicate",
    "mime",
    "status",
    "revisit",
    "truncated",
    "empty",
    "url",
    "language",
    "quality",
    "pii",
}


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    counts = write_sample_web(folder, CONFIG)
    return folder, counts


@pytest.fixture(scope="module")
def truth(web):
    return [json.loads(line) for line in (web[0] / "truth.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def captured(web):
    """Each response or revisit by its identifier: address, header, decoded body."""
    records = {}
    for path in sorted((web[0] / "warc").iterdir()):
        with path.open("rb") as stream:
            for record in ArchiveIterator(stream):
                if record.rec_type in ("response", "revisit"):
                    name = record.rec_headers["WARC-Record-ID"]
                    assert name not in records
                    body = record.content_stream().read()
                    records[name] = (path.name, record.rec_headers, record.http_headers, body)
    return records


def document_of(line, captured):
    """The page as text, by the charset that the truth names."""
    charset = re.search(r"; \w+, ([\w-]+), announced", line["note"])
    return captured[line["record_id"]][3].decode(charset[1] if charset else "utf-8")


def text_of(line, captured):
    return trafilatura.extract(document_of(line, captured), favor_precision=True, include_comments=False) or ""


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_write_sample_web_writes_the_same_bytes_for_a_seed(web, tmp_path):
    write_sample_web(tmp_path / "again", CONFIG)
    write_sample_web(tmp_path / "other", CONFIG.model_copy(update={"seed": 4}))
    assert contents(tmp_path / "again") == contents(web[0])
    first = Path("warc/sample-00000.warc.gz")
    assert contents(tmp_path / "other")[first] != contents(web[0])[first]


def test_content_changes_only_with_the_version(web, truth, captured):
    """Decoded content, since the bytes of gzip depend on the version of zlib. A new digest needs a new SAMPLE_VERSION."""
    whole = hashlib.sha256()
    for line in truth[:-1]:  # the last record is truncated
        _, headers, http, body = captured[line["record_id"]]
        whole.update(repr((line, headers["WARC-Date"], http.statusline, body)).encode())
    for path in sorted((web[0] / "blacklists").glob("*/*")):
        whole.update(path.read_bytes())
    for name in ("facts.jsonl", "strangers.jsonl"):
        whole.update((web[0] / name).read_bytes())
    assert whole.hexdigest()[:16] == GOLDEN_DIGESTS[SAMPLE_VERSION]


def check(path):
    return Checker(SimpleNamespace(inputs=[str(path)], verbose=False)).process_all()


def test_files_pass_warcio_check_except_the_truncated_one(web, truth, capsys):
    *whole, last = sorted((web[0] / "warc").iterdir())
    assert len(whole) == CONFIG.num_files - 1
    for path in whole:
        assert check(path) == 0, capsys.readouterr().out
    cut = truth[-1]
    assert cut["expected"] == "truncated" and cut["file"] == last.name
    with last.open("rb") as stream:
        *_, final = (
            (
                record.rec_headers["WARC-Record-ID"],
                int(record.rec_headers["Content-Length"]),
                len(record.raw_stream.read()),
            )
            for record in ArchiveIterator(stream)
        )
    assert final[0] == cut["record_id"]
    assert final[2] < final[1]


def test_truth_has_one_line_for_every_response_and_revisit(truth, captured):
    assert sorted(line["record_id"] for line in truth) == sorted(captured)
    for line in truth:
        file, headers, _, _ = captured[line["record_id"]]
        assert (line["file"], line["url"]) == (file, headers["WARC-Target-URI"])


def test_every_expected_outcome_and_kind_of_junk_occurs(web, truth):
    found = Counter(line["expected"] for line in truth)
    assert set(found) == EXPECTATIONS
    assert {name: web[1][name] for name in EXPECTATIONS} == dict(found)
    assert {line["note"].split(";")[0] for line in truth if line["expected"] == "quality"} == set(JUNK)


def test_truth_agrees_with_the_headers(truth, captured):
    for line in truth:
        _, headers, http, _ = captured[line["record_id"]]
        assert (headers["WARC-Type"] == "revisit") == (line["expected"] == "revisit")
        assert (http.get_statuscode() != "200") == (line["expected"] == "status")
        if line["expected"] == "mime":
            assert headers.get_header("WARC-Identified-Payload-Type", "none") != "text/html"


def test_clusters_have_exactly_one_page_to_keep(truth):
    clusters = Counter()
    for line in truth:
        assert line["cluster"] or line["expected"] != "duplicate"
        if line["cluster"]:
            clusters[line["cluster"], line["expected"]] += 1
    assert {expected for _, expected in clusters} == {"keep", "duplicate"}
    assert all(count == 1 for (_, expected), count in clusters.items() if expected == "keep")
    assert {name for name, expected in clusters if expected == "keep"} == {name for name, _ in clusters}


def test_copies_are_similar_after_extraction(truth, captured):
    originals = {line["cluster"]: line for line in truth if line["cluster"] and line["expected"] == "keep"}
    edited = [line for line in truth if line["expected"] == "duplicate" and "edited" in line["note"]]
    assert edited
    for line in edited:
        first, second = text_of(originals[line["cluster"]], captured), text_of(line, captured)
        assert similarity(first, second) >= 0.85, line["url"]


def test_pages_decode_with_the_charset_in_the_truth(truth, captured):
    pages = [line for line in truth if "announced" in line["note"] and line["expected"] not in ("revisit", "truncated")]
    documents = {line["record_id"]: document_of(line, captured) for line in pages}
    assert all("</html>" in document.lower() for document in documents.values())
    german = [line for line in pages if line["note"].startswith("de;")]
    russian = [line for line in pages if line["note"].startswith("ru;")]
    assert all(re.search("[äöü]", documents[line["record_id"]]) for line in german)
    assert all("Главная" in documents[line["record_id"]] for line in russian)
    charsets = {line["note"].split(", ")[1] for line in pages}
    assert {"utf-8", "iso-8859-1", "windows-1252", "utf-16"} <= charsets


def test_bodies_are_plain_compressed_and_chunked(captured):
    codings = {
        (http.get_header("Content-Encoding"), http.get_header("Transfer-Encoding"))
        for _, _, http, _ in captured.values()
    }
    assert {(None, None), ("gzip", None), (None, "chunked")} <= codings


def test_personal_data_of_the_truth_is_on_its_page(truth, captured):
    lines = [line for line in truth if line["pii"] and line["expected"] in ("keep", "pii")]
    assert {"keep", "pii"} == {line["expected"] for line in lines}
    for line in lines:
        page = re.sub("<[^>]+>", "", html.unescape(document_of(line, captured)))
        assert all(text in page for text in line["redact"] + line["traps"])
        assert len(line["redact"]) == sum(line["pii"].values())


@pytest.mark.parametrize("seed", range(200))
def test_invented_numbers_are_valid_and_traps_are_not(seed):
    rng = random.Random(seed)
    digits = re.sub(r"\D", "", MAKERS["card"](rng))
    assert luhn_digit(digits[:-1]) == int(digits[-1])
    assert phonenumbers.is_valid_number(phonenumbers.parse(MAKERS["phone"](rng), "US"))
    assert ipaddress.ip_address(MAKERS["ip"](rng)).is_global
    assert re.fullmatch(r"(?!000|666|9)\d{3}-(?!00)\d\d-(?!0000)\d{4}", MAKERS["ssn"](rng))
    for make, patterns in TRAPS:
        value = make(rng)
        for pattern in patterns:
            assert not list(phonenumbers.PhoneNumberMatcher(pattern.format(value), "US"))
        number = re.sub(r"\D", "", value)
        assert len(number) != 16 or luhn_digit(number[:-1]) != int(number[-1])


def test_luhn_digit_of_a_published_test_number():
    assert luhn_digit("411111111111111") == 1
    assert luhn_digit("555555555555444") == 4


def is_listed(url, lists):
    address = re.sub("^https?://", "", url)
    host = address.split("/")[0]
    parents = {".".join(host.split(".")[start:]) for start in range(host.count(".") + 1)}
    return bool(parents & lists["domains"]) or address in lists["urls"]


def test_blacklists_name_only_the_blocked_pages(web, truth):
    lists = {name: set() for name in ("domains", "urls", "usage")}
    for path in (web[0] / "blacklists").glob("*/*"):
        lists[path.name] |= set(path.read_text(encoding="utf-8").split())
    assert lists["usage"] == {"black"}
    assert all(is_listed(line["url"], lists) == (line["expected"] == "url") for line in truth)


def test_facts_are_counted_over_the_pages_to_keep(web, truth):
    stated = Counter(fact for line in truth if line["expected"] == "keep" for fact in set(line["facts"]))
    facts = [json.loads(line) for line in (web[0] / "facts.jsonl").read_text(encoding="utf-8").splitlines()]
    assert set(stated) <= {fact["id"] for fact in facts}
    assert {fact["id"]: fact["num_mentions"] for fact in facts} == {fact["id"]: stated[fact["id"]] for fact in facts}
    assert sum(stated.values()) > 0


@pytest.mark.parametrize("is_broken", [False, True])
@pytest.mark.parametrize("template", PATHS)
def test_extractor_finds_only_the_text_of_every_template(template, is_broken):
    rng = random.Random(template)
    site = Site(
        "www.tarn-press.org",
        "The Tarn Press",
        template,
        ("News", "Places", "Books"),
        is_broken=is_broken,
        is_typographic=True,
    )
    page = make_page(site, "A quiet year at the mill & the harbour", prose(rng, 4, 3, 4), rng)
    document = encode_page(render_page(page, rng), site)[0].decode("utf-8")
    text = trafilatura.extract(document, favor_precision=True, include_comments=False) or ""
    wanted = Counter(re.findall(r"\w+", " ".join(page.paragraphs)))
    allowed = wanted + Counter(re.findall(r"\w+", page.title))
    found = Counter(re.findall(r"\w+", text))
    assert (wanted & found).total() >= 0.97 * wanted.total()
    assert (allowed & found).total() >= 0.97 * found.total()


@pytest.mark.parametrize(("field", "value"), [("num_articles", 19), ("num_files", 0), ("seed", -1), ("colour", 1)])
def test_settings_out_of_bounds_raise(field, value):
    with pytest.raises(ValueError, match=field):
        SampleWebConfig(**{field: value})
