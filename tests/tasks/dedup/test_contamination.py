"""What could go wrong in decontamination: a question missed in a document or looked for in the wrong way, a common phrase
that drops half of the crawl, an evaluation set that is not read as what it is, a changed one not noticed.
"""

import gzip
import itertools
import json
import re
from collections import Counter
from pathlib import PurePath

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import UserError
from tasks.dedup import contamination
from tasks.dedup.minhash import hash_words, split_words
from tasks.dedup.stage import DedupConfig
from tasks.execution.reporter import Reporter, reporting
from tasks.execution.runner import execute
from tasks.records.documents import read_documents
from tests.support.documents import documents_of
from tests.support.wiring import dedup
from tests.support.workers import work_here

ANSWER = (
    "The quiet harbour of the northern island was first drawn on a map by a Dutch sailor who had lost his way in fog."
)
PROSE = (
    "Our village has two bakers and neither of them speaks to the other since the wedding of the miller's youngest son."
)


def words_of(text):
    return hash_words(split_words(text))


def write_lines(path, records):
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "wt", encoding="utf-8") as stream:
        stream.writelines(f"{json.dumps(record)}\n" for record in records)
    return path


# Evaluation sets


def test_read_questions_takes_strings_at_any_depth(tmp_path):
    record = {"q": "one", "choices": ["two", {"deep": ["three"]}], "answer": 1, "none": None, "is": True}
    for name in ("a.jsonl", "b.jsonl.gz", "C.JSONL"):
        path = write_lines(tmp_path / name, [record, "four"])
        assert list(contamination.read_questions(path)) == [["one", "two", "three"], ["four"]]


def test_read_questions_reads_parquet_and_text(tmp_path):
    pq.write_table(pa.table({"q": ["one", None], "choices": [["two"], ["three"]]}), tmp_path / "a.parquet")
    assert list(contamination.read_questions(tmp_path / "a.parquet")) == [["one", "two"], ["three"]]
    (tmp_path / "b.txt").write_text("a question\n\nanother")
    assert list(contamination.read_questions(tmp_path / "b.txt")) == [["a question\n"], ["another"]]


def test_read_questions_names_the_line_that_is_not_json(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [{"q": "one"}])
    path.write_text(path.read_text() + "what is this\n")
    with pytest.raises(ValueError, match=r"line 2 of evaluation set a\.jsonl is not JSON"):
        contamination.collect({path: "a"}, 13)
    (tmp_path / "b.txt").write_bytes("déjà".encode("latin-1"))
    with pytest.raises(ValueError, match=r"line 1 of evaluation set b\.txt is not text \('utf-8' codec .*, in UTF-8"):
        contamination.collect({tmp_path / "b.txt": "b"}, 13)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.parquet", b"no Parquet"),
        ("a.jsonl.gz", b"no gzip"),
        ("a.txt.gz", gzip.compress(b"a question that is cut off", mtime=0)[:-12]),
        ("a.txt.bz2", b"no bzip2"),
        ("a.txt.xz", b"no xz"),
        ("a.jsonl", b"[" * 100_000 + b"]" * 100_000),
    ],
)
def test_read_questions_reports_a_damaged_file_as_a_mistake(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"evaluation set {re.escape(name)} .*JSON Lines, Parquet or text"):
        list(contamination.read_questions(tmp_path / name))


def test_read_questions_ignores_a_byte_order_mark(tmp_path):
    for name in ("a.jsonl", "a.txt"):
        (tmp_path / name).write_text('"one"', encoding="utf-8-sig")
    assert list(contamination.read_questions(tmp_path / "a.jsonl")) == [["one"]]
    assert split_words(*next(contamination.read_questions(tmp_path / "a.txt"))) == [b"one"]


def test_collect_gives_a_shared_ngram_to_the_first_question(tmp_path):
    sets = {
        write_lines(tmp_path / f"{name}.jsonl", records): name
        for name, records in {"a": ["x y", ""], "b": ["x y z"]}.items()
    }
    questions = contamination.collect(sets, 2)
    assert questions.names == ("a", "b")
    assert questions.eval_sets.tolist() == [0, 0, 1]
    assert questions.lines.tolist() == [1, 2, 1]
    assert questions.is_long.tolist() == [True, False, True]
    owners = {
        place.item(): questions.owners[place] for place in contamination.find(words_of("x y z"), questions.ngrams, 2)
    }
    assert sorted(owners.values()) == [0, 2]


# Runs of words in documents


