"""The FineWeb recipe from WARC to filtered documents on one core: pages/s next to datatrove, and next to the bare extractor.

    python -m tests.benchmarks.fineweb_speed

Both sides read the same files, cut into eight, on the same core, with the same trafilatura, and do the same: read, address, extract,
language, Gopher, C4, FineWeb, e-mail and IP addresses. Some 400 of the pages are not in English. What each side needs for a single
page is counted as its start, which a crawl's files of 30,000 pages do not notice. The last table is what the language prefilter
before extraction costs and saves.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.ingest.charset import decode
from tasks.ingest.dropped import Dropped
from tasks.ingest.extractors import extract
from tasks.ingest.http_response import body_of
from tasks.ingest.language_prefilter import prefilter_language
from tasks.ingest.stage import IngestConfig
from tasks.ingest.trafilatura_patch import patch_trafilatura
from tasks.ingest.warc import HEADER_BYTES, Record, read_records
from tasks.web import language_id
from tests.benchmarks.harness import DATATROVE, ROOT, machine, peer, print_table, say, shared_data

FILES = ("wcxb-dev-sample.warc.gz", "trafilatura-eval.warc.gz", "fundus-news.warc.gz")
NUM_PARTS = 8
MAX_BYTES = 8 * 2**20
EXTRACTORS = ("trafilatura", "combined", "resiliparse")
RUNS = [(extractor, wanted) for extractor in EXTRACTORS for wanted in ((), ("en",))]  # without and with a look
LANGUAGES = ("en", "de", "zh", "ru")
LANGUAGE_THRESHOLD = 0.65

OURS = """
import json, sys
from pathlib import Path
from tasks.artifacts.store import Store
from tasks.filter.stage import FilterConfig
from tasks.ingest.stage import IngestConfig
from tasks.execution.runner import execute
from tests.support.wiring import filter, ingest
if __name__ == "__main__":
    warcs, store, extractor, num_workers, *languages = sys.argv[1:]
    raw = ingest(
        IngestConfig(inputs=[warcs], extractor=extractor, languages=languages, num_workers=int(num_workers))
    )
    clean = filter(raw, FilterConfig(pii_kinds=["email", "ip"], num_workers=int(num_workers)))
    store = Store(store)
    execute(raw, store)
    print(json.dumps({"kept": execute(clean, store).counts["documents"]}))
"""
BARE = """
import json, sys, time
from tasks.ingest.extractors import by_both, by_resiliparse, by_trafilatura
extract = {"trafilatura": by_trafilatura, "combined": by_both, "resiliparse": by_resiliparse}[sys.argv[2]]
pages = json.load(open(sys.argv[1]))
extract(pages[0])
start, wall = time.process_time(), time.monotonic()
for page in pages:
    extract(page)
print(json.dumps({"extractor_cpu": time.process_time() - start, "extractor_wall": time.monotonic() - wall}))
"""
PEER = """
import json, sys
from pathlib import Path
import datatrove.utils.lid as lid
import trafilatura
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline import filters
from datatrove.pipeline.extractors import Trafilatura
from datatrove.pipeline.formatters import PIIFormatter
from datatrove.pipeline.readers import WarcReader
from datatrove.pipeline.writers.jsonl import JsonlWriter
if __name__ == "__main__":
    warcs, out, model = sys.argv[1:]
    lid.cached_asset_path_or_download = lambda *_, **__: model
    pipeline = [
        WarcReader(warcs, glob_pattern="*.warc.gz"),
        filters.URLFilter(),
        Trafilatura(favour_precision=True, timeout=20),
        filters.LanguageFilter(languages="en"),
        filters.GopherRepetitionFilter(),
        filters.GopherQualityFilter(),
        filters.C4QualityFilter(filter_no_terminal_punct=False),
        filters.FineWebQualityFilter(),
        PIIFormatter(),
        JsonlWriter(out + "/kept", compression=None),
    ]
    LocalPipelineExecutor(pipeline, tasks=1, logging_dir=out + "/logs").run()
    kept = sum(len(path.read_text().splitlines()) for path in Path(out, "kept").rglob("*.jsonl"))
    print(json.dumps({"kept": kept, "trafilatura": trafilatura.__version__}))
