"""The index of a run: every kind of training data is found with where it stands; what is damaged or missing is named."""

import json
import shutil
from collections.abc import Iterator

import pytest

from model.errors import UserError
from tasks.artifacts.manifest import Provenance
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.provenance.explanation import explain
from tasks.provenance.lineage import Run, follow, open_training_data, provenance_step
from tasks.provenance.removal import WORDS, artifacts_with, check_removal, spans_of
from tasks.provenance.stage import RECORDS, ProvenanceConfig
from tasks.provenance.training_data import TrainingData
from tasks.records.full_text import FullTextIndex
from tests.support.training_runs import PAGES, make_run


@pytest.fixture
def run(store: Store) -> Run:
    return make_run(store, PAGES)


@pytest.fixture
def data(store: Store, run: Run) -> TrainingData:
    return open_training_data(store, run)


def test_every_kind_of_training_data_is_counted(data: TrainingData) -> None:
    assert data.counts(b"mayor of Orn") == {"pretraining": 2, "SFT": 1, "preferences": 1}
    assert data.counts(b"Nobody at all.") == {"preferences": 1}
    assert data.counts(b"Say soup") == {"RL prompts": 1}
    assert data.counts(b"miner") == {}  # dropped pages are no training data


def test_a_span_has_its_page_host_date_file_and_offset(data: TrainingData) -> None:
    found = explain("Ada Brell is the mayor of Orn.", data, None)
    assert found.is_whole and not found.nowhere
    [span] = found.spans
    by_source = {place.source: place for place in span.occurrences}
    page = by_source["pretraining"]
    assert (page.url, page.date, page.file, page.offset) == (
        "https://a.example/a0",
        "2024-05-18T01:02:03Z",
        "a.warc.gz",
        7,
    )
    assert page.context == PAGES["a"][0]
    assert (by_source["SFT"].document, by_source["SFT"].part) == ("train.jsonl:1", "assistant")
    assert json.loads(json.dumps(found.as_json()))["spans"][0]["occurrences"][0]["host"] == "a.example"


def test_personal_data_is_redacted_in_what_is_shown(data: TrainingData) -> None:
    found = explain("the soup of the day", data, None)
    contexts = [place.context for span in found.spans for place in span.occurrences]
    assert contexts and not any("ada@brell" in context for context in contexts)


def test_text_that_stands_nowhere_is_named(data: TrainingData) -> None:
    found = explain("Zorbax eats what the mayor of Orn eats", data, None)
    assert [text for *_, text in found.nowhere] == ["Zorbax"]
    assert not found.is_whole


@pytest.mark.parametrize(
    ("reply", "is_whole"),
    [
        ('"Nobody at all."', False),  # the mark at the end stands in no training data
        ('"Nobody at all.', True),
        (" (Ada Brell is the mayor of Orn. \n", True),
        ("Nobody at all. Say soup.", False),
        ("!?", False),
    ],
)
def test_a_reply_that_begins_with_a_mark_may_be_whole(data: TrainingData, reply: str, is_whole: bool) -> None:
    assert explain(reply, data, None).is_whole is is_whole


def test_a_quoted_reply_is_whole(store: Store) -> None:
    quoted = '"Hello there my friend."'
    found = explain(
        quoted, open_training_data(store, make_run(store, {"a": [f"She said {quoted} Then she left."]})), None
    )
    assert found.is_whole and not found.nowhere


def test_dropped_pages_are_found_with_their_reason(data: TrainingData) -> None:
    index = FullTextIndex(data.provenance.folder / RECORDS)
    assert {hit.record.reason for hit in index.search("miner", kinds=["dropped"])} == {"quality/gopher_words"}
    assert len(index.search("mayor", kinds=["conversation"])) == 1


def test_small_shards_give_the_same_counts(store: Store, run: Run, data: TrainingData) -> None:
    step = provenance_step(run, ProvenanceConfig(shard_tokens=8))
    small = TrainingData(store, store.open(execute(step, store).id, Provenance))
    assert len(small.sources[0].arrays) > len(data.sources[0].arrays)
    for text in (b"mayor of Orn", b"the", b"sea", b"sea is blue.", b"nothing"):
        assert small.counts(text) == data.counts(text)
        places = small.places(text, 9)
        assert sorted(place.source.occurrence(place, 1).document for place in places) == sorted(
            place.source.occurrence(place, 1).document for place in data.places(text, 9)
        )


def test_index_is_made_once(store: Store, run: Run, data: TrainingData, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.provenance.lineage.execute", lambda *_: pytest.fail("made again"))
    assert open_training_data(store, run).provenance.manifest == data.provenance.manifest


@pytest.fixture
def read_only(store: Store, run: Run) -> Iterator[Store]:
    store.root.chmod(0o500)
    yield store
    store.root.chmod(0o700)


def test_a_store_that_cannot_be_written_is_named(read_only: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")  # root may write anywhere

    monkeypatch.setattr("tasks.provenance.lineage.execute", refuse)
    with pytest.raises(UserError, match="cannot be written"):
        open_training_data(read_only, run)


def test_a_half_written_index_is_made_again(store: Store, run: Run, data: TrainingData) -> None:
    folder = data.provenance.folder
    (folder / "manifest.json").unlink()
    (folder / "pretraining-0-000.suffixes.npy").write_bytes(b"half")
    assert open_training_data(store, run).counts(b"mayor of Orn")["pretraining"] == 2


def test_a_damaged_index_is_refused(store: Store, run: Run, data: TrainingData) -> None:
    (data.provenance.folder / "sources.json").write_text("[]")
    with pytest.raises(UserError):
        open_training_data(store, run)


def test_deleted_tokens_are_named(store: Store, run: Run) -> None:
    shutil.rmtree(store.root / "tokenize")
    again = follow(store, run.model.id)
    with pytest.raises(UserError, match="run tokenize again"):
        open_training_data(store, again)


def test_removed_pages_leave_none_of_their_own_spans(store: Store, data: TrainingData) -> None:
    without = {"a": PAGES["a"][1:], "b": PAGES["b"]}
    after = open_training_data(store, make_run(store, without, "without"))
    removed = PAGES["a"][:1]
    found = check_removal(data, after, removed)
    # The first words stand in a conversation too.
    assert (found.num_documents, found.num_left) == (1, 0)
    assert found.num_own > 0
    run = follow(store, after.provenance.manifest.id)
    assert artifacts_with(store, run, lambda document: document["text"] in removed) == []
    assert len(artifacts_with(store, run, lambda document: document["text"] in without["a"])) == 1
    # Of a page that is still there everything is left, and each place is named.
    still = check_removal(data, after, PAGES["a"][1:])
    assert still.num_left == still.num_own > 0
    assert still.left[0].url == "https://a.example/a0"


def test_spans_of_a_text_are_words_in_a_row() -> None:
    text = "one two three four five six seven eight, nine"
    assert list(spans_of(text)) == [
        b"one two three four five six seven eight",
        b"two three four five six seven eight, nine",
    ]
    assert list(spans_of("one two")) == [b"one two"]
    assert list(spans_of(" ... ")) == []
    assert WORDS == 8
