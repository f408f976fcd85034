"""The store: a folder, or a remote URL, that keeps artifacts.

Reads and writes `STORE/STAGE/FINGERPRINT/`: the data files and, last and by rename, `manifest.json`. Its presence is completion.
`STORE/recipes/RECIPE/STAGE` holds the fingerprint of the latest artifact of that stage in that recipe.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import fsspec

from tasks.artifacts.files import Hashes, write_atomically
from tasks.artifacts.manifest import MANIFEST, STATE, Artifact, FileRecord, Manifest
from tasks.artifacts.step import A_co


class DamagedArtifact(ValueError):
    """A file of a finished artifact is gone or is not what the manifest says."""


class Store:
    """Where artifacts live: a folder, or any fsspec URL, of which finished artifacts are then copied to a local folder to be read.

    `url`: a path or an fsspec URL. `local`: where a remote store keeps its copies and its work (default `~/.cache/crawl2chat`).
    """

    def __init__(self, url: str, local: Path | None = None) -> None:
        self.url = url.rstrip("/")
        self.remote = None if "://" not in url else fsspec.core.url_to_fs(self.url)
        cache = local or Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "crawl2chat"
        name = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        self.root = Path(url).absolute() if self.remote is None else cache / name
        self.hashes = Hashes(self.root / "hashes.json")

    @classmethod
    def default(cls) -> Self:
        return cls(os.environ.get("CRAWL2CHAT_STORE") or "artifacts")

    def folder(self, artifact_id: str) -> Path:
        return self.root / artifact_id

    def find(self, artifact_id: str) -> Manifest | None:
        """The manifest of a finished artifact, or None."""
        path = self.folder(artifact_id) / MANIFEST
        if not path.exists() and self.remote is not None:
            self._download(f"{artifact_id}/{MANIFEST}")
        return Manifest.model_validate_json(path.read_text()) if path.exists() else None

    def open(self, artifact_id: str, kind: type[A_co]) -> A_co:
        """The artifact, every file of it checked. Raises ValueError where it is missing or of another kind, DamagedArtifact."""
        manifest = self.find(artifact_id)
        if manifest is None:
            raise ValueError(
                f"there is no artifact {artifact_id} in {self.url}: run its stage first, or name another store with CRAWL2CHAT_STORE"
            )
        if kind is not Artifact and manifest.kind != kind.__name__:
            raise ValueError(
                f"artifact {artifact_id} is of kind {manifest.kind}, and {kind.__name__} is needed here: name one of that kind"
            )
        if self.remote is not None:
            for file in manifest.files:
                if not (self.folder(artifact_id) / file.path).exists():
                    self._download(f"{artifact_id}/{file.path}")
        self.verify(manifest)
        return kind(manifest, self.folder(artifact_id))

    def verify(self, manifest: Manifest) -> None:
        """Raises DamagedArtifact where a file is not what its manifest says."""
        for file in manifest.files:
            path = self.folder(manifest.id) / file.path
            if not path.exists():
                if self.remote is not None:
                    continue  # not copied to this machine yet
                trouble = "was deleted"
            elif path.stat().st_size != file.bytes:
                trouble = f"has {path.stat().st_size} bytes where its manifest says {file.bytes}"
            elif self.hashes.of(path) != file.sha256:
                trouble = "was changed since it was written (its sha256 differs)"
            else:
                continue
            raise DamagedArtifact(
                f"{path} {trouble}: make artifact {manifest.id} anew with `crawl2chat run RECIPE --force {manifest.stage}`"
            )
        self.hashes.save()

    def commit(self, manifest: Manifest) -> None:
        """Make the work in the artifact's folder an artifact: drop its state, write the manifest last."""
        folder = self.folder(manifest.id)
        shutil.rmtree(folder / STATE, ignore_errors=True)
        text = manifest.model_dump_json(indent=1)
        if self.remote is not None:
            filesystem, root = self.remote
            for file in manifest.files:
                filesystem.makedirs(f"{root}/{manifest.id}/{file.path}".rsplit("/", 1)[0], exist_ok=True)
                filesystem.put_file(str(folder / file.path), f"{root}/{manifest.id}/{file.path}")
            filesystem.pipe_file(f"{root}/{manifest.id}/{MANIFEST}", text.encode())
        write_atomically(folder / MANIFEST, text)
        self.hashes.save()

    def discard(self, artifact_id: str) -> None:
        """Remove an artifact, finished or not; its manifest goes first."""
        (self.folder(artifact_id) / MANIFEST).unlink(missing_ok=True)
        if self.remote is not None:
            filesystem, root = self.remote
            if filesystem.exists(f"{root}/{artifact_id}/{MANIFEST}"):
                filesystem.rm_file(f"{root}/{artifact_id}/{MANIFEST}")
        for path in self.folder(artifact_id).glob("*"):
            if path.name != "lease":
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def records(self, folder: Path) -> list[FileRecord]:
        """A record of every file in `folder`, its state and its lease apart."""
        return [
            FileRecord(path=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=self.hashes.of(path))
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.relative_to(folder).parts[0] not in (STATE, "lease", MANIFEST)
        ]

    def set_latest(self, recipe: str, manifest: Manifest) -> None:
        pointer = f"recipes/{recipe}/{manifest.stage}"
        write_atomically(self.root / pointer, manifest.fingerprint)
        if self.remote is not None:
            filesystem, root = self.remote
            filesystem.makedirs(f"{root}/recipes/{recipe}", exist_ok=True)
            filesystem.pipe_file(f"{root}/{pointer}", manifest.fingerprint.encode())

    def latest(self, recipe: str, stage: str) -> str:
        """The id of the artifact that `stage` made last in `recipe`. Raises ValueError where it made none."""
        pointer = f"recipes/{recipe}/{stage}"
        if self.remote is not None:
            self._download(pointer)
        if not (self.root / pointer).exists():
            raise ValueError(
                f"stage {stage} of recipe {recipe} has left no artifact in {self.url}: run it with `crawl2chat run {recipe} --until {stage}`"
            )
        return f"{stage}/{(self.root / pointer).read_text()}"

    def manifests(self) -> Iterator[Manifest]:
        """Every finished artifact of the store that is on this machine."""
        for path in sorted(self.root.glob(f"*/*/{MANIFEST}")):
            yield Manifest.model_validate_json(path.read_text())

    def _download(self, name: str) -> None:
        assert self.remote is not None
        filesystem, root = self.remote
        if filesystem.exists(f"{root}/{name}"):
            path = self.root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
            filesystem.get_file(f"{root}/{name}", str(temporary))
            temporary.replace(path)