"""


def timed(command: Sequence[str | Path], *, is_pinned: bool = True, path: Path = ROOT) -> dict[str, Any]:
    """What a command tells as its last line, with its wall and CPU seconds, those of its processes included."""
    pin = ["taskset", "-c", str(max(os.sched_getaffinity(0)))] if is_pinned else []
    environment = os.environ | {"PYTHONPATH": str(path), "OMP_NUM_THREADS": "1"}
    start, before = time.monotonic(), resource.getrusage(resource.RUSAGE_CHILDREN)
    process = subprocess.run(
        [*pin, *command], check=False, capture_output=True, text=True, env=environment, cwd=tempfile.gettempdir()
    )
    wall_seconds, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        sys.exit(f"{Path(command[1]).name} ended with status {process.returncode}:\n{process.stderr[-2000:]}")
    cpu_seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {"wall": wall_seconds, "cpu": cpu_seconds} | json.loads(process.stdout.splitlines()[-1])


def cut(files: Sequence[Path], folder: Path) -> list[str]:
    """Files cut into NUM_PARTS of about as many records each; the HTML of all their pages."""
    folder.mkdir()
    pages = []
    for file in files:
        records = list(responses(file))
        pages += [html for record in records if (html := html_of(record))]
        starts = [0, *(records[len(records) * part // NUM_PARTS].offset for part in range(1, NUM_PARTS))]
        data = file.read_bytes()
        for number, (start, end) in enumerate(zip(starts, [*starts[1:], len(data)], strict=True)):
            (folder / f"{file.name.partition('.')[0]}-{number}.warc.gz").write_bytes(data[start:end])
    return pages


def responses(file: Path) -> Iterator[Record]:
    with file.open("rb") as source:
        for record in read_records(source, MAX_BYTES + HEADER_BYTES):
            if isinstance(record, Record) and record.type == "response":
                yield record


def html_of(record: Record) -> str:
    """The HTML of a record, nothing where it is no page."""
    try:
        return decode(*body_of(record.block or b"", MAX_BYTES))
    except Dropped:
        return ""


def compare(files: Sequence[Path], folder: Path) -> None:
    pages = cut(files, folder / "warcs")
    (folder / "one").mkdir()
    first = next(iter(sorted((folder / "warcs").iterdir())))
    (folder / "one" / "page.warc.gz").write_bytes(first.read_bytes()[: [*responses(first)][1].offset])
    (folder / "pages.json").write_text(json.dumps(pages))
    for name, script in {"ours.py": OURS, "bare.py": BARE, "peer.py": PEER}.items():
        (folder / name).write_text(script)
    runs = {"datatrove 0.10.1": theirs(folder)}
    for extractor, wanted in RUNS:
        name = f"{extractor}, after the language prefilter" if wanted else extractor
        say(name)
        command = [sys.executable, folder / "ours.py"]
        one, all_pages = (
            timed([*command, folder / warcs, folder / f"{name}-{warcs}", extractor, "1", *wanted])
            for warcs in ("one", "warcs")
        )
        runs[name] = all_pages | {"start": one["cpu"]}
        if not wanted:
            bare = timed([sys.executable, folder / "bare.py", folder / "pages.json", extractor])
            runs[name]["bare"] = bare["extractor_cpu"]
    peer_run = runs["datatrove 0.10.1"]
    rows = [
        [
            name,
            f"{len(pages) / run['wall']:.1f}",
            f"{run['cpu']:.1f}",
            f"{run['start']:.1f}",
            f"{peer_run['wall'] / run['wall']:.1f}",
            f"{(peer_run['cpu'] - peer_run['start']) / (run['cpu'] - run['start']):.1f}",
            f"{(run['cpu'] - run['start']) / run['bare']:.2f}" if "bare" in run else "",
            run["kept"],
        ]
        for name, run in runs.items()
    ]
    print_table(
        "The FineWeb recipe on one core",
        ["Who", "Pages/s, wall", "CPU s", "of them start", "Times datatrove, wall", "the same, CPU after start", "CPU of bare extractor", "Kept"],
        rows,
        f"{len(pages)} pages. trafilatura {version('trafilatura')}, resiliparse {version('resiliparse')}; bare is the extractor "
        f"alone, its library as it is, called in a loop on the decoded HTML. {machine()}.",
    )  # fmt: skip
    workers(folder, pages)


def theirs(folder: Path) -> dict[str, float]:
    """The run of datatrove, which asks for an older and slower trafilatura, with ours."""
    say("datatrove")
    python, model = peer(*DATATROVE), str(language_id.find_model())
    newer = f"trafilatura=={version('trafilatura')}"
    subprocess.run([python, "-m", "pip", "install", "-q", "--no-deps", "-t", folder / "newer", newer], check=True)
    one, all_pages = (
        timed([python, folder / "peer.py", folder / warcs, folder / f"theirs-{warcs}", model], path=folder / "newer")
        for warcs in ("one", "warcs")
    )
    assert all_pages["trafilatura"] == version("trafilatura")
    return all_pages | {"start": one["cpu"]}


def workers(folder: Path, pages: Sequence[str]) -> None:
    """Two workers against one, and two processes that only extract: what the machine's two cores are worth."""
    say("one worker and two")
    rows = []
    for extractor in ("trafilatura", "resiliparse"):
        seconds = [wall_after_start(folder, extractor, num) for num in (1, 2)]
        bare = [wall_of_bare(folder, extractor, pages, num) for num in (1, 2)]
        rates = [f"{len(pages) / wall:.1f}" for wall in seconds]
        rows.append([extractor, *rates, f"{seconds[0] / seconds[1]:.2f}", f"{bare[0] / bare[1]:.2f}"])
    headings = ["Extractor", "Pages/s, one worker", "Two", "Times", "Two bare extractors against one"]
    print_table("Workers", headings, rows, f"{os.cpu_count()} cores, wall seconds after the start of the stages.")


