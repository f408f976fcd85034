"""What inputs stand for: paths, globs, folders, URLs and crawls; and that a file is known by its content, not by its place."""

import json
import shutil
import zipfile
from pathlib import Path

import fsspec
import pytest

from model.errors import UserError
from tasks.artifacts.manifest import Crawl
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.ingest.inputs import InputsConfig, find, located, shard_names, web_archives
from tasks.sample_web.config import SampleWebConfig, SampleWebSize
from tasks.web.download import open_file
from tests.support.archives import serving, write_crawl, write_listing


@pytest.fixture(autouse=True)
def default_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CRAWL2CHAT_STORE", str(tmp_path / "store"))


def listed(*inputs: str, max_files: int = 0, base_url: str = "") -> Step[Crawl]:
    return web_archives(InputsConfig(inputs=list(inputs), max_files=max_files, base_url=base_url), world_seed=1)


def inputs_of(step: Step[Crawl], store: Store) -> list[dict[str, object]]:
    execute(step, store)
    return [json.loads(line) for line in (store.folder(step.id) / "inputs.jsonl").read_text().splitlines()]


def test_folder_glob_and_paths_name_the_same_files(tmp_path: Path, store: Store) -> None:
    paths = write_crawl(tmp_path / "crawl" / "deep", 3, 1)
    (tmp_path / "crawl" / "notes.txt").write_text("no archive")
    (tmp_path / "crawl" / "deep" / "part-1.warc.wat.gz").write_text("metadata only")
    steps = [
        listed(str(tmp_path / "crawl")),
        listed(str(tmp_path / "crawl" / "*" / "part-?.warc.gz")),
        listed(f"file://{tmp_path}/crawl/**/*.warc.gz"),
        listed(*map(str, paths)),
        listed(str(paths[0]), str(tmp_path / "crawl")),  # one of them twice
    ]
    assert len({step.fingerprint for step in steps}) == 1
    assert [line["url"] for line in inputs_of(steps[0], store)] == [str(path) for path in paths]
    assert [line["bytes"] for line in inputs_of(steps[0], store)] == [path.stat().st_size for path in paths]


def test_fingerprint_follows_the_content_of_files_not_their_place(tmp_path: Path) -> None:
    (path,) = write_crawl(tmp_path / "here", 1, 1)
    before = listed(str(path)).fingerprint
    moved = Path(shutil.move(path, tmp_path / path.name))
    assert listed(str(moved)).fingerprint == before
    moved.write_bytes(moved.read_bytes() + b"\0")
    assert listed(str(moved)).fingerprint != before


@pytest.mark.parametrize("suffix", ["warc", "WARC.GZ", "arc", "arc.gz", "wet", "warc.wet.gz", "wet.gz", "warc.zst"])
def test_find_takes_the_archives_of_a_folder(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.{suffix}").touch()
    (tmp_path / "a.wat.gz").touch()
    assert find(str(tmp_path)) == [str(tmp_path / f"a.{suffix}")]


def test_shard_names_are_short_safe_and_all_different() -> None:
    urls = ["/a/x.warc.gz", "/b/x.warc", "s3://c/x-2.arc", "https://h/a%20b c.warc.gz?sig=1/2", "/a/.warc.gz"]
    assert shard_names(urls) == ["x", "x-2", "x-2-2", "2", "file"] or len(set(shard_names(urls))) == len(urls)
    assert all("/" not in name and " " not in name for name in shard_names(urls))


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("missing.warc.gz", "missing.warc.gz does not exist"),
        ("*.warc.gz", "no file matches"),
        (".", "holds no file"),
        ("memory://nothing/here.warc", "no file matches"),
        ("nosuch://bucket/file.warc", "nosuch"),
        ("", "input is empty"),
    ],
)
def test_bad_input_is_one_line_with_the_remedy(tmp_path: Path, name: str, reason: str) -> None:
    pattern = name if "://" in name or not name else str(tmp_path / name)
    with pytest.raises(ValueError, match=r"--input") as error:
        assert listed(pattern).id
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


def test_sample_web_cannot_be_mixed_with_other_inputs() -> None:
    assert listed("sample").config == SampleWebConfig()
    with pytest.raises(ValueError, match="alone"):
        assert listed("sample", "other.warc").id


def test_other_filesystems_are_globbed_and_known_by_their_checksums() -> None:
    filesystem = fsspec.filesystem("memory")
    for number in range(2):
        filesystem.pipe_file(f"/crawl-{number}/part.warc.gz", b"content")
    step = listed("memory://crawl-*/part.warc.gz")
    assert step.id
    assert step.config.urls == ["memory:///crawl-0/part.warc.gz", "memory:///crawl-1/part.warc.gz"]
    assert [file.name for file in step.config.files] == ["part", "part-2"]
    assert step.fingerprint == listed("memory://crawl-*/part.warc.gz").fingerprint
    filesystem.pipe_file("/crawl-0/part.warc.gz", b"changed")
    assert step.fingerprint != listed("memory://crawl-*/part.warc.gz").fingerprint


def test_file_on_a_server_is_identified_by_size_and_etag(tmp_path: Path) -> None:
    (path,) = write_crawl(tmp_path, 1, 1)
    with serving(tmp_path) as server:
        before = listed(f"{server.url}/{path.name}")
        assert before.id
        path.write_bytes(path.read_bytes()[::-1])
        assert listed(f"{server.url}/{path.name}").fingerprint != before.fingerprint
        with pytest.raises(ValueError, match="404"):
            assert listed(f"{server.url}/missing.warc.gz").id


