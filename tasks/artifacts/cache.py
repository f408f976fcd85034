"""The cache of a remote store on this machine: artifacts copied to be read, up to a number of bytes.

CRAWL2CHAT_CACHE_GB (10^9 bytes; unset: no limit) bounds the finished artifacts under the folder. The least recently used leave first. One
that a process reads is never removed: each reader shares a kernel lock on `.lease.readers` in the artifact's folder, which ends with
the process however that comes, and whoever removes needs the lock for itself. The modification time of that file is the last use.
Unfinished work has no manifest and is not the cache's.
"""

import contextlib
import fcntl
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from model.errors import UserError
from tasks.artifacts.files import logger
from tasks.artifacts.manifest import MANIFEST, is_bookkeeping

READERS = ".lease.readers"
GIGABYTE = 10**9
_held: dict[Path, int] = {}  # locks of this process, by artifact folder: they end with it


@dataclass(frozen=True)
class Copy:
    """An artifact in the cache."""

    folder: Path
    bytes: int
    used: float  # seconds since the epoch


class Cache:
    """The copies under `root`, of which at most `max_bytes` stay; None: all."""

    def __init__(self, root: Path, max_bytes: int | None) -> None:
        # Of data, not of disk blocks: small files take more.
        self.root, self.max_bytes = root, max_bytes

    def hold(self, artifact_id: str) -> None:
        """Mark an artifact as used now, and keep it until this process ends. Waits for a process that is removing it."""
        folder = self.root / artifact_id
        folder.mkdir(parents=True, exist_ok=True)
        # Once for a process: flock counts by open file, so a second one would be a second lock to give back.
        if folder not in _held:
            descriptor = os.open(folder / READERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            with contextlib.suppress(OSError):  # no kernel locks here: then only the order of use protects it
                fcntl.flock(descriptor, fcntl.LOCK_SH)
            _held[folder] = descriptor
        with contextlib.suppress(OSError):
            # Not the access time of the files: many file systems are mounted with noatime or relatime.
            os.utime(folder / READERS)

    def make_room(self, num_bytes: int) -> None:
        """Remove the least recently used copies until `num_bytes` more fit. Logs a warning where those in use leave too little."""
        if self.max_bytes is None:
            return
        # Walked each time and not kept in an index, which several processes would have to keep equal.
        copies = sorted(self.copies(), key=lambda copy: copy.used)
        # Work that is not committed has no manifest, so it is neither counted nor removed.
        excess = sum(copy.bytes for copy in copies) + num_bytes - self.max_bytes
        for copy in copies:
            if excess > 0 and _remove(copy.folder):
                excess -= copy.bytes
        if excess > 0:
            logger.warning(
                "the cache %s needs %.3f GB more than CRAWL2CHAT_CACHE_GB=%.3f allows: all other artifacts there are in use",
                *(self.root, excess / GIGABYTE, self.max_bytes / GIGABYTE),
            )

    def copies(self) -> Iterator[Copy]:
        """The artifacts in the cache."""
        for manifest in self.root.glob(f"*/*/{MANIFEST}"):
            folder = manifest.parent
            with contextlib.suppress(OSError):  # removed by another process meanwhile
                files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
                readers = folder / READERS
                # A copy that an older version has made has no such file yet.
                used = (readers if readers.exists() else manifest).stat().st_mtime
                yield Copy(folder, sum(path.stat().st_size for path in files), used)


def _remove(folder: Path) -> bool:
    """Remove the copy in `folder` unless a process reads it: whether it is gone."""
    if folder in _held:  # the lock of this process would not stop it
        return False
    descriptor = os.open(folder / READERS, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        # Not waited for: another artifact is as good a victim.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The manifest first: what is left by a kill in the middle is no copy any more, and is fetched again.
        (folder / MANIFEST).unlink(missing_ok=True)
        for path in folder.iterdir():
            # The file of the lock stays: a reader may hold it open and wait.
            if not is_bookkeeping(path.name):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
    except OSError:
        return False
    finally:
        os.close(descriptor)
    logger.info("removed %s from the cache", folder)
    return True


def cache_bytes() -> int | None:
    """The limit that CRAWL2CHAT_CACHE_GB names. Raises UserError where it is not a number of gigabytes."""
    given = os.environ.get("CRAWL2CHAT_CACHE_GB")
    # No limit by default: whoever has a small disk knows it, and a cache that forgets silently is slow without a reason.
    if not given:
        return None
    try:
        gigabytes = float(given)
        if not 0 < gigabytes < float("inf"):
            raise ValueError
    except ValueError:
        raise UserError(
            f"CRAWL2CHAT_CACHE_GB={given[:80]!r} is not a number of gigabytes above 0: set it to 50, say"
        ) from None
    return int(gigabytes * GIGABYTE)
