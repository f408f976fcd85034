"""The blacklists of the Université Toulouse Capitole (UT1, https://dsi.ut-capitole.fr/blacklists/), fetched once a week.

Reads the archive at URL: 5 million hosts and pages in 60 categories (CC BY-SA 4.0, made by Fabrice Prigent). Writes
CATEGORY/domains and CATEGORY/urls below $XDG_CACHE_HOME/crawl2chat/ut1 (~/.cache if that is not set).

If UT1 cannot be reached, the lists of an earlier week are used, with a warning. Without earlier lists that is an error, as a filter without
its lists keeps what it should drop. "builtin" names a list of a few well-known hosts, for whoever wants to run without a network.

The archive is read as a stream within limits of size, and only files of these names are written.
"""

import gzip
import hashlib
import io
import json
import logging
import os
import re
import shutil
import tarfile
import tempfile
import time
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

from model.errors import UserError
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import Resource
from tasks.artifacts.step import Step
from tasks.resources import expand_user, resource
from tasks.web.blocklists import LISTS
from tasks.web.download import head, open_file

NAME = "ut1"
BUILTIN = "builtin"
URL = "https://dsi.ut-capitole.fr/blacklists/download/blacklists.tar.gz"
MAX_AGE_SECONDS = 7 * 24 * 3600
MAX_BYTES = 1 << 30  # of all files together, unpacked; there were 0.2 GB in 2026
MEMBER = re.compile(rf"blacklists/([\w-]{{1,64}})/({'|'.join(LISTS)})")
BUILTIN_HOSTS = {
    "adult": "brazzers.com bongacams.com cam4.com chaturbate.com eporner.com literotica.com livejasmin.com nhentai.net "
    "onlyfans.com pornhub.com redtube.com rule34.xxx spankbang.com stripchat.com tube8.com xhamster.com xnxx.com "
    "xvideos.com youporn.com",
    "dating": "adultfriendfinder.com ashleymadison.com badoo.com bumble.com grindr.com match.com okcupid.com pof.com "
    "tinder.com",
    "filehosting": "4shared.com mediafire.com mega.nz rapidgator.net turbobit.net",
    "gambling": "1xbet.com 888casino.com bet365.com betfair.com betway.com bwin.com draftkings.com fanduel.com "
    "ladbrokes.com paddypower.com partypoker.com pokerstars.com stake.com unibet.com williamhill.com",
    "warez": "1337x.to fitgirl-repacks.site nulled.to rarbg.to thepiratebay.org",
}
NUM_BUILTIN_HOSTS = sum(len(hosts.split()) for hosts in BUILTIN_HOSTS.values())
logger = logging.getLogger("crawl2chat")


def blocklists(paths: Sequence[str]) -> list[Step[Resource]]:
    """The steps that copy block lists into the store: "ut1" names the newest of UT1's, "builtin" the built-in list, others are paths."""
    return [resource("blocklist", path, LISTS, locate) for path in paths]


def locate(path: str) -> str:
    """The folder or file of the block list `path`. Fetches UT1's lists if they are asked for. Raises UserError if that fails."""
    if path == NAME:
        return str(newest_lists())
    return str(write_builtin(_cache_folder() / BUILTIN)) if path == BUILTIN else expand_user(path)


def _cache_folder() -> Path:
    folder = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crawl2chat" / NAME
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def newest_lists(url: str = URL) -> Path:
    """A folder in UT1's layout: the kept lists if they are at most a week old, else the newest, else the kept ones with a warning.

    Raises UserError if the lists cannot be fetched and none are kept.
    """
    cache = _cache_folder()
    record = cache / "record.json"
    # The time of the record, not of the lists: it is written again when the server says that they have not changed.
    kept = _read_record(cache, record)
    if kept and time.time() - record.stat().st_mtime < MAX_AGE_SECONDS:
        return cache / kept["folder"]
    try:
        kept = fetch(url, cache, kept)
        write_atomically(record, json.dumps(kept))
    except (ValueError, OSError, EOFError, zlib.error, tarfile.TarError) as error:
        if not kept:
            raise UserError(
                f"UT1's block lists cannot be fetched ({error}) and none are kept from an earlier run: connect to the network, name block "
                f"lists of yours, or set blocklists to {BUILTIN!r} for a list of {NUM_BUILTIN_HOSTS} well-known hosts"
            ) from error
        logger.warning("UT1's block lists cannot be fetched (%s): those of %s are used", error, kept["date"])
    return cache / kept["folder"]


def _read_record(cache: Path, record: Path) -> dict[str, str]:
    """Which lists are kept: their folder, ETag and date; nothing if the record is damaged or the folder was removed."""
    try:
        kept: dict[str, str] = json.loads(record.read_text(encoding="utf-8"))
        is_there = (cache / kept["folder"]).is_dir() and {"etag", "date"} <= kept.keys()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return kept if is_there else {}


def fetch(url: str, cache: Path, kept: dict[str, str]) -> dict[str, str]:
    """The record of the lists at `url`: `kept` if they have not changed. Raises ValueError if the archive holds no such lists."""
    # Without an ETag they are fetched again: the archive has no other mark of its version.
    _, etag = head(url)
    if kept and etag and etag == kept["etag"]:
        return kept
    date = time.strftime("%Y-%m-%d", time.gmtime())
    folder = hashlib.sha256(f"{etag} {date}".encode()).hexdigest()[:12]
    # Unpacked next to its place, on the same file system, so that one rename shows all lists or none.
    with tempfile.TemporaryDirectory(dir=cache) as temporary, open_file(url) as archive:
        lists = Path(temporary) / "lists"
        unpack(archive, lists)
        shutil.rmtree(cache / folder, ignore_errors=True)
        lists.rename(cache / folder)
    return {"folder": folder, "etag": etag, "date": date}


def unpack(archive: IO[bytes], folder: Path) -> None:
    """Write the lists of a tar.gz to CATEGORY/domains and CATEGORY/urls of `folder`. Raises ValueError if it has none."""
    folder.mkdir()
    with gzip.open(archive) as plain, tarfile.open(fileobj=io.BufferedReader(Limited(plain)), mode="r|") as members:
        # Only regular files of two names are written, below a folder whose name is one word: no link, device or path of the archive counts.
        for member in members:
            if (match := MEMBER.fullmatch(member.name)) and member.isreg() and (content := members.extractfile(member)):
                (folder / match[1]).mkdir(exist_ok=True)
                with (folder / match[1] / match[2]).open("wb") as stream:
                    shutil.copyfileobj(content, stream)
    if not any(folder.iterdir()):
        raise ValueError(f"the archive has no file blacklists/CATEGORY/{LISTS[0]}: it is not UT1's")


class Limited(io.RawIOBase):
    """A stream that raises ValueError once it is longer than MAX_BYTES: a decompression bomb."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self.stream = stream
        self.num_bytes = 0

    def readable(self) -> bool:
        """Always true: a raw stream must say so to be buffered."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer`; the number of bytes, 0 at the end. Raises ValueError beyond MAX_BYTES."""
        num_bytes = self.stream.readinto(buffer)
        self.num_bytes += num_bytes
        if self.num_bytes > MAX_BYTES:
            raise ValueError(f"the archive unpacks to more than {MAX_BYTES:,} bytes: it is not UT1's")
        return num_bytes


def write_builtin(folder: Path) -> Path:
    """Write BUILTIN_HOSTS in UT1's layout. Returns the folder."""
    for category, hosts in BUILTIN_HOSTS.items():
        write_atomically(folder / category / "domains", "\n".join(hosts.split()))
    return folder
