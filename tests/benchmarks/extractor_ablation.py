"""Three extractors compared by the models that are trained on their text, by `crawl2chat ablate`, and what each costs.

    CRAWL2CHAT_STORE=... python -m tests.benchmarks.extractor_ablation

Reads the pages of two collections of real data, and writes artifacts into the store: for each extractor the documents, and three base models
of equal training tokens. They are scored by texts that no arm has, of four domains. The cost is CPU time of one process, of every fourth
page; the extractors take turns, so that other work on the machine slows all of them down.
"""

import json
import re
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

from flows.ablation import split_values, study
from flows.cli.ablate import ablate
from flows.recipes import make_recipe
from tasks.artifacts.store import Store
from tasks.evaluate.eval_tasks import read_tasks
from tasks.ingest.extractors import Extractor
from tests.benchmarks.extraction_quality import ours, pages
from tests.benchmarks.harness import machine, print_table, shared_data

SETTING = "ingest.extractor=trafilatura,resiliparse,union"
EXTRACTORS: tuple[Extractor, ...] = ("trafilatura", "resiliparse", "union")
NUM_SEEDS = 3
ARCHIVES = ("wcxb-dev-sample.warc.gz", "trafilatura-eval.warc.gz")
PAGE_STEP = 4
# A model of 0.2 million parameters: the pages have a million tokens.
RECIPE = {
    "extends": "tiny",
    "tokenizer": {"vocab_size": 1024},
    "probe": {"questions": "documents"},
    "pretrain": {
        "model": {"num_layers": 2, "width": 64, "num_heads": 2, "num_kv_heads": 2, "head_width": 32, "ff_width": 192},
        "train": {
            "num_steps": 100,
            "batch_tokens": 2048,
            "sequence_tokens": 128,
            "eval_every_steps": 0,
            "sample_every_steps": 0,
            "num_ranks": 1,
            "eval_sequences": 16,
        },
    },
}
TASKS = (
    {"name": "blimp", "path": "evals/blimp.jsonl.gz", "format": "blimp", "licence": "CC-BY-4.0", "limit": 300},
    {"name": "wikipedia", "path": "pretrain/wikipedia-demo.txt.gz", "format": "text", "licence": "CC-BY-SA-4.0", "limit": 40},
    {"name": "c4", "path": "pretrain/c4-demo.jsonl.gz", "format": "text", "licence": "ODC-By", "limit": 40},
    {"name": "stories", "path": "pretrain/tinystories-a.txt.gz", "format": "text", "licence": "CDLA-Sharing-1.0", "limit": 40},
)  # fmt: skip


def compare_models(data: Path) -> str:
    """Run the study, and return its report."""
    folder = Path(tempfile.mkdtemp(prefix="extractor-ablation-"))
    inputs = [str(data / "extraction" / name) for name in ARCHIVES]
    (folder / "pages.yaml").write_text(json.dumps({**RECIPE, "ingest": {"inputs": inputs}}))
    (folder / "tasks.yaml").write_text(json.dumps([{**task, "path": str(data / str(task["path"]))} for task in TASKS]))
    recipe, tasks = str(folder / "pages.yaml"), str(folder / "tasks.yaml")
    with redirect_stdout(sys.stderr):
        ablate(recipe, SETTING, [], 0, [], NUM_SEEDS, [], tasks)
    plan = study(make_recipe(recipe), *split_values(SETTING), range(NUM_SEEDS), read_tasks(tasks))
    return (Store.default().folder(plan.report.id) / "report.md").read_text(encoding="utf-8")


def seconds_of(data: Path) -> tuple[int, dict[str, float]]:
    """The number of pages, and the CPU seconds of each extractor for them."""
    html = [page for name in ARCHIVES for page in list(pages(data / "extraction" / name).values())[::PAGE_STEP]]
    seconds: dict[str, float] = dict.fromkeys(map(str, EXTRACTORS), 0.0)
    for extractor in EXTRACTORS:
        ours(extractor)(html[0])  # loads its library
    for page in html:
        for extractor in EXTRACTORS:
            start = time.process_time()
            ours(extractor)(page)
            seconds[extractor] += time.process_time() - start
    return len(html), seconds


def main() -> None:
    """Print the report's tables and the costs."""
    data = shared_data()
    report = compare_models(data)
    print(re.sub("^## ", "#### ", report.partition("\n")[2], flags=re.MULTILINE).strip(), "\n")
    num_pages, seconds = seconds_of(data)
    rows = [
        (name, f"{1000 * seconds[name] / num_pages:.1f}", f"{seconds[name] / seconds['trafilatura']:.2f}")
        for name in EXTRACTORS
    ]
    headings = ["Extractor", "CPU ms a page", "Times trafilatura"]
    print_table("Cost of the extractors", headings, rows, f"{num_pages} pages. {machine()}.")


if __name__ == "__main__":
    main()
