"""Block lists: listed pages are blocked and others are not, hostile archives and hosts do no harm, no network is an error."""

import gzip
import io
import os
import re
import tarfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from model.errors import UserError
from tasks.execution.runner import execute
from tasks.resources import resource
from tasks.web import download, ut1
from tasks.web.blocklists import LISTS as LIST_NAMES
from tasks.web.blocklists import Blocklist, by_category, load_keys, read_entries, word_rule, write_keys
from tasks.web.urls import split_address
from tasks.web.ut1 import BUILTIN_HOSTS, locate, newest_lists
from tests.support.archives import serving
from tests.support.cost import peak_bytes


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache for each test, and no waiting between tries."""
    monkeypatch.setattr(download, "BACKOFF_SECONDS", 0.001)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "crawl2chat" / "ut1"


def make_archive(path: Path, files: dict[str, bytes], *others: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in others:
            archive.addfile(member)
    return path


def names_below(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


LISTS = {
    "blacklists/README": b"read me",
    "blacklists/adult/domains": "bad.com\nWorse.co.uk\n.dotted.com\n*.starred.com\nxn--mnchen-3ya.de\nZürich.com\n".encode(),
    "blacklists/adult/urls": b"site.example/bad\nsite.example//worse/\nsite.example/page?id=3\n",
    "blacklists/adult/usage": b"black",
}


def load(files, categories, folder) -> Blocklist:
    found = by_category(files, categories)
    write_keys(found, folder / "keys.npy")
    return Blocklist(load_keys(folder / "keys.npy"), tuple(found))


# The lists of UT1


@pytest.fixture(scope="module")
def ut1_files(shared_data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ut1") / "lists"
    with (shared_data / "url/ut1-blacklists.tar.gz").open("rb") as archive:
        ut1.unpack(archive, folder)
    return sorted(folder.rglob("*/*"))


def test_every_entry_of_ut1_covers_itself_and_what_is_below(ut1_files, tmp_path):
    blocklist = load(ut1_files, {file.parent.name for file in ut1_files}, tmp_path)
    num_entries, missed = 0, []
    for file in ut1_files:
        for entry in list(read_entries(file))[::40]:
            num_entries += 1
            below = f"http://www.{entry}" if file.name == "domains" and not entry[0].isdigit() else f"http://{entry}"
            if not blocklist.category(split_address(below)):
                missed.append(entry)
    assert num_entries > 7_000
    assert missed == []


def test_only_requested_categories_block(ut1_files, tmp_path):
    blocklist = load(ut1_files, ["gambling"], tmp_path)
    categories = {
        blocklist.category(split_address(f"http://{entry}"))
        for file in ut1_files
        if file.parent.name in ("gambling", "press", "bank")
        for entry in list(read_entries(file))[::20]
    }
    assert blocklist.categories == ("gambling",)
    assert categories == {"gambling", None}


def test_hosts_file_is_a_category_of_its_name(shared_data, tmp_path):
    files = [shared_data / "url/gambling-hosts.gz", shared_data / "url/pornography-hosts.gz"]
    blocklist = load(files, [], tmp_path)
    assert blocklist.categories == ("gambling-hosts", "pornography-hosts")
    assert len(blocklist.keys) == len({entry for file in files for entry in read_entries(file)}) > 60_000
    assert blocklist.category(split_address("https://www.10bet.com/en")) == "gambling-hosts"
    assert blocklist.category(split_address("https://0.0.0.0/")) is None


def test_list_named_without_its_category_is_used(tmp_path, store):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "domains").write_text("bad.com\n")
    for path in (tmp_path / "mine", tmp_path / "mine" / "domains"):
        step = resource("blocklist", str(path), LIST_NAMES)
        execute(step, store)
        blocklist = load(sorted(store.folder(step.id).glob("files/**/*")), ["adult"], tmp_path)
        assert blocklist.category(split_address("http://bad.com/")) == "domains"


@pytest.mark.parametrize(
    ("url", "is_blocked"),
    [
        ("http://bad.com/", True),
        ("https://a.b.bad.com:8080/any?x", True),
        ("http://worse.co.uk./", True),
        ("http://dotted.com/", True),
        ("http://www.starred.com/", True),
        ("http://MÜNCHEN.de/", True),
        ("http://xn--zrich-kva.com/", True),
        ("http://ü..com/", False),  # no host that there can be
        ("http://notbad.com/", False),
        ("http://bad.com.example/", False),
        ("http://site.example/", False),
        ("http://site.example/bad", True),
        ("http://www.site.example/Bad/page.html", True),
        ("http://site.example/badly", False),
        ("http://site.example//worse//page", True),
        ("http://site.example/page?id=3", True),
        ("http://site.example/page?id=33", False),
        ("http://site.example/page", False),
    ],
)
def test_host_covers_hosts_below_and_page_covers_pages_below(url, is_blocked, tmp_path):
    with make_archive(tmp_path / "lists.tar.gz", LISTS).open("rb") as archive:
        ut1.unpack(archive, tmp_path / "lists")
    files = [path for path in (tmp_path / "lists").rglob("*") if path.is_file()]
    assert bool(load(files, ["adult"], tmp_path).category(split_address(url))) == is_blocked


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("http://a.example/porn/x/slots/casino", "blocked_word"),  # a hard word comes before soft ones
        ("http://a.example/PORN", "blocked_word"),
        ("http://a.example/%70orn", "blocked_word"),
        ("http://casino.example/slots", "soft_blocked_words"),
        ("http://casino.example/casino", None),  # one word twice
        ("http://a.example/po-rn-hub-clips", "blocked_part"),
        ("http://a.example/popcorn", None),
    ],
)
def test_word_rule_follows_finewebs_order(url, rule):
    assert word_rule(url, ["porn"], ["casino", "slots"], ["pornhub"], 1) == rule


def test_hosts_of_hostile_length_take_neither_time_nor_memory(tmp_path):
    """A host of n labels has n hosts above it: 1 MB of labels would be 250 GB of names."""
    (tmp_path / "list.txt").write_text(f"bad.com\n{'a.' * 1_000_000}com\n{'b' * 254}\nworse.com\n")
    blocklist = load([tmp_path / "list.txt"], [], tmp_path)
    assert list(read_entries(tmp_path / "list.txt")) == ["bad.com", "worse.com"]
    for num_characters in (50_000, 1_000_000):
        url = f"http://{'a.' * (num_characters // 2)}bad.com/"
        assert split_address(url) is None
        host = urlsplit(url)
        assert peak_bytes(blocklist.category, host) < 5 * num_characters + 100_000
        assert blocklist.category(host) is None


def test_more_categories_than_a_key_numbers_are_refused(tmp_path):
    files = [tmp_path / f"{number}.txt" for number in range(257)]
    for file in files:
        file.write_text("bad.com\n")
    with pytest.raises(UserError, match="257 categories of block lists: name at most 256"):
        write_keys(by_category(files, []), tmp_path / "keys.npy")


# Fetching


def test_lists_are_fetched_once_and_checked_again_after_a_week(cache, tmp_path):
    make_archive(tmp_path / "lists.tar.gz", LISTS)
    with serving(tmp_path) as server:
        url = f"{server.url}/lists.tar.gz"
        folder = newest_lists(url)
        assert names_below(folder) == ["adult/domains", "adult/urls"]
        assert newest_lists(url) == folder
        assert [method for method, *_ in server.requests] == ["HEAD", "GET"]
        os.utime(cache / "record.json", (0, 0))
        assert newest_lists(url) == folder  # the same ETag
        assert [method for method, *_ in server.requests] == ["HEAD", "GET", "HEAD"]
        make_archive(tmp_path / "lists.tar.gz", LISTS | {"blacklists/warez/domains": b"new.example\n"})
        assert newest_lists(url) == folder  # checked a moment ago
        os.utime(cache / "record.json", (0, 0))
        assert names_below(newest_lists(url)) == ["adult/domains", "adult/urls", "warez/domains"]


def test_without_a_network_the_kept_lists_are_used_with_a_warning(cache, tmp_path, caplog):
    make_archive(tmp_path / "lists.tar.gz", LISTS)
    with serving(tmp_path) as server:
        folder = newest_lists(f"{server.url}/lists.tar.gz")
    os.utime(cache / "record.json", (0, 0))
    assert newest_lists("http://127.0.0.1:9/lists.tar.gz") == folder
    assert re.search(r"cannot be fetched .*: those of \d{4}-\d\d-\d\d are used", caplog.text)


def test_without_a_network_and_kept_lists_the_error_names_the_remedies(cache):
    with pytest.raises(
        UserError, match=r"cannot be fetched .* set blocklists to 'builtin' for a list of 53 well-known hosts"
    ) as caught:
        newest_lists("http://user:secret@127.0.0.1:9/lists.tar.gz")
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)
    assert list(cache.iterdir()) == []


def test_builtin_list_is_used_only_by_name(cache):
    assert names_below(Path(locate("builtin"))) == sorted(f"{name}/domains" for name in BUILTIN_HOSTS)


@pytest.mark.parametrize(
    "record", ["", "{", "[]", "null", '{"folder": 1}', '{"folder": "missing", "etag": "", "date": ""}']
)
def test_damaged_record_counts_as_no_kept_lists(record, cache, tmp_path):
    cache.mkdir(parents=True)
    (cache / "record.json").write_text(record)
    make_archive(tmp_path / "lists.tar.gz", LISTS)
    with serving(tmp_path) as server:
        assert names_below(newest_lists(f"{server.url}/lists.tar.gz")) == ["adult/domains", "adult/urls"]


def test_ut1_is_a_name_and_other_lists_are_paths(monkeypatch, tmp_path):
    monkeypatch.setattr(ut1, "newest_lists", lambda: tmp_path)
    assert (locate("ut1"), locate("s3://lists/ut1")) == (str(tmp_path), "s3://lists/ut1")


# Hostile archives


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def test_hostile_archive_writes_nothing_outside_its_folder(cache, tmp_path):
    hostile = {"blacklists/../../../x/domains": b"x", "/blacklists/adult/domains": b"x", "blacklists/a/b/urls": b"x"}
    make_archive(tmp_path / "lists.tar.gz", LISTS | hostile, link("blacklists/linked/domains", "/etc/passwd"))
    before = names_below(tmp_path)
    with serving(tmp_path) as server:
        folder = newest_lists(f"{server.url}/lists.tar.gz")
    assert names_below(folder) == ["adult/domains", "adult/urls"]
    assert [name for name in names_below(tmp_path) if not name.startswith("cache/")] == before


@pytest.mark.parametrize("kind", ["bomb", "no archive", "cut", "no lists"])
def test_bad_archive_leaves_the_kept_lists(kind, cache, tmp_path, monkeypatch, caplog):
    path = make_archive(tmp_path / "lists.tar.gz", LISTS)
    with serving(tmp_path) as server:
        url = f"{server.url}/lists.tar.gz"
        folder = newest_lists(url)
        os.utime(cache / "record.json", (0, 0))
        if kind == "bomb":
            monkeypatch.setattr(ut1, "MAX_BYTES", 1_000_000)
            make_archive(path, LISTS | {"blacklists/README": bytes(2_000_000)})
        elif kind == "no archive":
            path.write_bytes(gzip.compress(b"<html>not here</html>"))
        elif kind == "cut":
            path.write_bytes(path.read_bytes()[:-60])
        else:
            make_archive(path, {"blacklists/README": b"x"})
        assert newest_lists(url) == folder
    assert "cannot be fetched" in caplog.text
    assert names_below(folder) == ["adult/domains", "adult/urls"]
    assert sorted(path.name for path in cache.iterdir()) == sorted([folder.name, "record.json"])


def test_resource_does_not_write_outside_its_folder(tmp_path, store):
    make_archive(tmp_path / "lists.tar.gz", {"lists/domains": b"a.example\n", "lists/../../x/domains": b"x"})
    with pytest.raises(ValueError, match="outside"):
        execute(resource("blocklist", f"tar://lists::file://{tmp_path}/lists.tar.gz"), store)
