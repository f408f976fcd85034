"""A Prefect server and a worker in use for a while, with faults: does any run hang, and does the server's log report an error?

    python -m tests.benchmarks.prefect_soak [--minutes 60] [--seed 1]

In its own folder it starts a server, registers the deployments, and starts a worker. One deployment has an interval schedule.
Over and over, in a drawn order, runs are triggered, cancelled, retried, and launched by the pipeline. Three times the server is
killed and started again, twice the worker is, twice the process of a run. At the end every run has as long to end as the slowest
automation takes to mark it as crashed. A run that has not ended then hangs.
"""

import argparse
import os
import random
import signal
import statistics
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from flows.automations import SILENCE_SECONDS, START_SECONDS
from tests.benchmarks.harness import machine, print_table, say
from tests.support.kills import SMALL_MODEL
from tests.support.prefect_servers import FINAL, LocalPrefect, kill, wait_for

SMALL = {"sample": {"num_articles": 40, "num_files": 2}, "num_workers": 1}
SETTINGS = [
    "ingest.sample.num_articles=40",
    "ingest.sample.num_files=2",
    "ingest.num_workers=1",
    "filter.num_workers=1",
]
TRAINING = [
    "tokenizer.vocab_size=512",
    *SMALL_MODEL,
    "pretrain.train.num_steps=200",
    "pretrain.train.batch_tokens=1024",
    "pretrain.train.sequence_tokens=64",
    "pretrain.train.checkpoint_every_steps=20",
]
NUM_SERVER_KILLS, NUM_WORKER_KILLS, NUM_RUN_KILLS = 3, 2, 2
AWAY_SECONDS = 20.0
SCHEDULE_SECONDS = 60.0


