"""Stages killed at random moments: what is left of the run, and whether the same command then makes the same artifact.

    python -m tests.benchmarks.kill_moments [--tries 40] [--seed 1]

A very small recipe runs once undisturbed, with one rank a training stage; each training stage once more with two. A try takes a copy of that
store without one stage's artifact, the stages in turn, and starts the stage by itself, training stages with one and two ranks in turn. At a
random moment SIGKILL ends the command, a worker, the server that workers are forked from, a rank, or the agent of the ranks. The same command
runs again as soon as the first one has ended. Same bytes: every file of the artifact that holds no clock has the SHA-256 of the
undisturbed run. Orphans: processes of the first run that live 10 s after its end. Two writers: processes of both runs that
hold the lock of the folder's writers. Needs about half a minute a try on two quiet cores.
"""

import argparse
import random
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flows.recipes import STAGE_NAMES
from tasks.artifacts.store import Store
from tests.benchmarks.harness import machine, print_table, say
from tests.support.kills import SMALL_MODEL, MarkedRun, Outcome, digests, kill_and_rerun, without

LIMIT_SECONDS = 400.0
TRAINING = ("pretrain", "sft", "reward", "rlhf")
SETTINGS = [  # the smallest run that reaches every stage; checkpoints so often that a kill falls between two
    "ingest.sample.num_articles=60",
    "ingest.sample.num_files=3",
    "tokenizer.vocab_size=400",
    *SMALL_MODEL,
    "pretrain.train.num_steps=12",
    "pretrain.train.batch_tokens=512",
    "pretrain.train.sequence_tokens=64",
    "pretrain.train.microbatch_sequences=4",
    "pretrain.train.checkpoint_every_steps=3",
    "probe.max_questions=40",
    "probe.num_samples=2",
    "probe.max_new_tokens=4",
    "sft.num_conversations=60",
    "sft.train.num_steps=4",
    "sft.train.batch_tokens=512",
    "sft.train.checkpoint_every_steps=1",
    "sft.train.eval_every_steps=1",
    "reward.num_pairs=60",
    "reward.train.num_steps=4",
    "reward.train.batch_tokens=1024",
    "reward.train.checkpoint_every_steps=1",
    "rlhf.num_prompts=20",
    "rlhf.train.num_steps=3",
    "rlhf.train.prompts_per_step=2",
    "rlhf.train.max_new_tokens=4",
    "rlhf.train.checkpoint_every_steps=1",
    "evaluate.max_questions=4",
    "evaluate.max_preferences=4",
    "evaluate.num_trials=2",
    "evaluate.max_new_tokens=4",
]
SHARDED = ("ingest", "filter", "dedup", "tokenize")  # stages with worker processes
NUM_AIMS = 4  # a run may end before the moment of its kill: then another try is made, earlier
COLUMNS = ("tries", "same bytes", "orphans after 10 s", "hangs", "two writers", "run ended before the kill")


class Undisturbed:
    """The finished store and, by stage and number of ranks, the digests of the artifact and the seconds that it took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "prefect"
        self.store = folder / "finished" / "store"
        self.store.parent.mkdir(parents=True, exist_ok=True)
        self.lock = threading.Lock()
        self.known: dict[tuple[str, int], tuple[dict[str, str], float]] = {}
        run = self.run(self.store, "undisturbed", 1)
        if run.process.wait() != 0:
            sys.exit(run.log.read_text())

    def run(self, store: Path, mark: str, num_ranks: int, stage: str = "") -> MarkedRun:
        """Start the recipe, or one stage of it, with so many ranks in every training stage."""
        settings = [*SETTINGS, *(f"{name}.train.num_ranks={num_ranks}" for name in TRAINING)]
        words = [word for setting in settings for word in ("--set", setting)]
        return MarkedRun(store, self.home, mark, [*words, *(["--only", stage] if stage else [])])

    def of(self, stage: str, num_ranks: int) -> tuple[dict[str, str], float]:
        """The digests of an undisturbed run of the stage, and its seconds."""
        with self.lock:
            if (stage, num_ranks) not in self.known:
                self.known[stage, num_ranks] = self._make(stage, num_ranks)
            return self.known[stage, num_ranks]

    def _make(self, stage: str, num_ranks: int) -> tuple[dict[str, str], float]:
        if num_ranks == 1:
            return result(Store(str(self.store)), stage)
        folder = self.folder / f"undisturbed-{stage}-{num_ranks}"
        store = without(self.store, folder, stage)
        run = self.run(folder / "store", "undisturbed", num_ranks, stage)
        if run.process.wait() != 0:
            sys.exit(run.log.read_text())
        made = result(store, stage)
        shutil.rmtree(folder)
        return made


def result(store: Store, stage: str) -> tuple[dict[str, str], float]:
    """The digests of the recipe's latest artifact of a stage, and the seconds that it took."""
    manifest = store.find(store.latest("tiny", stage))
    assert manifest is not None
    return digests(manifest), float(manifest.provenance["wall_seconds"])


