"""The remote side of a store: where the files of an artifact lie among the objects, and how they are copied.

Reads and writes `STAGE/FINGERPRINT/` under the URL: each file under its path with the beginning of its sha256 in the name
(`documents/0001-5891b5b522d5df08.parquet`) and, last, `manifest.json`.

Because of the hash, no writer ever replaces an object by other bytes. A run that was stopped in the middle of an upload, and wakes up
after another one took its place, writes next to the other's files and not over them; readers of an artifact that is made again keep the
files that their manifest names; and what an earlier run has uploaded needs no second upload.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from model.errors import UserError
from model.files import MAX_NAME_BYTES, replacing, short_file_name
from tasks.artifacts.files import Hashes, is_inside
from tasks.artifacts.manifest import MANIFEST, FileRecord
from tasks.artifacts.objects import Conflict, Objects, TooLarge
from tasks.artifacts.streams import in_parallel

HASH_DIGITS = 16  # 64 bits: two contents of one path never meet by chance, and readers compare the whole hash


class DamagedArtifact(UserError):
    """The files of a finished artifact differ from its manifest, or the manifest cannot be read."""


class _Missing(Exception):
    """The object does not exist: the file that it would replace stays."""


def object_key(prefix: str, file: FileRecord) -> str:
    """The key of a file of an artifact. `prefix`: the artifact's id, or a folder in it that the path is relative to."""
    # The suffix stays at the end: tools that read a bucket by glob (documents/*.parquet) or guess a type by it still work.
    path = PurePosixPath(file.path)
    suffix = f"-{file.sha256[:HASH_DIGITS]}{path.suffix}"
    # Servers that keep objects as files (SeaweedFS, MinIO) have the limit of a file name, S3 one of 1,024 bytes for the whole key.
    stem = short_file_name(path.name.removesuffix(path.suffix), MAX_NAME_BYTES - len(suffix.encode()))
    return f"{prefix}/{path.with_name(stem + suffix)}"


class Remote:
    """Artifacts among objects, and their copies under the folder `root` of this machine."""

    def __init__(self, objects: Objects, root: Path, hashes: Hashes) -> None:
        self.objects, self.root, self.hashes = objects, root, hashes

    def fetch(self, key: str, path: Path, max_bytes: int, *, is_size: bool = False) -> bool:
        """Copy an object to a file. Returns whether the object exists. Raises DamagedArtifact where it is larger than it may be.

        `is_size`: it is to have `max_bytes`, and is read in several streams where these are many.
        """
        # The cache is a folder of this user, but others may have put a link into it.
        if not is_inside(path, self.root):
            raise DamagedArtifact(f"{path} is a link that leads out of the store: delete it")
        try:
            # A download that is cut leaves no half file under the name: whoever sees the file sees all of it.
            with replacing(path) as temporary:
                read = self.objects.download_in_streams if is_size else self.objects.download
                if not read(key, temporary, max_bytes):
                    raise _Missing
        except _Missing:
            return False
        except TooLarge as error:
            raise DamagedArtifact(str(error)) from None
        return True

    def fetch_files(self, prefix: str, folder: Path, files: Sequence[FileRecord]) -> None:
        """Copy files into `folder` and compare each with its hash. `prefix` as in `object_key`. Raises DamagedArtifact."""

        def copy(file: FileRecord) -> None:
            path, key = folder / file.path, object_key(prefix, file)
            stage, artifact_id = prefix.split("/", maxsplit=1)[0], "/".join(prefix.split("/")[:2])
            remedy = f"make artifact {artifact_id} again with `crawl2chat run RECIPE --force {stage}`"
            if not self.fetch(key, path, file.bytes, is_size=True):
                raise DamagedArtifact(f"{self.objects.shown_url}/{key} was deleted: {remedy}")
            # The transport has checksums, but the object may have been written wrong, or replaced by hand.
            if path.stat().st_size != file.bytes or self.hashes.of(path) != file.sha256:
                path.unlink()
                raise DamagedArtifact(f"{self.objects.shown_url}/{key} was changed (its sha256 differs): {remedy}")

        in_parallel(copy, files)

    def publish_files(self, prefix: str, folder: Path, files: Iterable[FileRecord]) -> None:
        """Copy files from `folder` to the store, but those that are there: a key with the hash in it needs no second look."""
        # One request lists 1,000 keys, where asking for each would cost one a file. What a killed run, or shards, have uploaded is there.
        published = {listed.key: listed.bytes for listed in self.objects.listing(f"{prefix}/")}
        missing = [file for file in files if published.get(object_key(prefix, file)) != file.bytes]
        self.upload_files(prefix, folder, missing)

    def upload_files(self, prefix: str, folder: Path, files: Sequence[FileRecord]) -> None:
        """Copy files from `folder` to the store, whether they are there or not."""
        in_parallel(lambda file: self.objects.upload(folder / file.path, object_key(prefix, file)), files)

    def publish_manifest(self, artifact_id: str, text: str) -> None:
        """Write a manifest where none is. Raises FileExistsError where another run was faster."""
        try:
            # The server refuses a second one, so of two runs that both believe to be right one ends here.
            self.objects.create(f"{artifact_id}/{MANIFEST}", text.encode())
        except Conflict:
            raise FileExistsError(
                f"another run has put artifact {artifact_id} into {self.objects.shown_url} already: this one ends without a result; "
                "run the stage again to use the other's"
            ) from None
