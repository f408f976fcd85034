"""Artifacts: what passes between stages, what each is called, and how one is written and read.

Reads and writes `STORE/STAGE/FINGERPRINT/`: the data files and, last and by rename, `manifest.json`. Its presence is completion.
`STORE/recipes/RECIPE/STAGE` holds the fingerprint of the latest artifact of that stage in that recipe.

A fingerprint names a value before it is computed: stage, stage version, the config fields that shape the result, and the
fingerprints of the inputs (the idea of Nix derivations, and of marin's artifacts). Where and how a stage runs is not in it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import fsspec
from pydantic import BaseModel, ConfigDict, Field
from pydantic.fields import FieldInfo

MANIFEST = "manifest.json"
STATE = ".state"  # what a stage needs to go on after a kill: finished shards' records, checkpoints. Gone on completion.


class Config(BaseModel):
    """The settings of one stage. Unknown fields are refused, values do not change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def runtime(default: Any, **constraints: Any) -> Any:
    """A config field that says where or how a stage runs and does not shape its result: it is left out of the fingerprint."""
    return Field(default, json_schema_extra={"runtime": True}, **constraints)


def _is_runtime(field: FieldInfo) -> bool:
    return isinstance(field.json_schema_extra, dict) and bool(field.json_schema_extra.get("runtime"))


def identity(config: BaseModel) -> dict[str, Any]:
    """The fields of `config` that shape the result, as JSON values."""
    values = config.model_dump(mode="json")
    for name, info in type(config).model_fields.items():
        value = getattr(config, name)
        if _is_runtime(info):
            del values[name]
        elif isinstance(value, BaseModel):
            values[name] = identity(value)
    return values


def fingerprint(stage: str, version: int, config: BaseModel, inputs: Mapping[str, str]) -> str:
    """The name of what `stage` makes of `inputs` (role to fingerprint): 16 hexadecimal digits."""
    parts = {"stage": stage, "version": version, "config": identity(config), "inputs": dict(inputs)}
    return hashlib.sha256(json.dumps(parts, sort_keys=True, allow_nan=False).encode()).hexdigest()[:16]


class FileRecord(BaseModel):
    path: str
    bytes: int
    sha256: str


class Manifest(BaseModel):
    """The record beside every artifact: what it is, what it was made of, and how."""

    kind: str
    stage: str
    stage_version: int
    fingerprint: str
    inputs: dict[str, str] = Field(description="role -> STAGE/FINGERPRINT")
    input_digests: dict[str, str] = Field(description="role -> digest of the files it was then")
    config: dict[str, Any]
    files: list[FileRecord]
    counts: dict[str, int] = Field(description="name_unit -> count, dropped documents by reason among them")
    metrics: dict[str, float]
    provenance: dict[str, Any]

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.fingerprint}"

    @property
    def digest(self) -> str:
        """Of what is in the files. A stage run anew may give other bytes under the same fingerprint."""
        listing = "\n".join(f"{file.path} {file.sha256}" for file in self.files)
        return hashlib.sha256(listing.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on this machine: its manifest and the folder with its files."""

    manifest: Manifest
    folder: Path

    def files(self, pattern: str) -> list[Path]:
        """The files of the artifact that match `pattern`, in order of name."""
        names = sorted(Path(file.path) for file in self.manifest.files)
        return [self.folder / name for name in names if name.match(pattern)]


class Crawl(Artifact):
    """Web archive files, or the list of them: `inputs.jsonl` names each."""


class Resource(Artifact):
    """Files from elsewhere that shape a result, copied into `files/`: block lists, a model that tells languages."""


class Documents(Artifact):
    """Documents in `documents/*.parquet`, what was dropped with the reason in `dropped/*.parquet`."""


class Measures(Artifact):
    """What was measured of documents in `measures/*.parquet`, a row for each document of the shard of that name."""


class Tokenizer(Artifact):
    """`tokenizer.json`, as the tokenizers library writes it."""


class Tokens(Artifact):
    """Token shards: `train/*.arrow` and `validation/*.arrow`."""


class Checkpoint(Artifact):
    """`model.safetensors`, `config.json` and the metrics of the run that made them."""


class Conversations(Artifact):
    """`conversations.jsonl`."""


class Preferences(Artifact):
    """`preferences.jsonl`."""


class Prompts(Artifact):
    """`prompts.jsonl`."""


class Questions(Artifact):
    """`questions.jsonl`."""


class Report(Artifact):
    """`report.md` and `report.json`."""


class Bundle(Artifact):
    """A model as inference engines load it."""


A_co = TypeVar("A_co", bound=Artifact, covariant=True)


@dataclass(frozen=True)
class Outcome:
    """What a stage says of its work; its files lie in its folder."""

    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Step(Generic[A_co]):
    """One stage with its config and inputs: a value that names an artifact, made already or not.

    `run(run, config, **inputs)` makes it, see `tasks.stage.Run`.
    """

    stage: str
    version: int
    kind: type[A_co]
    config: BaseModel
    inputs: Mapping[str, "Step[Artifact]"]
    run: Callable[..., Outcome] = field(repr=False, compare=False)
    is_source: bool = False  # made on the way by whichever stage needs it; no deployment of its own

    @cached_property  # the chain of inputs is hashed once, not once for every path that leads to it
    def fingerprint(self) -> str:
        inputs = {role: step.fingerprint for role, step in self.inputs.items()}
        return fingerprint(self.stage, self.version, self.config, inputs)

    @property
    def id(self) -> str:
        return f"{self.stage}/{self.fingerprint}"


@dataclass(frozen=True)
class Given(Step[A_co]):
    """A step whose artifact exists already, named by its fingerprint alone."""

    given_fingerprint: str = ""

    @classmethod
    def of(cls, kind: type[A_co], artifact_id: str, manifest: Manifest | None = None) -> "Given[A_co]":
        """The artifact STAGE/FINGERPRINT, taken as it is; with its manifest, its inputs are given steps too."""
        stage, _, given = artifact_id.partition("/")
        inputs = {role: Given.of(Artifact, input_id) for role, input_id in manifest.inputs.items()} if manifest else {}
        return cls(stage, 0, kind, Config(), inputs, run=_refuse, given_fingerprint=given)

    @cached_property
    def fingerprint(self) -> str:
        return self.given_fingerprint


def _refuse(*_: object, **__: object) -> Outcome:
    raise AssertionError("a given artifact is read, never made")


class DamagedArtifact(ValueError):
    """A file of a finished artifact is gone or is not what the manifest says."""


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
    """Write `text` so that a reader sees the old file or the whole new one, also after a power cut."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


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