@settings(deadline=None)
@given(st.lists(st.text("abc ", max_size=12), max_size=3), st.text("abc ", max_size=30), st.integers(1, 3))
def test_find_returns_exactly_the_ngrams_of_the_text(tmp_path_factory, strings, text, ngram_size):
    def runs(words):
        return {tuple(words[place : place + ngram_size]) for place in range(len(words) - ngram_size + 1)}

    path = write_lines(tmp_path_factory.mktemp("evaluations") / "e.jsonl", [strings])
    questions = contamination.collect({path: "e"}, ngram_size)
    asked = set().union(*(runs(string.split()) for string in strings))
    assert len(questions.ngrams) == len(asked)
    if asked:
        found = contamination.find(words_of(text), questions.ngrams, ngram_size)
        assert len(found) == len(asked & runs(text.split()))


# The stage


@pytest.fixture
def in_this_process(monkeypatch):
    work_here(monkeypatch)


class Tables(Reporter):
    def __init__(self):
        self.tables = {}

    def table(self, stage, name, rows, description):
        self.tables[name] = rows


def decontaminate(store, texts, paths, **settings):
    """Kept texts, dropped documents, the lines of contamination.jsonl, the table."""
    config = DedupConfig(eval_sets=[str(path) for path in paths], num_workers=1, **settings)
    step = dedup(documents_of(texts), config)
    tables = Tables()
    with reporting(tables):
        folder = store.folder(execute(step, store).id)
    kept = [found["text"] for path in sorted(folder.glob("documents/*")) for found in read_documents(path)]
    dropped = {
        found["text"]: found["reason"] for path in sorted(folder.glob("dropped/*")) for found in read_documents(path)
    }
    found = [json.loads(line) for line in (folder / "contamination.jsonl").read_text().splitlines()]
    return kept, dropped, found, tables.tables["contamination"]


def test_dedup_drops_documents_that_contain_a_question(store, tmp_path, in_this_process):
    first = write_lines(tmp_path / "geography.jsonl.gz", [{"q": "Too short?"}, {"q": ANSWER, "id": 7}])
    second = write_lines(tmp_path / "history.jsonl", [{"q": " ".join(ANSWER.split()[5:])}, {"q": PROSE}])
    texts = {
        "a": [
            f"{PROSE[:60]} Then he said: “{ANSWER.upper().replace('OF THE', 'of, the')}” And that was that.",
            PROSE[:59],
            "Half of it: " + " ".join(ANSWER.split()[:12]),
        ],
        "b": [f"Twice {ANSWER}", f"Another page with {PROSE}"],
    }
    kept, dropped, found, table = decontaminate(store, texts, [first, second])
    assert kept == texts["a"][1:]
    assert dropped == {
        texts["a"][0]: "contaminated/geography",
        texts["b"][0]: "contaminated/geography",
        texts["b"][1]: "contaminated/history",
    }
    assert found == [
        {"evaluation": "geography", "line": 2, "documents": 2},
        {"evaluation": "history", "line": 2, "documents": 1},
    ]
    counts = {"common n-grams ignored": 0}
    assert table == [
        {"evaluation": "geography", "questions": 2, "too short": 1, "found": 1, "documents dropped": 2, **counts},
        {"evaluation": "history", "questions": 2, "too short": 0, "found": 1, "documents dropped": 1, **counts},
    ]


@pytest.mark.parametrize(
    ("question", "other"),
    [
        ("中国最长的河流是长江，它全长约六千三百公里。", "黄河是中国第二长的河流，全长约五千四百公里。"),
        ("日本で一番高い山は富士山で、高さは三千七百七十六メートルです。", "日本で二番目に高い山は北岳です。"),
        ("แม่น้ำที่ยาวที่สุดในประเทศไทยคือแม่น้ำชีซึ่งไหลผ่านหลายจังหวัด", "ภูเขาที่สูงที่สุดในประเทศไทยคือดอยอินทนนท์"),
    ],
    ids=["zh", "ja", "th"],
)
def test_questions_are_found_in_scripts_without_spaces(store, tmp_path, in_this_process, question, other):
    path = write_lines(tmp_path / "e.jsonl", [question])
    texts = {"a": [f"{other}{question}{other}", f"{other}{other}{other}"]}
    kept, dropped, _, _ = decontaminate(store, texts, [path])
    assert kept == texts["a"][1:]
    assert dropped == {texts["a"][0]: "contaminated/e"}


