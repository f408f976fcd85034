"""Block lists: which addresses are unwanted, by host, by page, and by words in the address.

Reads lists in the layout of the Université Toulouse Capitole's blacklists (https://dsi.ut-capitole.fr/blacklists/):
CATEGORY/domains with a host a line, CATEGORY/urls with a host/path a line; and single files of hosts, also in the form
of a hosts file, whose category is their name. Writes them as one sorted array of hashes: 8 bytes an entry, shared by
all processes that map it. As Python sets the millions of hosts in UT1's lists take hundreds of megabytes in each process.

The rules are those of RefinedWeb and FineWeb (Penedo et al. 2023, 2024). It departs from FineWeb's code in that a
listed host covers the hosts below it, a listed page covers the pages below it, and words are compared in lower case.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import SplitResult, unquote

import fsspec
import numpy as np
import numpy.typing as npt
import xxhash

from model.errors import UserError
from tasks.web.urls import MAX_HOST_CHARACTERS, ascii_host, hosts_above, pages_above

LISTS = ("domains", "urls")
# The low bits of a key number the category. The other 56 are the hash: one of 10^10 unlisted hosts collides with one of 5 million
CATEGORY_BITS = np.uint64(0xFF)
MAX_CATEGORIES = 256
SCHEME = re.compile(r"^[a-z]+://")
MAX_LINE_CHARACTERS = 65_536  # of a list: a longer line is no entry
WORD = re.compile(r"[^\W_]+")


def by_category(files: Iterable[Path], categories: Iterable[str]) -> dict[str, list[Path]]:
    """The lists to use, by category: those of `categories`, and every file that is not in the UT1 layout."""
    wanted = set(categories)
    lists: dict[str, list[Path]] = {}
    for file in sorted(files):
        # A resource keeps its content below files/: a list there was named by the user, without its category
        is_ut1 = file.name in LISTS and file.parent.name != "files"
        category = file.parent.name if is_ut1 else file.name.split(".")[0]
        if not is_ut1 or category in wanted:
            lists.setdefault(category, []).append(file)
    return dict(sorted(lists.items()))


def read_entries(file: Path) -> Iterator[str]:
    """The hosts and pages of a list, in lower case, without scheme and comments. The entries .host and *.host count as host."""
    with fsspec.open(str(file), "rt", compression="infer", encoding="utf-8", errors="replace") as stream:
        for line in _bounded_lines(stream):
            # The last field: a line of a hosts file is "0.0.0.0 example.com".
            if fields := line.partition("#")[0].split():
                entry = fields[-1].lower().lstrip("*.")
                entry = (re.sub("/{2,}", "/", SCHEME.sub("", entry)) if "//" in entry else entry).rstrip("/")
                host, slash, page = entry.partition("/")
                if len(host) <= MAX_HOST_CHARACTERS:
                    yield entry if host.isascii() else f"{ascii_host(host)}{slash}{page}"


def _bounded_lines(stream: IO[str]) -> Iterator[str]:
    """The lines of a file but those that are too long to hold an entry, which never stand in memory as a whole."""
    is_start = True
    while line := stream.readline(MAX_LINE_CHARACTERS):
        is_end = line.endswith("\n") or len(line) < MAX_LINE_CHARACTERS
        if is_start and is_end:
            yield line
        is_start = is_end


def write_keys(lists: dict[str, list[Path]], path: Path) -> int:
    """Write the entries of all lists as sorted keys to `path`. Returns their number. Raises UserError for more than 256 categories."""
    if len(lists) > MAX_CATEGORIES:
        raise UserError(
            f"there are {len(lists)} categories of block lists: name at most {MAX_CATEGORIES}, or merge some files"
        )
    # The category replaces the low bits, so that np.unique keeps an entry of two lists twice, next to each other.
    parts = [np.zeros(0, np.uint64)]
    for number, files in enumerate(lists.values()):
        for file in files:
            hashes = np.fromiter(map(_hash, read_entries(file)), np.uint64)
            parts.append(hashes & ~CATEGORY_BITS | np.uint64(number))
    # Sorted, as the search in them needs; an entry that two lists of one category name counts once.
    keys = np.unique(np.concatenate(parts))
    np.save(path, keys)
    return len(keys)


def _hash(entry: str) -> int:
    return xxhash.xxh3_64_intdigest(entry.encode(errors="surrogatepass"))


@dataclass(frozen=True)
class Blocklist:
    """The sorted keys of all entries, and the names of the categories that their low bits number."""

    keys: npt.NDArray[np.uint64]
    categories: Sequence[str]

    def category(self, parts: SplitResult) -> str | None:
        """The category of the first entry that covers the address, host before page."""
        if not len(self.keys):
            return None
        # One search in the sorted keys for the host, all hosts above it and all folders above the page.
        host = ascii_host((parts.hostname or "").rstrip("."))
        entries = (*hosts_above(host), *pages_above(host, parts.path, parts.query))
        wanted = np.array([_hash(entry) for entry in entries], np.uint64) & ~CATEGORY_BITS
        found = self.keys[np.searchsorted(self.keys, wanted).clip(max=len(self.keys) - 1)]
        hits = np.flatnonzero(found & ~CATEGORY_BITS == wanted)
        return self.categories[int(found[hits[0]] & CATEGORY_BITS)] if len(hits) else None


def load_keys(path: Path) -> npt.NDArray[np.uint64]:
    """The keys at `path`, as a read-only memory map that all workers share."""
    keys: np.memmap[Any, np.dtype[np.uint64]] = np.load(path, mmap_mode="r")
    return keys.view(np.ndarray)


def word_rule(
    url: str, blocked: Iterable[str], suspicious: Iterable[str], parts: Iterable[str], max_suspicious: int
) -> str | None:
    """The rule on words that an address breaks, if any: a blocked word, too many suspicious ones, or a blocked part of a word.

    The order and the defaults are those of FineWeb's URL filter (datatrove, url_filter.py).
    """
    # Whole words first: "sex" within "essex" is a part of a word, and only blocked_substrings are searched for in those.
    words = set(WORD.findall(unquote(url).lower()))
    if not words.isdisjoint(blocked):
        return "blocked_word"
    if len(words.intersection(suspicious)) > max_suspicious:
        return "soft_blocked_words"
    joined = plain(unquote(url))
    return "blocked_part" if any(part in joined for part in parts) else None


def plain(text: str) -> str:
    """The letters and digits of `text`, in lower case: the form in which words and parts are compared."""
    return re.sub(r"[\W_]+", "", text.lower())
