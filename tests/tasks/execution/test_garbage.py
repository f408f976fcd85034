"""Garbage of a store: what goes, what stays, and that a run at work is never disturbed. In a folder and in a remote store."""

import secrets
import time
from pathlib import Path

import pytest

from model.errors import UserError
from tasks.artifacts.manifest import Artifact, Documents
from tasks.artifacts.store import Store
from tasks.execution import store_lease
from tasks.execution.garbage import DAY_SECONDS, Removal, find_garbage, remove_garbage
from tasks.execution.runner import execute
from tasks.execution.store_lease import artifact_lease
from tests.tasks.artifacts.test_store import chain, run_chain

NEXT_WEEK = 8 * DAY_SECONDS


@pytest.fixture(params=["folder", "remote"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        return Store(str(tmp_path / "store"))
    return Store(f"memory://garbage-{secrets.token_hex(4)}", tmp_path / "cache")


def garbage(store: Store, *keep: str) -> list[Removal]:
    return find_garbage(store, keep or ("latest", "7d"), time.time() + NEXT_WEEK)


def ids(removals: list[Removal]) -> set[str]:
    return {removal.artifact_id for removal in removals}


def test_latest_of_a_recipe_stays_with_its_inputs_and_the_rest_goes(any_store: Store) -> None:
    kept, other = chain(), chain(first=0.9, second=0.7)
    run_chain(any_store, kept)
    run_chain(any_store, other)
    any_store.set_latest("tiny", execute(kept, any_store))
    found = garbage(any_store)
    assert ids(found) == {other.id, other.inputs["documents"].id}
    assert sum(removal.bytes for removal in found) > 0
    assert any_store.find(other.id), "nothing is removed before it is asked for"
    assert remove_garbage(any_store, found) == sum(removal.bytes for removal in found)
    again = Store(any_store.url, any_store.root.parent)
    assert again.find(other.id) is None
    assert again.open(kept.id, Documents).files("text")[0].exists()
    assert not garbage(any_store)


def test_young_and_named_artifacts_stay(any_store: Store) -> None:
    step = chain()
    run_chain(any_store, step)
    assert not find_garbage(any_store, ("latest", "7d"), time.time() + DAY_SECONDS)
    assert not find_garbage(any_store, ("latest",), time.time()), "written within the hour"
    assert ids(garbage(any_store, "latest")) == {step.id, step.inputs["documents"].id}
    assert not garbage(any_store, step.id)
    with pytest.raises(UserError, match="--keep 'yesterday' is no rule"):
        garbage(any_store, "yesterday")
    with pytest.raises(UserError, match="has no such artifact"):
        garbage(any_store, "two/0000")


def test_run_at_work_keeps_its_artifact_and_what_it_reads(any_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.execution.garbage.is_live", lambda record, _: store_lease.is_live(record, 0.0))
    step = chain()
    run_chain(any_store, step)
    read = step.inputs["documents"].id
    with artifact_lease(any_store, "three/0123456789abcdef", reads=[read]):
        assert ids(garbage(any_store)) == {step.id}
    found = garbage(any_store)
    assert ids(found) == {step.id, read}
    with artifact_lease(any_store, step.id):
        remove_garbage(any_store, found)
        assert Store(any_store.url, any_store.root.parent).find(step.id), "a run began after the list was made"
    assert any_store.find(read) is None or any_store.remote


def test_unfinished_work_of_the_dead_goes(any_store: Store) -> None:
    folder = any_store.folder("one/dead00000000dead")
    if any_store.remote:
        any_store.remote.objects.put("one/dead00000000dead/.state/shards/a.json", b"{}")
        any_store.remote.objects.put("one/dead00000000dead/lease", b'{"token": "gone"}')
    else:
        (folder / ".state").mkdir(parents=True)
        (folder / ".state/half").write_text("half")
    (found,) = garbage(any_store)
    assert found.reason.startswith("unfinished")
    assert remove_garbage(any_store, [found]) == found.bytes
    assert not garbage(any_store)


def test_files_that_no_manifest_names_go_alone(any_store: Store) -> None:
    step = chain()
    run_chain(any_store, step)
    any_store.set_latest("tiny", execute(step, any_store))
    if any_store.remote:
        any_store.remote.objects.put(f"{step.id}/text-0123456789abcdef", b"of a run that was not first")
    else:
        (any_store.folder(step.id) / "text.1-abc.tmp").write_text("of a run that was killed")
    (found,) = garbage(any_store)
    assert len(found.keys) == 1
    remove_garbage(any_store, [found])
    assert not garbage(any_store)
    assert Store(any_store.url, any_store.root.parent).open(step.id, Artifact)


def test_files_of_others_are_left(any_store: Store) -> None:
    """A store may be somebody's home, or a bucket for many things."""
    others = [
        "notes.txt",
        "photos/2024/a.jpg",
        "recipes/cake/flour",
        "backup/0123456789abcdef/a.tar",
        "one/0123/.state/x",
    ]
    for name in others:
        if any_store.remote:
            any_store.remote.objects.put(name, b"mine")
        else:
            (any_store.root / name).parent.mkdir(parents=True, exist_ok=True)
            (any_store.root / name).write_text("mine")
    assert not garbage(any_store, "7d")
