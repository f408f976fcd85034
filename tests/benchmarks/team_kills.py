"""A team's servers, workers and machines, each killed during a data stage and during training: do runs end, with the same bytes?

    python -m tests.benchmarks.team_kills [--seconds 15] [--only TEXT ...] [--minutes 60]

On loopback: PostgreSQL and Redis behind a Prefect server, an S3 server as the store, and two machines with separate caches and folders, one with a
worker of the data pool, one of the training pool. A small recipe runs once by the command in a folder, undisturbed. Then its pipeline runs by
deployments, over and over: each time what one stage has left is deleted, SIGKILL ends a server, a worker or a machine while the stage runs
again, and it is started again `--seconds` later. The first run begins with an empty store. A run that fails is retried as the
UI's Retry does. Same bytes: every file that holds no clock has the SHA-256 of the undisturbed run, under the same fingerprint. Two
at once: artifacts that two runs computed at the same time, by the logs of the machines. Last, one stage is started on two machines at
once. Ends with an error where a run does not complete, bytes differ, or two runs compute at once.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from flows import cancellation
from model.errors import UserError
from model.files import read_lines
from tasks.artifacts.store import Store
from tests.benchmarks.harness import ROOT, machine, print_table, say
from tests.support.kills import SMALL_MODEL, digests
from tests.support.prefect_servers import FINAL, wait_for
from tests.support.team import DATA, TRAINING, Event, Machine, Team, missing_for_team, running_team

STAGES = ("ingest", "filter", "dedup", "index", "tokenizer", "tokenize", "pretrain")
CHECKPOINT_STEPS = 4
SETTINGS = [
    "ingest.sample.num_articles=100",
    "ingest.sample.num_files=3",
    *(f"{stage}.num_workers=1" for stage in ("ingest", "filter", "dedup")),
    "tokenizer.vocab_size=512",
    *SMALL_MODEL,
    "pretrain.train.num_ranks=1",
    "pretrain.train.num_steps=40",
    "pretrain.train.batch_tokens=2048",
    "pretrain.train.sequence_tokens=64",
    "pretrain.train.microbatch_sequences=4",
    f"pretrain.train.checkpoint_every_steps={CHECKPOINT_STEPS}",
]
RACE_ARTICLES = 300  # of the stage that two machines start at once: some 15 s of work
NUM_RETRIES = 3
ALIVE_SECONDS = 4 * cancellation.POLL_SECONDS
RACE = "race"
HEADINGS = (
    "SIGKILL to",
    "During",
    "Seconds away",
    "Pipeline ended as",
    "Runs of the stage launched again",
    "Retries",
    "Same bytes",
    "Two at once",
    "Note",
)
Digests = dict[str, dict[str, str]]  # of the artifacts' files, by the artifact's id


class Trial(NamedTuple):
    """Who is killed, and the stage that runs then."""

    victim: str
    stage: str


TRIALS = (
    Trial("Prefect server", "ingest"),
    Trial("machine, for good", "pretrain"),
    Trial("Redis", "filter"),
    Trial("PostgreSQL", "dedup"),
    Trial("S3 server", "pretrain"),
    Trial("worker", "pretrain"),
    Trial("machine", "ingest"),
    Trial("S3 server", "tokenize"),
    Trial("Prefect server", "pretrain"),
    Trial("PostgreSQL", "pretrain"),
    Trial("Redis", "pretrain"),
    Trial("worker", "ingest"),
)


class Row(NamedTuple):
    """What came of a trial."""

    victim: str
    stage: str
    away: str
    ended: str
    crashed: int  # runs of the stage's deployment, each followed by another one
    retries: int
    same: str
    at_once: int
    note: str = ""

    @property
    def is_good(self) -> bool:
        """Whether nothing is wrong."""
        is_same = self.same in ("yes", "")
        return self.ended.endswith("COMPLETED") and is_same and not self.at_once and not self.note.startswith("wrong")


def undisturbed(folder: Path) -> Digests:
    """Run the recipe by the command, on one machine, in a store that is a folder."""
    words = [word for setting in SETTINGS for word in ("--set", setting)]
    (folder / "prefect").mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(folder / "prefect"),
        "CRAWL2CHAT_STORE": str(folder / "store"),
    }
    command = [sys.executable, "-m", "flows.cli.main", "run", "tiny", "--until", STAGES[-1], *words]
    subprocess.run(command, env=environment, check=True, stdout=sys.stderr)
    return made(Store(str(folder / "store")))


def made(store: Store) -> Digests:
    """The digests of the recipe's latest artifact of each stage."""
    found = {}
    for stage in STAGES:
        manifest = store.find(store.latest("tiny", stage))
        assert manifest is not None
        found[manifest.id] = digests(manifest)
    return found


