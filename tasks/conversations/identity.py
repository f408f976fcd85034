"""Which files a source of chat data names, and what identifies them.

Reads paths, globs and the bytes of files, writes nothing. Files are identified by their content, in the order of their paths: how a
path is written, and where the files lie, makes nothing stale.
"""

import glob
import hashlib
from pathlib import Path

from model.errors import UserError

SAMPLE = "sample"


def find_files(source: str) -> list[Path]:
    """The files that a path or glob names, sorted by path. `~` is the home folder; a name that exists is not read as a pattern.

    Raises UserError where no file matches, or where a folder is named.
    """
    try:
        path = Path(source).expanduser()
        found = [path] if path.exists() else [Path(name) for name in glob.glob(_pattern(path), recursive=True)]  # noqa: PTH207
        folder = path if path.is_dir() else None
        files = sorted(file for file in found if file.is_file())
    except (OSError, RuntimeError, ValueError) as error:  # too long, no such user, a zero byte
        raise UserError(
            f"{source!r} is not a path that can be read ({error}); give a path or a glob of files"
        ) from None
    if folder:
        raise UserError(f"{source!r} is a folder; name its files, such as {str(folder / '*.jsonl')!r}")
    if not files:
        raise UserError(f"no file matches {source!r}; give a path or a glob of .jsonl files, or {SAMPLE!r}")
    return files


def _pattern(path: Path) -> str:
    """The path as a glob, in which the leading folders that exist are literal, also with brackets in their names."""
    literal, rest = Path(path.anchor), list(path.parts[1:] if path.anchor else path.parts)
    while rest and (literal / rest[0]).exists():
        literal /= rest.pop(0)
    return str(Path(glob.escape(str(literal)), *rest))


def content_hash(file: Path) -> str:
    """The SHA-256 of a file's bytes, in hexadecimal digits."""
    try:
        with file.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{str(file)!r} cannot be read ({error.strerror}); check its permissions") from None
