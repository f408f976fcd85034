"""Reading web archives: offsets that lead back, files that are cut, damaged or no archives, headers without an end."""

import gzip
import io
import zlib
from pathlib import Path

import pytest
from archives import html, record, response
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.archive import HEADER_BYTES, BrokenArchive, Record, read_records

PAGES = [response(f"http://site.example/{number}", html(number)) for number in range(4)]
BOMB = gzip.compress(bytes(200_000_000))  # 200 kB


def urls(data: bytes) -> list[str]:
    return [found.url for found in read_records(io.BytesIO(data))]


def read_until_broken(data: bytes) -> tuple[list[Record], BrokenArchive]:
    found = []
    with pytest.raises(BrokenArchive) as broken:
        for one in read_records(io.BytesIO(data)):
            one.read(one.length)
            found.append(one)
    return found, broken.value


@pytest.mark.parametrize("separator", [b"", bytes(512)], ids=["", "padded"])
def test_an_offset_is_where_the_member_of_the_record_begins(separator: bytes) -> None:
    data = separator.join(PAGES)
    for found in read_records(io.BytesIO(data)):
        again = next(read_records(io.BytesIO(data[found.offset :].lstrip(b"\0"))))
        assert again.url == found.url
        assert again.read(again.length) == found.read(found.length)


def test_an_offset_in_a_plain_file_is_where_the_record_begins() -> None:
    data = b"".join(record("resource", f"http://site.example/{number}", b"x" * 5, is_gzip=False) for number in range(3))
    assert [data[found.offset :].startswith(b"WARC/1.0") for found in read_records(io.BytesIO(data))] == [True] * 3


def test_a_file_that_is_one_gzip_member_is_read_as_well() -> None:
    assert urls(gzip.compress(gzip.decompress(b"".join(PAGES)))) == urls(b"".join(PAGES))


@pytest.mark.parametrize("is_gzip", [True, False], ids=["gzip", "plain"])
def test_a_file_cut_anywhere_gives_the_records_before_and_names_the_place(is_gzip: bool) -> None:
    whole = b"".join(PAGES) if is_gzip else gzip.decompress(b"".join(PAGES))
    offsets = [found.offset for found in read_records(io.BytesIO(whole))]
    middle = (offsets[2] + offsets[3]) // 2
    found, broken = read_until_broken(whole[:middle])
    assert [one.offset for one in found] == offsets[:3]
    assert (broken.offset, broken.is_cut) == (offsets[2], True)


def test_a_flipped_bit_is_found_and_what_was_before_is_kept() -> None:
    data = bytearray(b"".join(PAGES))
    data[len(PAGES[0]) + len(PAGES[1]) + 100] ^= 4
    found, broken = read_until_broken(bytes(data))
    assert [one.url for one in found][:2] == ["http://site.example/0", "http://site.example/1"]
    assert broken.offset == len(PAGES[0]) + len(PAGES[1])
    assert not broken.is_cut


@pytest.mark.parametrize(
    "data",
    [
        b"<html>no archive</html>" * 100,
        bytes(10_000),
        b"five words of a line\n" * 9,
        gzip.compress(b"text\n" * 9, mtime=0),
        b"WARC/1.0\r\n\r\n",
    ],
)
def test_what_is_no_archive_is_said_to_be_none(data: bytes) -> None:
    found, _ = read_until_broken(data)
    assert found == []


def test_an_error_does_not_quote_the_page() -> None:
    _, broken = read_until_broken(b"".join(PAGES) + gzip.compress(b"Jane Roe, 12 Elm Street\n", mtime=0))
    assert "Jane" not in str(broken)


@pytest.mark.parametrize(
    "data", [BOMB, zlib.compress(b"a"), gzip.compress(b"WARC/1.0\r\n" + b"Name: value\r\n" * HEADER_BYTES, mtime=0)]
)
def test_a_header_without_an_end_costs_no_memory(data: bytes) -> None:
    import tracemalloc

    tracemalloc.start()
    read_until_broken(data)
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 60_000_000


def test_a_large_record_that_is_not_wanted_costs_no_memory() -> None:
    import tracemalloc

    data = record("resource", "http://site.example/large", bytes(50_000_000)) + PAGES[0]
    tracemalloc.start()
    assert urls(data) == ["http://site.example/large", "http://site.example/0"]
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 20_000_000


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_no_damage_makes_the_reader_crash_or_hang(data: st.DataObject) -> None:
    whole = bytearray(b"".join(PAGES) if data.draw(st.booleans()) else gzip.decompress(b"".join(PAGES)))
    for place in data.draw(st.lists(st.integers(0, len(whole) - 1), min_size=1, max_size=8)):
        whole[place] = data.draw(st.integers(0, 255))
    try:
        found = urls(bytes(whole))
    except BrokenArchive as broken:
        assert 0 <= broken.offset < len(whole)
    else:
        assert len(found) <= 5


def test_two_forms_of_one_real_crawl_have_the_same_pages(shared_data: Path) -> None:
    folder = shared_data / "warc" / "crawls"
    found = []
    for name in ("IAH-20080430204825-blackbook.warc.gz", "IAH-20080430204825-blackbook.arc.gz"):
        with (folder / name).open("rb") as stream:
            found.append([(one.url, one.read(one.length)) for one in read_records(stream) if one.type == "response"])
    assert found[0] == found[1]
    assert len(found[0]) == 299
