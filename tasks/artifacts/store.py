"""The store: a folder, or a remote URL, that keeps artifacts.

Reads and writes `STORE/STAGE/FINGERPRINT/`: the data files and, last and by rename, `manifest.json`. Its presence is completion.
`STORE/recipes/RECIPE/STAGE` holds the fingerprint of the latest artifact of that stage in that recipe.

A store may be shared, so what is found there is not trusted: a name in a manifest or a pointer that leads out of the artifact's
folder, also through a symbolic link, is refused, and so is a manifest that belongs elsewhere, is damaged or is absurdly large.

Finished artifacts can be read in a store that nobody may write to. Of a remote store, artifacts are copied to a local folder to be
read, and made there.
"""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Self

from pydantic import ValidationError

from model.errors import UserError
from tasks.artifacts.cache import Cache, cache_bytes
from tasks.artifacts.files import Hashes, cache_folder, is_inside, logger, write_atomically
from tasks.artifacts.manifest import (
    CONTROL,
    MANIFEST,
    STATE,
    Artifact,
    FileRecord,
    Manifest,
    check_id,
    check_name,
    is_bookkeeping,
    kind_named,
)
from tasks.artifacts.object_servers import open_objects
from tasks.artifacts.remote import DamagedArtifact, Remote
from tasks.artifacts.step import A_co
from tasks.artifacts.streams import in_parallel
from tasks.redaction import redact_url

__all__ = ["DamagedArtifact", "Store"]

MAX_MANIFEST_BYTES = 2**28  # a crawl of 90,000 files has some 270,000 records of 200 bytes
MAX_POINTER_BYTES = 1_000
PARALLEL_BYTES = 2**20  # files above are hashed several at a time


