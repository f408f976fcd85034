"""Reading web archives: offsets that lead back, all forms alike, files that are cut or no archives, real files to their end."""

import gzip
import hashlib
import io
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from warcio.archiveiterator import ArchiveIterator

from tasks.ingest.warc import HEADER_BYTES, DamagedRange, Record, read_records
from tests.support.archives import FORMS, archive, dictionary_frame, html, record, response

MAX_BYTES = 2**24
PLAIN_PAGES = [gzip.decompress(response(f"http://site.example/{number}", html(number))) for number in range(4)]
PAGES = [gzip.compress(page, mtime=0) for page in PLAIN_PAGES]
BOMB = gzip.compress(bytes(30_000_000), mtime=0)  # 50 kB


def read(data: bytes, max_bytes: int = MAX_BYTES) -> tuple[list[Record], list[DamagedRange]]:
    found = list(read_records(io.BytesIO(data), max_bytes))
    return [one for one in found if isinstance(one, Record)], [one for one in found if isinstance(one, DamagedRange)]


def urls(data: bytes) -> list[str]:
    records, damages = read(data)
    assert damages == []
    return [one.url for one in records]


@pytest.mark.parametrize("separator", [b"", bytes(512)], ids=["", "padded"])
def test_offset_is_where_the_member_of_the_record_begins(separator: bytes) -> None:
    data = separator.join(PAGES)
    records, _ = read(data)
    assert len(records) == 4
    for found in records:
        again = read(data[found.offset :].lstrip(b"\0"))[0][0]
        assert (again.url, again.block) == (found.url, found.block)


def test_offset_in_a_plain_file_is_where_the_record_begins() -> None:
    data = b"".join(record("resource", f"http://site.example/{number}", b"x" * 5, is_gzip=False) for number in range(3))
    assert [data[found.offset :].startswith(b"WARC/1.0") for found in read(data)[0]] == [True] * 3


def test_arc_record_may_have_spaces_in_its_url_and_media_type() -> None:
    line = b"http://site.example/a b 127.0.0.1 20000824015105 text/html; charset=iso-8859-1 4\n"
    (found,), damages = read(line + b"text\n")
    assert (found.url, found.date, found.block, damages) == ("http://site.example/a b", "20000824015105", b"text", [])


def test_file_of_one_gzip_member_is_read() -> None:
    assert urls(gzip.compress(b"".join(PLAIN_PAGES))) == urls(b"".join(PAGES))


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_give_the_same_records(form: str) -> None:
    data = archive(PLAIN_PAGES, form)
    records, damages = read(data)
    assert damages == []
    assert [one.block for one in records] == [page.partition(b"\r\n\r\n")[2][:-4] for page in PLAIN_PAGES]
    for found in records[1:]:
        assert data[found.offset :].startswith(data[records[1].offset :][:4])


@pytest.mark.parametrize("is_compressed", [True, False])
def test_zstd_dictionary_may_be_compressed(is_compressed: bool) -> None:
    trained = zstandard.train_dictionary(2_000, [html(number).encode() for number in range(50)])
    frames = map(zstandard.ZstdCompressor(dict_data=trained).compress, PLAIN_PAGES)
    assert len(urls(dictionary_frame(trained.as_bytes(), is_compressed) + b"".join(frames))) == 4


