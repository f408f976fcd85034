"""Evaluation tasks: every format as the harness writes it, files that are not what they should be, hashes and limits."""

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from model.errors import UserError
from tasks.evaluate.eval_tasks import FORMATS, EvalTask, Item, load_task, pieces, read_tasks

RECORDS: dict[str, tuple[dict[str, Any], Item]] = {
    "choices": ({"context": "A", "choices": ["b", "c"], "gold": 1}, Item([("A", " b"), ("A", " c")], 1)),
    "mmlu": (
        {"question": "Q? ", "choices": ["x", "y"], "answer": "B"},
        Item([("Q?\nA. x\nB. y\nAnswer:", " A"), ("Q?\nA. x\nB. y\nAnswer:", " B")], 1),
    ),
    "arc": (
        {"question": "Q?", "choices": {"text": ["x", "y"], "label": ["1", "2"]}, "answerKey": "2"},
        Item([("Question: Q?\nAnswer:", " x"), ("Question: Q?\nAnswer:", " y")], 1),
    ),
    "hellaswag": (
        {"activity_label": "Run", "ctx_a": "A man [title] runs.", "ctx_b": "he", "endings": ["falls.", "wins."], "label": "1"},
        Item([("Run: A man. runs. He", " falls."), ("Run: A man. runs. He", " wins.")], 1),
    ),
    "blimp": ({"sentence_good": "Good.", "sentence_bad": "Bad."}, Item([("", "Good."), ("", "Bad.")], 0)),
    "completion": ({"context": "2 + 2 =", "completion": " 4"}, Item([("2 + 2 =", " 4")])),
    "gsm8k": ({"question": "How many?", "answer": "1 + 2 = 3\n#### 3"}, Item([("Question: How many?\nAnswer:", " 3")])),
    "bbh": ({"input": "not True is", "target": "False"}, Item([("Q: not True is\nA:", " False")])),
    "text": ({"text": "words"}, Item([("", "words")])),
    "core": (
        {"context_options": ["Ada", "Bo"], "continuation": "won", "gold": 1},
        Item([("Ada", " won"), ("Bo", " won")], 1),
    ),
}  # fmt: skip


def task(path: Path, name: str = "choices", **more: Any) -> EvalTask:
    return EvalTask.model_validate({"name": "t", "path": str(path), "format": name, "licence": "CC0", **more})


def write(path: Path, *records: Any) -> Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.mark.parametrize("name", RECORDS)
def test_record_becomes_an_item(tmp_path: Path, name: str) -> None:
    record, item = RECORDS[name]
    loaded = load_task(task(write(tmp_path / "a.jsonl", record), name))
    assert loaded.items == [item]


def test_every_format_is_tested() -> None:
    assert set(RECORDS) == set(FORMATS)


def test_arc_as_its_makers_publish_it() -> None:
    question = {"stem": "Q?", "choices": [{"text": "x", "label": "A"}, {"text": "y", "label": "B"}]}
    assert FORMATS["arc"][1]({"question": question, "answerKey": "B"}) == RECORDS["arc"][1]


def test_core_with_choices_and_alone() -> None:
    assert FORMATS["core"][1]({"query": "A", "choices": ["b", "c"], "gold": 1}) == RECORDS["choices"][1]


def test_records_are_chosen_and_spread_over_the_file(tmp_path: Path) -> None:
    records = [{"context": str(number), "choices": ["a", "b"], "gold": 0, "kind": number % 2} for number in range(100)]
    path = write(tmp_path / "a.jsonl", *records)
    found = [item.pairs[0][0] for item in load_task(task(path, where={"kind": 1}, limit=5)).items]
    assert found == ["1", "21", "41", "61", "81"]
    assert len(load_task(task(path, limit=1000)).items) == 100


def test_hash_is_of_the_file_and_must_be_the_one_named(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(RECORDS["choices"][0]).encode()))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert load_task(task(path, sha256=digest)).sha256 == digest
    with pytest.raises(UserError, match=f"has the sha256 {digest}, and task t names 0000"):
        load_task(task(path, sha256="0" * 64))


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        (b"{", "choices", "no JSON Lines"),
        (b"[1]\n", "choices", "line 1 is no object"),
        (b"\xff\xfe\x00", "choices", "no JSON Lines"),
        (b"[" * 100_000, "choices", "no JSON Lines"),
        (b"", "choices", "no record"),
        (b'{"context": "a"}\n', "choices", "line 1: no record of format choices: KeyError"),
        (b'{"context": "a", "choices": ["b"], "gold": 3}\n', "choices", "gold is 3 of 1 choices"),
        (b'{"context": "a", "choices": 5, "gold": 0}\n', "choices", "TypeError"),
        (b'{"question": "Q", "choices": ["b"], "answer": "Z"}\n', "mmlu", "ValueError"),
        (b'{"context_options": ["a", "b"], "continuation": "c", "gold": 2}\n', "core", "gold is 2 of 2 choices"),
        (b'{"context_options": ["a", "b"], "continuation": "c", "gold": -1}\n', "core", "gold is -1 of 2 choices"),
    ],
)
def test_file_of_another_shape_is_refused(tmp_path: Path, content: bytes, name: str, message: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_task(task(path, name))


def test_file_that_is_missing_or_no_gzip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be read"):
        load_task(task(tmp_path / "none.jsonl"))
    (tmp_path / "a.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="no JSON Lines"):
        load_task(task(tmp_path / "a.jsonl.gz"))


def test_list_of_tasks_has_paths_relative_to_it(tmp_path: Path) -> None:
    (tmp_path / "tasks.yaml").write_text("- {name: a, path: sub/a.jsonl, format: blimp, licence: CC-BY-4.0}\n")
    (one,) = read_tasks(str(tmp_path / "tasks.yaml"))
    assert one.path == str(tmp_path / "sub/a.jsonl")
    (tmp_path / "tasks.yaml").write_text("- {name: a, path: 's3://b/a.jsonl', format: blimp, licence: CC0}\n")
    assert read_tasks(str(tmp_path / "tasks.yaml"))[0].path == "s3://b/a.jsonl"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "no YAML"),
        ("a: 1", "no list of tasks"),
        ("[]", "no list of tasks"),
        ("- {name: a, path: x, format: blimp}", "licence"),
        ("- {name: a, path: x, format: nosuch, licence: CC0}", "format"),
        ("- {name: '../a', path: x, format: blimp, licence: CC0}", "name"),
        ("- {name: a, format: blimp, licence: CC0}", "path is missing"),
        ("- {name: a, path: x, format: blimp, licence: CC0}\n" * 2, "two tasks have one name"),
        ("- !!python/object/apply:os.system ['true']", "no YAML"),
    ],
)
def test_list_of_another_shape_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "tasks.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_tasks(str(tmp_path / "tasks.yaml"))


def test_text_is_cut_at_blank_lines_and_loses_nothing() -> None:
    text = "\n\n".join(f"paragraph {number} " + "x" * 500 for number in range(20))
    found = list(pieces(text))
    assert 4 <= len(found) <= 6
    assert "".join(found).rstrip() == text
