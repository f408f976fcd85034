"""Damaged copies of real web archives through the ingest of a file: no crash, no hang, every page counted. Then hostile pages of 1 MB.

    python -m tests.benchmarks.fuzz_archives [NUM_COPIES]      # 500

Each copy has one to four changes from its seed: bytes flipped, removed, inserted, repeated, or the end cut off. Of every copy: pages =
documents + dropped, the dropped by reason add up, and a record that was read has a type.
"""

import contextlib
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tasks.ingest.dropped import Dropped
from tasks.ingest.extraction_process import Sandbox, Settings
from tasks.ingest.http_response import Body
from tasks.ingest.stage import File, IngestConfig, ingest_file
from tests.benchmarks.harness import machine, print_table, say, shared_data

MAX_SECONDS = 60.0
MAX_FILE_BYTES = 400_000
TEXT = "The old mill stands by the river and the daughter of the miller sells bread there. "
UNITS = {
    "deep divisions": "<div>",
    "deep tables": "<table><tr><td>",
    "many rows": "<tr><td>a</td></tr>",
    "one wide row": "<td>a</td>",
    "many lists": "<ul><li>",
    "definitions": "<dt>a<dd>b",
    "line breaks": "<br>",
    "entities": "&#x41;",
    "bad references": "&#xFFFE;",
    "tag starts": "<",
    "open tags": "<a",
    "comments": "<!--",
    "misnested": "<a><div></a>",
    "options": "<option>a",
    "combining marks": "\u0316\u0301",
    "paragraphs": f"<p>{TEXT}</p>",
}


def mutate(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        place, size = rng.randrange(len(data)), rng.randrange(1, 3_000)
        match rng.randrange(5):
            case 0:
                data[place] ^= 1 << rng.randrange(8)
            case 1:
                del data[place : place + size]
            case 2:
                data[place:place] = rng.randbytes(size)
            case 3:
                data[place:place] = data[place : place + size] * rng.randint(1, 20)
            case _:
                del data[max(place, 1) :]
        data = data or bytearray(b"x")


def fuzz(num_copies: int) -> list[object]:
    paths = [path for path in sorted((shared_data() / "warc").rglob("*.*")) if path.stat().st_size < MAX_FILE_BYTES]
    archives = [path for path in paths if ".warc" in path.name or ".arc" in path.name]
    total: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as temporary:
        for number in range(num_copies):
            rng = random.Random(number)
            source = rng.choice(archives)
            data = bytearray(source.read_bytes()) or bytearray(b"x")
            mutate(data, rng)
            path = Path(temporary, f"{number}-{source.name}")
            path.write_bytes(data)
            start = time.process_time()
            file = File(str(number), str(path), Path(temporary), IngestConfig(extractor="resiliparse"), (), "")
            counts = ingest_file(file)
            slowest = max(slowest, time.process_time() - start)
            dropped = sum(num for name, num in counts.items() if name.startswith("dropped/"))
            assert counts["pages"] == counts["documents"] + counts["documents_dropped"], path
            assert counts["documents_dropped"] == dropped, path
            records = sum(num for name, num in counts.items() if name.startswith("records/"))
            assert counts["records_read"] == records, path
            total.update(counts)
            path.unlink()
            if number % 50 == 49:
                say(f"{number + 1} copies")
    assert slowest < MAX_SECONDS
    names = ("records_read", "damages", "pages", "documents", "documents_dropped")
    return [num_copies, *(total[name] for name in names), f"{slowest:.1f}"]


def hostile(extractor: str) -> list[list[object]]:
    rows: list[list[object]] = []
    for name, unit in UNITS.items():
        box = Sandbox(Settings(extractor, IngestConfig().page_seconds))  # type: ignore[arg-type]
        with contextlib.suppress(Dropped):
            box.extract(Body(b"<html><body><p>one page before</p></body></html>", "text/html"))
        page = ("<html><body>" + unit * (1_000_000 // len(unit))).encode()[:1_000_000]
        before = cpu_seconds(box)
        try:
            result = f"{len(box.extract(Body(page, 'text/html'))):,} characters"
        except Dropped as dropped:
            result = str(dropped)
        rows.append([extractor, name, f"{cpu_seconds(box) - before:.2f}", result])
        box.stop()
    return rows


def cpu_seconds(box: Sandbox) -> float:
    """Of the server, its child and the children that ended."""
    assert box.server is not None
    pids = [box.server.pid, *Path(f"/proc/{box.server.pid}/task/{box.server.pid}/children").read_text().split()]
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    ticks = sum(sum(map(int, one[11:13])) for one in fields) + sum(map(int, fields[0][13:15]))
    return ticks / 100


def main() -> None:
    num_copies = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    row = fuzz(num_copies)
    headings = ["Copies", "Records", "Damaged ranges", "Pages", "Documents", "Dropped", "Slowest, CPU s"]
    print_table("Damaged copies of real archives", headings, [row])
    rows = [row for extractor in ("resiliparse", "trafilatura", "combined") for row in hostile(extractor)]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    note = f"Largest process {peak:.0f} MB. {machine()}."
    print_table("Hostile pages of 1 MB", ["Extractor", "Page", "CPU s", "Result"], rows, note)


if __name__ == "__main__":
    main()