class Store:
    """Where artifacts live: a folder, or any fsspec URL, of which finished artifacts are then copied to a local folder to be read.

    `url`: a path or an fsspec URL. `local`: where a remote store keeps its copies and its work (default `~/.cache/crawl2chat`).
    """

    def __init__(self, url: str, local: Path | None = None) -> None:
        self.url = url.rstrip("/") or url
        self.shown_url = redact_url(self.url)  # for messages: a URL may hold a password
        cache = local or Path(os.environ.get("CRAWL2CHAT_CACHE") or cache_folder())
        name = hashlib.sha256(self.url.encode()).hexdigest()[:8]
        self.root = cache / name if "://" in url else Path(url).absolute()
        # One cache folder may serve several stores: 8 digits of the URL keep them apart, and no password of it becomes a name.
        self.hashes = Hashes(self.root / "hashes.json", cache / f"hashes-{name}.json")
        self.remote: Remote | None = Remote(open_objects(self.url), self.root, self.hashes) if "://" in url else None
        self.cache = Cache(self.root, cache_bytes()) if self.remote else None
        self.fetched: set[str] = set()  # artifacts whose manifest this object has compared with the remote one

    @classmethod
    def default(cls) -> Self:
        """The store that CRAWL2CHAT_STORE names, else the folder `artifacts`."""
        return cls(os.environ.get("CRAWL2CHAT_STORE") or "artifacts")

    def folder(self, artifact_id: str) -> Path:
        """The folder of an artifact, made already or not. Raises UserError where that is no STAGE/FINGERPRINT of this store."""
        try:
            folder = self.root / check_id(artifact_id)
        except ValueError as error:
            raise UserError(f"there is no artifact {artifact_id[:80]!r}: {error}") from None
        # Only a link can lead out by now: the names are checked.
        if not is_inside(folder, self.root):
            raise DamagedArtifact(f"{folder} is a link that leads out of the store: delete it")
        return folder

    def find(self, artifact_id: str) -> Manifest | None:
        """The manifest of a finished artifact, or None. Raises DamagedArtifact where the manifest cannot be used."""
        path = self.folder(artifact_id) / MANIFEST
        # The remote manifest counts, and is asked for once: another machine may have made the artifact again, or removed it.
        if self.remote is not None and artifact_id not in self.fetched:
            if self.remote.fetch(f"{artifact_id}/{MANIFEST}", path, MAX_MANIFEST_BYTES):
                self.fetched.add(artifact_id)
            else:
                path.unlink(missing_ok=True)
        return _read_manifest(path, artifact_id) if path.exists() or path.is_symlink() else None

    def open(self, artifact_id: str, kind: type[A_co]) -> A_co:
        """The artifact, every file of it checked. A kind is accepted where one that it is derived from is asked for.

        Raises UserError where the artifact is missing or of another kind, DamagedArtifact where a file was changed.
        """
        manifest = self.find(artifact_id)
        if manifest is None:
            raise UserError(
                f"there is no artifact {artifact_id} in {self.shown_url}: run its stage first, or name another store with CRAWL2CHAT_STORE"
            )
        # By name, since a manifest of another version of this code may have a kind that does not exist here.
        found = kind_named(manifest.kind)
        if kind is not Artifact and (found is None or not issubclass(found, kind)):
            raise UserError(
                f"artifact {artifact_id} is of kind {manifest.kind}, and {kind.__name__} is needed here: name one of that kind"
            )
        folder = self.folder(artifact_id)
        if self.remote is not None and self.cache is not None:
            # Before it is looked at: another process could remove it between the look and the read.
            self.cache.hold(artifact_id)
            self.verify(manifest)  # drops damaged copies
            missing = [file for file in manifest.files if not (folder / file.path).exists()]
            # Before the download, so that the disk never has to hold more than the limit.
            self.cache.make_room(sum(file.bytes for file in missing))
            self.remote.fetch_files(artifact_id, folder, missing)
        self.verify(manifest)
        return kind(manifest, folder)

    def file(self, artifact_id: str, name: str) -> Path:
        """One file of a finished artifact, of a remote store its copy on this machine. Raises UserError where there is no such file."""
        manifest = self.find(artifact_id)
        record = next((file for file in manifest.files if file.path == name), None) if manifest else None
        if record is None:
            raise UserError(
                f"there is no file {name} of artifact {artifact_id} in {self.shown_url}: run its stage again"
            )
        folder = self.folder(artifact_id)
        if self.remote is not None and not (folder / name).exists():
            self.remote.fetch_files(artifact_id, folder, [record])
        return folder / name

    def verify(self, manifest: Manifest) -> None:
        """Raises DamagedArtifact where a file is not what its manifest says. A copy of a remote file is deleted instead: there is another."""
        folder = self.folder(manifest.id)
        inside: set[Path] = set()
        for file in manifest.files:
            path = folder / file.path
            # Resolving a path costs a system call for each of its folders; a file that is no link lies where its folder does.
            if path.is_symlink() or path.parent not in inside:
                if not is_inside(path, folder):
                    raise DamagedArtifact(f"{path} is a link that leads out of the artifact {manifest.id}: delete it")
                inside.add(path.parent)
            if (reason := self._damage(path, file)) and self.remote is not None and path.is_file():
                path.unlink()
            elif reason:
                raise DamagedArtifact(
                    f"{path} {reason}: make artifact {manifest.id} again with `crawl2chat run RECIPE --force {manifest.stage}`"
                )
        self.hashes.save()

    def _damage(self, path: Path, file: FileRecord) -> str:
        if not path.exists():
            return "" if self.remote is not None else "was deleted"  # not copied to this machine yet
        if not path.is_file():
            return "is not a regular file"
        if path.stat().st_size != file.bytes:
            return f"has {path.stat().st_size} bytes where its manifest says {file.bytes}"
        return "" if self.hashes.of(path) == file.sha256 else "was changed since it was written (its sha256 differs)"

    def prepare(self, artifact_id: str) -> Path:
        """The folder to make an artifact in. Raises DamagedArtifact where something in it leads out: a stage would write there."""
        folder = self.folder(artifact_id)
        # os.walk follows no links to folders, so a circle of links does not hang it.
        for parent, folders, files in os.walk(folder):
            for name in (*folders, *files):
                path = Path(parent, name)
                if path.is_symlink() and not is_inside(path, folder):
                    raise DamagedArtifact(f"{path} is a link that leads out of the artifact's folder: delete it")
        return folder

    def commit(self, manifest: Manifest, fence: AbstractContextManager[None] | None = None) -> None:
        """Make the work in the artifact's folder an artifact: drop its state, write the manifest last, both within `fence`.

        Raises FileExistsError where a remote store has a manifest of this artifact already.
        """
        # Everything that can fail for a reason of its contents fails before the first byte is uploaded.
        folder = self.folder(manifest.id)
        text = manifest.model_dump_json(indent=1)
        Manifest.model_validate_json(text)  # or the artifact could not be read again
        # Files first and the manifest last: an artifact without a manifest does not exist for anybody.
        if self.remote is not None:
            self.remote.publish_files(manifest.id, folder, manifest.files)
        with fence or contextlib.nullcontext():
            if self.remote is not None:
                self.remote.publish_manifest(manifest.id, text)
                self.fetched.add(manifest.id)
            # Before the manifest: after it, a kill would leave a finished artifact with the state of an unfinished one.
            shutil.rmtree(folder / STATE, ignore_errors=True)
            write_atomically(folder / MANIFEST, text)
        self.hashes.save()

    def discard(self, artifact_id: str) -> None:
        """Remove an artifact, finished or not; its manifest goes first."""
        folder = self.folder(artifact_id)
        # First: from here on nobody takes the half that is left for an artifact.
        (folder / MANIFEST).unlink(missing_ok=True)
        if self.remote is not None:
            self.remote.objects.delete([f"{artifact_id}/{MANIFEST}"])  # its files are what `crawl2chat gc` removes
            self.fetched.discard(artifact_id)
        # The lease and its locks stay: whoever discards holds them.
        # One level is enough: what is a folder goes with all that is in it, and a link goes as a link.
        for path in folder.glob("*"):
            if path.name == STATE or not is_bookkeeping(path.name):
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()

    def records(self, folder: Path) -> list[FileRecord]:
        """A record of every file in `folder`, without those that the store needs for itself."""
        # Sorted: the digest of an artifact is a hash of this list.
        found = [path for path in sorted(folder.rglob("*")) if not is_bookkeeping(path.relative_to(folder).parts[0])]
        paths = [path for path in found if path.is_file()]
        # One core hashes some 2 GB/s, and ingest leaves terabytes. hashlib lets other threads run; a small file is not worth one.
        in_parallel(self.hashes.of, [path for path in paths if path.stat().st_size > PARALLEL_BYTES])
        return [
            FileRecord(path=str(path.relative_to(folder)), bytes=path.stat().st_size, sha256=self.hashes.of(path))
            for path in paths
        ]

    def set_latest(self, recipe: str, manifest: Manifest) -> None:
        """Let `latest` of this stage in `recipe` be this artifact. Nothing is written where it is already."""
        pointer = _pointer(recipe, manifest.stage)
        # Most runs find most stages up to date; a put for each would be a request and a change of the time that `gc` reads.
        if self._read_pointer(pointer) == manifest.fingerprint:
            return
        write_atomically(self.root / pointer, manifest.fingerprint)
        if self.remote is not None:
            self.remote.objects.put(pointer, manifest.fingerprint.encode())

    def latest(self, recipe: str, stage: str) -> str:
        """The id of the artifact that `stage` made last in `recipe`. Raises UserError where it made none."""
        fingerprint = self._read_pointer(_pointer(recipe, stage))
        if fingerprint is None:
            raise UserError(
                f"stage {stage} of recipe {recipe} has left no artifact in {self.shown_url}: run it with `crawl2chat run {recipe} --until {stage}`"
            )
        return f"{stage}/{fingerprint}"

    def _read_pointer(self, pointer: str) -> str | None:
        path = self.root / pointer
        if self.remote is not None and not self.remote.fetch(pointer, path, MAX_POINTER_BYTES):
            path.unlink(missing_ok=True)  # deleted in the store: the copy of it no longer counts
        if not path.is_file():
            return None
        if not is_inside(path, self.root):
            raise DamagedArtifact(f"{path} is a link that leads out of the store: delete it")
        # A bounded read: the pointer is 16 bytes, and what lies there may be anything.
        with path.open("rb") as stream:
            content = stream.read(MAX_POINTER_BYTES)
        try:
            return check_name(content.decode().strip())
        except ValueError:
            raise DamagedArtifact(f"{path} does not hold a fingerprint: delete it, then run the stage again") from None

    def has_recipe(self, recipe: str) -> bool:
        """Whether any stage left an artifact in a recipe of that name."""
        try:
            # A name that is no name is of no recipe; it is not an error to ask.
            pointers = f"recipes/{check_name(recipe)}"
        except ValueError:
            return False
        if self.remote is not None:
            return next(self.remote.objects.listing(f"{pointers}/"), None) is not None
        return (self.root / pointers).is_dir()

    def manifests(self) -> Iterator[Manifest]:
        """Every finished artifact of the store that is on this machine. One that cannot be read is left out with a warning."""
        for path in sorted(self.root.glob(f"*/*/{MANIFEST}")):
            try:
                if manifest := self.find(str(path.parent.relative_to(self.root))):
                    yield manifest
            except UserError as error:
                logger.warning("%s", error)


