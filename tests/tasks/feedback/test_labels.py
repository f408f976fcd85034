"""The file of labels: what is kept, corrections, hostile files, several writers at once, and a writer that is killed."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import UserError
from tasks.conversations.readers import read_files
from tasks.feedback.database import FeedbackFile
from tasks.feedback.guidelines import MAX_CHARACTERS, Guidelines
from tasks.feedback.labels import Completion, Draft, Label, LabelBook, dense, order_for
from tasks.records.conversations import Preference

RULES = Guidelines("v1", "Be fair.")
WRITER = """
import sys
from pathlib import Path
from tasks.feedback.database import FeedbackFile
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.labels import Label, LabelBook

book = LabelBook(FeedbackFile(Path(sys.argv[1])))
for number in range(int(sys.argv[3])):
    kept = book.add_label(1, Label(f"{sys.argv[2]}{number}", [1, 2, 2], False, False), Guidelines("v1", "Be fair."))
    print(kept, flush=True)  # the acknowledgement
"""


@pytest.fixture
def book(tmp_path: Path) -> LabelBook:
    return LabelBook(FeedbackFile(tmp_path / "feedback.sqlite"))


def ask(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def fill(book: LabelBook, num_prompts: int = 1, num_completions: int = 3) -> None:
    book.add_prompts(ask(f"question {n}?") for n in range(num_prompts))
    for prompt in range(1, num_prompts + 1):
        made = [Completion(f"answer {n}", f"sft/{n}", {"temperature": 0.7, "seed": n}) for n in range(num_completions)]
        book.add_completions(prompt, made, Draft("reward/1", [1, 2, 3][:num_completions]))


def start_writer(book: LabelBook, who: str, num_labels: int) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WRITER, str(book.file.path), who, str(num_labels)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def test_label_keeps_who_when_guidelines_prompt_completions_and_models(book: LabelBook) -> None:
    fill(book)
    number = book.add_label(1, Label("ada", [5, 2, 2], True, True), RULES)
    [record] = book.export()
    assert record.pop("at").startswith("20")
    assert record == {
        "messages": ask("question 0?"),
        "completions": [
            {"text": f"answer {n}", "model": f"sft/{n}", "sampling": {"temperature": 0.7, "seed": n}} for n in range(3)
        ],
        "ranks": [2, 1, 1],
        "all_bad": True,
        "who": "ada",
        "guidelines": "v1",
        "saw_draft": True,
        "label": number,
    }
    assert [tuple(row) for row in book.file.rows("SELECT * FROM guidelines")] == [("v1", "Be fair.")]


def test_correction_replaces_a_label_and_the_first_one_is_kept(book: LabelBook) -> None:
    fill(book)
    book.add_label(1, Label("ada", [1, 2, 3], False, False), RULES)
    book.add_label(1, Label("ada", [3, 2, 1], False, False), RULES)
    assert [record["ranks"] for record in book.export()] == [[3, 2, 1]]
    assert book.progress("ada") == (1, 1, 1, 1)
    assert len(book.file.rows("SELECT * FROM labels")) == 2
    found = book.label_of(1, "ada")
    assert found is not None
    assert found.ranks == [3, 2, 1]


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE labels SET ranks = '[9]'",
        "DELETE FROM labels",
        "DELETE FROM guidelines",
        "UPDATE completions SET text = ''",
        "REPLACE INTO completions VALUES (1, 0, '', '', '')",
        "UPDATE prompts SET messages = '[]'",
        "DELETE FROM prompts",
        "DELETE FROM drafts",
        "REPLACE INTO drafts VALUES (1, '', '[3,2,1]')",
        "REPLACE INTO labels VALUES (1, 1, 'ada', '', 'v1', '[3, 2, 1]', 0, 0)",
        "UPDATE OR REPLACE labels SET id = id",
    ],
)
def test_labels_cannot_be_changed_by_any_program(book: LabelBook, query: str) -> None:
    fill(book)
    book.add_label(1, Label("ada", [1, 2, 3], False, False), RULES)
    with closing(sqlite3.connect(book.file.path)) as other, pytest.raises(sqlite3.IntegrityError, match="only added"):
        other.execute(query)


@pytest.mark.parametrize(
    "query",
    [
        "REPLACE INTO guidelines VALUES ('v1', 'Be unfair.')",
        "REPLACE INTO prompts VALUES (1, '', '[]')",
        "REPLACE INTO prompts (at, messages) SELECT '', messages FROM prompts",
    ],
)
def test_what_may_be_added_again_stays_as_it_is(book: LabelBook, query: str) -> None:
    fill(book)
    book.add_label(1, Label("ada", [1, 2, 3], False, False), RULES)
    rows = "SELECT * FROM prompts, guidelines"
    before = [*map(tuple, book.file.rows(rows))]
    with closing(sqlite3.connect(book.file.path)) as other, other:
        other.execute(query)
    assert [*map(tuple, book.file.rows(rows))] == before
    assert book.add_prompts([ask("question 0?"), ask("new?"), ask("new?")]) == 1


def test_everybody_gets_the_prompts_in_order_and_skipped_ones_again(book: LabelBook) -> None:
    fill(book, 3)
    assert book.next_prompt("ada") == 1
    assert book.next_prompt("ada", after=1) == 2
    book.add_label(2, Label("ada", [1, 2, 3], False, False), RULES)
    assert book.next_prompt("ada", after=1) == 3
    assert book.next_prompt("ada", after=3) == 1
    assert book.next_prompt("bo") == 1
    for prompt in (1, 3):
        book.add_label(prompt, Label("ada", [1, 2, 3], False, False), RULES)
    assert book.next_prompt("ada") is None


def test_prompts_are_queued_once(book: LabelBook) -> None:
    assert book.add_prompts([ask("a?"), ask("b?"), ask("a?")]) == 2
    assert book.add_prompts([ask("b?"), ask("c?")]) == 1


@pytest.mark.parametrize(
    "text", ["", " \t\n", "\u200b\u2060", "\u0301", "\x1b[2Jwho?", "who\x00?", "a\x85b", "\ud83d?"], ids=ascii
)
def test_prompt_that_nobody_can_read_is_refused(book: LabelBook, text: str) -> None:
    before = book.progress("ada").prompts
    with pytest.raises(UserError, match="prompt 2 cannot be read: it"):
        book.add_prompts([ask("a?"), ask(text)])
    assert book.progress("ada").prompts == before


@pytest.mark.parametrize(
    "text", ["?", "two\n\tlines\r\n", "नमस्ते", "👨\u200d👩\u200d👧", "\u202bמי?\u202c", "e\u0301"], ids=ascii
)
def test_prompt_in_any_script_is_queued(book: LabelBook, text: str) -> None:
    assert book.add_prompts([ask(text)]) == 1


def test_first_completions_of_a_prompt_stay(book: LabelBook) -> None:
    book.add_prompts([ask("a?")])
    assert book.add_completions(1, [Completion("x", "m", {}), Completion("y", "m", {})])
    assert not book.add_completions(1, [Completion("z", "m", {}), Completion("w", "m", {})])
    item = book.item(1)
    assert item is not None
    assert [completion.text for completion in item.completions] == ["x", "y"]


@pytest.mark.parametrize(("prompt", "ranks"), [(1, [1, 2]), (1, [1, 2, 3, 4]), (2, [1, 2]), (1, [])])
def test_ranks_that_do_not_fit_the_completions_are_refused(book: LabelBook, prompt: int, ranks: list[int]) -> None:
    fill(book)
    with pytest.raises(UserError, match="give one for each"):
        book.add_label(prompt, Label("ada", ranks, False, False), RULES)
    assert book.progress("ada").labels == 0


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=9))
def test_dense_ranks_keep_order_and_ties_without_gaps(ranks: list[int]) -> None:
    found = dense(ranks)
    assert set(found) == set(range(1, max(found) + 1))
    assert all((a < b) == (x < y) for a, x in zip(ranks, found, strict=True) for b, y in zip(ranks, found, strict=True))


def test_each_person_sees_the_completions_in_another_order() -> None:
    orders = {tuple(order_for(who, 1, 4)) for who in "abcdefghijklmnop"}
    assert len(orders) > 5
    assert order_for("ada", 1, 4) == order_for("ada", 1, 4)
    assert sorted(order_for("ada", 7, 9)) == list(range(9))


def test_texts_of_any_kind_come_back_as_they_were(book: LabelBook) -> None:
    texts = ["'; DROP TABLE labels; --", "\0zero", "\u2028 line", "😀 \u202e", '"quoted"', "x" * 20_000]
    prompts = [text.replace("\0", "\n") for text in texts]  # a prompt has no control characters
    book.add_prompts(map(ask, prompts))
    for number, text in enumerate(texts, 1):
        book.add_completions(number, [Completion(text, text, {}), Completion("other", "m", {})])
        book.add_label(number, Label(text, [1, 2], False, False), RULES)
    assert [record["messages"][0]["content"] for record in book.export()] == prompts
    assert [record["completions"][0]["text"] for record in book.export()] == texts
    assert [record["who"] for record in book.export()] == texts


def test_writers_of_two_processes_lose_nothing(book: LabelBook) -> None:
    fill(book)
    writers = [start_writer(book, who, 60) for who in ("ada", "bo")]
    acknowledged = [writer.communicate()[0].split() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    kept = [row["id"] for row in book.file.rows("SELECT id FROM labels ORDER BY id")]
    assert sorted(int(number) for numbers in acknowledged for number in numbers) == kept == list(range(1, 121))
    assert book.progress("ada0") == (1, 1, 120, 120)


def test_threads_of_one_process_lose_nothing(book: LabelBook) -> None:
    fill(book)

    def label(who: str) -> None:
        for number in range(20):
            book.add_label(1, Label(f"{who}{number}", [1, 2, 3], False, False), RULES)

    threads = [threading.Thread(target=label, args=(who,)) for who in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert book.progress("").labels == 80


def test_killed_writer_loses_at_most_the_label_that_was_not_acknowledged(book: LabelBook) -> None:
    fill(book)
    for round_number, num_before in enumerate((1, 7, 20)):
        before = len(book.file.rows("SELECT id FROM labels"))
        writer = start_writer(book, f"killed{round_number}-", 100_000)
        assert writer.stdout is not None
        seen = [int(writer.stdout.readline()) for _ in range(num_before)]
        writer.send_signal(signal.SIGKILL)
        seen += [int(line) for line in writer.stdout.read().split()]
        writer.wait()
        kept = [row["id"] for row in book.file.rows("SELECT id FROM labels ORDER BY id")][before:]
        # What was acknowledged is there; one more may have been written and not been acknowledged yet.
        assert kept[: len(seen)] == seen
        assert len(kept) - len(seen) in (0, 1)
        assert [tuple(row) for row in book.file.rows("PRAGMA integrity_check")] == [("ok",)]
    book.add_label(1, Label("ada", [1, 2, 3], False, False), RULES)  # and the file is not locked


def test_export_is_what_the_reward_stage_reads(book: LabelBook, tmp_path: Path) -> None:
    fill(book, 4)
    for prompt in range(1, 5):
        book.add_label(prompt, Label("ada", [2, 1, 1], False, False), RULES)
    path = tmp_path / "rankings.jsonl"
    path.write_text("".join(json.dumps(record) + "\n" for record in book.export()))
    found = read_files(Preference, [path]).records
    assert [(pair.chosen, pair.rejected, pair.weight) for pair in found[:2]] == [
        ("answer 1", "answer 0", 0.5),
        ("answer 2", "answer 0", 0.5),
    ]
    assert len(found) == 8


@pytest.mark.parametrize("content", [b"not a database at all, and long enough to be sure" * 30, b"\x89PNG"])
def test_file_that_is_no_database_is_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(UserError, match="name another one with --labels"):
        FeedbackFile(path)
    assert path.read_bytes() == content


def test_database_of_another_program_is_refused(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "other.sqlite")) as other:
        other.execute("CREATE TABLE labels (id)")
    with pytest.raises(UserError, match="of another program"):
        FeedbackFile(tmp_path / "other.sqlite")


def test_folder_is_refused_as_a_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be used"):
        FeedbackFile(tmp_path)


def test_guidelines_have_a_version_that_changes_with_their_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("Be fair.\n")
    (tmp_path / "b.md").write_text("Be fair!\n")
    versions = {Guidelines.read(tmp_path / name).version for name in ("a.md", "b.md")} | {Guidelines.read().version}
    assert len(versions) == 3
    assert all(re.fullmatch(r"[0-9a-f]{12}", version) for version in versions)


@pytest.mark.parametrize("content", [b"", b" \n", b"x" * (MAX_CHARACTERS + 1), b"\xff\xfe\x00", None])
def test_guidelines_that_cannot_be_shown_are_refused(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "rules.md"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=r"rules\.md"):
        Guidelines.read(path)