class Benchmark:
    """The team, the two machines that it begins with, and what is expected."""

    def __init__(self, team: Team, expected: Digests, seconds: float) -> None:
        self.team, self.expected, self.seconds = team, expected, seconds
        self.data = team.add_machine("one", DATA)
        self.training = team.add_machine("two", TRAINING)

    def attempt(self, trial: Trial) -> Row:
        """Run the pipeline with one kill, and retry it until it completes."""
        self.team.forget([trial.stage])
        # Else the store is empty, or a trial before has failed.
        is_alone = len(self.team.keys("recipes/tiny/")) == len(STAGES) - 1
        since = datetime.now(UTC)
        if trial.victim == "machine, for good":
            spare = self.team.add_machine("three", TRAINING)  # either of the two may take the training
        bounds = {"only": trial.stage} if is_alone else {"until": STAGES[-1]}
        run_id = self.team.create_run("pipeline", {"settings": SETTINGS, **bounds})
        victim = self.await_stage(trial.stage, since)
        start, killed = time.monotonic(), datetime.now(UTC)
        last_step = self.kill(trial.victim, victim)
        away = "for good" if "good" in trial.victim else f"{time.monotonic() - start:.0f}"
        is_late = any(
            event.action == "committed" and event.artifact.startswith(f"{trial.stage}/") and event.time < killed
            for event in self.since(since)
        )
        ended, retries = self.await_end(run_id)
        note = "the stage had ended before the kill" if is_late else ""
        if trial.victim == "machine, for good":
            note = self.resumed(since, last_step)
            self.training = spare if victim is self.training else self.training
        found = made(self.team.store("reader"))
        same = (
            "yes"
            if found == self.expected
            else f"no: {[name for name in self.expected if found.get(name) != self.expected[name]]}"
        )
        crashed = self.num_crashed(trial.stage, since)
        return Row(trial.victim, trial.stage, away, ended, crashed, retries, same, len(self.team.overlaps(since)), note)

    def since(self, since: datetime) -> list[Event]:
        """What the machines have done since then."""
        return [event for event in self.team.events() if event.time >= since]

    def await_stage(self, stage: str, since: datetime) -> Machine:
        """Wait until the stage is at work, a training until it has a checkpoint in the store. Returns its machine."""

        def begun() -> Machine | None:
            for event in self.since(since):
                if event.action == "computing" and event.artifact.startswith(f"{stage}/"):
                    prefix = f"{event.artifact}/.state/checkpoints/"
                    if stage != "pretrain" or any(key.endswith(".json") for key in self.team.keys(prefix)):
                        return self.team.machines[event.machine]
            return None

        return wait_for(begun, f"{stage} is at work")

    def kill(self, victim: str, machine: Machine) -> int:
        """Kill, wait, and start again. Returns the last step that a training on a killed machine had done."""
        team = self.team
        say(f"{victim} is killed, {machine.name} being at work")
        if victim == "machine, for good":
            machine.kill()
            return last_step(machine)
        if victim.startswith("machine"):
            pools = machine.kill()
            self.away()
            self.restart(machine, pools)
        elif victim == "worker":
            pool = DATA if machine is self.data else TRAINING
            machine.kill_worker(pool)
            self.away()
            machine.start_worker(pool)
        else:
            servers: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
                "Prefect server": (team.prefect.kill_server, team.prefect.start_server),
                "PostgreSQL": (team.database.kill, team.database.start),
                "Redis": (team.redis.kill, team.redis.start),
                "S3 server": (team.s3.kill, team.s3.restart),
            }
            kill, start = servers[victim]
            kill()
            self.away()
            start()
        team.wait_until_ready()
        return 0

    def away(self) -> None:
        """The outage itself is what is tried."""
        time.sleep(self.seconds)

    def restart(self, machine: Machine, pools: Sequence[str] = ()) -> None:
        """Start the workers that a machine has usually, or these."""
        for pool in pools or ([DATA] if machine is self.data else [TRAINING]):
            machine.start_worker(pool)

    def await_end(self, run_id: str) -> tuple[str, int]:
        """How a run ended, with the states that it was retried from, and how often it was."""
        states: list[str] = []
        while True:
            run = self.ended(run_id, len(states) + 1)
            states.append(run["state"]["type"])
            if states[-1] == "COMPLETED" or len(states) > NUM_RETRIES:
                return ", then ".join(states), len(states) - 1
            say(f"{run['name']} ended as {run['state']['name']}: {run['state']['message']}")
            state = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
            self.team.prefect.call("POST", f"/flow_runs/{run_id}/set_state", state)

    def ended(self, run_id: str, count: int) -> dict[str, Any]:
        """A run that has ended for the `count`th time."""

        def ended() -> dict[str, Any] | None:
            run: dict[str, Any] = self.team.prefect.run(run_id)
            age = datetime.now(UTC) - datetime.fromisoformat(run["state"]["timestamp"])
            # A run that was taken for dead may say that it lives.
            is_certain = run["state"]["type"] != "CRASHED" or age.total_seconds() > ALIVE_SECONDS
            return run if run["run_count"] >= count and run["state"]["type"] in FINAL and is_certain else None

        return wait_for(ended, f"run {run_id} has ended", 900)

    def runs(self, stage: str, since: datetime, **conditions: Any) -> list[dict[str, Any]]:
        """The runs of a stage that began since then, on the server."""
        wanted = {
            "flows": {"name": {"any_": [stage]}},
            "flow_runs": {"start_time": {"after_": since.isoformat()}, **conditions},
        }
        found: list[dict[str, Any]] = self.team.prefect.call("POST", "/flow_runs/filter", wanted)
        return found

    def num_crashed(self, stage: str, since: datetime) -> int:
        """Runs of a stage that crashed."""
        return len(self.runs(stage, since, state={"type": {"any_": ["CRASHED", "FAILED"]}}))

    def resumed(self, since: datetime, step: int) -> str:
        """From which step the other machine has resumed a training whose machine was killed after `step`."""
        lines = self.lines("pretrain", since)
        mark = "resuming from another machine's checkpoint of step "
        steps = [int(line.removeprefix(mark)) for line in lines if line.startswith(mark)]
        if not steps:
            return "wrong: not resumed on the other machine"
        how = "" if step - steps[-1] <= CHECKPOINT_STEPS else "wrong: "
        return f"{how}killed after step {step}, resumed on the other machine from step {steps[-1]}"

    def lines(self, stage: str, since: datetime) -> list[str]:
        """Log lines on the server of all runs of a stage."""
        return [line for run in self.runs(stage, since) for line in self.team.prefect.logs(run["id"])]

    def race(self) -> Row:
        """Start one stage on two machines at the same time: each takes one run."""
        since = datetime.now(UTC)
        self.data.kill_worker(DATA)
        for one in (self.data, self.training):
            one.start_worker(DATA, limit=1)
        parameters = {"config": {"sample": {"num_articles": RACE_ARTICLES, "num_files": 3}, "num_workers": 1}}
        runs = [self.team.create_run("ingest", parameters) for _ in range(2)]
        ended = {self.team.prefect.wait_for_state(run)["state"]["type"] for run in runs}
        for one in (self.data, self.training):
            one.kill_worker(DATA)
        self.data.start_worker(DATA)
        computed = [
            event for event in self.since(since) if event.action == "computing" and event.artifact.startswith("ingest/")
        ]
        waits = "another machine is at this stage: waiting for it"
        waited = sum(any(waits in line for line in self.team.prefect.logs(run)) for run in runs)
        how = "" if len(computed) == 1 and waited == 1 else "wrong: "
        note = f"{how}{len(computed)} computed, {waited} waited for it"
        at_once = len(self.team.overlaps(since))
        return Row(
            "none: two machines start one stage", "ingest", "", ", ".join(sorted(ended)), 0, 0, "", at_once, note
        )


