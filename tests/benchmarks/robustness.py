"""Damaged web archives through the ingest stage: no crash, no hang, all of it accounted for, and what survives.

Ten real archives (gzip, zstd, not compressed, ARC) are damaged in every way below, each from its own seed; then come the files that
other projects made to be difficult. Of every run: records_read is the sum of the records by type, pages are the documents that
were kept and dropped, every record without a block is followed by a damage, and no run takes longer than its limit.

    python -m tests.benchmarks.robustness
"""

import gzip
import io
import itertools
import json
import os
import random
import signal
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import zstandard

from tasks.artifacts.manifest import Documents
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.execution.shards import Counts
from tasks.ingest.stage import PAGES, IngestConfig
from tasks.ingest.warc import DamagedRange, Record, read_records
from tests.benchmarks.harness import machine, print_table, say, shared_data
from tests.support.wiring import ingest

LIMIT_SECONDS = 300
MAX_BYTES = 16 * 2**20
ARCHIVES = {
    "crawls/BL-20140325122341434-00000-32090_opera_8443.warc.gz": "gzip",
    "crawls/dolma-sample-0000.warc.gz": "gzip",
    "crawls/IAH-20080430204825-blackbook.arc.gz": "gzip",
    "crawls/wikipedia-main-page-2012.warc.gz": "gzip",
    "archive-query-log/jd.warc.gz": "gzip",
    "crawls/BL-20140325121225068-00000-32090_opera_8443.warc.gz": "zstd",
    "crawls/omya-2010.extracted.warc.gz": "zstd",
    "archive-query-log/reddit.warc.gz": "plain",
    "archive-query-log/wikimedia.warc.gz": "plain",
    "archive-query-log/vk.warc.gz": "plain",
}
SUFFIXES = {"gzip": ".gz", "zstd": ".zst", "plain": ""}


def undamaged(data: bytearray, rng: random.Random) -> None: ...


