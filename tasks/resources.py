"""Resources: files from elsewhere that shape the result of a stage, such as block lists and the language identification model.

Reads a file or a folder, local or at any fsspec URL (`tar://blacklists::lists.tar.gz` reads inside an archive). Writes a copy into
the store. A resource is identified by the hash of its files, not by their path: a changed list makes the filter's artifact stale,
a moved list does not.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import fsspec
from pydantic import Field

from model.config import Config, runtime
from model.errors import UserError
from model.files import files_of
from tasks.artifacts.manifest import Resource
from tasks.artifacts.step import Outcome, Step
from tasks.execution.context import StageContext

VERSION = 1
BLOCK_BYTES = 1 << 20
# The folder in which huggingface_hub keeps a download: models--OWNER--NAME/snapshots/COMMIT.
HUB_CACHE = re.compile(r"models--([^/]+)--([^/]+)/snapshots/[^/]+$")


def expand_user(path: str) -> str:
    """A path with `~` replaced by the home folder; a URL as it is."""
    return path if "://" in path else str(Path(path).expanduser())


class ResourceConfig(Config):
    """Where files are, and their hash once they are found."""

    name: str = Field(description="What the files are used for.")
    sha256: str = Field("", description="The hash over the names and bytes of all files.")
    # Not part of the fingerprint, which has the hash: a list that moves makes nothing stale.
    path: str = runtime("", description="A file or a folder, as a path or any fsspec URL.")
    names: tuple[str, ...] = runtime((), description="Take only files of these names from a folder; empty takes all.")


def resource(
    name: str,
    path: str,
    names: tuple[str, ...] = (),
    locate: Callable[[str], str] = expand_user,
    check_files: Callable[[list[Path]], object] | None = None,
) -> Step[Resource]:
    """The step that copies `path` into the store: a file or a folder, and of a folder only the files of these names.

    `locate` maps what the user typed to a path when the fingerprint is computed: "ut1" is downloaded first. `check_files` raises UserError
    if local files are invalid.
    """

    def find(settings: ResourceConfig) -> ResourceConfig:
        """Locate and hash the files. Raises UserError if they do not exist."""
        located = locate(settings.path)
        return settings.model_copy(update={"path": located, "sha256": digest(name, located, names)})

    def check(found: ResourceConfig) -> None:
        if check_files and (files := local_files(found)):
            check_files(files)

    # sha256 is empty until `find` resolves the step, so that building the DAG opens no file.
    settings = ResourceConfig(name=name, path=path, names=names)
    return Step("resource", VERSION, Resource, settings, {}, run=copy_files, resolve=find, check=check, is_source=True)


def local_files(found: ResourceConfig) -> list[Path]:
    """The files of a resource on this machine, sorted by name; an empty list if its path is a URL."""
    root = Path(found.path)
    if "://" in found.path or root.is_file():
        return [] if "://" in found.path else [root]
    return [path for path in files_of(root) if not found.names or path.name in found.names]


def digest(name: str, path: str, names: tuple[str, ...]) -> str:
    """The hash over the names and bytes of the files at `path`."""
    # A hash of hashes: name and content of each file on a line, so that no two folders can give the same bytes.
    whole = hashlib.sha256()
    for relative, blocks in open_files(name, path, names):
        content = hashlib.sha256()
        for block in blocks:
            content.update(block)
        whole.update(f"{relative} {content.hexdigest()}\n".encode())
    return whole.hexdigest()


def open_files(name: str, path: str, names: tuple[str, ...]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """Yield the files at `path`, sorted by name: the relative path, and the bytes in blocks. Read the blocks before the next file.

    Raises UserError where there are no such files, or one has a path that leads out of the folder.
    """
    # fsspec chooses by the URL: local paths, http, s3, and chains such as tar://lists::archive.tar.gz, which reads inside an archive.
    filesystem, root = fsspec.core.url_to_fs(path)
    root = root.rstrip("/")
    found = sorted(filesystem.find(root))
    if not found:
        raise UserError(f"there is no {name} at {path!r}: name a file, or a folder with files in it")
    # A single file is taken whatever its name: the user has named it.
    wanted = [file for file in found if file == root or not names or file.rsplit("/", 1)[-1] in names]
    # Not an empty resource: a block list without entries would block nothing, and the run would look right.
    if not wanted:
        raise UserError(
            f"none of the {len(found)} files in {path!r} has the name of a {name} ({', '.join(names)}): rename it, or name the file itself"
        )
    for file in wanted:
        relative = file.removeprefix(root).lstrip("/") or file.rsplit("/", 1)[-1]
        # An archive may hold any path. One that climbs out would be written outside of the artifact.
        if ".." in relative.split("/"):
            raise UserError(f"the {name} at {path!r} has a file {relative!r}, outside of its folder: repack it")
        with filesystem.open(file, "rb") as stream:
            yield relative, iter(partial(stream.read, BLOCK_BYTES), b"")


def copy_files(ctx: StageContext, config: ResourceConfig) -> Outcome:
    """Copy the files into `files/`. Raises UserError if they changed after they were hashed."""
    counts = Counter(files=0, bytes=0)
    for relative, blocks in open_files(config.name, config.path, config.names):
        target = ctx.folder / "files" / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            num_bytes = sum(map(stream.write, blocks))
        counts.update(files=1, bytes=num_bytes)
    # The copy is hashed and not the source again: later stages read the copy.
    if digest(config.name, str(ctx.folder / "files"), ()) != config.sha256:
        raise UserError(
            f"the {config.name} at {config.path!r} changed while the pipeline was being started: run it again"
        )
    return Outcome(dict(counts))


def short_name(path: str) -> str:
    """The name of a model: OWNER/NAME if it is in the Hugging Face cache, else the name of its folder."""
    in_cache = HUB_CACHE.search(path.rstrip("/"))
    return "/".join(in_cache.groups()) if in_cache else Path(path).absolute().name
