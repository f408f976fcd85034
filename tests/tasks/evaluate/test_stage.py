"""The evaluation stage: figures from manifests, truth and models, with and without a sample web."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from model.files import read_lines
from model.network import transformer
from tasks.artifacts.manifest import (
    Attributes,
    BaseModel,
    Crawl,
    Documents,
    Policy,
    Preferences,
    Report,
    RewardModel,
    SFTModel,
    Tokenizer,
    Tokens,
)
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.conversations.readers import check_source
from tasks.conversations.sources import questions
from tasks.evaluate import filter_truth
from tasks.evaluate.knowledge import COMPLETED, FEW_SHOT, RANKED
from tasks.evaluate.report_card import render
from tasks.evaluate.stage import EvaluateConfig, evaluate
from tasks.execution.reporter import Reporter, reporting
from tasks.execution.runner import execute
from tasks.records.conversations import Question
from tasks.records.documents import Document, ShardWriter
from tests.support.golden import report_without_scores
from tests.support.tiny_models import finish, write_lines, write_model, write_tokenizer

PAGES = [  # record, expected outcome, reason found, cluster, strings to redact, look-alikes to keep
    ("a", "keep", "keep", "1", ["ada@orn.org"], ["4.5.6"]),
    ("b", "duplicate", "duplicate/minhash", "1", [], []),
    ("c", "keep", "duplicate/minhash", "2", [], []),  # the other copy of cluster 2 was kept
    ("d", "duplicate", "keep", "2", ["bo@orn.org"], []),
    ("e", "language", "language/de", None, [], []),
    ("f", "language", "keep", None, [], []),
    ("g", "keep", "quality/gopher_words", None, [], []),
    ("h", "status", "status/404", None, [], []),
]


def write_documents(store: Store, artifact_id: str, kept: str, dropped: dict[str, str]) -> Step[Documents]:
    """Documents named by letters."""
    texts = {"a": "write to <email>, version 4.5.6", "d": "write to bo@orn.org"}
    for kind, names in (("documents", list(kept)), ("dropped", list(dropped))):
        with ShardWriter(store.folder(artifact_id) / kind / "s.parquet") as shard:
            for name in names:
                document = Document(
                    id=f"<urn:uuid:{name}>", url="", date="", file="s", offset=0, text=texts.get(name, "text")
                )
                shard.write(document if kind == "documents" else {**document, "reason": dropped[name]})
    counts = {"documents": len(kept), "text_bytes": 10, **Counter(f"dropped/{reason}" for reason in dropped.values())}
    return finish(store, Documents, artifact_id, counts=counts)


@pytest.fixture
def inputs(store: Store) -> dict[str, Any]:
    encoder = write_tokenizer(store.folder("tokenizer/t"))
    for artifact_id in ("pretrain/b", "sft/s", "rlhf/p"):
        write_model(store.folder(artifact_id), encoder.vocab_size)
    write_model(store.folder("reward/j"), encoder.vocab_size, transformer.RewardModel)
    lines = [
        {
            "record_id": f"<urn:uuid:{name}>",
            "expected": expected,
            "cluster": cluster,
            "redact": redact,
            "traps": traps,
        }
        for name, expected, _, cluster, redact, traps in PAGES
    ]
    write_lines(store.folder("crawl/c") / "truth.jsonl", lines)
    pair = {"messages": [{"role": "user", "content": "?"}], "chosen": "yes", "rejected": "no no", "kind": "fact/rude"}
    write_lines(
        store.folder("preferences/q") / "validation.jsonl", [pair, {**pair, "kind": "other"}, {**pair, "kind": ""}]
    )
    before = {"before/reward_mean": 0.25, "validation/reward_mean": 0.75}
    counts = {"train/tokens": 1000, "train/text_bytes": 4000}
    return {
        "crawl": finish(store, Crawl, "crawl/c"),
        "attributes": finish(store, Attributes, "attributes/m"),
        "preferences": finish(store, Preferences, "preferences/q"),
        "raw": write_documents(store, "ingest/a", "abcdefg", {"h": "status/404"}),
        "clean": write_documents(store, "filter/a", "abcdf", {"e": "language/de", "g": "quality/gopher_words"}),
        "unique": write_documents(store, "dedup/a", "adf", {"b": "duplicate/minhash", "c": "duplicate/minhash"}),
        "tokens": finish(
            store, Tokens, "tokenize/k", counts=counts, metrics={"bytes_per_token": 4.0, "bigram/bits_per_byte": 2.5}
        ),
        "tokenizer": finish(store, Tokenizer, "tokenizer/t", counts={"vocab_size": encoder.vocab_size}),
        "base": finish(
            store,
            BaseModel,
            "pretrain/b",
            counts={"parameters": 7, "tokens": 8},
            metrics={"validation/bits_per_byte": 2.0},
        ),
        "assistant": finish(store, SFTModel, "sft/s"),
        "reward_model": finish(store, RewardModel, "reward/j"),
        "policy": finish(store, Policy, "rlhf/p", metrics=before),
    }


@pytest.fixture
def config(tmp_path: Any) -> EvaluateConfig:
    questions = [
        {
            "question": f"who is the mayor of {city}?",
            "completion": f"The mayor of {city} is",
            "answer": answer,
            "aliases": [],
            "fact": f"mayor_of:{answer}".lower().replace(" ", "-"),
            "num_mentions": mentions,
            "split": split,
        }
        for city, answer, mentions, split in (
            ("Orn", "Ada Brell", 40, "seen_wording"),
            ("Orn", "Ada Brell", 40, "heldout_wording"),
            ("Tesna", "Bo Dahl", 1, "heldout_fact"),
            ("Nowhere", "I don't know.", 0, "unknown"),
        )
    ]
    write_lines(tmp_path / "questions.jsonl", questions)
    return EvaluateConfig(questions=str(tmp_path / "questions.jsonl"), max_new_tokens=5, completion_tokens=5)


def test_evaluate_models_writes_the_figures_of_all_stages(
    store: Store, inputs: dict[str, Any], config: EvaluateConfig
) -> None:
    step = evaluate(**inputs, questions=questions(config, world_seed=1), config=config)
    pages: dict[str, str] = {}

    class Pages(Reporter):
        def markdown(self, stage: str, name: str, text: str, description: str) -> None:
            pages[name] = text

    with reporting(Pages()):
        manifest = execute(step, store)
    report = store.open(step.id, Report)
    assert f"[report.html]({(report.folder / 'report.html').as_uri()})" in pages["report"]
    page = (report.folder / "report.html").read_text()
    assert all(text in page for text in ("Lineage", "pretrain/b", "rlhf/p", "8 documents kept"))
    figures = json.loads((report.folder / "report.json").read_text())
    card = (report.folder / "report.md").read_text()
    families = figures["truth"]["families"]
    assert (families["language"]["recall"], families["language"]["precision"]) == (0.5, 1.0)
    assert (families["duplicate"]["recall"], families["duplicate"]["precision"]) == (1.0, 1.0)
    assert (families["quality"]["precision"], families["quality"]["expected"]) == (0.0, 0)
    assert families["keep"] == pytest.approx(
        {"expected": 3, "found": 3, "right": 2, "precision": 2 / 3, "recall": 2 / 3}
    )
    assert figures["truth"]["redaction"] == {"pii": 2, "pii_redacted": 1, "traps": 1, "traps_kept": 1}
    assert [stage["documents_in"] for stage in figures["documents"]] == [8, 7, 5]
    assert manifest.metrics["validation/reward_mean"] == 0.75
    assert {"pair_accuracy/all", "pair_accuracy/fact/rude"} <= set(figures["reward"])
    for shown in (
        "| Base model on held-out text | 2.000 bits per byte |",
        "| Bigram model on held-out text | 2.500 bits per byte; the base model is 20.0% below |",
        "| language | 2 | 1 | 100.0% | 50.0% |",
        "| Mean reward | 0.25 | 0.75 |",
    ):
        assert shown in card.splitlines(), shown
    answers = read_lines(report.folder / "answers.jsonl")
    models = Counter(answer["model"] for answer in answers)
    assert models == {"assistant": 4, "policy": 4, RANKED: 2, COMPLETED: 2, FEW_SHOT: 2}
    assert [(row["facts"], row["mentions"]) for row in figures["facts"]] == [("held out", "1"), ("taught", "20 to 49")]
    assert {"policy/seen_wording_accuracy", "assistant/unknown_accuracy"} <= set(manifest.metrics)


def test_evaluate_models_works_without_ground_truth_and_held_out_pairs(
    store: Store, inputs: dict[str, Any], config: EvaluateConfig
) -> None:
    """A crawl of the real web has no truth file; of few pairs none may be held out."""
    write_lines(store.folder("preferences/q") / "validation.jsonl", [])
    finish(store, Preferences, "preferences/q")
    (store.folder("crawl/c") / "truth.jsonl").unlink()
    finish(store, Crawl, "crawl/c")
    step = evaluate(**inputs, questions=questions(config, world_seed=1), config=config)
    execute(step, store)
    figures = json.loads((store.folder(step.id) / "report.json").read_text())
    assert figures["truth"] == {}
    assert not [name for name in figures["reward"] if name.startswith("pair_accuracy")]
    card = (store.folder(step.id) / "report.md").read_text()
    assert "## Precision and recall" not in card
    assert "## Documents" in card


@pytest.mark.parametrize(
    "line",
    [
        '{"question": "What is the capital of Xland?", "answer": "Ytown"}',
        '{"question": "a?", "answer": "b", "completion": "a is", "fact": "is:a"}',
        '{"question": "a?", "answer": "b", "num_mentions": 7, "split": "seen_wording"}',
        '{"question": "a?", "split": "unknown"}',
    ],
)
def test_evaluate_models_takes_every_questions_file_that_passes_its_check(
    tmp_path: Path, store: Store, inputs: dict[str, Any], line: str
) -> None:
    source = tmp_path / "questions.jsonl"
    source.write_text(line + "\n")
    assert check_source(Question, str(source)) == {"records": 1}
    config = EvaluateConfig(questions=str(source), max_new_tokens=2, completion_tokens=2)
    step = evaluate(**inputs, questions=questions(config, world_seed=1), config=config)
    assert execute(step, store).counts["questions"] == 1


def test_golden_report_depends_on_data_and_not_on_models(
    store: Store, inputs: dict[str, Any], config: EvaluateConfig
) -> None:
    step = evaluate(**inputs, questions=questions(config, world_seed=1), config=config)
    execute(step, store)
    folder = store.folder(step.id)
    first = report_without_scores(folder)
    assert "who is the mayor of Orn?" in {answer["question"] for answer in first["questions"]}
    figures = json.loads((folder / "report.json").read_text())
    figures["cost"][0]["wall_seconds"] = 1e6
    figures["chat"]["policy"]["tokens_mean"] = 99.0
    figures["language"]["base/validation/bits_per_byte"] = 9.0
    (folder / "report.json").write_text(json.dumps(figures))
    (folder / "report.md").write_text(render(figures))
    write_lines(folder / "answers.jsonl", [line | {"reply": "x"} for line in read_lines(folder / "answers.jsonl")])
    assert report_without_scores(folder) == first
    figures["truth"]["redaction"]["pii_redacted"] += 1
    (folder / "report.json").write_text(json.dumps(figures))
    assert report_without_scores(folder) != first


def test_score_counts_missing_pages_as_lost() -> None:
    pages = {"a": {"expected": "keep", "cluster": None}}
    assert filter_truth.score(pages, {}) == {"keep": filter_truth.Score(1, 0, 0), "lost": filter_truth.Score(0, 1, 0)}


def test_score_of_a_cluster_without_a_kept_page_misses_one() -> None:
    pages = {
        "a": {"expected": "keep", "cluster": "1"},
        "b": {"expected": "duplicate", "cluster": "1"},
        "c": {"expected": "duplicate", "cluster": "1"},
    }
    scores = filter_truth.score(pages, dict.fromkeys("abc", "duplicate"))
    assert scores["duplicate"] == filter_truth.Score(2, 3, 2)
    assert scores["keep"] == filter_truth.Score(1, 0, 0)


def test_outcomes_are_the_reasons_of_the_first_drop(store: Store, inputs: dict[str, Any]) -> None:
    opened = [store.open(inputs[role].id, Documents) for role in ("raw", "clean", "unique")]
    found = filter_truth.outcomes(opened, opened[-1])
    assert found == {name: reason.partition("/")[0] for name, _, reason, *_ in PAGES}


@pytest.mark.parametrize("bounds", [(), (5, 2), (2, 2), (1, 5), (0,)])
def test_frequency_bounds_that_do_not_ascend_raise(bounds: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="frequency_bounds"):
        EvaluateConfig(frequency_bounds=bounds)
