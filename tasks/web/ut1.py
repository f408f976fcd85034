"""The blacklists of the Université Toulouse Capitole (https://dsi.ut-capitole.fr/blacklists/), from where they are kept.

Reads the archive at URL, 5 million hosts and pages in 60 categories (CC BY-SA 4.0, made by Fabrice Prigent). Writes
CATEGORY/domains and CATEGORY/urls below $XDG_CACHE_HOME/crawl2chat/ut1 (~/.cache where that is not set), and looks
once a week whether there are newer ones. Where there is no network, and nothing kept, a list of our own of the best
known hosts stands in, and a warning says so: what it lets through is for the filters of text.

The archive is read as a stream within limits of size, and nothing of it but files of these names is written.
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

from tasks.artifacts.manifest import Resource
from tasks.artifacts.step import Step
from tasks.resources import expand_user, resource
from tasks.web.blocklists import LISTS
from tasks.web.download import head, open_file

NAME = "ut1"
URL = "https://dsi.ut-capitole.fr/blacklists/download/blacklists.tar.gz"
MAX_AGE_SECONDS = 7 * 24 * 3600
MAX_BYTES = 1 << 30  # of all files together, unpacked; there were 0.2 GB in 2026
MEMBER = re.compile(rf"blacklists/([\w-]{{1,64}})/({'|'.join(LISTS)})")
BEST_KNOWN = {
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
logger = logging.getLogger("crawl2chat")


def blocklists(paths: Sequence[str]) -> list[Step[Resource]]:
    """The steps that copy block lists into the store. "ut1" stands for the newest lists that can be had."""
    return [resource("blocklist", path, LISTS, locate) for path in paths]


def locate(path: str) -> str:
    """The place of the block list `path`: as typed, or for "ut1" the folder of the newest lists that can be had."""
    return str(newest_lists()) if path == NAME else expand_user(path)


def newest_lists(url: str = URL) -> Path:
    """A folder in UT1's layout: the kept lists if young enough, else the newest, else the kept ones, else the built-in."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crawl2chat" / NAME
    cache.mkdir(parents=True, exist_ok=True)
    record = cache / "record.json"
    kept: dict[str, str] = json.loads(record.read_text()) if record.exists() else {}
    if kept and not (cache / kept["folder"]).is_dir():
        kept = {}  # somebody made room
    if kept and time.time() - record.stat().st_mtime < MAX_AGE_SECONDS:
        return cache / kept["folder"]
    try:
        kept = fetch(url, cache, kept)
        write_record(record, kept)
    except (ValueError, OSError, EOFError, zlib.error, tarfile.TarError) as error:
        stands_in = f"those of {kept['date']}" if kept else "a built-in list of the best known hosts"
        logger.warning("UT1's block lists cannot be fetched (%s): %s stands in", error, stands_in)
    return cache / kept["folder"] if kept else write_best_known(cache / "best-known")


def fetch(url: str, cache: Path, kept: dict[str, str]) -> dict[str, str]:
    """The record of the lists at `url`: `kept` where they are the same. Raises ValueError where they are no such lists."""
    _, etag = head(url)
    if kept and etag and etag == kept["etag"]:
        return kept
    date = time.strftime("%Y-%m-%d", time.gmtime())
    folder = hashlib.sha256(f"{etag} {date}".encode()).hexdigest()[:12]
    with tempfile.TemporaryDirectory(dir=cache) as temporary, open_file(url) as archive:
        lists = Path(temporary) / "lists"
        unpack(archive, lists)
        shutil.rmtree(cache / folder, ignore_errors=True)
        lists.rename(cache / folder)
    return {"folder": folder, "etag": etag, "date": date}


def write_record(path: Path, record: dict[str, str]) -> None:
    path.with_suffix(".new").write_text(json.dumps(record))
    path.with_suffix(".new").replace(path)


def unpack(archive: IO[bytes], folder: Path) -> None:
    """Write the lists of a tar.gz to CATEGORY/domains and CATEGORY/urls of `folder`. Raises ValueError where it has none."""
    folder.mkdir()
    with gzip.open(archive) as plain, tarfile.open(fileobj=io.BufferedReader(Limited(plain)), mode="r|") as members:
        for member in members:
            if (match := MEMBER.fullmatch(member.name)) and member.isreg() and (content := members.extractfile(member)):
                (folder / match[1]).mkdir(exist_ok=True)
                with (folder / match[1] / match[2]).open("wb") as stream:
                    shutil.copyfileobj(content, stream)
    if not any(folder.iterdir()):
        raise ValueError(f"the archive has no file blacklists/CATEGORY/{LISTS[0]}: it is not UT1's")


class Limited(io.RawIOBase):
    """A stream that ends in a ValueError where it is longer than MAX_BYTES: a bomb."""

    def __init__(self, stream: io.BufferedIOBase) -> None:
        self.stream = stream
        self.num_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        num_bytes = self.stream.readinto(buffer)
        self.num_bytes += num_bytes
        if self.num_bytes > MAX_BYTES:
            raise ValueError(f"the archive unpacks to more than {MAX_BYTES:,} bytes: it is not UT1's")
        return num_bytes


def write_best_known(folder: Path) -> Path:
    """The hosts of BEST_KNOWN in UT1's layout."""
    for category, hosts in BEST_KNOWN.items():
        (folder / category).mkdir(parents=True, exist_ok=True)
        (folder / category / "domains").write_text("\n".join(hosts.split()))
    return folder
