"""Records per second of our reader, warcio's and FastWARC's on the same files in one run, with the block of every record read.

python -m tests.benchmarks.reading_speed
"""

import gzip
import io
import time
from collections.abc import Callable

import zstandard
from fastwarc.warc import ArchiveIterator as FastIterator
from fastwarc.warc import WarcRecordType
from warcio.archiveiterator import ArchiveIterator

from tasks.ingest.warc import Record, read_records
from tests.benchmarks.harness import machine, print_table, shared_data

MAX_BYTES = 16 * 2**20
NUM_TURNS = 4
Reader = Callable[[bytes], int]


def ours(data: bytes) -> int:
    return sum(len(one.block or b"") for one in read_records(io.BytesIO(data), MAX_BYTES) if isinstance(one, Record))


def with_warcio(data: bytes) -> int:
    return sum(len(one.raw_stream.read()) for one in ArchiveIterator(io.BytesIO(data), no_record_parse=True))


def with_fastwarc(data: bytes) -> int:
    records = FastIterator(io.BytesIO(data), parse_http=False, record_types=WarcRecordType.any_type)
    return sum(len(one.reader.read()) for one in records)


def main() -> None:
    folder = shared_data()
    pages = [(folder / "extraction/wcxb-dev-sample.warc.gz").read_bytes()]
    crawls = [path.read_bytes() for path in sorted((folder / "warc/archive-query-log").glob("*.warc.gz"))]
    small = [(folder / "warc/crawls/IAH-20080430204825-blackbook.warc.gz").read_bytes()]
    rows = []
    for name, files in (("large pages", pages), ("result pages", crawls), ("a crawl with requests", small)):
        num_records = sum(1 for data in files for _ in read_records(io.BytesIO(data), 0))
        seconds = {reader: _seconds(reader, files) for reader in (ours, with_warcio, with_fastwarc)}
        seconds_zstd = _seconds(ours, list(map(_to_zstd, files)))
        speeds = [f"{num_records / one:,.0f}" for one in (*seconds.values(), seconds_zstd)]
        rows.append([name, num_records, *speeds, f"{seconds[with_warcio] / seconds[ours]:.2f}"])
    headings = ["files", "records", "ours", "warcio", "FastWARC", "ours, zstd", "ours / warcio"]
    print_table(
        "Reading, records per CPU second",
        headings,
        rows,
        f"gzip but where it says zstd; best of {NUM_TURNS}. {machine()}",
    )


def _seconds(reader: Reader, files: list[bytes]) -> float:
    turns = []
    for _ in range(NUM_TURNS):
        start = time.process_time()
        assert sum(map(reader, files))
        turns.append(time.process_time() - start)
    return min(turns)


def _to_zstd(data: bytes) -> bytes:
    offsets = [found.offset for found in read_records(io.BytesIO(data), 0)]
    members = (data[begin:end] for begin, end in zip(offsets, [*offsets[1:], len(data)], strict=True))
    return b"".join(zstandard.compress(gzip.decompress(member)) for member in members)


if __name__ == "__main__":
    main()
