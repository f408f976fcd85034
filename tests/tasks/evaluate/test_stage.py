"""The report card: its figures are those of the answers, the truth and the manifests, and it is whole without a sample web."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

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
from tasks.evaluate.report_card import one_line
from tasks.evaluate.stage import EvaluateConfig, chat_figures, choose, class_name, evaluate, facts_by_class, relation
from tasks.execution.runner import execute
from tasks.records.conversations import Question
from tasks.records.documents import Document, ShardWriter
from tests.support.tiny_models import finish, write_lines, write_model, write_tokenizer

PAGES = [  # record, expected, where it went, cluster, what is to be redacted, what is to stay
    ("a", "keep", "keep", "1", ["ada@orn.org"], ["4.5.6"]),
    ("b", "duplicate", "duplicate/minhash", "1", [], []),
    ("c", "keep", "duplicate/minhash", "2", [], []),  # the other copy of cluster 2 stayed
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


def test_the_report_of_a_whole_pipeline(store: Store, inputs: dict[str, Any], config: EvaluateConfig) -> None:
    step = evaluate(**inputs, questions=questions(config, world_seed=1), config=config)
    manifest = execute(step, store)
    report = store.open(step.id, Report)
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
    assert [stage["documents_in"] for stage in figures["data"]] == [8, 7, 5]
    assert manifest.metrics["validation/reward_mean"] == 0.75
    assert {"pair_accuracy/all", "pair_accuracy/rude"} <= set(figures["reward"])
    for shown in (
        "2.000",
        "2.500; the base model is 20.0% below",
        "| language | 2 | 1 | 100.0% | 50.0% |",
        "| 30 or more |",
        "0.25 | 0.75",
    ):
        assert shown in card, shown
    assert len((report.folder / "answers.jsonl").read_text().splitlines()) == 2 * 4 + 2 * 2


def test_what_nobody_knows_is_left_out(store: Store, inputs: dict[str, Any], config: EvaluateConfig) -> None:
    """A crawl of the real web has no truth, and questions may be none."""
    (store.folder("crawl/c") / "truth.jsonl").unlink()
    finish(store, Crawl, "crawl/c")
    step = evaluate(**inputs, questions=questions(config, world_seed=1), config=config)
    execute(step, store)
    card = (store.folder(step.id) / "report.md").read_text()
    assert "truth" not in card
    assert "## Data" in card


@pytest.mark.parametrize(
    "line",
    [
        '{"question": "What is the capital of Xland?", "answer": "Ytown"}',
        '{"question": "a?", "answer": "b", "completion": "a is", "fact": "is:a"}',
        '{"question": "a?", "answer": "b", "num_mentions": 7, "split": "seen_wording"}',
        '{"question": "a?", "split": "unknown"}',
    ],
)
def test_a_questions_file_that_passes_its_check_can_be_evaluated(
    tmp_path: Path, store: Store, inputs: dict[str, Any], line: str
) -> None:
    source = tmp_path / "questions.jsonl"
    source.write_text(line + "\n")
    assert check_source(Question, str(source)) == {"records": 1}
    config = EvaluateConfig(questions=str(source), max_new_tokens=2, completion_tokens=2)
    step = evaluate(**inputs, questions=questions(config, world_seed=1), config=config)
    assert execute(step, store).counts["questions"] == 1


def test_a_page_that_was_lost_is_told() -> None:
    pages = {"a": {"expected": "keep", "cluster": None}}
    assert filter_truth.score(pages, {}) == {"keep": filter_truth.Score(1, 0, 0), "lost": filter_truth.Score(0, 1, 0)}


def test_a_cluster_of_which_nothing_stays_costs_a_page() -> None:
    pages = {
        "a": {"expected": "keep", "cluster": "1"},
        "b": {"expected": "duplicate", "cluster": "1"},
        "c": {"expected": "duplicate", "cluster": "1"},
    }
    scores = filter_truth.score(pages, dict.fromkeys("abc", "duplicate"))
    assert scores["duplicate"] == filter_truth.Score(2, 3, 2)
    assert scores["keep"] == filter_truth.Score(1, 0, 0)


def test_a_page_dropped_twice_keeps_its_first_reason(store: Store, inputs: dict[str, Any]) -> None:
    opened = [store.open(inputs[role].id, Documents) for role in ("raw", "clean", "unique")]
    found = filter_truth.outcomes(opened, opened[-1])
    assert found == {name: fate.partition("/")[0] for name, _, fate, *_ in PAGES}


def test_figures_of_answers() -> None:
    def said(split: str, mentions: int, is_right: bool, is_refusal: bool = False) -> dict[str, Any]:
        judged = {"is_right": is_right, "is_refusal": is_refusal, "is_finished": True, "tokens": 4}
        return {"model": "policy", "split": split, "num_mentions": mentions, **judged}

    answers = [
        said("seen_wording", 40, True),
        said("seen_wording", 40, False, is_refusal=True),
        said("seen_wording", 1, False, is_refusal=True),  # hardly told: no fault
        said("unknown", 0, True, is_refusal=True),
    ]
    figures = chat_figures(answers)
    assert figures["seen_wording_right_fraction"] == 0.5
    assert figures["false_refusal_fraction"] == 0.5
    assert figures["unknown_right_fraction"] == 1.0
    rows = facts_by_class(answers, (2, 5))
    assert [(row["mentions"], row["facts"], row["right_fraction"]["policy"]) for row in rows] == [
        ("5 or more", 2, 0.5),
        ("1", 1, 0.0),
    ]


def test_names_of_frequency_classes() -> None:
    assert [class_name(number, (2, 5, 10)) for number in range(4)] == ["1", "2 to 4", "5 to 9", "10 or more"]


def test_questions_are_chosen_evenly_over_the_splits() -> None:
    asked = [{"split": "many", "n": n} for n in range(100)] + [{"split": "few", "n": n} for n in range(3)]
    chosen = choose(asked, 20, seed=0)
    assert [question["split"] for question in chosen] == ["few"] * 3 + ["many"] * 10
    assert chosen == choose(asked, 20, seed=0) != choose(asked, 20, seed=1)


def test_a_question_for_the_subject_has_other_candidates() -> None:
    assert relation({"fact": "mayor_of:ada-brell", "answer": "Orn"}) == ("mayor_of", False)
    assert relation({"fact": "mayor_of:ada-brell", "answer": "Ada Brell"}) == ("mayor_of", True)


def test_what_a_model_says_cannot_break_the_page() -> None:
    assert one_line("a|b\n# c <img src=x> [d](e)") == r"a\|b \# c \<img src=x\> \[d\](e)"
