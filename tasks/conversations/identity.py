"""Which files a source of chat data names, and what identifies them.

A source is a path, a glob, a URL of any protocol that fsspec knows, or "sample"; before it may stand the format of its files:
gsm8k_text:train.jsonl. Reads paths, globs and the bytes of files. Writes copies of remote files below $XDG_CACHE_HOME/crawl2chat/chat (~/.cache if
that is not set): a file is fetched again when its size, checksum or time changes. Files are identified by their content, in the
order of their paths: how a path is written, and where the files lie, makes nothing stale.
"""

import glob
import hashlib
import os
import re
import shutil
from pathlib import Path

import fsspec

from model.errors import UserError
from model.files import replacing
from tasks.conversations.formats.detect import FORMATS
from tasks.redaction import redact_text, redact_url
from tasks.web.download import head, is_http, open_file

SAMPLE = "sample"
CHECKSUMS = ("ETag", "etag", "md5Hash", "checksum", "LastModified", "mtime", "created", "CRC")  # as fsspec names them


def stated_format(source: str) -> tuple[str, str]:
    """The format that stands before a source, or "", and the source without it."""
    name, colon, rest = source.partition(":")
    return (name, rest) if colon and name in FORMATS else ("", source)


def find_files(source: str) -> list[Path]:
    """The files that a path, glob or URL names, sorted by path. `~` is the home folder; a name that exists is not read as a pattern.

    Remote files are fetched. Raises UserError where no file matches, or where a folder is named.
    """
    if "://" in source:
        return [fetch(url) for url in _remote_files(source)]
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


def _remote_files(url: str) -> list[str]:
    """The files that a URL names; in one that is not http, a glob is resolved."""
    if is_http(url) or not glob.has_magic(url):
        return [url]
    try:
        filesystem, pattern = fsspec.core.url_to_fs(url)
        found = sorted(name for name in filesystem.glob(pattern) if filesystem.isfile(name))
    except (ImportError, ValueError, OSError) as error:  # an unknown protocol, a missing package
        raise UserError(f"{redact_url(url)} cannot be read ({redact_text(str(error))}); give a URL of files") from None
    if not found:
        raise UserError(f"no file matches {redact_url(url)}; give a URL of .jsonl files")
    return [filesystem.unstrip_protocol(name) for name in found]


def fetch(url: str) -> Path:
    """A copy of a remote file, which is fetched where it is missing or not the present one. Raises UserError where it cannot be read."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crawl2chat" / "chat"
    key = hashlib.sha256(f"{url} {_identity(url)}".encode()).hexdigest()[:16]
    # The name is shown in errors, so it is the file's, without what a file system or a terminal could take otherwise.
    name = re.sub(r"[^\w.-]+", "-", url.partition("?")[0].rstrip("/").rpartition("/")[2])[-80:].lstrip(".") or "file"
    path = cache / key / name
    if not path.exists():
        with replacing(path) as temporary, open_file(url) as source, temporary.open("wb") as target:
            shutil.copyfileobj(source, target)
    return path


def _identity(url: str) -> str:
    """What a server says of a file that changes with its content: size, and checksum or time."""
    if is_http(url):
        return " ".join(map(str, head(url)))
    try:
        filesystem, path = fsspec.core.url_to_fs(url)
        info = filesystem.info(path)
    except (ImportError, ValueError, OSError) as error:  # an unknown protocol, a missing package or file
        raise UserError(f"{redact_url(url)} cannot be read ({redact_text(str(error))}); give a URL of a file") from None
    return f"{info.get('size')} {next((info[name] for name in CHECKSUMS if info.get(name)), '')}"


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
