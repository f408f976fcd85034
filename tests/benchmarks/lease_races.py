"""Races and stalls at one lease: how often two runs both commit, which must be never.

    python -m tests.benchmarks.lease_races [--tries 4000] [--seed 0]

A try is one artifact folder and three runs that want it, each a separate process, with a lease of 0.15 s instead of 60 s. Every
other try begins with a lease whose holder was killed; in every other pair of tries the first run inside is stopped (SIGSTOP) at a random
moment of its work or of its commit, for half a lease to two and a half, and then continued. A run that holds the lease commits unless somebody has: the sequence of
`tasks.execution.runner.execute`. Needs some fifteen minutes on two cores.
"""

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from model.processes import LEASE_LOST, LeaseLost
from tasks.execution import lease as leases
from tests.benchmarks.harness import print_table, say

NUM_RUNS = 3
LEASE_SECONDS = 0.15
WORK_SECONDS = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    counts = Counter[str]()
    for number in range(arguments.tries):
        counts += attempt(arguments.seed + number, is_abandoned=number % 2 == 0, is_stalled=number % 4 >= 2)
        if (number + 1) % 200 == 0:
            say(f"{number + 1} tries: {dict(counts)}")
    print_table("Races and stalls at one lease", ["what", "times"], sorted((dict.fromkeys(WRONG, 0) | counts).items()))
    wrong = {name: num for name, num in counts.items() if name in WRONG}
    sys.exit(f"wrong: {wrong}" if wrong else 0)


WRONG = ("nobody committed", "two committed", "two inside at once", "a run failed", "a run hung")


def attempt(seed: int, *, is_abandoned: bool, is_stalled: bool) -> Counter[str]:
    """One try. What happened, by name."""
    chance = random.Random(seed)
    leases.LEASE_SECONDS, leases.POLL_SECONDS = LEASE_SECONDS, 0.005
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if is_abandoned:
            abandon(folder)
        if is_stalled:
            (folder / "stall").write_text(chance.choice(("work", "commit")))
        start = time.monotonic() + 0.02
        runs = [
            fork(lambda number=number: contend(folder, start, random.Random((seed, number).__repr__())))
            for number in range(NUM_RUNS)
        ]
        statuses = statuses_of(runs, LEASE_SECONDS * chance.choice((0.5, 1.5, 2.5)))
        lines = [json.loads(line) for line in (folder / "journal").read_text().splitlines()]
    counts = Counter({"tries": 1, "tries with a stall": int(is_stalled), "tries after a kill": int(is_abandoned)})
    commits = sum(line["event"] == "commit" for line in lines)
    counts["nobody committed"] = int(commits == 0)
    counts["two committed"] = int(commits > 1)
    counts["two inside at once"] = int(overlap(lines) and not is_stalled and LEASE_LOST not in statuses)
    counts["runs that lost their lease"] = statuses.count(LEASE_LOST)
    counts["a run failed"] = sum(status not in (0, LEASE_LOST, -signal.SIGKILL) for status in statuses)
    counts["a run hung"] = statuses.count(-signal.SIGKILL)
    return counts


def contend(folder: Path, start: float, chance: random.Random) -> int:
    """One run. Returns its exit status."""
    time.sleep(max(0.0, start - time.monotonic()) + chance.choice((0.0, 0.0, chance.random() * WORK_SECONDS)))
    try:
        with leases.lease(folder, lambda message: None) as held:
            write(folder, "enter")
            if not (folder / "committed").exists():
                place = stall_place(folder)
                time.sleep(chance.random() * WORK_SECONDS)
                stop_if(place == "work")
                with held.fence():
                    stop_if(place == "commit")
                    write(folder, "commit")
                    (folder / "committed").touch()
            write(folder, "leave")
    except LeaseLost:
        return LEASE_LOST
    return 0


def write(folder: Path, event: str) -> None:
    """One line, appended in one system call."""
    line = json.dumps({"event": event, "run": os.getpid(), "time": time.monotonic()}) + "\n"
    with (folder / "journal").open("ab", buffering=0) as stream:
        stream.write(line.encode())


def overlap(lines: list[dict[str, object]]) -> bool:
    """Whether a run entered before the one before it had left or committed its last."""
    inside: object = None
    for line in lines:
        if line["event"] == "enter" and inside is not None:
            return True
        inside = None if line["event"] == "leave" else line["run"]
    return False


def abandon(folder: Path) -> None:
    """Leave the lease of a run that was killed."""

    def hold() -> int:
        with leases.lease(folder):
            (folder / "held").touch()
            time.sleep(100)
        return 0

    holder = fork(hold)
    while not (folder / "held").exists():
        time.sleep(0.001)
    os.kill(holder, signal.SIGKILL)
    os.waitpid(holder, 0)


def stall_place(folder: Path) -> str:
    """Where this run is to be stopped: the first that asks is."""
    try:
        place = (folder / "stall").read_text()
        (folder / "stall").unlink()
    except FileNotFoundError:
        return ""
    return place


def stop_if(is_here: bool) -> None:
    if is_here:
        os.kill(os.getpid(), signal.SIGSTOP)


def fork(work: Callable[[], int]) -> int:
    """Run `work` in a separate process; its id."""
    if run := os.fork():
        return run
    status = 1
    try:
        status = work()
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        os._exit(status)


def statuses_of(runs: list[int], stall_seconds: float) -> list[int]:
    """Wait for all runs; one that stops is continued after so long. One that does not end within 30 s is killed."""
    found: dict[int, int] = {}
    stopped: dict[int, float] = {}
    deadline = time.monotonic() + 30
    while len(found) < len(runs):
        for run in set(runs) - set(found):
            done, status = os.waitpid(run, os.WNOHANG | os.WUNTRACED)
            if done and os.WIFSTOPPED(status):
                stopped[run] = time.monotonic()
            elif done:
                found[run] = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > deadline:
                os.kill(run, signal.SIGKILL)
            elif run in stopped and time.monotonic() - stopped[run] > stall_seconds:
                del stopped[run]
                os.kill(run, signal.SIGCONT)
        time.sleep(0.002)
    return list(found.values())


if __name__ == "__main__":
    main()
