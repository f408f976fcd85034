"""How a flow runs a stage: the names of runs, and what a run begins with."""

from pathlib import Path

import pytest
from prefect.utilities.names import generate_slug

from flows.stage_run import UP_TO_DATE, is_random_name, state_before
from model.config import Config
from tasks.artifacts.manifest import STATE, Report
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store
from tasks.execution.runner import execute


def test_names_that_prefect_makes_up_are_random() -> None:
    names = [generate_slug(2) for _ in range(300)]
    assert [name for name in names if not is_random_name(name)] == []
    assert is_random_name("Tasty-Poke")  # of the form in the UI


@pytest.mark.parametrize(
    "name", ["my first run", "sft-tiny", "night run", "friday", "baseline-2", "läufer", "ingest-crawl", "a-b-c", ""]
)
def test_names_that_a_person_types_are_kept(name: str) -> None:
    assert not is_random_name(name)


def test_state_before_says_new_resumed_up_to_date_or_forced(store: Store) -> None:
    def stage(ctx: object, config: Config) -> Outcome:
        Path(ctx.folder, "report.md").write_text("done")  # type: ignore[attr-defined]
        return Outcome()

    step = Step("stage", 1, Report, Config(), {}, stage)
    assert state_before(step, store) == "new"
    work = store.folder(step.id) / STATE
    work.mkdir(parents=True)
    assert state_before(step, store) == "new"
    (work / "shard.json").touch()
    assert "resumes" in state_before(step, store)
    execute(step, store)
    assert state_before(step, store) == UP_TO_DATE
    assert "forced" in state_before(step, store, force=True)
    (store.folder(step.id) / "report.md").write_text("changed")
    assert state_before(step, store) == "new"