def wall_after_start(folder: Path, extractor: str, num_workers: int) -> float:
    command = [sys.executable, folder / "ours.py"]
    one, all_pages = (
        timed(
            [
                *command,
                folder / warcs,
                folder / f"{extractor}-{num_workers}-{warcs}-unpinned",
                extractor,
                str(num_workers),
            ],
            is_pinned=False,
        )["wall"]
        for warcs in ("one", "warcs")
    )
    return all_pages - one


def wall_of_bare(folder: Path, extractor: str, pages: Sequence[str], num_processes: int) -> float:
    """The longest that any of some processes needs to extract its share of the pages, all at once."""
    running = []
    for number in range(num_processes):
        share = folder / f"pages-{number}-of-{num_processes}.json"
        share.write_text(json.dumps(pages[number::num_processes]))
        command = [sys.executable, folder / "bare.py", share, extractor]
        environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        running.append(subprocess.Popen(command, stdout=subprocess.PIPE, env=environment))
    return max(json.loads(process.communicate()[0])["extractor_wall"] for process in running)


def looks() -> None:
    """What the language prefilter would have dropped, against the filter's rule on the text extracted."""
    say("looks")
    patch_trafilatura()
    model = language_id.load_model(language_id.find_model())
    min_score = IngestConfig().min_language_score
    folders = [shared_data() / "warc" / name for name in ("archive-query-log", "crawls")]
    files = [file for folder in folders for file in sorted(folder.iterdir())]
    pages = [html for file in files for record in responses(file) if (html := html_of(record))]
    seconds, identified = [], []
    for html in pages:
        start = time.process_time()
        try:
            text = extract(html, "trafilatura")
        except Dropped:
            text = ""
        seconds.append(time.process_time() - start)
        identified.append(language_id.identify(text, model))
    rows = []
    for wanted in LANGUAGES:
        start = time.process_time()
        dropped = [is_dropped(html, wanted, min_score, model) for html in pages]
        look_seconds = time.process_time() - start
        kept = [language == wanted and score > LANGUAGE_THRESHOLD for language, score in identified]
        saved = sum(cost for cost, is_out in zip(seconds, dropped, strict=True) if is_out)
        lost = sum(is_out and is_kept for is_out, is_kept in zip(dropped, kept, strict=True))
        rows.append(
            [
                wanted,
                sum(kept),
                lost,
                f"{sum(dropped)} of {len(pages) - sum(kept)}",
                f"{sum(seconds):.1f}",
                f"{sum(seconds) - saved + look_seconds:.1f}",
            ]
        )
    print_table(
        "Language prefilter before extraction",
        [
            "Language wanted",
            "Pages the filter keeps",
            "Lost by the prefilter",
            "Others dropped by it",
            "CPU s without",
            "With",
        ],
        rows,
        f"{len(pages)} pages of warc/archive-query-log and warc/crawls, extracted by trafilatura.",
    )


def is_dropped(html: str, wanted: str, min_score: float, model: object) -> bool:
    try:
        prefilter_language(html, (wanted,), min_score, model)
    except Dropped:
        return True
    return False


def main() -> None:
    files = [shared_data() / "extraction" / name for name in FILES]
    with tempfile.TemporaryDirectory() as folder:
        compare(files, Path(folder))
    looks()


if __name__ == "__main__":
    main()
