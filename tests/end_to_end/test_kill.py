"""A stage of which a process is killed leaves no process behind, and the same command then makes the same artifact.

tests/benchmarks/kill_moments.py does this at random moments of every stage.
"""

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tasks.artifacts.store import Store
from tests.support.kills import MarkedRun, digests, kill_and_rerun, without
from tests.support.prefect_servers import server_for_commands
from tests.support.small_run import copy_finished_run, settings

LIMIT_SECONDS = 250.0  # a bound on hangs
# Checkpoints so often that a kill falls between two; that is no setting that a result depends on.
ARGUMENTS = settings("sft.train.checkpoint_every_steps=1")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]  # the machine may be loaded: bounds on hangs alone


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of an undisturbed run, on two ranks."""
    folder = tmp_path_factory.mktemp("finished")
    copy_finished_run(folder)
    return folder / "store"


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server_for_commands(tmp_path_factory.mktemp("server")) as url:
        yield url


@pytest.mark.parametrize(
    ("stage", "kind", "pattern", "has_server"),
    [
        ("filter", "worker", "filter/*/lease", True),
        ("pretrain", "rank", "pretrain/*/.state/checkpoints/step-*", False),
        ("sft", "rank", "sft/*/.state/checkpoints/step-*", False),
    ],
)
def test_stage_with_a_killed_process_leaves_nothing_behind_and_reruns_to_the_same_bytes(
    stage: str,
    kind: str,
    pattern: str,
    has_server: bool,
    finished: Path,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Runs that start a server must end it too; those of which a rank is killed share one."""
    if not has_server:
        monkeypatch.setenv("PREFECT_API_URL", request.getfixturevalue("server_url"))
    place = tmp_path / "copy"
    store = without(finished, place, stage)

    def start(mark: str) -> MarkedRun:
        return MarkedRun(place / "store", place / "prefect", mark, [*ARGUMENTS, "--only", stage])

    outcome = kill_and_rerun(start, kind, until_file(place / "store", pattern), lambda found: found[-1], LIMIT_SECONDS)
    assert outcome.is_killed, "the run ended before its process was killed"
    assert not outcome.is_hung, outcome.output
    assert outcome.orphans == []
    assert outcome.num_two_writers == 0
    assert outcome.status == 0, outcome.output
    assert digests_of(store, stage) == digests_of(Store(str(finished)), stage)


def until_file(store: Path, pattern: str) -> Callable[[MarkedRun], None]:
    """Waits until the run has written a file of that pattern, or has ended."""

    def wait(run: MarkedRun) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not list(store.glob(pattern)) and run.process.poll() is None:
            assert time.monotonic() < deadline, f"{pattern} did not come: {run.log.read_text()}"
            time.sleep(0.02)

    return wait


def digests_of(store: Store, stage: str) -> dict[str, str]:
    """Of the latest artifact of a stage."""
    manifest = store.find(store.latest("tiny", stage))
    assert manifest is not None
    return digests(manifest)
