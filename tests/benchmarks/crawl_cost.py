"""What one crawl of Common Crawl costs in core-hours, memory and disk, from what pages cost here.

    python -m tests.benchmarks.crawl_cost

Runs the data stages on real pages and on a few of them, each stage in a separate process with one worker. What a page costs is the
slope between the two: what a stage takes to start drops out. Memory is the largest process of the stage.

A crawl is taken to be FILES files of PAGES_PER_FILE pages, of which ENGLISH_FRACTION pass the language look and are extracted
(Common Crawl publishes both counts by crawl). How many of these are kept is as measured on these pages, which are mostly articles:
of a real crawl fewer are, and what comes after the filter costs less than reported.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.benchmarks.fineweb_speed import responses
from tests.benchmarks.harness import machine, print_table, say, shared_data

FILES, PAGES_PER_FILE, ENGLISH_FRACTION = 90_000, 30_000, 0.45
STAGES = ("ingest", "filter", "dedup", "tokenizer", "tokenize")
PAGES = ("wcxb-dev-sample.warc.gz", "trafilatura-eval.warc.gz", "fundus-news.warc.gz")
NUM_FEW = 10
EXTRACTORS = ("trafilatura", "combined", "resiliparse")
RUN = """
import json, sys
from flows.pipeline import dag
from flows.recipes import make_recipe
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
stage, settings, inputs = json.loads(sys.argv[1])
steps = dag(make_recipe("tiny", inputs, 0, settings)).by_stage()
if __name__ == "__main__":
    manifest = execute(steps[stage], Store.default())
    print(json.dumps(manifest.counts | {"bytes": sum(file.bytes for file in manifest.files)}))
"""


def measure(store: Path, stage: str, inputs: list[str], extractor: str) -> dict[str, float]:
    """Counts of a stage with cpu_seconds and peak_bytes of its processes."""
    settings = [f"{name}.num_workers=1" for name in ("ingest", "filter", "dedup", "tokenize")]
    settings += [f"ingest.extractor={extractor}"]
    script = store.parent / "run.py"
    script.write_text(RUN)
    environment = os.environ | {"CRAWL2CHAT_STORE": str(store), "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}
    command = [sys.executable, str(script), json.dumps([stage, settings, inputs])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env=environment | {"PYTHONPATH": str(Path.cwd())}
    ) as process:
        assert process.stdout is not None
        printed = json.loads(process.stdout.read().splitlines()[-1])
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return printed | {"cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_bytes": usage.ru_maxrss * 1024}


def per_page(less: dict[str, float], more: dict[str, float], pages: float) -> dict[str, float]:
    """0 where a stage's start varies by more than its pages cost."""
    names = [name for name in ("cpu_seconds", "bytes", "documents") if name in more]
    return {name: max(more[name] - less.get(name, 0), 0) / pages for name in names}


def few(folder: Path) -> str:
    """A file of the first pages."""
    source, target = shared_data() / "extraction" / PAGES[0], folder / "few.warc.gz"
    end = [*itertools.islice(responses(source), NUM_FEW + 1)][-1].offset
    target.write_bytes(source.read_bytes()[:end])
    return str(target)


def crawl_rows(extractor: str, folder: Path) -> list[list[Any]]:
    """A row a stage: what a thousand pages cost here, and what a crawl would."""
    extracted = FILES * PAGES_PER_FILE * ENGLISH_FRACTION
    rows, total_hours, total_bytes, pages = [], 0.0, 0.0, 0.0
    for stage in STAGES:
        say(f"{extractor}: {stage}")
        less = measure(folder / f"{extractor}-few", stage, [few(folder)], extractor)
        files = [str(shared_data() / "extraction" / file) for file in PAGES]
        more = measure(folder / f"{extractor}-all", stage, files, extractor)
        pages = pages or more["pages"] - less["pages"]
        cost = per_page(less, more, pages)
        hours, num_bytes = cost["cpu_seconds"] * extracted / 3600, cost["bytes"] * extracted
        is_scaled = stage != "tokenizer"  # which reads a sample of bounded size
        total_hours, total_bytes = total_hours + is_scaled * hours, total_bytes + is_scaled * num_bytes
        rows.append(
            [
                stage,
                f"{1000 * cost['cpu_seconds']:.1f}",
                f"{cost['documents']:.2f}" if "documents" in cost else "",
                f"{more['peak_bytes'] / 2**30:.2f}",
                f"{hours:,.0f}" if is_scaled else "as here",
                f"{num_bytes / 1e12:.2f}" if is_scaled else "as here",
            ]
        )
    return [*rows, ["all", "", "", "", f"{total_hours:,.0f}", f"{total_bytes / 1e12:.2f}"]]


def main() -> None:
    for extractor in EXTRACTORS:
        with tempfile.TemporaryDirectory() as folder:
            rows = crawl_rows(extractor, Path(folder))
        print_table(
            f"One crawl, extractor {extractor}",
            ["Stage", "CPU s per 1,000 pages", "Kept of a page", "GiB, largest process", "Core-hours", "TB on disk"],
            rows,
            f"{FILES:,} files of {PAGES_PER_FILE:,} pages, {ENGLISH_FRACTION:.0%} of them extracted. {machine()}.",
        )


if __name__ == "__main__":
    main()
