"""`crawl2chat labels`: prompts into the queue, progress and agreement, and the export."""

import json
from pathlib import Path

import pytest

from flows.cli.labels import feedback_path
from model.files import read_lines, write_lines
from tasks.artifacts.store import Store
from tasks.feedback.database import FeedbackFile
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.labels import Completion, Label, LabelBook
from tests.support.commands import crawl2chat_here


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    return {"COLUMNS": "200", "CRAWL2CHAT_STORE": str(tmp_path / "store")}


def rank(tmp_path: Path, **ranks: list[int]) -> None:
    """Complete the first prompt, and let people rank it."""
    book = LabelBook(FeedbackFile(tmp_path / "store/feedback.sqlite"))
    book.add_completions(1, [Completion(f"answer {n}", "sft/1", {}) for n in range(3)])
    for who, given in ranks.items():
        book.add_label(1, Label(who, given, False, False), Guidelines("v1", "Be fair."))


def test_prompts_are_added_ranked_and_exported(tmp_path: Path, environment: dict[str, str]) -> None:
    write_lines(
        tmp_path / "p.jsonl", [{"prompt": "who?"}, {"prompt": "who?"}, {"instruction": "Say hi.", "output": "hi"}]
    )
    added = crawl2chat_here(environment, "labels", "add", str(tmp_path / "p.jsonl"))
    assert "2 of 3 prompts are new" in added
    rank(tmp_path, ada=[1, 2, 3], bo=[1, 3, 2])
    shown = crawl2chat_here(environment, "labels", "show")
    assert "rankings: 2, people: 2, prompts: 2" in shown
    assert "pairs: 67% ordered alike" in shown
    output = tmp_path / "rankings.jsonl"
    assert "rankings: 2, people: 2, pairs: 6" in crawl2chat_here(environment, "labels", "export", str(output))
    assert [record["who"] for record in read_lines(output)] == ["ada", "bo"]
    before = output.read_bytes()
    crawl2chat_here(environment, "labels", "export", str(output))
    assert output.read_bytes() == before  # so the fingerprint of what is made of it stays


def test_export_of_nothing_is_a_mistake_and_writes_nothing(tmp_path: Path, environment: dict[str, str]) -> None:
    output = tmp_path / "rankings.jsonl"
    assert "there are no labels in" in crawl2chat_here(environment, "labels", "export", str(output), status=2)
    FeedbackFile(tmp_path / "store/feedback.sqlite")
    assert "nobody has ranked" in crawl2chat_here(environment, "labels", "export", str(output), status=2)
    assert not output.exists()


def test_bad_prompts_are_a_mistake_with_their_line(tmp_path: Path, environment: dict[str, str]) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": "who?"}) + "\n{}\n")
    assert "p.jsonl:2:" in crawl2chat_here(environment, "labels", "add", str(tmp_path / "p.jsonl"), status=2)
    assert not (tmp_path / "store/feedback.sqlite").exists()


def test_labels_of_a_remote_store_are_not_among_its_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    store = Store("memory://labels", tmp_path / "cache")
    assert feedback_path("", store) == tmp_path / "data/crawl2chat/feedback.sqlite"
    assert feedback_path("~/x.sqlite", store) == Path("~/x.sqlite").expanduser()
