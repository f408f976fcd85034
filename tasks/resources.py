"""Files from elsewhere that shape what a stage makes: block lists, the model that tells languages.

Reads a file or a folder, local or at any fsspec URL (`tar://blacklists::lists.tar.gz` reads inside an archive). Writes
a copy. It is named by what the files hold and not by where they were: a changed list makes stale what was filtered with
it, a moved one does not.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import fsspec
from pydantic import Field

from model.config import Config, runtime
from tasks.artifacts.manifest import Resource
from tasks.artifacts.step import Outcome, Step
from tasks.execution.context import StageContext

VERSION = 1
BLOCK_BYTES = 1 << 20
HUB_CACHE = re.compile(r"models--([^/]+)--([^/]+)/snapshots/[^/]+$")


class ResourceConfig(Config):
    """Where files are, and what they hold."""

    name: str = Field(description="What they are for.")
    sha256: str = Field(description="The hash over the names and bytes of all files.")
    path: str = runtime("", description="A file or a folder, as a path or any fsspec URL.")
    names: tuple[str, ...] = runtime((), description="Of a folder, only files of these names; none: every file.")


def resource(name: str, path: str, names: tuple[str, ...] = ()) -> Step[Resource]:
    """The step that copies `path` into the store. Raises ValueError where there is no such file."""
    config = ResourceConfig(name=name, sha256=digest(name, path, names), path=path, names=names)
    return Step("resource", VERSION, Resource, config, {}, run=copy_files, is_source=True)


def digest(name: str, path: str, names: tuple[str, ...]) -> str:
    whole = hashlib.sha256()
    for relative, blocks in open_files(name, path, names):
        content = hashlib.sha256()
        for block in blocks:
            content.update(block)
        whole.update(f"{relative} {content.hexdigest()}\n".encode())
    return whole.hexdigest()


def open_files(name: str, path: str, names: tuple[str, ...]) -> Iterator[tuple[str, Iterator[bytes]]]:
    """The files at `path` in order of name: relative path, and the bytes in blocks, to be read before the next file."""
    filesystem, root = fsspec.core.url_to_fs(path)
    root = root.rstrip("/")
    found = sorted(filesystem.find(root))
    if not found:
        raise ValueError(f"there is no {name} at {path!r}: name a file, or a folder with files in it")
    for file in found:
        relative = file.removeprefix(root).lstrip("/") or file.rsplit("/", 1)[-1]
        if ".." in relative.split("/"):
            raise ValueError(f"the {name} at {path!r} has a file {relative!r}, outside of its folder: repack it")
        if file == root or not names or relative.rsplit("/", 1)[-1] in names:
            with filesystem.open(file, "rb") as stream:
                yield relative, iter(partial(stream.read, BLOCK_BYTES), b"")


def copy_files(ctx: StageContext, config: ResourceConfig) -> Outcome:
    """Copies the files into `files/`. Raises ValueError where they are no longer what was named."""
    counts = Counter(files=0, bytes=0)
    for relative, blocks in open_files(config.name, config.path, config.names):
        target = ctx.folder / "files" / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            num_bytes = sum(map(stream.write, blocks))
        counts.update(files=1, bytes=num_bytes)
    if digest(config.name, str(ctx.folder / "files"), ()) != config.sha256:
        raise ValueError(
            f"the {config.name} at {config.path!r} changed while the pipeline was being started: run it again"
        )
    return Outcome(dict(counts))


def short_name(path: str) -> str:
    """What a model is called: as on the Hub where it lies in the Hub's cache, else as its folder."""
    in_cache = HUB_CACHE.search(path.rstrip("/"))
    return "/".join(in_cache.groups()) if in_cache else Path(path).absolute().name
