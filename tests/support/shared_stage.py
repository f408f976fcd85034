"""A stage of six small shards for machines that share a store, each a process: `python -c MACHINE LEASE_SECONDS NUMBER...`.

Writes a line into the file that JOURNAL names whenever it begins, makes a shard, or ends. It imports neither torch nor pytest, which every
machine and every worker of one would wait for.
"""

import json
import os
import time
from pathlib import Path

from model.config import Config
from model.files import replacing
from tasks.artifacts.manifest import Documents
from tasks.artifacts.step import Outcome, Step
from tasks.execution.context import StageContext
from tasks.execution.shards import Counts, map_shards, tick

NUM_SHARDS = 6


class Settings(Config):
    number: int = 0


def work(shard: tuple[str, str, str]) -> Counts:
    """Write a shard and its state, and note it in the journal of all machines. Takes longer where the file `slow` is there."""
    name, folder, journal = shard
    note(Path(journal), f"shard {name}")
    with replacing(Path(folder) / f"documents/{name}.parquet") as temporary:
        temporary.write_text(f"documents of {name}")
    with replacing(Path(folder) / f".state/overview/{name}.json") as temporary:
        temporary.write_text(json.dumps(name))
    while (Path(journal).parent / "slow").exists() and name > "shard-2":
        time.sleep(0.05)
    tick(2)
    return {"documents": 2}


def note(journal: Path, event: str) -> None:
    with journal.open("a") as stream:  # one write of a few bytes: lines of several processes do not mix
        stream.write(f"{event}\n")


def make(ctx: StageContext, _: Settings) -> Outcome:
    journal = Path(os.environ["JOURNAL"])
    note(journal, f"begin {ctx.step.id}")
    names = [f"shard-{number}" for number in range(NUM_SHARDS)]
    shards = [(name, (name, str(ctx.folder), str(journal))) for name in names]
    counts = map_shards(ctx, work, shards, num_workers=1, total=2 * NUM_SHARDS, unit="documents")
    overview = [json.loads(path.read_text()) for path in sorted((ctx.state / "overview").glob("*.json"))]
    (ctx.folder / "overview.json").write_text(json.dumps(overview))
    note(journal, f"end {ctx.step.id}")
    return Outcome(counts)


def stage(number: int = 0) -> Step[Documents]:
    return Step("shared", 1, Documents, Settings(number=number), {}, run=make)


MACHINE = """if True:
    import logging, sys
    from tasks.artifacts.store import Store
    from tasks.execution import lease as leases
    from tasks.execution.runner import execute
    from tests.support.shared_stage import stage
    logging.basicConfig(level=logging.INFO)
    leases.LEASE_SECONDS = float(sys.argv[1])
    for number in map(int, sys.argv[2:]):
        execute(stage(number), Store.default())
"""