class Soak:
    """The server, the worker, and what came of each action."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.prefect = LocalPrefect(folder)
        self.random = random.Random(seed)
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def start(self) -> None:
        self.prefect.start_server()
        self.prefect.deploy()
        self.worker = self.prefect.start_worker()
        deployment = self.prefect.call("GET", "/deployments/name/ingest/ingest")
        schedule = {"schedule": {"interval": SCHEDULE_SECONDS}, "active": True, "parameters": {"config": SMALL}}
        self.schedules = f"/deployments/{deployment['id']}/schedules"
        self.prefect.call("POST", self.schedules, [schedule])

    def trigger(self) -> str:
        return self._end(self.prefect.trigger("ingest", {"config": SMALL, "force": self.random.random() < 0.5}))

    def pipeline(self) -> str:
        seed = self.random.randrange(3)
        settings = [*SETTINGS, f"ingest.sample.num_articles={40 + seed}"]
        return self._end(self.prefect.trigger("pipeline", {"settings": settings, "until": "filter"}))

    def train(self) -> str:
        seed = self.random.randrange(1000)
        settings = [*SETTINGS, *TRAINING, f"pretrain.train.seed={seed}"]
        return self._end(self.prefect.trigger("pipeline", {"settings": settings, "until": "pretrain"}))

    def cancel(self) -> str:
        run = self.prefect.create_run("ingest", {"config": SMALL | {"sample": {"num_articles": 2000}}, "force": True})
        self.prefect.wait_for_state(run["id"], "RUNNING")
        state = {"state": {"type": "CANCELLING"}, "force": True}
        self.prefect.call("POST", f"/flow_runs/{run['id']}/set_state", state)
        return self._end(self.prefect.wait_for_state(run["id"]))

    def retry(self) -> str:
        """A run that fails for want of an input, and is retried as the UI's Retry button does."""
        run = self.prefect.trigger("rlhf", {"recipe": "small"})
        state = {"state": {"type": "SCHEDULED", "name": "AwaitingRetry"}, "force": True}
        self.prefect.call("POST", f"/flow_runs/{run['id']}/set_state", state)
        again = wait_for(lambda: self._again(run["id"]), "the retry has ended")
        return self._end(again)

    def _again(self, run_id: str) -> dict[str, Any] | None:
        run = self.prefect.run(run_id)
        return run if run["run_count"] == 2 and run["state"]["type"] in FINAL else None

    def kill_server(self) -> str:
        """While a run is under way, which has to end as it would have ended."""
        run = self.prefect.create_run("ingest", {"config": SMALL, "force": True})
        self.prefect.wait_for_state(run["id"], "RUNNING")
        self.prefect.kill_server()
        time.sleep(AWAY_SECONDS)
        self.prefect.start_server()
        return self._end(self.prefect.wait_for_state(run["id"]))

    def kill_worker(self) -> str:
        """The worker alone: the processes of its runs live on."""
        run = self.prefect.create_run("ingest", {"config": SMALL, "force": True})
        self.prefect.wait_for_state(run["id"], "PENDING", "RUNNING")
        os.kill(self.worker.pid, signal.SIGKILL)
        self.worker.wait()
        self.worker = self.prefect.start_worker()
        return "killed"

    def kill_run(self) -> str:
        run = self.prefect.create_run("ingest", {"config": SMALL | {"sample": {"num_articles": 2000}}, "force": True})
        self.prefect.wait_for_state(run["id"], "RUNNING")
        for process in psutil.process_iter(["environ"]):
            if (process.info["environ"] or {}).get("PREFECT__FLOW_RUN_ID") == run["id"]:
                process.kill()
        return self._end(self.prefect.wait_for_state(run["id"]))

    def _end(self, run: dict[str, Any]) -> str:
        return str(run["state"]["type"])

    def do(self, action: Callable[[], str]) -> None:
        started = time.monotonic()
        try:
            outcome = action()
        except AssertionError as error:
            outcome = f"hangs: {error}"
        name = action.__name__
        self.outcomes[name, outcome] += 1
        self.seconds[name].append(time.monotonic() - started)
        say(
            f"{name}: {outcome}, {self.seconds[name][-1]:.0f} s; errors in the server's log: {len(self.prefect.errors())}"
        )

    def use(self, minutes: float) -> None:
        """Actions until the time is over; the faults are spread over it evenly."""
        faults = [
            *[self.kill_server] * NUM_SERVER_KILLS,
            *[self.kill_worker] * NUM_WORKER_KILLS,
            *[self.kill_run] * NUM_RUN_KILLS,
        ]
        self.random.shuffle(faults)
        started, num_faults = time.monotonic(), len(faults)
        while (passed := (time.monotonic() - started) / (60 * minutes)) < 1.0 or faults:
            if faults and passed > (num_faults - len(faults) + 1) / (num_faults + 1):
                self.do(faults.pop())
            else:
                self.do(self.random.choice([self.trigger, self.pipeline, self.train, self.cancel, self.retry]))

    def hanging(self) -> list[str]:
        """Runs that have not ended, the schedule being over and every automation's time being up."""
        for made in self.prefect.call("GET", self.schedules):
            self.prefect.call("DELETE", f"{self.schedules}/{made['id']}")
        deadline = time.monotonic() + max(SILENCE_SECONDS, START_SECONDS) + 120
        while (left := self._unfinished()) and time.monotonic() < deadline:
            time.sleep(5)
        return left

    def _unfinished(self) -> list[str]:
        wanted = {"flow_runs": {"state": {"type": {"not_any_": list(FINAL)}}}}
        runs = self.prefect.call("POST", "/flow_runs/filter", wanted)
        return [f"{run['name']} {run['state']['type']}" for run in runs]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0, help="How long actions are started.")
    parser.add_argument("--seed", type=int, default=1, help="Of the order of the actions.")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        soak = Soak(Path(folder), options.seed)
        try:
            soak.start()
            soak.use(options.minutes)
            hanging, errors = soak.hanging(), soak.prefect.errors()
            wanted = {"flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}}, "limit": 200}
            scheduled = sum(run["auto_scheduled"] for run in soak.prefect.call("POST", "/flow_runs/filter", wanted))
        finally:
            for process in soak.prefect.processes:
                kill(process)
        for error in errors:
            say(error)
    rows = [
        (name, outcome, num, f"{statistics.median(soak.seconds[name]):.0f}")
        for (name, outcome), num in sorted(soak.outcomes.items())
    ]
    totals = f"Scheduled runs completed: {scheduled}. Runs that hang: {len(hanging)} {hanging}. Errors in the server's log: {len(errors)}."
    print_table(
        f"A Prefect server in use for {options.minutes:.0f} minutes",
        ["Action", "Ended as", "Times", "Median s"],
        rows,
        f"{totals} {machine()}.",
    )


if __name__ == "__main__":
    main()
