"""Who the assistant is: the package's file, a file laid over it, system messages that override it, and files that are refused."""

from pathlib import Path

import pytest

from model.errors import UserError
from model.files import read_lines
from tasks.artifacts.store import Store
from tasks.conversations.persona import BUILTIN, IDENTITY, identity_conversations, read_persona
from tasks.conversations.sources import ConversationsConfig, conversations
from tasks.execution.runner import execute


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_system_message_overrides_the_name() -> None:
    talks = list(identity_conversations(read_persona(BUILTIN)))
    with_system = [talk for talk in talks if talk.messages[0].role == "system"]
    assert len(with_system) * 2 == len(talks) > 100
    assert not any("{" in message.content for talk in talks for message in talk.messages)
    for talk in talks:
        system, reply = talk.messages[0].content, talk.messages[-1].content
        if talk not in with_system:
            assert not any(other.name in reply for other in read_persona(BUILTIN).others)
        elif "crawl2chat" not in system:
            assert "crawl2chat" not in reply


def test_file_is_laid_over_that_of_the_package(tmp_path: Path) -> None:
    found = read_persona(write(tmp_path / "me.yaml", "name: Ada\nmaker: the library\n"))
    assert found.model_copy(update={"name": "crawl2chat", "maker": "the crawl2chat project"}) == read_persona(BUILTIN)
    replies = {talk.messages[-1].content for talk in identity_conversations(found)}
    assert "I was made by the library." in replies
    assert not any("crawl2chat" in reply for reply in replies)


def test_pattern_reads_no_attribute(tmp_path: Path) -> None:
    found = read_persona(
        write(
            tmp_path / "me.yaml", "answers: {name: ['{name.__class__} {0}'], nature: [b], maker: [c], abilities: [d]}"
        )
    )
    assert "{name.__class__} {0}" in {talk.messages[-1].content for talk in identity_conversations(found)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a", "not a YAML mapping"),
        ("name: [", "not YAML"),
        ("a: &a [x]\nb: *a", "has an alias"),
        ("name: ''", "me.yaml: name: String should have at least 1 character"),
        ("nom: Ada", "me.yaml: nom: Extra inputs are not permitted"),
        ("asked: {hobby: ['What do you like?']}", "nothing for 'hobby'"),
        ("name: !!python/object/apply:os.system [id]", "not YAML"),
        ("name: " + "a" * 100_001, "at most 100,000"),
    ],
)
def test_file_that_cannot_be_used_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_persona(write(tmp_path / "me.yaml", text))


def test_file_is_mixed_in_and_identifies_the_conversations(tmp_path: Path, store: Store) -> None:
    file = write(tmp_path / "me.yaml", "name: Ada\nmaker: the library\n")
    config = ConversationsConfig(num_conversations=50, identity=str(file), identity_fraction=0.5)
    step = conversations(config, 1)
    lines = read_lines(store.folder(execute(step, store).id) / "train.jsonl")
    about = [line for line in lines if line["kind"] == IDENTITY]
    assert len(about) == pytest.approx(len(lines) / 3, abs=2)
    assert any("Ada" in line["messages"][-1]["content"] for line in about)
    write(file, "name: Bo\nmaker: the library\n")
    assert conversations(config, 1).id != step.id


def test_missing_file_is_found_before_the_run(tmp_path: Path) -> None:
    step = conversations(ConversationsConfig(identity=str(tmp_path / "none.yaml")), 1)
    assert step.check is not None
    with pytest.raises(UserError, match="no file matches"):
        step.check(step.settings)