@pytest.mark.parametrize(
    ("paths", "names"),
    [
        (["/x/a/test.v2.jsonl", "/x/a/train.jsonl"], ["test", "train"]),
        (["/x/a/test.jsonl", "/x/b/test.jsonl", "/x/b/train.jsonl"], ["a/test.jsonl", "b/test.jsonl", "train"]),
        (["/x/a/test.jsonl", "/y/a/test.jsonl"], ["x/a/test.jsonl", "y/a/test.jsonl"]),
        (["test.jsonl", "a/test.jsonl", "test.parquet"], ["test.jsonl", "a/test.jsonl", "test.parquet"]),
        (["a/test", "a/test"], ["a/test", "a/test"]),
    ],
)
def test_short_names_are_unique_and_short(paths, names):
    assert contamination.short_names([PurePath(path) for path in paths]) == names


def test_eval_sets_of_equal_names_get_different_reasons(store, tmp_path, in_this_process):
    for name in ("a", "b/c"):
        (tmp_path / name).mkdir(parents=True)
    first = write_lines(tmp_path / "a" / "test.jsonl", [ANSWER])
    write_lines(tmp_path / "b" / "c" / "test.jsonl", [PROSE])
    _, dropped, found, _ = decontaminate(store, {"a": [ANSWER, PROSE]}, [first, tmp_path / "b"])
    assert dropped == {ANSWER: "contaminated/a/test.jsonl", PROSE: "contaminated/c/test.jsonl"}
    assert [line["evaluation"] for line in found] == ["a/test.jsonl", "c/test.jsonl"]


def test_common_phrases_are_not_contamination(store, tmp_path, in_this_process):
    path = write_lines(tmp_path / "phrases.jsonl", [PROSE])
    texts = {"a": [f"{'abc'[number] * 40} {PROSE}" for number in range(3)]}
    apart = {"by_minhash": False}
    assert len(decontaminate(store, texts, [path], max_ngram_documents=2, **apart)[0]) == 3
    assert decontaminate(store, texts, [path], max_ngram_documents=3, **apart)[0] == []


def test_duplicates_do_not_make_a_phrase_common(store, tmp_path, in_this_process):
    """Duplicates are gone before documents are counted."""
    path = write_lines(tmp_path / "phrases.jsonl", [PROSE])
    texts = {"a": [PROSE + " " * number for number in range(5)]}
    kept, dropped, _, _ = decontaminate(store, texts, [path], max_ngram_documents=1)
    assert kept == []
    assert Counter(dropped.values()) == {"duplicate/content": 4, "contaminated/phrases": 1}


def test_fingerprint_follows_the_content_of_eval_sets_not_their_path(tmp_path):
    path = write_lines(tmp_path / "a.jsonl", [PROSE])
    step = dedup(documents_of({"a": [PROSE]}), DedupConfig(eval_sets=[str(path)]))
    assert step.id  # hashed
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "a.jsonl")
    assert dedup(documents_of({"a": [PROSE]}), DedupConfig(eval_sets=[str(moved)])).id == step.id
    write_lines(moved, [ANSWER])
    assert dedup(documents_of({"a": [PROSE]}), DedupConfig(eval_sets=[str(moved)])).id != step.id


# Real evaluation sets


def test_planted_questions_are_found_in_real_texts_and_nothing_else(shared_data, tmp_path):
    """Every question with 13 words is found in a text that has it in the midst; of clean texts none is dropped."""
    paths = [shared_data / f"evals/{name}.jsonl.gz" for name in ("bbh", "mmlu-dev")]
    questions = contamination.collect({path: path.name for path in paths}, 13)
    with gzip.open(shared_data / "pretrain/onestop-english.jsonl.gz", "rt", encoding="utf-8") as stream:
        texts = [json.loads(line)["text"] for line in stream]
    assert not any(len(contamination.find(words_of(text), questions.ngrams, 13)) for text in texts)
    mmlu = next(place for place, path in enumerate(paths) if path.name.startswith("mmlu"))
    planted = [max(strings, key=len) for strings in contamination.read_questions(paths[mmlu])]
    planted = [question for question in planted if len(split_words(question)) >= 13]
    for question, text in zip(planted, itertools.cycle(texts), strict=False):
        found = contamination.find(
            words_of(f"{text[:1000]} {question.upper()} {text[1000:2000]}"), questions.ngrams, 13
        )
        assert np.isin(mmlu, questions.eval_sets[questions.owners[found]])
    assert len(planted) > 200