def last_step(machine: Machine) -> int:
    """The last step that a training on a machine has recorded."""
    return max(
        (line["step"] for path in machine.cache.glob("*/pretrain/*/metrics.jsonl") for line in read_lines(path)),
        default=0,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=15.0, help="How long what was killed is away.")
    parser.add_argument(
        "--only", nargs="*", default=[], help="Only trials whose victim and stage contain one of these."
    )
    parser.add_argument("--folder", type=Path, help="Work here; an undisturbed run that is here is used.")
    parser.add_argument("--minutes", type=float, default=1e6, help="Start no further trial after so many.")
    options = parser.parse_args()
    deadline = time.monotonic() + 60 * options.minutes
    if reason := missing_for_team():
        sys.exit(reason)
    folder = options.folder or Path(tempfile.mkdtemp(prefix="team-kills-"))
    expected = undisturbed(folder / "undisturbed")
    chosen = [trial for trial in TRIALS if not options.only or any(one in " ".join(trial) for one in options.only)]
    shutil.rmtree(folder / "team", ignore_errors=True)
    (folder / "team").mkdir()
    with running_team(folder / "team") as team:
        benchmark = Benchmark(team, expected, options.seconds)
        actions = [partial(benchmark.attempt, trial) for trial in chosen]
        if not options.only or RACE in options.only:
            actions.append(partial(benchmark.race))  # it leaves another ingest as the latest
        rows = [row for action in actions if time.monotonic() < deadline and (row := timed(action))]
    note = f"{len(expected)} artifacts compared after each. {machine()}."
    print_table("A team's servers, workers and machines killed during a run", HEADINGS, rows, note)
    if not all(row.is_good for row in rows) or len(rows) < len(actions):
        sys.exit(f"{len(rows)} of {len(actions)} trials ended; see {folder}")
    if not options.folder:
        shutil.rmtree(folder)


def timed(action: Callable[[], Row]) -> Row | None:
    """The row of a trial; None, with the reason on standard error, where it hung."""
    start = time.monotonic()
    try:
        row = action()
    except (AssertionError, UserError, httpx.HTTPError):
        say(traceback.format_exc())
        return None
    say(f"{time.monotonic() - start:.0f} s: {row}")
    return row


if __name__ == "__main__":
    main()
