"""Hashes of files, computed once for each unchanged file, and text that is written atomically."""

import hashlib
import json
import logging
import os
from pathlib import Path

from model.files import replacing

logger = logging.getLogger("crawl2chat")


class Hashes:
    """sha256 of files, so that an unchanged file is hashed once.

    Kept in `file` by path, with what changes when a file does: size, modification time, inode and ctime, which no program can set
    back. Where `file` cannot be written (a store that is read-only, or another user's), `fallback` is; where that cannot be either,
    files are hashed again the next time. A cache that is damaged is dropped with a warning: it only saves time.
    """

    def __init__(self, file: Path, fallback: Path | None = None) -> None:
        self.file, self.fallback = file, fallback
        self.known = (_read(fallback) if fallback else {}) | _read(file)
        self.changed: dict[str, str] = {}

    def of(self, path: Path) -> str:
        """The sha256 of a file. Raises OSError where it cannot be read."""
        # Every run verifies what it reads: without this a crawl of terabytes would be read twice, once to hash it.
        key, state = str(path.absolute()), _state(path)
        before, _, digest = self.known.get(key, "").rpartition("|")
        if before != state:
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            self.known[key] = self.changed[key] = f"{state}|{digest}"
        return digest

    def save(self) -> None:
        """Write what was hashed, added to what other processes have written by now."""
        if not self.changed:
            return
        # Read again right before the write: several stages of one run keep their hashes here. What is lost when two write at once is
        # hashed again.
        for file in filter(None, (self.file, self.fallback)):
            try:
                write_atomically(file, json.dumps(_read(file) | self.changed))
                break
            except OSError as error:
                logger.debug("hashes are not kept in %s: %s", file, error)
        self.changed = {}


def _state(path: Path) -> str:
    # The modification time alone can be set back (cp -p, rsync, tar), and a file that is replaced by one of equal size and time has
    # another inode. ctime is set by the kernel at each change.
    stat = path.stat()
    return f"{stat.st_size}|{stat.st_mtime_ns}|{stat.st_ino}|{stat.st_ctime_ns}"


def _read(file: Path) -> dict[str, str]:
    try:
        # Others can write to a shared store, so the file is checked like any input; deep nesting ends json in a RecursionError.
        known = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(known, dict) or not all(isinstance(value, str) for value in known.values()):
            raise ValueError("it is not a JSON object of strings")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("the hashes kept in %s cannot be read (%s): files are hashed again", file, error)
        return {}
    return known


def cache_folder() -> Path:
    """Where this user keeps what can be fetched or computed again: XDG_CACHE_HOME or ~/.cache, or TMPDIR for a user without a home."""
    home = os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(home) if home else Path("~/.cache").expanduser()
    except RuntimeError:  # a user id without an entry in /etc/passwd, as containers have, and no HOME
        import tempfile

        folder = Path(tempfile.gettempdir()) / f"cache-{os.getuid()}"
    return folder / "crawl2chat"


def is_inside(path: Path, folder: Path) -> bool:
    """Whether `path`, all symbolic links followed, lies under `folder`. A circle of links does not."""
    try:
        # Both are resolved: the store itself may well lie behind a link (/data -> /mnt/ssd), which is not a way out.
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):
        return False


def write_atomically(path: Path, text: str) -> None:
    """Replace the text of a file, see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