def victims(stage: str, num_ranks: int) -> list[str]:
    """The kinds of processes that a stage has."""
    if stage in TRAINING:
        return ["command", "rank", "agent"] if num_ranks > 1 else ["command", "rank"]
    return ["command", "worker", "forkserver"] if stage in SHARDED else ["command"]


def attempt(undisturbed: Undisturbed, number: int, chance: random.Random) -> tuple[str, Counter[str]]:
    """One try: the kind of victim, and what happened by name."""
    stage = STAGE_NAMES[number % len(STAGE_NAMES)]
    num_ranks = 1 + (number // len(STAGE_NAMES) + number) % 2 if stage in TRAINING else 1
    kind = chance.choice(victims(stage, num_ranks))
    expected, seconds = undisturbed.of(stage, num_ranks)
    counts = Counter({"tries": 1})
    for aim in range(NUM_AIMS):
        delay = chance.random() * seconds / 2**aim
        folder = undisturbed.folder / f"try-{number}-{aim}"
        store = without(undisturbed.store, folder, stage)
        outcome = kill_and_rerun(
            lambda mark, place=folder / "store": undisturbed.run(place, mark, num_ranks, stage),
            kind, lambda run, place=folder / "store" / stage, delay=delay: wait(run, place, delay), chance.choice, LIMIT_SECONDS,
        )  # fmt: skip
        if outcome.is_killed:
            break
        counts["run ended before the kill"] += 1
        shutil.rmtree(folder)
    is_same = outcome.status == 0 and result(store, stage)[0] == expected
    counts += Counter(
        {
            "same bytes": int(is_same),
            "orphans after 10 s": len(outcome.orphans),
            "hangs": int(outcome.is_hung),
            "two writers": int(outcome.num_two_writers > 0),
        }
    )
    report(f"{number + 1}: {stage}, {num_ranks} ranks, {kind} after {delay:.1f} s", outcome, is_same)
    if is_same:
        shutil.rmtree(folder)
    return kind, counts


def wait(run: MarkedRun, folder: Path, seconds: float) -> None:
    """Wait until the stage is at work, then so long, unless the run ends."""
    while not list(folder.glob("*/lease")) and run.process.poll() is None:
        time.sleep(0.02)
    until = time.monotonic() + seconds
    while time.monotonic() < until and run.process.poll() is None:
        time.sleep(0.02)


def report(title: str, outcome: Outcome, is_same: bool) -> None:
    """Progress, and the output of a rerun that went wrong."""
    say(f"{title}: {'killed' if outcome.is_killed else 'ended before'}, {'same bytes' if is_same else 'NOT THE SAME'}")
    if outcome.orphans or outcome.is_hung or outcome.num_two_writers or not is_same:
        say(f"{outcome}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tries", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=1, help="tries at the same time")
    parser.add_argument("--folder", type=Path, help="work here; a finished store that is here is used")
    parser.add_argument("--minutes", type=float, default=1e6, help="start no further try after so many")
    arguments = parser.parse_args()
    start = time.monotonic()
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in ("command", "worker", "forkserver", "rank", "agent")}
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="kill-moments-"))
    undisturbed = Undisturbed(folder)
    say(f"undisturbed: {time.monotonic() - start:.0f} s")

    def next_try(number: int) -> tuple[str, Counter[str]] | None:
        if time.monotonic() - start > arguments.minutes * 60:
            return None
        return attempt(undisturbed, number, random.Random(f"{arguments.seed}-{number}"))

    with ThreadPoolExecutor(arguments.jobs) as pool:
        for found in pool.map(next_try, range(arguments.tries)):
            if found:
                counts[found[0]] += found[1]
    rows = [[kind, *(found[column] for column in COLUMNS)] for kind, found in counts.items()]
    print_table("Kills at random moments, by victim", ["SIGKILL to", *COLUMNS], rows, f"{machine()}.")
    total = sum(counts.values(), Counter[str]())
    wrong = {name: total[name] for name in ("orphans after 10 s", "hangs", "two writers") if total[name]}
    if wrong or total["same bytes"] < total["tries"]:
        sys.exit(f"wrong: {wrong}, {total['same bytes']} of {total['tries']} with the same bytes; see {folder}")
    if not arguments.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