def flip_one_bit(data: bytearray, rng: random.Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def flip_ten_bits(data: bytearray, rng: random.Random) -> None:
    for _ in range(10):
        flip_one_bit(data, rng)


def cut_the_end(data: bytearray, rng: random.Random) -> None:
    del data[rng.randrange(1, len(data)) :]


def cut_the_begin(data: bytearray, rng: random.Random) -> None:
    del data[: rng.randrange(1, len(data))]


def insert_garbage(data: bytearray, rng: random.Random) -> None:
    for _ in range(3):
        place = rng.randrange(len(data))
        data[place:place] = rng.randbytes(rng.randrange(1, 5_000))


def remove_bytes(data: bytearray, rng: random.Random) -> None:
    for _ in range(3):
        place = rng.randrange(len(data))
        del data[place : place + rng.randrange(1, 5_000)]


def overwrite_with_zeros(data: bytearray, rng: random.Random) -> None:
    for _ in range(3):
        place, size = rng.randrange(len(data)), rng.randrange(1, 5_000)
        data[place : place + size] = bytes(len(data[place : place + size]))


KINDS: list[Callable[[bytearray, random.Random], None]] = [
    undamaged,
    flip_one_bit,
    flip_ten_bits,
    cut_the_end,
    cut_the_begin,
    insert_garbage,
    remove_bytes,
    overwrite_with_zeros,
]


def main() -> None:
    signal.signal(signal.SIGALRM, _give_up)
    folder = shared_data() / "warc"
    originals = {_name(name, form): _in_form((folder / name).read_bytes(), form) for name, form in ARCHIVES.items()}
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["CRAWL2CHAT_STORE"] = f"{temporary}/store"
        store = Store(f"{temporary}/store")
        fuzzed = [_fuzz(originals, damage, Path(temporary), store) for damage in KINDS]
        edge, errors, seconds = _ingest(folder / "edge", store)
    print_table(
        "Ten archives, damaged",
        ["damage", "records before", "found as they were", "found, but changed", "damages reported", "pages", "kept", "dropped", "wall s"],
        fuzzed,
        f"Each damage once, or as often as it says, or three times, in every file. Changed: what is not compressed has no checksum. {machine()}",
    )  # fmt: skip
    names = ("files", "files_with_errors", "files_cut_off", "files_unreadable", "records_read", "pages", "documents")
    rows = [[name, edge[name]] for name in (*names, "documents_dropped", "damages")]
    print_table("Difficult files of other projects", ["count", "warc/edge"], [*rows, ["wall s", f"{seconds:.0f}"]])
    shown = [[one["file"], one["offset"], one["bytes"], one["error"]] for one in errors]
    print_table("What is wrong with them", ["file", "offset", "bytes", "reason"], shown)


def _give_up(*_: object) -> None:
    raise TimeoutError(f"more than {LIMIT_SECONDS} s: this hangs")


def _name(path: str, form: str) -> str:
    return Path(path).name.removesuffix(".gz") + SUFFIXES[form]


def _in_form(data: bytes, form: str) -> bytes:
    if form == "gzip":
        return data
    if form == "plain":
        return gzip.decompress(data)
    offsets = [found.offset for found in read_records(io.BytesIO(data), 0)] + [len(data)]
    compressor = zstandard.ZstdCompressor(write_checksum=True)
    members = (data[begin:end] for begin, end in itertools.pairwise(offsets))
    return b"".join(compressor.compress(gzip.decompress(member)) for member in members)


def _fuzz(
    originals: dict[str, bytes], damage: Callable[[bytearray, random.Random], None], folder: Path, store: Store
) -> list[object]:
    """Damage all files in one way; the line of the table."""
    name = damage.__name__.replace("_", " ")
    say(name)
    inputs = folder / damage.__name__
    inputs.mkdir()
    num_before = num_same = num_changed = 0
    for number, (file, original) in enumerate(originals.items()):
        data = bytearray(original)
        damage(data, random.Random(number))
        (inputs / file).write_bytes(data)
        before, after = _blocks(original), _blocks(bytes(data))
        num_before += len(before)
        num_same += len(before & after)
        num_changed += len(after - before)
    counts, _, seconds = _ingest(inputs, store)
    printed = [counts[count] for count in ("damages", "pages", "documents", "documents_dropped")]
    return [name, num_before, num_same, num_changed, *printed, f"{seconds:.0f}"]


def _blocks(data: bytes) -> set[tuple[str, str, bytes]]:
    """The whole records of a file. A record without its block must come with a damage."""
    found = list(read_records(io.BytesIO(data), MAX_BYTES))
    for one, after in zip(found, [*found[1:], None], strict=True):
        assert isinstance(one, DamagedRange) or one.block is not None or isinstance(after, DamagedRange)
    return {(one.type, one.url, one.block) for one in found if isinstance(one, Record) and one.block is not None}


def _ingest(inputs: Path, store: Store) -> tuple[Counts, list[dict[str, object]], float]:
    """Counts and listed damages of the files in a folder, and wall seconds. Raises AssertionError where not all is accounted for."""
    start = time.monotonic()
    signal.alarm(LIMIT_SECONDS)
    step = ingest(IngestConfig(inputs=[str(inputs)], extractor="resiliparse", num_workers=2))
    execute(step, store)
    signal.alarm(0)
    documents = store.open(step.id, Documents)
    counts = documents.manifest.counts
    records = {name.partition("/")[2]: num for name, num in counts.items() if name.startswith("records/")}
    dropped = sum(num for name, num in counts.items() if name.startswith("dropped/"))
    assert counts["records_read"] == sum(records.values())
    assert counts["pages"] == sum(records.get(kind, 0) for kind in PAGES)
    assert counts["pages"] == counts["documents"] + counts["documents_dropped"]
    assert counts["documents_dropped"] == dropped
    errors = [json.loads(line) for line in (documents.folder / "errors.jsonl").read_text().splitlines()]
    assert len({error["file"] for error in errors}) == counts["files_with_errors"] + counts["files_cut_off"]
    return counts, errors, time.monotonic() - start


if __name__ == "__main__":
    main()