@pytest.mark.parametrize("form", FORMS)
def test_file_cut_anywhere_gives_the_records_before_and_names_the_place(form: str) -> None:
    whole = archive(PLAIN_PAGES, form)
    offsets = [found.offset for found in read(whole)[0]]
    for cut in (offsets[2] + 40, (offsets[2] + offsets[3]) // 2, offsets[3] - 20):
        records, (damage,) = read(whole[:cut])
        assert [one.offset for one in records if one.block is not None] == offsets[:2]
        assert (damage.offset, damage.num_bytes, damage.is_cut) == (offsets[2], cut - offsets[2], True)


@pytest.mark.parametrize(
    "data",
    [
        b"<html>no archive</html>" * 100,
        bytes(10_000),
        b"five words of a line\n" * 9,
        gzip.compress(b"text\n" * 9, mtime=0),
        zstandard.compress(b"text\n" * 9),
        b"WARC/1.0\r\n\r\n",
        b"",
    ],
)
def test_file_that_is_not_an_archive_is_reported(data: bytes) -> None:
    records, (damage,) = read(data)
    assert records == []
    assert (damage.offset, damage.num_bytes, damage.is_cut) == (0, len(data), False)


def test_error_does_not_quote_the_page() -> None:
    _, (damage,) = read(b"".join(PAGES) + gzip.compress(b"Jane Roe, 12 Elm Street\n", mtime=0))
    assert "Jane" not in damage.reason


def peak_bytes(stream: io.BytesIO) -> int:
    import tracemalloc

    tracemalloc.start()
    for _ in read_records(stream, MAX_BYTES):
        pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize(
    "data",
    [
        BOMB,
        zlib.compress(b"a"),
        gzip.compress(b"WARC/1.0\r\n" + b"Name: value\r\n" * HEADER_BYTES, mtime=0),
        zstandard.compress(bytes(30_000_000)),
        gzip.compress(b"\n" * 30_000_000, mtime=0),
        record("resource", "http://site.example/large", bytes(30_000_000)) + PAGES[0],
    ],
    ids=["bomb", "rubbish", "header", "zstd", "blank lines", "large record"],
)
def test_no_file_costs_much_memory(data: bytes) -> None:
    assert peak_bytes(io.BytesIO(data)) < 40_000_000


def test_zstd_frame_that_needs_too_much_memory_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(1, window_log=30, write_content_size=False)
    greedy = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    data = greedy.compress(PLAIN_PAGES[0]) + greedy.flush() + archive(PLAIN_PAGES[1:], "zstd")
    records, (damage,) = read(data)
    assert len(records) == 3
    assert "memory" in damage.reason


class Endless(io.RawIOBase):
    """A hostile file: gzip members of nothing but zeros, as many as are asked for."""

    def __init__(self) -> None:
        self.member = gzip.compress(bytes(10_000_000))
        self.given_bytes = 0

    def read(self, size: int = -1) -> bytes:
        self.given_bytes += len(self.member)
        return self.member if self.given_bytes < 2**30 else b""


def test_file_that_grows_too_much_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.ingest.decompression.FREE_BYTES", 10_000_000)
    source = Endless()
    (damage,) = read_records(source, MAX_BYTES)
    assert isinstance(damage, DamagedRange)
    assert source.given_bytes < 2_000_000


def test_large_record_is_skipped_even_if_it_holds_an_archive() -> None:
    inner = b"".join(PLAIN_PAGES) * 3
    for is_gzip in (True, False):
        outer = record("resource", "http://site.example/a.warc", inner, is_gzip=is_gzip)
        last = record("resource", "http://site.example/b", b"text", is_gzip=is_gzip)
        for max_bytes in (MAX_BYTES, 100):
            records, damages = read(outer + last, max_bytes)
            assert damages == []
            assert [one.url for one in records] == ["http://site.example/a.warc", "http://site.example/b"]
            assert [one.block for one in records] == [inner if max_bytes == MAX_BYTES else None, b"text"]


def test_two_forms_of_one_real_crawl_have_the_same_pages(shared_data: Path) -> None:
    folder = shared_data / "warc" / "crawls"
    found = []
    for name in ("IAH-20080430204825-blackbook.warc.gz", "IAH-20080430204825-blackbook.arc.gz"):
        records, damages = read((folder / name).read_bytes())
        assert damages == []
        found.append([(one.url, one.block) for one in records if one.type == "response"])
    assert found[0] == found[1]
    assert len(found[0]) == 299


def known_to_warcio(path: Path) -> Iterator[tuple[str, str, str, int, str]]:
    with path.open("rb") as stream:
        archive = ArchiveIterator(stream, no_record_parse=True)
        for one in archive:
            header = one.rec_headers.get_header
            text = one.raw_stream.read()
            yield (
                one.rec_type,
                header("WARC-Record-ID") or "",
                (header("WARC-Target-URI") or header("uri") or "").removeprefix("%20"),
                archive.get_record_offset(),
                hashlib.sha256(text).hexdigest(),
            )


def test_real_crawls_are_read_as_warcio_reads_them(shared_data: Path) -> None:
    paths = [
        path for name in ("crawls", "archive-query-log") for path in (shared_data / "warc" / name).glob("*.warc.gz")
    ]
    assert len(paths) > 20
    for path in paths:
        records, damages = read(path.read_bytes())
        assert damages == []
        assert [
            (one.type, one.id, one.url, one.offset, hashlib.sha256(one.block or b"").hexdigest()) for one in records
        ] == list(known_to_warcio(path)), path.name


def test_real_files_with_wrong_lengths_are_read_to_their_end(shared_data: Path) -> None:
    records, damages = read((shared_data / "warc/commoncrawl/cc_net-sample.warc.wet").read_bytes())
    assert [one.type for one in records] == ["warcinfo", "conversion", "conversion", "conversion"]
    assert len(damages) == 4
    texts = [(one.block or b"").decode() for one in records]
    assert texts[1].startswith("Famous Mark Twain Quotes\n")
    assert texts[1].endswith("Truth isn't.")
    assert all("WARC/1.0" not in text for text in texts)
    records, damages = read((shared_data / "warc/edge/warcio/example-trunc.warc").read_bytes())
    assert [one.block is None for one in records] == [False, False, True, False]
    assert len(damages) == 1