def test_crawl_takes_the_first_files_of_its_listing(tmp_path: Path, store: Store) -> None:
    names = [f"crawl-data/CC-TEST/segments/{number}/warc/{number}.warc.gz" for number in range(5)]
    write_listing(tmp_path, "CC-TEST", names)
    with serving(tmp_path) as server:
        server.faults["/crawl-data/CC-TEST/warc.paths.gz"] = ["busy", "break"]
        step = listed("cc:CC-TEST", max_files=2, base_url=f"{server.url}/")
        assert server.requests == []  # naming a step asks nobody
        urls = [line["url"] for line in inputs_of(step, store)]
    assert urls == [f"{server.url}/{name}" for name in names[:2]]
    assert listed("cc:CC-TEST", max_files=3, base_url=server.url).fingerprint != step.fingerprint


def test_missing_crawl_is_named_with_its_address(tmp_path: Path, store: Store) -> None:
    with serving(tmp_path) as server:
        with pytest.raises(ValueError, match=r"no listing of crawl CC-NONE at .*warc\.paths\.gz"):
            execute(listed("cc:CC-NONE", base_url=server.url), store)
        with pytest.raises(ValueError, match="no listing of crawl CC-NONE"):
            execute(listed("cc:CC-NONE", base_url=str(tmp_path)), store)


def test_max_files_takes_the_first(tmp_path: Path, store: Store) -> None:
    write_crawl(tmp_path / "crawl", 3, 1)
    assert [line["name"] for line in inputs_of(listed(str(tmp_path / "crawl"), max_files=2), store)] == [
        "part-0",
        "part-1",
    ]


def test_files_are_read_where_they_are_now(tmp_path: Path, store: Store) -> None:
    """Those of the sample web in its artifact, a local file where it was moved to, and where it was listed if it is not found."""
    sample = InputsConfig(sample=SampleWebSize(num_articles=20, num_files=2))
    step = web_archives(sample, world_seed=1)
    execute(step, store)
    files = located(sample, store.open(step.id, Crawl))
    assert [Path(file["url"]).is_file() for file in files] == [True, True]
    (path,) = write_crawl(tmp_path / "here", 1, 1)
    execute(listed(str(path)), store)
    crawl = store.open(listed(str(path)).id, Crawl)
    moved = shutil.move(path, tmp_path / path.name)
    assert [file["url"] for file in located(InputsConfig(inputs=[str(moved)]), crawl)] == [str(moved)]
    assert [file["url"] for file in located(InputsConfig(inputs=[str(path)]), crawl)] == [str(path)]


def test_linked_folders_are_followed_once_and_what_is_skipped_is_named(tmp_path: Path) -> None:
    write_crawl(tmp_path / "elsewhere", 1, 1)
    folder = tmp_path / "crawl"
    write_crawl(folder, 1, 1)
    (folder / "link").symlink_to(tmp_path / "elsewhere")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.warc.gz").symlink_to(tmp_path / "nothing")
    (folder / "notes\x1b[31m.txt").write_text("no archive")
    skipped: list[str] = []
    assert find(str(folder), skipped) == [
        str(folder / "part-0.warc.gz"),
        str(tmp_path / "elsewhere" / "part-0.warc.gz"),
    ]
    assert [name.rpartition("/")[2] for name in skipped] == [
        "gone.warc.gz: it is a link to nothing",
        "notes?[31m.txt: its name is not that of a WARC, ARC, WET or WACZ file",
    ]


def test_wacz_and_zip_files_are_read_without_unpacking(tmp_path: Path) -> None:
    (path,) = write_crawl(tmp_path / "here", 1, 2)
    with zipfile.ZipFile(tmp_path / "a.wacz", "w") as archive:
        archive.write(path, "archive/data.warc.gz")
        archive.writestr("pages/pages.jsonl", "{}")
        archive.writestr("../evil.txt", "")
    urls = find(str(tmp_path / "a.wacz"))
    assert urls == [f"zip://archive/data.warc.gz::{tmp_path}/a.wacz"]
    with open_file(urls[0]) as stream:
        assert stream.read() == path.read_bytes()
    assert find(f"zip://archive/*.warc.gz::{tmp_path}/a.wacz") == urls
    (tmp_path / "b.wacz").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"b\.wacz is no WACZ file"):
        find(str(tmp_path / "b.wacz"))


@pytest.mark.parametrize("name", ["x" * 300 + ".warc.gz", "a\0b.warc", "zip://a.warc::/nowhere/a.zip"])
def test_impossible_name_is_one_line(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="--input"):
        find(name if "://" in name else f"{tmp_path}/{name}")


def test_shard_names_count_on_from_the_last_number() -> None:
    names = shard_names([f"/{number}/part.warc.gz" for number in range(50_000)])
    assert len(set(names)) == 50_000 and names[:3] == ["part", "part-2", "part-3"]


def test_shard_names_fit_a_file_system() -> None:
    assert all(
        len(name.encode()) <= 130
        for name in shard_names([f"/{'語' * 300}.warc", f"/{'é' * 300}.warc", "/x\ud800.warc"])
    )
