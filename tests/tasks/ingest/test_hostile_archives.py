"""Damaged web archives: each damage costs the record it is in, the ones around it are found, and all of it is accounted for."""

import gzip
import io
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.ingest.stage import MAX_ERRORS, File, IngestConfig, ingest_file
from tasks.ingest.warc import WRONG_LENGTH, DamagedRange, Record, read_records
from tests.support.archives import FORMS, archive, html, record, response
from tests.support.cost import grows_linearly

PAGES = [gzip.decompress(response(f"http://site.example/{number}", html(number))) for number in range(6)]
ARC_PAGE = b"http://site.example/%d 127.0.0.1 20080430204825 text/html %d\n%b\n"
ARC_BLOCK = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + html(1).encode()
GARBAGE = random.Random(1).randbytes(3000)


def read(data: bytes) -> tuple[list[Record], list[DamagedRange]]:
    found = list(read_records(io.BytesIO(data), 2**24))
    return [one for one in found if isinstance(one, Record)], [one for one in found if isinstance(one, DamagedRange)]


def whole(data: bytes) -> list[int]:
    """The numbers of the pages whose blocks are found."""
    return [int(one.url.rpartition("/")[2]) for one in read(data)[0] if one.block is not None]


@pytest.mark.parametrize("form", ["gzip", "zstd"])
def test_flipped_bit_costs_one_record(form: str) -> None:
    clean = archive(PAGES, form)
    offsets = [one.offset for one in read(clean)[0]]
    for place in range(offsets[2] + 20, offsets[3], 11):
        damaged = bytearray(clean)
        damaged[place] ^= 1
        assert whole(bytes(damaged)) == [0, 1, 3, 4, 5]
        _, (damage,) = read(bytes(damaged))
        assert (damage.offset, damage.num_bytes) == (offsets[2], offsets[3] - offsets[2])
        assert not damage.is_cut


def test_page_of_a_damaged_member_is_named() -> None:
    clean = archive(PAGES, "gzip")
    damaged = bytearray(clean)
    damaged[read(clean)[0][3].offset - 6] ^= 1  # in the checksum
    records, _ = read(bytes(damaged))
    assert [(one.url, one.block is None) for one in records][2] == ("http://site.example/2", True)


@pytest.mark.parametrize("form", FORMS)
def test_garbage_between_records_costs_no_record(form: str) -> None:
    first, second = archive(PAGES[:3], form), archive(PAGES[3:], form.removesuffix(" with a dictionary"))
    assert whole(first + GARBAGE + second) == [0, 1, 2, 3, 4, 5]
    _, (damage,) = read(first + GARBAGE + second)
    assert (damage.offset, damage.num_bytes) == (len(first), len(GARBAGE))


@pytest.mark.parametrize("form", ["gzip", "zstd", "plain"])
def test_file_without_its_start_is_read_from_the_first_whole_record(form: str) -> None:
    data = archive(PAGES, form)
    assert whole(data[len(data) // 3 :]) in ([2, 3, 4, 5], [3, 4, 5])


def test_plain_file_without_its_start_is_not_read_as_the_gzip_in_it() -> None:
    body = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n" + gzip.compress(GARBAGE)
    pages = [record("resource", f"http://site.example/{number}", body, is_gzip=False) for number in range(3)]
    assert whole(b"".join(pages)[300:]) == [1, 2]
    assert whole(GARBAGE + b"".join(pages)) == [0, 1, 2]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("change", [-300, -1, 7, 300, 90_000, 20_000_000])
def test_wrong_length_costs_one_record(form: str, change: int) -> None:
    length = int(PAGES[2].partition(b"Content-Length: ")[2].partition(b"\r")[0])
    wrong = PAGES[2].replace(b"Content-Length: %d" % length, b"Content-Length: %d" % (length + change))
    data = archive([*PAGES[:2], wrong, *PAGES[3:]], form)
    if form == "plain" and change == 20_000_000:  # it may be an archive, which the file ends within
        assert whole(data) == [0, 1]
        return
    assert whole(data) == [0, 1, 3, 4, 5]
    _, (damage,) = read(data)
    assert (damage.reason, damage.is_cut) == (WRONG_LENGTH, False)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"WARC/1.0", b"WARX/1.0"),
        (b"Content-Length: ", b"Content-Longth: "),
        (b"Content-Length: ", b"Content-Length: x"),
    ],
)
def test_damaged_header_costs_one_record(form: str, old: bytes, new: bytes) -> None:
    wrong = PAGES[2].replace(old, new, 1)
    assert whole(archive([*PAGES[:2], wrong, *PAGES[3:]], form)) == [0, 1, 3, 4, 5]


