"""Objects and the cache of a remote store, without a server: conditional puts, retries, the order of removal, artifacts in use."""

import os
import secrets
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from model.errors import UserError
from tasks.artifacts import cache as cache_module
from tasks.artifacts import objects as objects_module
from tasks.artifacts.cache import Cache, cache_bytes
from tasks.artifacts.manifest import MANIFEST, Artifact
from tasks.artifacts.object_servers import open_objects
from tasks.artifacts.objects import Conflict, Objects, TooLarge
from tasks.artifacts.store import DamagedArtifact, Store
from tests.tasks.artifacts.test_store import chain, run_chain


@pytest.fixture
def objects() -> Objects:
    return open_objects(f"memory://objects-{secrets.token_hex(4)}")


def test_of_many_conditional_puts_one_succeeds(objects: Objects) -> None:
    won: list[str] = []

    def put(tag: str, data: bytes) -> None:
        try:
            won.append(objects.swap("key", data, tag) if tag else objects.create("key", data))
        except Conflict:
            return

    tag = ""
    for number in range(5):
        threads = [threading.Thread(target=put, args=(tag, f"{number} {one}".encode())) for one in range(8)]
        won.clear()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        (tag,) = won


def test_put_whose_answer_was_lost_is_no_conflict(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    put, calls = type(objects)._put, []

    def lose_first_answer(self: Objects, *arguments: object) -> str:
        tag = put(self, *arguments)  # type: ignore[arg-type]
        calls.append(tag)
        if len(calls) == 1:
            raise ConnectionError("reset by peer")
        return tag

    monkeypatch.setattr(type(objects), "_put", lose_first_answer)
    tag = objects.create("key", b"mine")
    monkeypatch.undo()
    with pytest.raises(Conflict):
        objects.create("key", b"other")
    objects.swap("key", b"next", tag)


def test_store_that_does_not_answer_is_one_line(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "MAX_WAIT_SECONDS", 0.01)
    monkeypatch.setattr(
        type(objects), "_get", lambda *_: (_ for _ in ()).throw(ConnectionError("refused, password=SECRET"))
    )
    with pytest.raises(UserError, match="has not answered for 0 s") as error:
        objects.impatient(0.1).get("key", 10)
    assert "SECRET" not in str(error.value)


def test_object_that_is_too_large_is_not_read(objects: Objects, tmp_path: Path) -> None:
    objects.put("key", b"0123456789")
    with pytest.raises(TooLarge, match="has 10 bytes, where 9 are the most"):
        objects.get("key", 9)
    with pytest.raises(TooLarge):
        objects.download("key", tmp_path / "file", 9)
    assert objects.get("absent", 9) is None
    assert not objects.download("absent", tmp_path / "file", 9)


def remote_store(tmp_path: Path) -> Store:
    url = f"memory://cache-{secrets.token_hex(4)}"
    for first in (0.1, 0.2, 0.3):
        run_chain(Store(url, tmp_path / "writer"), chain(first))
    return Store(url, tmp_path / "reader")


def test_pointer_deleted_in_the_store_is_written_again(tmp_path: Path) -> None:
    """The machine that made the artifact still has its copy of the pointer."""
    url = f"memory://cache-{secrets.token_hex(4)}"
    store, step = Store(url, tmp_path / "writer"), chain(0.1)
    run_chain(store, step)
    manifest = store.find(step.id)
    assert manifest is not None
    stage = manifest.stage
    store.set_latest("tiny", manifest)
    open_objects(url).delete([f"recipes/tiny/{stage}"])
    with pytest.raises(UserError, match="has left no artifact"):
        store.latest("tiny", stage)
    store.set_latest("tiny", manifest)
    assert Store(url, tmp_path / "reader").latest("tiny", stage) == manifest.id


def test_least_recently_used_copy_leaves_first_and_is_fetched_again(tmp_path: Path) -> None:
    store = remote_store(tmp_path)
    names = [chain(first).inputs["documents"].id for first in (0.1, 0.2, 0.3)]
    for place, name in enumerate(names):
        folder = store.open(name, Artifact).folder
        os.utime(folder / cache_module.READERS, (1000 + place, 1000 + place))
    release()
    # They differ by a few bytes: a manifest has times.
    sizes = [copy.bytes for copy in Cache(store.root, None).copies()]
    cache = Cache(store.root, sum(sizes))
    cache.make_room(1)
    assert [(store.root / name / MANIFEST).exists() for name in names] == [False, True, True]
    cache.make_room(sum(sizes) - max(sizes))
    assert [(store.root / name / MANIFEST).exists() for name in names] == [False, False, True]
    again = Store(store.url, tmp_path / "reader")
    assert again.open(names[0], Artifact).files("text")[0].read_text() == "one:0.1 "


def release() -> None:
    """End what this process holds in caches, as its end would."""
    while cache_module._held:
        os.close(cache_module._held.popitem()[1])


def test_copy_that_another_process_reads_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = remote_store(tmp_path)
    name = chain(0.1).id
    store.open(name, Artifact)
    release()
    code = (
        "import sys; from pathlib import Path; from tasks.artifacts.cache import Cache; "
        "Cache(Path(sys.argv[1]), None).hold(sys.argv[2]); print('held', flush=True); sys.stdin.read()"
    )
    reader = subprocess.Popen(
        [sys.executable, "-c", code, str(store.root), name], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == b"held\n"
    Cache(store.root, 1).make_room(0)
    assert (store.root / name / MANIFEST).exists()
    assert "in use" in caplog.text
    reader.kill()
    reader.communicate()
    Cache(store.root, 1).make_room(0)
    assert not (store.root / name / MANIFEST).exists()


def test_damaged_copy_is_fetched_again_and_a_damaged_object_refused(tmp_path: Path) -> None:
    store, name = remote_store(tmp_path), chain(0.1).id
    path = store.open(name, Artifact).files("text")[0]
    whole = path.read_text()
    path.write_text("x" * len(whole))
    again = Store(store.url, tmp_path / "reader")
    assert again.open(name, Artifact).files("text")[0].read_text() == whole
    assert store.remote is not None
    (key,) = [listed.key for listed in store.remote.objects.listing(f"{name}/text-")]
    store.remote.objects.put(key, b"x" * len(whole))
    path.unlink()
    with pytest.raises(DamagedArtifact, match="sha256 differs"):
        Store(store.url, tmp_path / "reader").open(name, Artifact)


@pytest.mark.parametrize("given", ["0", "-1", "ten", "inf", "nan"])
def test_limit_of_the_cache_that_is_no_size_is_refused(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_CACHE_GB", "0.5")
    assert cache_bytes() == 500_000_000
    monkeypatch.setenv("CRAWL2CHAT_CACHE_GB", given)
    with pytest.raises(UserError, match="is not a number of gigabytes above 0"):
        cache_bytes()


def test_server_that_ignores_conditions_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As old servers of the S3 protocol do: they answer 200, and every machine would believe that it has the lease."""
    store = Store(f"memory://old-{secrets.token_hex(4)}", tmp_path)
    monkeypatch.setattr("tasks.artifacts.object_servers.OtherObjects._check", lambda *_: None)
    with pytest.raises(UserError, match="ignores If-None-Match"):
        run_chain(store, chain())
