"""Conversations, preference pairs and prompts of one's own: read as they are, refused with their place where they are not."""

import json
from pathlib import Path

import pytest

from model.files import read_lines
from tasks.artifacts.store import Store
from tasks.conversations.sources import conversations, preferences
from tasks.execution.runner import execute


def chat(question: str, answer: str) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]}


def test_what_ends_a_line_elsewhere_may_stand_in_a_text(tmp_path: Path) -> None:
    records = [chat(f"what is {n}?", "one\u2028two\u2029three\x85four\x0b\x0c\x1c\x1d\x1e\r\nfive") for n in range(20)]
    (tmp_path / "chats.jsonl").write_text(
        "".join(json.dumps(r, ensure_ascii=n % 2 == 0) + "\n" for n, r in enumerate(records))
    )
    store = Store(str(tmp_path / "store"))
    manifest = execute(conversations(str(tmp_path / "chats.jsonl"), 0, 0, 0.2), store)
    split = [read_lines(store.folder(manifest.id) / f"{side}.jsonl") for side in ("train", "validation")]
    assert sorted(map(json.dumps, split[0] + split[1])) == sorted(map(json.dumps, records))
    assert min(map(len, split)) > 0


@pytest.mark.parametrize(
    ("line", "trouble"),
    [
        ("{", r"chats.jsonl:2 is no JSON object \(.*\): write one record a line"),
        ("7", r"chats.jsonl:2 is no JSON object"),
        ('{"message": []}', "chats.jsonl:2 has no field messages: see tasks/records/conversations.py for the shape"),
        ('{"messages": "hi"}', "chats.jsonl:2 has the message hi: give each a role"),
        ('{"messages": []}', r"chats.jsonl:2 has the message \[\]"),
        ('{"messages": [{"from": "human", "value": "hi"}]}', "chats.jsonl:2 has the message {'from': 'human'"),
        ('{"messages": [{"role": "tool", "content": "7"}]}', "role, which is system, user, assistant, and a content"),
        ('{"messages": [{"role": "assistant", "content": null}]}', "'content': None}: give each"),
    ],
)
def test_a_line_of_another_shape_is_refused_with_its_place(tmp_path: Path, line: str, trouble: str) -> None:
    (tmp_path / "chats.jsonl").write_text(f"{json.dumps(chat('a?', 'b'))}\n{line}\n{json.dumps(chat('c?', 'd'))}\n")
    with pytest.raises(ValueError, match=trouble):
        execute(conversations(str(tmp_path / "chats.jsonl"), 0, 0, 0.0), Store(str(tmp_path / "store")))


def test_empty_lines_are_no_records(tmp_path: Path) -> None:
    (tmp_path / "chats.jsonl").write_text(f"\n{json.dumps(chat('a?', 'b'))}\n  \n\n")
    store = Store(str(tmp_path / "store"))
    assert execute(conversations(str(tmp_path / "chats.jsonl"), 0, 0, 0.0), store).counts["train_records"] == 1


def test_completions_that_are_no_text_are_refused_with_their_place(tmp_path: Path) -> None:
    pair = {"messages": [{"role": "user", "content": "a?"}], "chosen": [{"role": "assistant"}], "rejected": "b"}
    (tmp_path / "pairs.jsonl").write_text(json.dumps(pair))
    with pytest.raises(ValueError, match=r"pairs.jsonl:1 has a chosen that is no text, but \[{'role': 'assistant'}\]"):
        execute(preferences(str(tmp_path / "pairs.jsonl"), 0, 0, 0.0), Store(str(tmp_path / "store")))


def test_half_a_character_is_replaced_and_a_whole_one_stays(tmp_path: Path) -> None:
    lines = [r'{"messages": [{"role": "user", "content": "\ud83d one \uDE00 \ud83d\ude00 \\ud83d"}]}']
    (tmp_path / "chats.jsonl").write_text("\n".join(lines))
    store = Store(str(tmp_path / "store"))
    manifest = execute(conversations(str(tmp_path / "chats.jsonl"), 0, 0, 0.0), store)
    (found,) = read_lines(store.folder(manifest.id) / "train.jsonl")
    assert found["messages"][0]["content"] == "\ufffd one \ufffd \U0001f600 \\ud83d"
