"""The full-text index: ranking, hostile queries and files, and writers that are killed."""

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import UserError
from model.tools.registry import ToolError
from tasks.records import full_text
from tasks.records.excerpts import best_sentences, passage
from tasks.records.full_text import FullTextIndex, IndexedText, IndexWriter, query_words, search_tool

TEXTS = {
    "ada": "Ada Brell was born in Orn. She works as a baker. She likes plums.",
    "ben": "Ben Dvořák works as a miner in Sterport. He never met Ada.",
    "orn": "Orn is a city by the sea. The mayor of Orn is Cora Lind.",
}
OPERATORS = [
    '"', "'", '""', "ada AND", "ada NOT ben", "NEAR(ada ben, 2)", "text:ada", "-ada", "ada*", "^ada", "{text}: ada", "(ada", "ada)",
    "a OR OR b", "ada\0ben", "\ud800", "", " ", "🙂", "%", ";DROP TABLE texts;--", "ada" * 10_000, "ada " * 10_000, "' UNION SELECT 1,2,3 --",
]  # fmt: skip


def write(path: Path, texts: dict[str, str], shards: int = 1, stems: bool = True) -> Path:
    records = [IndexedText("document", name, text, f"https://example.org/{name}") for name, text in texts.items()]
    with IndexWriter(path.with_name("work.sqlite"), stems=stems) as writer:
        for number in range(shards):
            writer.add(str(number), records[number::shards])
        writer.finish(path)
    path.with_name("work.sqlite").unlink()
    return path


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FullTextIndex]:
    opened = FullTextIndex(write(tmp_path_factory.mktemp("index") / "index.sqlite", TEXTS))
    yield opened
    opened.close()


def ids(index: FullTextIndex, query: str) -> list[str]:
    return [hit.record.id for hit in index.search(query)]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("Ada Brell", ["ada", "ben"]),
        ("who works", ["ben", "ada"]),
        ("working miners", ["ben", "ada"]),
        ("DVORAK", ["ben"]),
        ("mayor of Orn?", ["orn", "ada"]),
        ("nothing here", []),
    ],
)
def test_records_are_ranked_by_their_words(index: FullTextIndex, query: str, found: list[str]) -> None:
    assert ids(index, query) == found


def test_without_stems_only_whole_words_are_found(tmp_path: Path) -> None:
    assert ids(FullTextIndex(write(tmp_path / "index.sqlite", TEXTS, stems=False)), "working") == []


@pytest.mark.parametrize("query", OPERATORS)
def test_operators_are_words(index: FullTextIndex, query: str) -> None:
    assert len(index.search(query)) <= 3
    assert len(index) == 3


@given(st.text(max_size=80))
@settings(max_examples=200)
def test_no_query_is_an_error(index: FullTextIndex, query: str) -> None:
    index.search(query)
    assert all(word.replace("_", "a").isalnum() for word in query_words(query))


def test_passage_has_whole_sentences_around_the_best_one(index: FullTextIndex) -> None:
    assert index.search("works baker", 1, max_characters=40)[0].passage == "She works as a baker. She likes plums."
    assert index.search("Ada Brell", 1, max_characters=500)[0].passage == TEXTS["ada"]
    assert index.search("Ada Brell", 1, max_characters=12)[0].passage == "Ada Brell ..."
    assert passage("", ["ada"], 10) == ""


def test_sentences_of_all_pages_are_ranked_by_the_rarity_of_their_words(tmp_path: Path) -> None:
    filler = "The mayor spoke. The rain falls on Orn. We went home. "
    texts = {
        "one": "Who is the mayor of Orn? " + filler + "Cora Lind is the mayor of Orn. She was born in Sterport.",
        "two": filler * 5 + "Here is Cora Lind. It is said that she keeps a goose. " + filler * 5,
        "three": "Jiří Dvořák keeps a cat.",
    }
    found = FullTextIndex(write(tmp_path / "index.sqlite", texts))
    assert found.sentences("cora lind goose", 1, 60) == ["It is said that she keeps a goose."]
    # A question has all of the words, and is no answer.
    assert found.sentences("the mayor of Orn", 1, 60) == ["Cora Lind is the mayor of Orn."]
    assert found.sentences("born Cora Lind", 2, 60)[0] == "She was born in Sterport."
    assert found.sentences("jiri DVORAK", 1, 60) == ["Jiří Dvořák keeps a cat."]
    assert found.sentences("cora lind goose", 1, 12) == ["It is said ..."]
    assert found.sentences("rain", 5, 60) == ["The rain falls on Orn."]
    # Rare words before a sentence say about whom it is.
    assert best_sentences(
        ["Ada Brell is here. Bo Lind works. She works."], {"brell": 2.0, "ada": 2.0, "works": 1.9}, 3, 60
    ) == [
        "brell ada ... She works.",
        "Ada Brell is here.",
        "Bo Lind works.",
    ]
    assert found.sentences("unheard", 5, 60) == found.sentences("", 5, 60) == []


