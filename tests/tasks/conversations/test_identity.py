"""Files of chat data: which ones a source names, and what identifies them."""

import json
import os
from pathlib import Path

import pytest

from model.errors import UserError
from tasks.artifacts.manifest import BaseModel, Conversations, SFTModel, Tokenizer, Tokens
from tasks.artifacts.step import ExistingArtifact, Step
from tasks.conversations import sources
from tasks.conversations.identity import find_files
from tasks.conversations.sources import ConversationsConfig
from tasks.posttrain.sft import SFTConfig, sft

CHAT = {"messages": [{"role": "user", "content": "a?"}, {"role": "assistant", "content": "b"}]}


def conversations(source: str, num_records: int, world_seed: int, validation_fraction: float) -> Step[Conversations]:
    config = ConversationsConfig(
        conversations=source, num_conversations=num_records, validation_fraction=validation_fraction
    )
    return sources.conversations(config, world_seed)


def write(path: Path, record: object = CHAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record) + "\n")
    return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is the working and the home folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "spelling", ["c.jsonl", "./c.jsonl", "{folder}/c.jsonl", "~/c.jsonl", "x/../c.jsonl", "c.*", "d.jsonl"]
)
def test_fingerprint_ignores_how_a_path_is_written(folder: Path, spelling: str) -> None:
    write(folder / "c.jsonl")
    write(folder / "d.jsonl")
    (folder / "x").mkdir()
    step = conversations(spelling.format(folder=folder), 1, 0, 0.1)
    assert step.id == conversations("c.jsonl", 1, 0, 0.1).id
    assert fine_tuned(spelling.format(folder=folder)).id == fine_tuned("c.jsonl").id


def fine_tuned(source: str) -> Step[SFTModel]:
    config = SFTConfig(conversations=source)
    base = ExistingArtifact.of(BaseModel, "pretrain/b")
    tokenizer, tokens = ExistingArtifact.of(Tokenizer, "tokenizer/t"), ExistingArtifact.of(Tokens, "tokenize/t")
    return sft(base, tokenizer, sources.conversations(config, 0), tokens, config)


def test_fingerprint_depends_on_the_content(folder: Path) -> None:
    before = conversations(str(write(folder / "c.jsonl")), 1, 0, 0.1).id
    after = conversations(str(write(folder / "c.jsonl", {**CHAT, "kind": "x"})), 1, 0, 0.1).id
    assert before != after


def test_fingerprint_of_files_ignores_how_samples_are_composed(folder: Path) -> None:
    source = str(write(folder / "c.jsonl"))
    assert conversations(source, 5, 1, 0.1).id == conversations(source, 6, 2, 0.1).id


@pytest.mark.parametrize("name", ["chats[1].jsonl", "chats?.jsonl", "chats*.jsonl", "[ab]/c.jsonl"])
def test_find_files_takes_an_existing_path_literally(folder: Path, name: str) -> None:
    for other in ("chats1.jsonl", "chatsx.jsonl", "a/c.jsonl"):
        write(folder / other)
    assert find_files(str(write(folder / name))) == [folder / name]


def test_find_files_takes_existing_folders_before_a_pattern_literally(folder: Path) -> None:
    for name in ("run[1]/a.jsonl", "run[1]/b.jsonl", "run1/c.jsonl"):
        write(folder / name)
    assert [file.name for file in find_files(f"{folder}/run[1]/*.jsonl")] == ["a.jsonl", "b.jsonl"]
    assert [file.name for file in find_files("run[1]/*.jsonl")] == ["a.jsonl", "b.jsonl"]


def test_find_files_sorts_by_path(folder: Path) -> None:
    for name in ("b/1.jsonl", "a/2.jsonl", "a/10.jsonl", "c.jsonl"):
        write(folder / name)
    (folder / "a" / "folder.jsonl").mkdir()
    found = [str(file.relative_to(folder)) for file in find_files(f"{folder}/**/*.jsonl")]
    assert found == ["a/10.jsonl", "a/2.jsonl", "b/1.jsonl", "c.jsonl"]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("missing.jsonl", "no file matches 'missing.jsonl'; give a path or a glob of .jsonl files, or 'sample'"),
        ("", "is a folder|no file matches"),
        (".", "'.' is a folder; name its files"),
        ("*.none", "no file matches"),
        ("a\0b", "no file matches|is not a path"),
        ("x" * 5000, "is not a path|no file matches"),
        ("~no_such_user_/c.jsonl", "is not a path that can be read"),
    ],
)
def test_find_files_refuses_sources_without_files_in_one_line(folder: Path, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        assert conversations(source, 1, 0, 0.0).id
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_content_hash_refuses_a_file_without_permission_in_one_line(folder: Path) -> None:
    write(folder / "c.jsonl").chmod(0)
    with pytest.raises(UserError, match=r"cannot be read .*; check its permissions"):
        assert conversations("c.jsonl", 1, 0, 0.0).id