def _pointer(recipe: str, stage: str) -> str:
    try:
        return f"recipes/{check_name(recipe)}/{check_name(stage)}"
    except ValueError as error:
        raise UserError(f"stage {stage[:80]!r} of recipe {recipe[:80]!r} cannot be looked up: {error}") from None


def _read_manifest(path: Path, artifact_id: str) -> Manifest:
    """The manifest of `artifact_id`. Raises DamagedArtifact where the file is not that."""
    remedy = f"delete {path.parent} and run its stage again"
    if not path.is_file() or not is_inside(path, path.parent):
        raise DamagedArtifact(f"{path} is not a regular file of its folder: {remedy}")
    if (num_bytes := path.stat().st_size) > MAX_MANIFEST_BYTES:
        raise DamagedArtifact(f"{path} has {num_bytes} bytes, where {MAX_MANIFEST_BYTES} are the most: {remedy}")
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        # The first of possibly thousands: a manifest of a large crawl may be damaged in each record.
        first = error.errors(include_url=False, include_input=False)[0]
        # A key of the file may stand in it: without what a terminal takes for a command
        where = CONTROL.sub("?", ".".join(map(str, first["loc"])))[:80] or "the whole of it"
        raise DamagedArtifact(f"{path} is not a manifest ({where}: {first['msg']}): {remedy}") from None
    if manifest.id != artifact_id:
        raise DamagedArtifact(f"{path} is the manifest of {manifest.id}, not of {artifact_id}: {remedy}")
    return manifest
