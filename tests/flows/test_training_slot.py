"""The slot for training on a real server: one at a time, first in first out, whatever is killed: the holder, or the server."""

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.training_slot import LIMIT, QUEUE
from tests.support.forker import Forked, Forker
from tests.support.prefect_servers import LocalPrefect, bare_server, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


class Slots:
    """Runs that want the slot, as processes."""

    def __init__(self, prefect: LocalPrefect, forker: Forker, folder: Path) -> None:
        self.prefect, self.forker, self.folder = prefect, forker, folder
        self.processes: dict[str, Forked] = {}

    def start(self, name: str, **constants: float) -> None:
        """Start a run, and wait until it is in the queue."""
        constants = {"POLL_SECONDS": 0.5} | constants
        arguments = [str(self.folder), name, *(f"{constant}={value}" for constant, value in constants.items())]
        self.processes[name] = self.forker.fork(arguments, self.folder / f"{name}.log")
        wait_for(lambda: name in self.queue(), f"{name} is in the queue")

    def queue(self) -> list[str]:
        wanted = {"variables": {"name": {"like_": f"{QUEUE}%"}}}
        entries = self.prefect.call("POST", "/variables/filter", wanted)
        return [entry["value"]["run"] for entry in sorted(entries, key=lambda entry: entry["created"])]

    def let_end(self, name: str) -> None:
        (self.folder / name).touch()
        assert self.processes[name].wait(600) == 0

    def kill(self, name: str) -> None:
        self.processes[name].send(signal.SIGKILL)
        assert self.processes[name].wait() == -signal.SIGKILL

    def events(self) -> list[tuple[str, str, float]]:
        path = self.folder / "events"
        lines = [line.split() for line in path.read_text().splitlines()] if path.exists() else []
        return [(kind, name, float(at)) for kind, name, at in lines]

    def wait_for_start(self, name: str, seconds: float = 600.0) -> None:
        wait_for(lambda: ("start", name) in [event[:2] for event in self.events()], f"{name} has the slot", seconds)

    def reset(self) -> None:
        """Forget what an earlier test left on the server."""
        for entry in self.prefect.call("POST", "/variables/filter", {"variables": {"name": {"like_": f"{QUEUE}%"}}}):
            self.prefect.call("DELETE", f"/variables/{entry['id']}")
        for limit in self.prefect.call("POST", "/v2/concurrency_limits/filter", {}):
            self.prefect.call("DELETE", f"/v2/concurrency_limits/{limit['id']}")

    def limit(self) -> Any:
        return self.prefect.call("GET", f"/v2/concurrency_limits/{LIMIT}")


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrefect]:
    # How often the server looks for leases that are over: each 15 s by default.
    loop = {"PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "2"}
    with bare_server(tmp_path_factory.mktemp("prefect"), **loop) as local:
        yield local


@pytest.fixture(scope="module")
def forker(prefect: LocalPrefect) -> Iterator[Forker]:
    made = Forker("tests.support.slot_holder", environment=prefect.environment)
    yield made
    made.close()


@pytest.fixture
def slots(prefect: LocalPrefect, forker: Forker, tmp_path: Path) -> Iterator[Slots]:
    """Nobody waits for the slot, and nobody has it."""
    made = Slots(prefect, forker, tmp_path)
    made.reset()
    try:
        yield made
    finally:
        for process in made.processes.values():
            process.send(signal.SIGKILL)


def test_training_slot_is_held_by_one_run_at_a_time_in_order(slots: Slots) -> None:
    names = ["first", "second", "third"]
    for name in names:
        slots.start(name)
    slots.wait_for_start("first")
    assert slots.limit()["active_slots"] == 1
    for name in names:
        slots.wait_for_start(name)
        slots.let_end(name)
    assert [event[:2] for event in slots.events()] == [(kind, name) for name in names for kind in ("start", "end")]
    assert slots.limit()["active_slots"] == 0
    assert not slots.queue()


def test_limit_that_a_person_raised_lets_as_many_runs_train(slots: Slots) -> None:
    slots.start("first")
    slots.wait_for_start("first")
    slots.prefect.call("PATCH", f"/v2/concurrency_limits/{LIMIT}", {"limit": 2})
    for name in ("second", "third"):
        slots.start(name)
    slots.wait_for_start("second")
    assert slots.limit()["active_slots"] == 2
    slots.let_end("first")
    slots.wait_for_start("third")
    for name in ("second", "third"):
        slots.let_end(name)


def test_killed_runs_that_train_and_that_wait_do_not_block_the_next(slots: Slots) -> None:
    """The server frees the slot when the lease of the killed run is over: after a minute, the shortest that Prefect takes."""
    slots.start("killed")
    slots.wait_for_start("killed")
    slots.start("killed-waiter")
    slots.start("next", DEAD_SECONDS=10)
    slots.kill("killed-waiter")
    slots.kill("killed")
    slots.wait_for_start("next")
    slots.let_end("next")


def test_training_slot_survives_a_restart_of_a_server_that_forgets_leases(slots: Slots) -> None:
    """The run that trains continues and keeps the slot; the one that waits gets it after it, though the server was away for long."""
    slots.start("holder", RENEW_SECONDS=2)
    slots.wait_for_start("holder")
    slots.start("waiter", DEAD_SECONDS=10, ORPHAN_SECONDS=20)
    before = slots.limit()["updated"]
    slots.prefect.kill_server()
    time.sleep(12)  # longer than what makes an entry count as dead
    slots.prefect.start_server()
    wait_for(lambda: slots.limit()["updated"] != before, "the holder takes its lease again")
    assert [event[:2] for event in slots.events()] == [("start", "holder")]
    assert slots.processes["holder"].poll() is None
    slots.let_end("holder")
    slots.wait_for_start("waiter")
    slots.let_end("waiter")
    assert [event[:2] for event in slots.events()] == [
        ("start", "holder"), ("end", "holder"), ("start", "waiter"), ("end", "waiter"),
    ]  # fmt: skip


def test_slot_that_a_restarted_server_keeps_for_nobody_is_freed(slots: Slots) -> None:
    slots.start("killed")
    slots.wait_for_start("killed")
    slots.prefect.kill_server()
    slots.kill("killed")
    slots.prefect.start_server()
    assert slots.limit()["active_slots"] == 1
    slots.start("next", DEAD_SECONDS=5, ORPHAN_SECONDS=5)
    slots.wait_for_start("next")
    slots.let_end("next")
    assert slots.limit()["active_slots"] == 0
