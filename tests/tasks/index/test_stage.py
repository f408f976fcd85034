"""The stage index: all documents of all shards, the same bytes each time, and a stage that is killed and resumes."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tasks.artifacts.manifest import Documents
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.index import stage
from tasks.index.stage import IndexConfig, index
from tasks.records.documents import Document, read_documents
from tasks.records.full_text import FullTextIndex
from tests.support.documents import documents_of

SHARDS = {"a": ["Ada Brell works as a baker.", "Orn is a city."], "b": ["Ben works as a miner."], "c": []}


@pytest.fixture
def documents() -> Step[Documents]:
    return documents_of(SHARDS)


def test_every_document_is_found(store: Store, documents: Step[Documents]) -> None:
    manifest = execute(index(documents, IndexConfig()), store)
    assert manifest.kind == "Index"
    assert manifest.counts["documents"] == 3
    assert [file.path for file in manifest.files] == ["index.sqlite"]
    opened = FullTextIndex(store.folder(manifest.id) / "index.sqlite")
    assert [hit.record.text for hit in opened.search("working")] == [SHARDS["b"][0], SHARDS["a"][0]]
    assert opened.search("miner")[0].record.file == "b"


def test_killed_stage_resumes_and_gives_the_same_bytes(
    tmp_path: Path, store: Store, documents: Step[Documents], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = execute(index(documents, IndexConfig()), store)
    other = Store(str(tmp_path / "other"))
    read: list[str] = []

    def killed(path: Path) -> Iterator[Document]:
        read.append(path.stem)
        for document in read_documents(path):
            yield document
            if path.stem == "b" and len(read) == 2:
                raise KeyboardInterrupt

    monkeypatch.setattr(stage, "read_documents", killed)
    with pytest.raises(KeyboardInterrupt):
        execute(index(documents, IndexConfig()), other)
    resumed = execute(index(documents, IndexConfig()), other)
    assert read == ["a", "b", "b", "c"]
    assert resumed.files == whole.files


def test_stemming_shapes_the_fingerprint(documents: Step[Documents]) -> None:
    steps: list[Step[Any]] = [index(documents, IndexConfig(stems=stems)) for stems in (True, False)]
    assert steps[0].fingerprint != steps[1].fingerprint
