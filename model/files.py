"""Files: the one atomic write, names that fit a file system, and JSON Lines.

A line of JSON Lines ends with a line feed alone: the other characters that end lines in Unicode may stand in a text.
"""

import contextlib
import errno
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

MAX_NAME_BYTES = 255  # of ext4, XFS, Btrfs, ZFS, NFS
TEMPORARY = ".tmp"
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
PROBE_BYTES = 2**20
SQLITE_FULL = 13  # of <sqlite3.h>


_written: list[Path] | None = None  # what `recording_writes` collects


@contextlib.contextmanager
def recording_writes() -> Iterator[list[Path]]:
    """The paths that `replacing` has written in this process since the block began, by whatever thread. Blocks are not nested."""
    global _written  # noqa: PLW0603 - one worker process writes one shard at a time
    _written = []
    try:
        yield _written
    finally:
        _written = None


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A temporary path next to `path`, for the block to write. Then it replaces `path`: a reader sees the old file or the whole new one.

    The data is on the disk before the rename, so this holds after a power cut too. If the block raises, or the disk is full, the
    temporary file is removed, which frees the space that it took, and `path` stays as it was.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        with naming_full_disk(path.parent):
            yield temporary
            # Without it some file systems put the rename on the disk before the data: after a power cut the file would be empty. The
            # folder is not synced: the rename itself may be lost then, and the old file is there.
            with temporary.open("rb") as stream:
                os.fsync(stream.fileno())
            temporary.replace(path)
        if _written is not None:
            _written.append(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def naming_full_disk(folder: Path) -> Iterator[None]:
    """Raises an OSError that says so where the block fails while the disk of `folder` is full.

    Libraries have other words for it: torch reports a wrong position in its archive, NumPy two numbers; SQLite, safetensors and tokenizers
    raise exceptions that are no OSError. What the block wrote may be removed only after it.
    """
    try:
        yield
    except Exception as error:
        full = None if isinstance(error, OSError) and error.errno is not None else _full_disk(folder, error)
        if full is not None:
            raise OSError(full, os.strerror(full), str(folder)) from error
        raise


def _full_disk(folder: Path, error: Exception) -> int | None:
    """The system's number for a full disk if that of `folder` is, else None."""
    # SQLite has given the space of the transaction back by now.
    if getattr(error, "sqlite_errorcode", None) == SQLITE_FULL:
        return errno.ENOSPC
    probe = temporary_path(folder / "probe")
    try:
        probe.write_bytes(bytes(PROBE_BYTES))
    except OSError as full:
        return full.errno if full.errno in FULL_DISK else None
    finally:
        probe.unlink(missing_ok=True)
    return None


def temporary_path(path: Path) -> Path:
    """A name next to `path` that nobody else writes to, on this machine or another one that shares the folder."""
    # The process id for whoever finds it left over, the random part for threads and other machines.
    suffix = f".{os.getpid()}-{secrets.token_hex(3)}{TEMPORARY}"
    return path.with_name(short_file_name(path.name, MAX_NAME_BYTES - len(suffix)) + suffix)


def remove_temporary_files(folder: Path) -> None:
    """Remove what writers left under `folder` that were killed. No writer may be alive."""
    for leftover in folder.rglob(f"*{TEMPORARY}"):
        # Another process may clean up the same folder.
        with contextlib.suppress(FileNotFoundError, IsADirectoryError):
            leftover.unlink()


def files_of(folder: Path) -> list[Path]:
    """All files in a folder and the folders in it, sorted."""
    return sorted(path for path in folder.rglob("*") if path.is_file())


def short_file_name(name: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """The name if a file system takes it, else its beginning and a hash of all of it: file systems count bytes, not characters."""
    encoded = os.fsencode(name)
    if len(encoded) <= max_bytes:
        return name
    # 64 bits: among a million long names with the same beginning two meet with a probability of 3 in 100 million.
    digest = hashlib.sha256(encoded).hexdigest()[:16]
    return encoded[: max_bytes - len(digest) - 1].decode(errors="ignore") + "-" + digest


def read_lines(path: str | Path) -> list[Any]:
    """The values of a JSON Lines file, in order. Empty lines are skipped."""
    with Path(path).open(encoding="utf-8", newline="\n") as file:
        return [json.loads(line) for line in file if line.strip()]


def write_lines(path: Path, values: Iterable[Any]) -> int:
    """Write values as JSON Lines, atomically. Returns their number."""
    # All in memory: metrics, answers, conversations. Documents, which can be many GB, are written as a stream.
    lines = [json.dumps(value, ensure_ascii=False) + "\n" for value in values]
    with replacing(path) as temporary:
        temporary.write_text("".join(lines), encoding="utf-8", newline="\n")
    return len(lines)
