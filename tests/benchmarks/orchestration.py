"""What a run costs next to its steps: Prefect, the launch of the ranks, imports, checkpoints, the manifest.

    python -m tests.benchmarks.orchestration [--minutes 5] [--until STAGE]

Runs `crawl2chat run tiny --only pretrain` on tokens of novels, as a person does, with a checkpoint, a validation and samples every 100
steps. A first run of a few steps tells how many steps fill the minutes, and makes Prefect's database. Then runs all of `tiny` (a quarter of an
hour; `--until` ends it earlier), and again when nothing is left to do: what is not in the function of a step, or of a source that it
reads, is around them. Wall seconds.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.pipeline import dag
from flows.recipes import make_recipe
from tasks.artifacts.manifest import Checkpoint
from tasks.artifacts.store import Store
from tests.benchmarks.harness import ROOT, machine, print_table, say
from tests.benchmarks.token_data import write_tokens
from tests.support.tiny_models import finish

FIRST_STEPS, SKIPPED_STEPS = 12, 4
VOCAB_SIZE = make_recipe("tiny").tokenizer.vocab_size
Line = dict[str, Any]


def write_inputs(store: Store) -> None:
    """The artifacts of the stages tokenizer and tokenize, as the recipe names them."""
    steps = dag(make_recipe("tiny")).by_stage()
    tokenizer, tokens = store.folder(steps["tokenizer"].id), store.folder(steps["tokenize"].id)
    for folder in (tokenizer, tokens / "train", tokens / "validation"):
        folder.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as name:
        write_tokens(Path(name), VOCAB_SIZE)
        shutil.move(Path(name) / "tokenizer.json", tokenizer)
        for split in ("train", "validation"):
            shutil.move(Path(name) / f"{split}.arrow", tokens / split)
    for name, counts, inputs in (
        ("tokenizer", {"vocab_size": VOCAB_SIZE}, {}),
        ("tokenize", {}, {"tokenizer": steps["tokenizer"].id}),
    ):  # their documents are not there, so they are up to date
        finish(store, steps[name].kind, steps[name].id, inputs=inputs, counts=counts)


def run(store: Store, num_steps: int) -> tuple[float, float, list[Line]]:
    """Seconds of the command, those of them in the stage, and the metrics of the steps."""
    setting = f"pretrain.train.num_steps={num_steps}"
    command = [sys.executable, "-m", "flows.cli.main", "run", "tiny", "--only", "pretrain", "--set", setting]
    say(f"{num_steps} steps")
    started = time.monotonic()
    subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
    seconds = time.monotonic() - started
    checkpoint = store.open(store.latest("tiny", "pretrain"), Checkpoint)
    lines = [json.loads(line) for line in (checkpoint.folder / "metrics.jsonl").read_text().splitlines()]
    return seconds, checkpoint.manifest.provenance["wall_seconds"], lines


def step_seconds(line: Line) -> float:
    return float(make_recipe("tiny").pretrain.train.batch_tokens / line["train/tokens_per_second"])


def phases(seconds: float, stage_seconds: float, lines: Sequence[Line]) -> dict[str, float]:
    """Where the seconds of the command went. What the last step was followed by is among those around the training."""

    def total(*names: str) -> float:
        return sum(float(line.get(f"phase/{name}_seconds", 0.0)) for line in lines for name in names)

    steps, trained = sum(map(step_seconds, lines)), float(lines[-1]["train/seconds"])
    looked, saved = total("validation", "samples"), total("checkpoint")
    return {
        "steps": steps,
        "validation and samples": looked,
        "checkpoints": saved,
        "metrics, TensorBoard, asking whether to stop": trained - steps - looked - saved,
        "before and after: start of the ranks, imports, engine; last checkpoint, weights": stage_seconds - trained,
        "command, Prefect, lease, manifest": seconds - stage_seconds,
    }


def whole_run(until: str) -> None:
    """The second table: a run of tiny in the store, by step."""
    command = [sys.executable, "-m", "flows.cli.main", "run", "tiny", "--until", until]
    say(f"tiny until {until}")
    took = []
    for _ in range(2):
        started = time.monotonic()
        subprocess.run(command, cwd=ROOT, check=True, stdout=sys.stderr)
        took.append(time.monotonic() - started)
    manifests = sorted(Store.default().manifests(), key=lambda manifest: manifest.provenance["started"])
    inside = {manifest.id: float(manifest.provenance["wall_seconds"]) for manifest in manifests}
    around, seconds = took[0] - sum(inside.values()), took[0]
    rows = [(name.partition("/")[0], f"{spent:.1f}", f"{spent / seconds:.1%}") for name, spent in inside.items()]
    rows.append(("**imports, Prefect, leases, hashes, manifests**", f"{around:.1f}", f"**{around / seconds:.1%}**"))
    print_table(
        f"Where {seconds:.0f} seconds of tiny until {until} go, by step and source",
        ["", "wall seconds", "share"],
        rows,
        f"The same command again, with nothing to do: {took[1]:.1f} s. {machine()}.",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5.0, help="Of pretraining alone; 0 leaves this table out.")
    parser.add_argument("--until", default="export", help="The last stage of the whole run.")
    options = parser.parse_args()
    if options.minutes:
        pretraining(options.minutes)
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"CRAWL2CHAT_STORE": f"{name}/store", "PREFECT_HOME": f"{name}/prefect"}
        whole_run(options.until)


def pretraining(minutes: float) -> None:
    """The first table."""
    with tempfile.TemporaryDirectory() as name:
        os.environ |= {"CRAWL2CHAT_STORE": f"{name}/store", "PREFECT_HOME": f"{name}/prefect"}
        store = Store.default()
        write_inputs(store)
        _, _, first = run(store, FIRST_STEPS)
        num_steps = round(60 * minutes / statistics.median(map(step_seconds, first[SKIPPED_STEPS:])))
        seconds, stage_seconds, lines = run(store, num_steps)
    found = phases(seconds, stage_seconds, lines)
    training = found["steps"] + found["validation and samples"]
    rows = [(name, f"{spent:.1f}", f"{spent / seconds:.1%}") for name, spent in found.items()]
    print_table(
        f"Where {seconds:.0f} seconds of pretraining go: {num_steps:,} steps, a checkpoint, validation and samples every 100",
        ["", "wall seconds", "share"],
        [*rows, ("**all that is no training**", f"{seconds - training:.1f}", f"**{1 - training / seconds:.1%}**")],
        f"Recipe tiny, {make_recipe('tiny').pretrain.train.num_ranks} ranks. {machine()}.",
    )


if __name__ == "__main__":
    main()