@pytest.mark.parametrize("form", ["gzip", "plain"])
def test_arc_files_are_read_after_damage_too(form: str) -> None:
    pages = [ARC_PAGE % (number, len(ARC_BLOCK), ARC_BLOCK) for number in range(6)]
    pages[2] = ARC_PAGE % (2, len(ARC_BLOCK) + 50, ARC_BLOCK)
    pages[4] = pages[4].replace(b" 127.0.0.1 ", b"_")
    assert whole(archive(pages, form)) == [0, 1, 3, 5]


def test_damage_within_one_large_member_costs_what_follows_and_no_more() -> None:
    data = gzip.compress(b"".join(page * 30 for page in PAGES))
    middle = len(data) // 2
    records, damages = read(data[:middle] + GARBAGE + data[middle:])
    assert {damage.offset for damage in damages} == {0}
    assert records
    assert all(one.block is not None for one in records[:-1])


@pytest.mark.parametrize(
    "make",
    [
        lambda n: b"\x1f\x8b\x08\x00" * n,
        lambda n: b"\x28\xb5\x2f\xfd" * n,
        lambda n: b"\x50\x2a\x4d\x18" * n,
        lambda n: gzip.compress(b"") * n,
        lambda n: b"WARC/1.0\r\n" * n,
        lambda n: b"WARC/1.0\r\nContent-Length: 9000000\r\n\r\n" * n,
        lambda n: b"WARC/1.0\r\nContent-Length: 99999999999999\r\n\r\n" * n,
        lambda n: b"http://a 1.1.1.1 20080430204825 t 999999\n" * n,
        lambda n: gzip.compress(b"http://a:" + b" " * 50 * n) * 3,
        lambda n: (gzip.compress(b"", mtime=0)[:10] + b"\x00\xff\xff\x00\x00") * (n // 10),
    ],
    ids=range(10),
)
def test_reading_costs_linear_time(make: Callable[[int], bytes]) -> None:
    assert grows_linearly(read, make(1_000), make(8_000), 8)


def test_much_damage_is_counted_and_its_first_places_are_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.ingest.stage.tick", lambda: None)
    page = record("conversion", "http://site.example/", b"Text of a page.", is_gzip=False)
    (tmp_path / "part.warc.gz").write_bytes(archive([page] * 300, "gzip").replace(b"\x1f\x8b", b"--\x1f\x8b"))
    file = File("part", str(tmp_path / "part.warc.gz"), tmp_path, IngestConfig(), (), "")
    counts = ingest_file(file)
    errors = [json.loads(line) for line in file.errors_path.read_text().splitlines()]
    assert (counts["damages"], counts["damaged_bytes"], counts["documents"]) == (300, 600, 300)
    assert len(errors) == MAX_ERRORS
    assert "200 before it are not listed" in errors[-1]["error"]
    assert (counts["files_with_errors"], counts["files_cut_off"], counts["files_unreadable"]) == (1, 0, 0)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_every_byte_is_accounted_for_after_any_damage(data: st.DataObject) -> None:
    damaged = bytearray(archive(PAGES, data.draw(st.sampled_from(FORMS))))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, max(len(damaged) - 1, 0)))
        size = data.draw(st.integers(1, 2000))
        match data.draw(st.sampled_from(["change", "remove", "insert", "cut"])):
            case "change":
                damaged[place : place + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "remove":
                del damaged[place : place + size]
            case "insert":
                damaged[place:place] = data.draw(st.binary(max_size=50)) * 20
            case "cut":
                del damaged[max(place, 1) :]
    found = list(read_records(io.BytesIO(bytes(damaged)), 2**24))
    damages = [one for one in found if isinstance(one, DamagedRange)]
    assert [one.offset for one in found] == sorted(one.offset for one in found)
    assert all(one.num_bytes >= 0 and one.offset + one.num_bytes <= len(damaged) for one in damages)
    assert not any(one.is_cut for one in damages[:-1])
    without = [number for number, one in enumerate(found) if isinstance(one, Record) and one.block is None]
    assert all(isinstance(found[number + 1], DamagedRange) for number in without)
    assert len(found) - len(damages) <= len(PAGES) + 1