@given(st.lists(st.text(max_size=200), max_size=4), st.text(max_size=60), st.integers(1, 5), st.integers(1, 40))
def test_best_sentences_are_whole_few_and_have_a_word(
    passages: list[str], query: str, num: int, max_characters: int
) -> None:
    weights = {word: 1.0 + number for number, word in enumerate(query_words(query))}
    found = best_sentences(passages, weights, num, max_characters)
    assert len(found) <= num
    assert all(len(sentence) <= max_characters + len(" ...") for sentence in found)
    read = [" ".join(passage.split()) for passage in passages]
    for shown in best_sentences(passages, weights, num, 1_000):
        before, dots, rest = shown.partition(" ... ")
        # The sentence itself may have such dots.
        sentence = rest if dots and all(word in weights for word in before.split(" ")) else shown
        assert any(sentence in text or shown in text for text in read)
        assert not shown.endswith("?")
    assert best_sentences(passages, {}, num, max_characters) == []


@given(st.text(max_size=80))
@settings(max_examples=100)
def test_no_query_for_sentences_is_an_error(index: FullTextIndex, query: str) -> None:
    assert len(index.sentences(query, 3, 40)) <= 3


def test_same_records_give_the_same_bytes_killed_or_not(tmp_path: Path) -> None:
    records = [IndexedText("document", name, text) for name, text in TEXTS.items()]

    def broken() -> Iterator[IndexedText]:
        yield records[1]
        raise KeyboardInterrupt

    paths = [tmp_path / "whole.sqlite", tmp_path / "resumed.sqlite"]
    for path in paths:
        work = path.with_suffix(".work")
        with IndexWriter(work, stems=True) as writer:
            writer.add("0", records[:1])
            if path.stem == "resumed":
                with pytest.raises(KeyboardInterrupt):
                    writer.add("1", broken())
        with IndexWriter(work, stems=True) as writer:
            assert [writer.has(shard) for shard in "01"] == [True, False]
            assert writer.add("1", records[1:]) == 2
            assert writer.finish(path) == 3
    first, second = (hashlib.sha256(path.read_bytes()).hexdigest() for path in paths)
    assert first == second


def test_reading_writes_nothing_and_needs_no_rights(tmp_path: Path) -> None:
    path = write(tmp_path / "index.sqlite", TEXTS)
    path.chmod(0o444)
    tmp_path.chmod(0o555)
    opened = FullTextIndex(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        opened.database.execute("DELETE FROM texts")
    assert ids(opened, "plums") == ["ada"]
    assert list(tmp_path.iterdir()) == [path]
    tmp_path.chmod(0o755)


def test_page_that_states_a_fact_ranks_above_one_that_repeats_a_name(tmp_path: Path) -> None:
    filler = "The bus is late. The rain falls. "
    texts = {
        "fact": filler * 40 + "Here is Ada Brell. She plays the harp. " + filler * 40,
        "names": "Ada was here. " + filler + "Brell is a name. " + filler + "Ada again. " + filler,
    }
    found = FullTextIndex(write(tmp_path / "index.sqlite", texts)).search("Ada Brell plays", 2, 60)
    assert [hit.record.id for hit in found] == ["fact", "names"]
    assert "Here is Ada Brell. She plays the harp." in found[0].passage


@pytest.mark.parametrize("content", [b"", b"no database at all", b"SQLite format 3\0" + bytes(4080)])
def test_file_that_is_no_index_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.sqlite").write_bytes(content)
    with pytest.raises(UserError, match="no full-text index"):
        FullTextIndex(tmp_path / "index.sqlite")
    with pytest.raises(UserError, match="no full-text index"):
        FullTextIndex(tmp_path / "missing.sqlite")


def test_index_of_another_format_is_a_user_error(tmp_path: Path) -> None:
    path = write(tmp_path / "index.sqlite", TEXTS)
    with sqlite3.connect(path) as database:
        database.execute("UPDATE meta SET value = '0' WHERE name = 'format'")
    with pytest.raises(UserError, match="has format '0', not '2'"):
        FullTextIndex(path)


def test_search_that_takes_too_long_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = FullTextIndex(write(tmp_path / "index.sqlite", {str(n): f"the same words {n}" for n in range(500)}))
    assert len(opened.search("the same words", 7)) == 7
    monkeypatch.setattr(full_text, "QUERY_SECONDS", -1.0)
    monkeypatch.setattr(full_text, "STEPS_PER_CHECK", 1)
    with pytest.raises(UserError, match="use fewer and rarer words"):
        opened.search("the same words")
    with pytest.raises(UserError, match="use fewer and rarer words"):
        opened.sentences("the same words", 3, 40)


def test_search_as_a_tool_gives_a_line_for_each_text() -> None:
    assert search_tool(lambda query: [f"one\n{query}", "two"])("x") == "one x\ntwo"
    assert search_tool(lambda _: [])("x") == "nothing found"

    def failing(_: str) -> list[str]:
        raise UserError("too slow")

    with pytest.raises(ToolError, match="too slow"):
        search_tool(failing)("x")
