"""A finished store that another user owns: it can be read, checked and shown by whoever may not write to it."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.artifacts.files import Hashes
from tasks.artifacts.manifest import MANIFEST, Artifact, Manifest
from tasks.artifacts.store import Store
from tasks.execution.provenance import provenance
from tasks.records.documents import ShardWriter

NOBODY = 65534
ID = "clean/0123456789abcdef"
ROOT = Path(__file__).parents[3]

# The Python of a root user may lie where no other user can read it, so the child imports everything, with the same commands on a
# copy of the store, before it becomes another user.
CHILD = f"""
import logging, os, sys
from flows.cli.main import main
from model.errors import UserError
from tasks.artifacts.manifest import Documents
from tasks.artifacts.store import Store
from tasks.records.documents import read_documents

logging.basicConfig(format="LOG %(message)s")


def use():
    store = Store.default()
    documents = store.open("{ID}", Documents)
    store.verify(documents.manifest)
    print([document["text"] for document in read_documents(*documents.files("documents/*.parquet"))])
    print(store.latest("tiny", "clean"), [manifest.id for manifest in store.manifests()])
    for arguments in (["show", "{ID}"], ["stages", "tiny"]):
        try:
            main(arguments)
        except SystemExit as ended:
            print("status of", arguments[0], ended.code or 0)
    try:
        store.set_latest("other", documents.manifest)
    except OSError as error:
        print("cannot write:", type(error).__name__)


warm, store = sys.argv[1:]
os.environ["CRAWL2CHAT_STORE"] = warm
use()
print("CHANGE OF USER", flush=True)
print("CHANGE OF USER", file=sys.stderr, flush=True)
os.setgroups([])
os.setgid({NOBODY})
os.setuid({NOBODY})
os.environ["CRAWL2CHAT_STORE"] = store
use()
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's are not."""
    if os.getuid() != 0:
        pytest.skip("only root can make a store of another user's")
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def finished_store(root: Path) -> Store:
    """A store with one artifact, which root owns and others may read."""
    store = Store(str(root), root.parent / "cache")
    path = root / ID / "documents" / "part.parquet"
    with ShardWriter(path) as shard:
        shard.write(
            {"id": "a", "url": "https://a.example/", "date": "", "file": "", "offset": 0, "text": "A readable text."}
        )
    stage, _, fingerprint = ID.partition("/")
    manifest = Manifest(
        kind="Documents",
        stage=stage,
        stage_version=1,
        fingerprint=fingerprint,
        inputs={},
        input_digests={},
        config={},
        files=store.records(root / ID),
        counts={"documents": 1},
        metrics={},
        provenance=provenance(datetime.now(UTC), 1.0),
    )
    store.commit(manifest)
    store.set_latest("tiny", manifest)
    store.open(ID, Artifact)
    for parent, _, files in os.walk(root):
        Path(parent).chmod(0o755)
        for name in files:
            Path(parent, name).chmod(0o644)
    return store


def content(root: Path) -> dict[str, tuple[bytes, int]]:
    files = [path for path in root.rglob("*") if path.is_file()]
    return {str(path): (path.read_bytes(), path.stat().st_mtime_ns) for path in files}


def as_nobody(folder: Path) -> tuple[str, str]:
    """What the commands print and log as another user."""
    environment = os.environ | {
        "PYTHONPATH": str(ROOT),
        "HOME": "/nonexistent",
        "XDG_CACHE_HOME": str(folder / "not-writable"),
        "NO_COLOR": "1",
        "COLUMNS": "200",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    child = [sys.executable, "-c", CHILD, str(folder / "warm"), str(folder / "store")]
    ended = subprocess.run(child, check=False, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return ended.stdout.partition("CHANGE OF USER")[2], ended.stderr.partition("CHANGE OF USER")[2]


def test_another_user_can_read_check_and_show_a_store(folder: Path) -> None:
    store = finished_store(folder / "store")
    shutil.copytree(store.root, folder / "warm")
    (folder / "not-writable").mkdir(mode=0o755)
    (store.root / "hashes.json").write_text('{"cut')  # nobody can repair it either
    before = content(store.root)
    output, errors = as_nobody(folder)
    assert "['A readable text.']" in output
    assert f"{ID} ['{ID}']" in output
    assert "status of show 0" in output, errors
    assert "status of stages 0" in output, errors
    assert "cannot write: PermissionError" in output
    assert "Traceback" not in errors
    assert "hashes.json cannot be read" in errors
    assert content(store.root) == before


@pytest.mark.parametrize("damaged", ["", "{", "[]", '{"a": 1}', "\0", "[" * 100_000])
def test_damaged_hashes_are_dropped_with_a_warning(
    store: Store, damaged: str, caplog: pytest.LogCaptureFixture
) -> None:
    finished_store(store.root)
    (store.root / "hashes.json").write_text(damaged)
    assert Store(store.url).open(ID, Artifact).manifest.id == ID
    assert "files are hashed again" in caplog.text
    assert set(json.loads((store.root / "hashes.json").read_text())) == {
        str(store.root / ID / "documents/part.parquet")
    }


def test_a_change_of_equal_size_and_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("before")
    stat = path.stat()
    hashes = Hashes(tmp_path / "hashes.json")
    first = hashes.of(path)
    hashes.save()
    path.write_text("after!")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert hashes.of(path) != first
    assert Hashes(tmp_path / "hashes.json").of(path) == hashes.of(path) != first


def test_an_unchanged_file_is_hashed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    path.write_text("text")
    hashes = Hashes(tmp_path / "hashes.json")
    first = hashes.of(path)
    hashes.save()
    monkeypatch.setattr(Path, "open", None)
    monkeypatch.setattr(Hashes, "save", None)
    assert hashes.of(path) == first


def test_hashes_go_to_the_fallback_where_the_file_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "blocked").write_text("a file where the folder of the hashes should be")
    fallback = tmp_path / "cache" / "hashes.json"
    hashes = Hashes(tmp_path / "blocked" / "hashes.json", fallback)
    digest = hashes.of(tmp_path / "file")
    hashes.save()
    assert [value.rpartition("|")[2] for value in json.loads(fallback.read_text()).values()] == [digest]


def test_the_manifest_is_the_last_file_of_a_finished_store(store: Store) -> None:
    finished_store(store.root)
    assert (store.root / ID / MANIFEST).stat().st_mtime_ns >= max(
        path.stat().st_mtime_ns for path in (store.root / ID / "documents").iterdir()
    )
