"""Artifacts: identity, completion, damage, and two runners of one fingerprint."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest
from pydantic import Field

from model.config import Config, runtime
from model.errors import UserError
from tasks.artifacts.config import fingerprint
from tasks.artifacts.manifest import Documents, Tokens
from tasks.artifacts.step import ExistingArtifact, Outcome, Step
from tasks.artifacts.store import PARALLEL_BYTES, DamagedArtifact, Store
from tasks.execution.context import StageContext
from tasks.execution.runner import execute, up_to_date


class Settings(Config):
    threshold: float = 0.5
    num_workers: int = runtime(2)


class Nested(Config):
    inner: Settings = Field(Settings())


CALLS: list[str] = []


@dataclass(frozen=True)
class Inputs:
    documents: Documents | None = None


def write(ctx: StageContext, config: Settings, inputs: Inputs) -> Outcome:
    CALLS.append(ctx.step.stage)
    before = (inputs.documents.folder / "text").read_text() if inputs.documents else ""
    (ctx.state / "half").write_text("gone on completion")
    (ctx.folder / "text").write_text(f"{before}{ctx.step.stage}:{config.threshold} ")
    return Outcome({"documents": 1})


def fail(ctx: StageContext, config: Settings) -> Outcome:
    (ctx.folder / "text").write_text("half")
    raise OSError(28, "No space left on device")


def chain(first: float = 0.5, second: float = 0.5) -> Step[Documents]:
    one = Step("one", 1, Documents, Settings(threshold=first), {}, run=write, takes=Inputs)
    return Step("two", 1, Documents, Settings(threshold=second), {"documents": one}, run=write, takes=Inputs)


def run_chain(store: Store, step: Step[Documents]) -> list[str]:
    CALLS.clear()
    execute(step.inputs["documents"], store)
    execute(step, store)
    return list(CALLS)


def test_fingerprint_depends_on_what_shapes_the_result_only() -> None:
    def name(version: int = 1, config: Config = Settings(), **inputs: str) -> str:
        return fingerprint("filter", version, config, inputs)

    assert name() == name(config=Settings(num_workers=7))
    assert fingerprint("filter", 1, Nested(), {}) == fingerprint("filter", 1, Nested(inner=Settings(num_workers=9)), {})
    others = [name(version=2), name(config=Settings(threshold=0.6)), name(documents="a"), name(documents="b")]
    assert len({name(), *others}) == 5


def test_execute_skips_finished_stages_and_runs_changed_ones_with_their_dependents(store: Store) -> None:
    assert run_chain(store, chain()) == ["one", "two"]
    assert run_chain(store, chain()) == []
    assert run_chain(store, chain(second=0.7)) == ["two"]
    assert run_chain(store, chain(first=0.9)) == ["one", "two"]
    assert run_chain(store, chain()) == []
    assert not list(store.root.rglob(".state"))


def test_forced_stage_with_other_bytes_makes_its_dependents_stale(store: Store) -> None:
    step = chain()
    run_chain(store, step)
    execute(step.inputs["documents"], store, force=True)
    assert up_to_date(step, store), "the same bytes leave it as it is"

    other = Step("one", 1, Documents, Settings(), {}, run=lambda ctx, _: write(ctx, Settings(threshold=9), Inputs()))
    execute(other, store, force=True)
    assert up_to_date(step, store) is None
    CALLS.clear()
    execute(step, store)
    assert CALLS == ["two"]
    assert (store.folder(step.id) / "text").read_text() == "one:9.0 two:0.5 "


@pytest.mark.parametrize(
    ("damage", "reason"), [("delete", "was deleted"), ("truncate", "bytes"), ("change", "was changed")]
)
def test_verify_names_a_damaged_file_with_the_remedy(store: Store, damage: str, reason: str) -> None:
    step = chain()
    run_chain(store, step)
    path = store.folder(step.inputs["documents"].id) / "text"
    whole = path.read_text()
    {
        "delete": path.unlink,
        "truncate": lambda: path.write_text(whole[:-1]),
        "change": lambda: path.write_text(whole.replace("one", "eno")),
    }[damage]()
    with pytest.raises(DamagedArtifact, match=f"{reason}.*--force one"):
        execute(chain(second=0.8), store)


def test_failed_stage_leaves_no_manifest(store: Store) -> None:
    step = Step("one", 1, Documents, Settings(), {}, run=fail)
    with pytest.raises(OSError, match="No space left"):
        execute(step, store)
    assert store.find(step.id) is None
    assert not (store.folder(step.id) / "lease").exists()


def test_open_refuses_an_artifact_of_another_kind_or_a_missing_one(store: Store) -> None:
    step = chain()
    run_chain(store, step)
    with pytest.raises(ValueError, match="is of kind Documents, and Tokens is needed"):
        store.open(step.id, Tokens)
    with pytest.raises(ValueError, match="there is no artifact two/0000"):
        execute(
            Step(
                "three",
                1,
                Documents,
                Settings(),
                {"documents": ExistingArtifact.of(Documents, "two/0000")},
                run=write,
                takes=Inputs,
            ),
            store,
        )


def test_existing_artifact_counts_as_the_step_that_made_it(store: Store) -> None:
    step = chain()
    run_chain(store, step)
    given = ExistingArtifact.of(Documents, step.inputs["documents"].id)
    again = Step("two", 1, Documents, Settings(), {"documents": given}, run=write, takes=Inputs)
    assert again.fingerprint == step.fingerprint
    assert up_to_date(again, store)


def test_latest_artifact_of_a_recipe_is_found_or_the_error_names_the_remedy(store: Store) -> None:
    step = chain()
    run_chain(store, step)
    with pytest.raises(ValueError, match="crawl2chat run tiny --until two"):
        store.latest("tiny", "two")
    store.set_latest("tiny", execute(step, store))
    assert store.latest("tiny", "two") == step.id


def test_remote_store_returns_what_was_committed_to_it(tmp_path: Path) -> None:
    step = chain()
    run_chain(Store("memory://artifacts", tmp_path / "one"), step)
    elsewhere = Store("memory://artifacts", tmp_path / "two")
    assert run_chain(elsewhere, step) == []
    assert (elsewhere.open(step.id, Documents).folder / "text").read_text() == "one:0.5 two:0.5 "


def test_one_file_of_an_artifact_is_copied_from_a_remote_store(tmp_path: Path) -> None:
    step = chain()
    run_chain(Store("memory://one-file", tmp_path / "one"), step)
    elsewhere = Store("memory://one-file", tmp_path / "two")
    assert elsewhere.file(step.id, "text").read_text() == "one:0.5 two:0.5 "
    assert elsewhere.file(step.id, "text").is_relative_to(tmp_path / "two")
    for artifact_id, name in ((step.id, "no-such"), (step.id, "../text"), ("two/0000", "text")):
        with pytest.raises(UserError, match="there is no file"):
            elsewhere.file(artifact_id, name)


def test_records_hash_large_files_like_small_ones(tmp_path: Path) -> None:
    store, content = (
        Store(str(tmp_path)),
        {"small": b"a", "large": b"b" * (PARALLEL_BYTES + 1), "larger": b"c" * (2 * PARALLEL_BYTES)},
    )
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    assert {one.path: one.sha256 for one in store.records(tmp_path)} == {
        name: hashlib.sha256(data).hexdigest() for name, data in content.items()
    }
