"""Files: the one atomic write, and hashes that are computed once for each unchanged file."""

import hashlib
import json
from pathlib import Path

from model.files import replacing


class Hashes:
    """sha256 of files, kept by (path, size, modification time) so that an unchanged file is hashed once."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.known: dict[str, str] = json.loads(file.read_text()) if file.exists() else {}
        self.is_changed = False

    def of(self, path: Path) -> str:
        stat = path.stat()
        key = f"{path.absolute()}|{stat.st_size}|{stat.st_mtime_ns}"
        if key not in self.known:
            with path.open("rb") as stream:
                self.known[key] = hashlib.file_digest(stream, "sha256").hexdigest()
            self.is_changed = True
        return self.known[key]

    def save(self) -> None:
        if self.is_changed:
            write_atomically(self.file, json.dumps(self.known))
            self.is_changed = False


def write_atomically(path: Path, text: str) -> None:
    """Replace the text of a file, see `replacing`."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
