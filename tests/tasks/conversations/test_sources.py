"""Sources of chat data: what the artifacts hold, what is dropped and counted, and the check before a run."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.data.conversations import ConversationRows
from model.errors import UserError
from model.files import read_lines
from tasks.artifacts.manifest import Conversations
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.conversations.readers import check_source
from tasks.conversations.sources import (
    ConversationsConfig,
    PreferencesConfig,
    PromptsConfig,
    QuestionsConfig,
    conversations,
    preferences,
    prompts,
    questions,
)
from tasks.execution.runner import execute
from tasks.records.conversations import Conversation, Preference, Prompt, Question
from tasks.records.messages import Record
from tests.support.tiny_models import write_tokenizer


def chat(question: str, answer: str) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def pair(question: str, chosen: str, rejected: str) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": question}], "chosen": chosen, "rejected": rejected}


ALL_VALIDATION = ConversationsConfig.model_construct(validation_fraction=1.0, num_conversations=1)


def from_files(source: str, validation_fraction: float) -> Step[Conversations]:
    return conversations(ConversationsConfig(conversations=source, validation_fraction=validation_fraction), 1)


def write(path: Path, *records: Any) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def test_conversations_keep_unicode_line_separators_in_texts(tmp_path: Path, store: Store) -> None:
    records = [chat(f"what is {n}?", "one\u2028two\u2029three\x85four\x0b\x0c\x1c\x1d\x1e\r\nfive") for n in range(20)]
    (tmp_path / "chats.jsonl").write_text(
        "".join(json.dumps(r, ensure_ascii=n % 2 == 0) + "\n" for n, r in enumerate(records))
    )
    manifest = execute(from_files(str(tmp_path / "chats.jsonl"), 0.2), store)
    sides = [read_lines(store.folder(manifest.id) / f"{side}.jsonl") for side in ("train", "validation")]
    found = [{"messages": record["messages"]} for record in sides[0] + sides[1]]
    assert sorted(map(json.dumps, found)) == sorted(map(json.dumps, records))
    assert min(map(len, sides)) > 0


def test_conversations_with_one_question_are_on_one_side(tmp_path: Path, store: Store) -> None:
    records = [chat(f"what is {n % 7}?", f"answer {n}") for n in range(70)]
    manifest = execute(from_files(write(tmp_path / "c.jsonl", *records), 0.5), store)
    asked = [
        {record["messages"][0]["content"] for record in read_lines(store.folder(manifest.id) / f"{side}.jsonl")}
        for side in ("train", "validation")
    ]
    assert not asked[0] & asked[1]
    assert len(asked[0] | asked[1]) == 7
    assert min(map(len, asked)) > 0


def test_conversations_of_weight_0_are_context_in_training(tmp_path: Path, store: Store) -> None:
    """From the file to the loss mask: `weight` survives the artifact, and the data set of SFT does not learn the turn."""
    turns = [("user", "Hi", 1), ("assistant", "BAD REPLY", 0), ("user", "No.", 1), ("assistant", "Good.", 1)]
    messages = [{"role": role, "content": content, "weight": weight} for role, content, weight in turns]
    manifest = execute(from_files(write(tmp_path / "c.jsonl", {"messages": messages}), 0.0), store)
    tokenizer = write_tokenizer(tmp_path)
    rows = ConversationRows([str(store.folder(manifest.id) / "train.jsonl")], 128, tokenizer)
    batch = rows.fetch(np.array([0]))
    learned = batch.tokens[:, 1:][batch.mask == 1].tolist()
    assert learned == [*tokenizer.encode("Good."), tokenizer.turn_end]


def test_preferences_drop_and_count_equal_pairs(tmp_path: Path, store: Store) -> None:
    records = [pair("a?", "yes", "no"), pair("b?", "same", "same"), pair("c?", "same", " same\n")]
    source = write(tmp_path / "pairs.jsonl", *records)
    counts = execute(preferences(PreferencesConfig(preferences=source, validation_fraction=0.0), 1), store).counts
    assert counts == {"train_records": 1, "validation_records": 0, "dropped_equal_pairs": 2}
    assert check_source(Preference, source) == {"train_records": 1, "dropped_equal_pairs": 2}


@pytest.mark.parametrize(
    ("kind", "records", "message"),
    [
        (Preference, [pair("b?", "same", "same")], "leaves no record to train on .*1 of equal completions"),
        (Conversation, [], "holds no record; write one JSON object a line"),
        (Preference, [], "holds no record"),
        (Prompt, [], "holds no record"),
        (Question, [], "holds no record"),
    ],
)
def test_check_refuses_files_without_a_record_to_use(
    tmp_path: Path, kind: type[Record], records: list[Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check_source(kind, write(tmp_path / "records.jsonl", *records))


def test_check_of_conversations_refuses_a_split_without_training_records(tmp_path: Path, store: Store) -> None:
    source = write(tmp_path / "c.jsonl", chat("what is 3?", "3"))
    assert check_source(Conversation, source, 0.0) == {"train_records": 1}
    for use in (
        lambda: check_source(Conversation, source, 1.0),
        lambda: execute(conversations(ALL_VALIDATION.model_copy(update={"conversations": source}), 1), store),
    ):
        with pytest.raises(UserError, match=r"leaves no record to train on .*smaller validation_fraction than 1"):
            use()


def test_checks_of_the_sample_have_nothing_to_read() -> None:
    assert not check_source(Conversation, "sample", 0.1)
    assert not check_source(Question, "sample")


def test_questions_are_written_with_every_default(tmp_path: Path, store: Store) -> None:
    source = write(tmp_path / "q.jsonl", {"question": "What is the capital of Xland?", "answer": "Ytown"})
    assert check_source(Question, source) == {"records": 1}
    manifest = execute(questions(QuestionsConfig(questions=source), 1), store)
    assert read_lines(store.folder(manifest.id) / "questions.jsonl") == [
        {
            "question": "What is the capital of Xland?",
            "completion": "",
            "answer": "Ytown",
            "aliases": [],
            "fact": "",
            "num_mentions": None,
            "split": "other",
            "form": "",
            "kind": "",
        }
    ]


def test_prompts_are_written_in_normal_form(tmp_path: Path, store: Store) -> None:
    source = write(tmp_path / "p.jsonl", {"messages": [{"role": "user", "content": "2+2?"}], "answer": 4, "extra": [1]})
    manifest = execute(prompts(PromptsConfig(prompts=source), 1), store)
    (found,) = read_lines(store.folder(manifest.id) / "prompts.jsonl")
    assert found == {"messages": [{"role": "user", "content": "2+2?"}], "answer": "4", "kind": ""}


def test_sample_artifacts_are_the_same_in_every_store(tmp_path: Path) -> None:
    stores = [Store(str(tmp_path / str(number))) for number in range(2)]
    manifests = [
        execute(
            conversations(ConversationsConfig(num_conversations=50, validation_fraction=0.2, identity_fraction=0.0), 3),
            store,
        )
        for store in stores
    ]
    assert manifests[0].files == manifests[1].files
    assert manifests[0].counts["train_records"] + manifests[0].counts["validation_records"] == 50


def test_conversations_refuse_a_file_that_changed_after_the_start(tmp_path: Path, store: Store) -> None:
    source = write(tmp_path / "c.jsonl", chat("a?", "b"))
    step = from_files(source, 0.0)
    assert step.id  # hashed
    write(tmp_path / "c.jsonl", chat("a?", "c"))
    with pytest.raises(UserError, match="changed after the run was started; run it again"):
        execute(step, store)


# By kind and version: the first 16 digits of SHA-256. A new digest needs a new version, or old artifacts would be reused.
GOLDEN_DIGESTS = {
    ("conversations", 13): "f523cddfc3745a51",
    ("preferences", 14): "82bf51005387ad89",
    ("prompts", 18): "cd23e595ebbc136e",
    ("questions", 11): "5261ada90926eb04",
}


@pytest.mark.parametrize("kind", ["conversations", "preferences", "prompts", "questions"])
def test_sample_records_change_only_with_the_version(store: Store, kind: str) -> None:
    steps = {
        "conversations": lambda: conversations(ConversationsConfig(num_conversations=60), 1),
        "preferences": lambda: preferences(PreferencesConfig(num_pairs=60), 1),
        "prompts": lambda: prompts(PromptsConfig(num_prompts=60), 1),
        "questions": lambda: questions(QuestionsConfig(), 1),
    }
    manifest = execute(steps[kind](), store)
    files = "".join(f"{file.path} {file.sha256}\n" for file in manifest.files)
    assert hashlib.sha256(files.encode()).hexdigest()[:16] == GOLDEN_DIGESTS[kind, manifest.stage_version]
