"""What could go wrong in the quality classifier: one that learns nothing, or another model of the same documents, or one that
a page can mislead by fastText's own words.
"""

import gzip
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tasks.artifacts.step import Outcome
from tasks.execution.runner import execute
from tasks.filter.quality_classifier import (
    QualityModelConfig,
    as_line,
    evaluate_classifier,
    quality_classifier,
    read_texts,
    score,
)
from tasks.filter.stage import FilterConfig
from tasks.records.documents import Document, ShardWriter, read_documents
from tasks.web.language_id import load_model
from tests.support.documents import documents_of
from tests.support.wiring import filter

GOOD, BAD = (
    ["theorem", "proof", "lemma", "section", "method", "result", "therefore"],
    ["buy", "cheap", "click", "now", "sale", "offer", "free"],
)


def write_texts(folder, words, num):
    folder.mkdir(parents=True)
    texts = [" ".join(np.random.default_rng([num, number]).choice(words, 30)) for number in range(num)]
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(folder)


@pytest.fixture
def config(tmp_path):
    positives, negatives = write_texts(tmp_path / "good", GOOD, 200), write_texts(tmp_path / "bad", BAD, 201)
    return QualityModelConfig(positives=positives, negatives=negatives, num_buckets=1000, width=4)


def test_classifier_separates_two_sets_and_reports_how_well(config, store):
    step = quality_classifier(config)
    manifest = execute(step, store)
    model = load_model(store.folder(step.id) / "files/model.bin")
    assert score("The proof of the lemma\nis a method.", model) > 0.9
    assert score("CLICK now: cheap sale", model) < 0.1
    assert score("", model) == 0
    assert manifest.metrics == {"held_out/precision": 1, "held_out/recall": 1, "held_out/auc": 1}
    assert manifest.counts["positive_documents"] == 200
    assert 20 < manifest.counts["held_out_documents"] < 60


def test_classifier_of_the_same_documents_has_the_same_bytes_in_any_order(config, tmp_path, store):
    def model_of(settings):
        step = quality_classifier(QualityModelConfig(**{**config.model_dump(), **settings}))
        execute(step, store, force=True)
        return (store.folder(step.id) / "files/model.bin").read_bytes()

    first = model_of({})
    lines = (tmp_path / "good/texts.jsonl").read_text().splitlines()
    (tmp_path / "turned").mkdir()
    (tmp_path / "turned/texts.jsonl").write_text("\n".join(reversed(lines)))
    assert model_of({}) == first
    assert model_of({"positives": str(tmp_path / "turned")}) == first
    assert model_of({"seed": 1}) != first


def test_classifier_separates_real_articles_from_real_web_pages(shared_data, tmp_path, store):
    with gzip.open(shared_data / "pretrain/wikipedia-demo.txt.gz", "rt", encoding="utf-8") as stream:
        articles = [text[start : start + 2000] for text in stream for start in range(0, len(text), 2000)]
    (tmp_path / "articles.txt").write_text("".join(text.strip() + "\n" for text in articles))
    config = QualityModelConfig(
        positives=str(tmp_path / "articles.txt"),
        negatives=str(shared_data / "pretrain/c4-demo.jsonl.gz"),
        held_out_fraction=0.3,
    )
    metrics = execute(quality_classifier(config), store).metrics
    print(metrics)
    assert metrics["held_out/auc"] > 0.9


def test_as_line_removes_words_of_fasttext():
    assert as_line("One\n__label__positive  __LABEL__x </s> two") == "one positive x two"


def test_evaluate_classifier_gives_precision_recall_and_auc():
    scores, is_positive = np.array([0.9, 0.6, 0.6, 0.2]), np.array([True, True, False, False])
    assert evaluate_classifier(scores, is_positive) == {"precision": 2 / 3, "recall": 1, "auc": (2 + 1.5) / 4}


def test_read_texts_reads_every_form(tmp_path):
    pq.write_table(pa.table({"text": ["a", "b"], "url": ["", ""]}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "b"}\n'))
    (tmp_path / "a.txt").write_text("a\nb\n")
    assert [[text.strip() for text in read_texts(path)] for path in sorted(tmp_path.iterdir())] == [["a", "b"]] * 3
    pq.write_table(pa.table({"text": ["a", None]}), tmp_path / "null.parquet")
    (tmp_path / "null.jsonl").write_text('{"text": "a"}\n{"text": null}\n{"text": "\\ud83d!"}\n')
    assert [list(read_texts(path)) for path in sorted(tmp_path.glob("null.*"))] == [["a", "", "?!"], ["a", ""]]
    (tmp_path / "bad.jsonl").write_text('{"text": "a"}\n{"title": "b"}\n')
    with pytest.raises(ValueError, match=r"bad.jsonl:2 is no JSON object with a field text"):
        list(read_texts(tmp_path / "bad.jsonl"))
    pq.write_table(pa.table({"content": ["a"]}), tmp_path / "bad.parquet")
    with pytest.raises(ValueError, match=r"bad.parquet has no column text but \['content'\]"):
        list(read_texts(tmp_path / "bad.parquet"))


def test_missing_or_too_small_sets_are_refused(tmp_path, store):
    with pytest.raises(ValueError, match="needs both positives and negatives"):
        QualityModelConfig(positives="here")
    with pytest.raises(ValueError, match="there is no set of positive texts"):
        assert quality_classifier(QualityModelConfig(positives=str(tmp_path / "no"), negatives=str(tmp_path / "no"))).id
    (tmp_path / "one.txt").write_text("one\n")
    config = QualityModelConfig(positives=str(tmp_path / "one.txt"), negatives=str(tmp_path / "one.txt"))
    with pytest.raises(ValueError, match="too few"):
        execute(quality_classifier(config), store)


TALE = "The old man went to the river and sat there with a book. {} He said that it was good to have it. He read it to the end."


def test_filter_drops_documents_below_the_score(config, store):
    """One page like either set."""
    texts = {
        name: "\n".join(TALE.format(f"I saw the {word} of it.") for word in words)
        for name, words in zip("ab", (GOOD, BAD))
    }

    def write(run, _):
        with ShardWriter(run.folder / "documents/a.parquet") as shard:
            for name, text in texts.items():
                shard.write(Document(id=name, url=f"http://example.com/{name}", date="", file="a", offset=0, text=text))
        return Outcome({"documents": 2})

    repetitive = {name: 1 for name in FilterConfig.model_fields if "_gram_fraction" in name}
    settings = {
        **repetitive,
        "min_gopher_mean_word_length": 1,
        "quality_model": config,
        "min_quality_score": 0.5,
        "num_workers": 1,
    }
    documents = replace(documents_of({}), run=write)
    step = filter(documents, FilterConfig(**settings))
    manifest = execute(step, store)
    assert manifest.counts["dropped/quality/quality_score"] == manifest.counts["documents"] == 1
    [dropped] = read_documents(store.folder(step.id) / "dropped/a.parquet")
    assert (dropped["id"], dropped["reason"]) == ("b", "quality/quality_score")
    assert filter(documents, FilterConfig()).inputs["attributes"].id != step.inputs["attributes"].id
