"""Manifests and the kinds of artifacts. Reads and writes nothing: `tasks.artifacts.store` does.

A manifest may come from a store that others write to, so it is checked like any other foreign input: its names stay in their folder.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import pydantic
from pydantic import AfterValidator, ConfigDict, Field

from model.errors import UserError
from model.files import MAX_NAME_BYTES

MANIFEST = "manifest.json"
STATE = ".state"  # what a stage needs to resume after a kill: records of finished shards, checkpoints. Removed on completion.
MAX_PATH_BYTES = 4_000  # Linux takes 4,095 for a whole path
DRIVE = re.compile(r"[A-Za-z]:")  # of Windows
# C0 and C1 controls, and the two separators that Unicode counts as line ends: a name with one could forge a line of a log.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def check_name(name: str) -> str:
    """`name` if it is that of one file or folder, anywhere: a stage, a fingerprint, a recipe, a part of a path. Else ValueError."""
    # Backslashes and drives are harmless on Linux; an artifact may be copied to Windows, where they lead out.
    if name in ("", ".", "..") or "/" in name or "\\" in name or CONTROL.search(name) or DRIVE.match(name):
        raise ValueError(f"{name[:80]!r} is not the name of a file")
    try:
        # File systems limit bytes, not characters: 86 Chinese characters are too long a name.
        num_bytes = len(name.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name[:80]!r} is not the name of a file: it is not Unicode") from None
    if num_bytes > MAX_NAME_BYTES:
        raise ValueError(f"{name[:80]!r}... has {num_bytes} bytes, and the name of a file has at most {MAX_NAME_BYTES}")
    return name


def check_path(path: str) -> str:
    """`path` if it names a file of an artifact: relative, with forward slashes, nothing in it that leads out. Else ValueError."""
    # Split by hand: PurePosixPath would drop `.` and doubled slashes, and two paths of one manifest could then be one file.
    parts = [check_name(part) for part in path.split("/")]
    # A manifest that lists manifest.json or the lease as its data could have the store overwrite them.
    if is_bookkeeping(parts[0]):
        raise ValueError(f"{path[:80]!r} is a name that the store needs for itself")
    if len(path.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"{path[:80]!r}... is longer than {MAX_PATH_BYTES} bytes")
    return path


def is_bookkeeping(name: str) -> bool:
    """Whether a file or folder right in an artifact's folder is the store's own and no part of the artifact."""
    return name in (MANIFEST, STATE, "lease") or name.startswith(".lease.")


def check_id(artifact_id: str) -> str:
    """`artifact_id` if it is STAGE/FINGERPRINT. Else ValueError."""
    stage, slash, fingerprint = artifact_id.partition("/")
    if not slash:
        raise ValueError(f"{artifact_id[:80]!r} is not STAGE/FINGERPRINT")
    check_name(stage)
    check_name(fingerprint)
    return artifact_id


Name = Annotated[str, AfterValidator(check_name)]


class FileRecord(pydantic.BaseModel):
    """One file of an artifact; its path is relative to the artifact's folder."""

    path: Annotated[str, AfterValidator(check_path)]
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


def _differ(files: list[FileRecord]) -> list[FileRecord]:
    """Refuses a path that stands twice, and one that is both a file and a folder."""
    paths = {file.path for file in files}
    # Which of two records would hold is chance; both cases are how a damaged or forged manifest looks.
    if len(paths) != len(files):
        raise ValueError("a path stands twice among the files")
    # The second of the two could not be written where the first is.
    for path in paths:
        if parents := {str(parent) for parent in PurePosixPath(path).parents} & paths:
            raise ValueError(f"{parents.pop()!r} is both a file and the folder of {path!r}")
    return files


class Manifest(pydantic.BaseModel):
    """The record of every artifact: what it is, what it was made of, and how."""

    # A metric may be infinite or NaN: a perplexity of a model that diverged is.
    model_config = ConfigDict(ser_json_inf_nan="constants")  # null would not be read again

    kind: Name
    stage: Name
    stage_version: int
    fingerprint: Name
    inputs: dict[str, Annotated[str, AfterValidator(check_id)]] = Field(description="role -> STAGE/FINGERPRINT")
    # Next to the fingerprints: a stage that is forced may give other bytes under the same name, and what depends on it is then stale.
    input_digests: dict[str, str] = Field(description="role -> digest of the files it was then")
    config: dict[str, Any]
    files: Annotated[list[FileRecord], AfterValidator(_differ)]
    # Integers apart from floats: counts of shards can be summed, metrics cannot.
    counts: dict[str, int] = Field(description="name_unit -> count, dropped documents by reason among them")
    metrics: dict[str, float]
    provenance: dict[str, Any]
    set_aside: dict[str, str] = Field({}, description="shards that the artifact was made without, and why")

    @property
    def id(self) -> str:
        """The name of the artifact, STAGE/FINGERPRINT."""
        return f"{self.stage}/{self.fingerprint}"

    def input(self, role: str) -> str:
        """The id of an artifact that this one was made of. Raises UserError where it has no such input."""
        if role not in self.inputs:
            raise UserError(
                f"the manifest of {self.id} names no {role} among its inputs: run its stage again with --force"
            )
        return self.inputs[role]

    @property
    def digest(self) -> str:
        """Hash of the contents. A stage that runs again may give other bytes under the same fingerprint."""
        # By the order of the files, which `Store.records` sorts. Sizes are not in it: a hash fixes them.
        listing = "\n".join(f"{file.path} {file.sha256}" for file in self.files)
        return hashlib.sha256(listing.encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on this machine: its manifest and the folder with its files."""

    manifest: Manifest
    folder: Path

    def files(self, pattern: str) -> list[Path]:
        """The files of the artifact that match `pattern`, in order of name."""
        # Path sorts by parts, so a folder stays together: a/b.x comes before a-1/x, where strings sort the other way.
        names = sorted(Path(file.path) for file in self.manifest.files)
        return [self.folder / name for name in names if name.match(pattern)]


# Kinds have no code: they exist so that types, of Python and of steps, refuse a wrong wiring.
class Crawl(Artifact):
    """Web archive files, or the list of them: `inputs.jsonl` names each."""


class Resource(Artifact):
    """Files from elsewhere that shape a result, copied into `files/`: block lists, a language identification model."""


class Documents(Artifact):
    """Documents in `documents/*.parquet`, what was dropped with the reason in `dropped/*.parquet`."""


class Attributes(Artifact):
    """Attributes of documents in `attributes/*.parquet`: a row for each document of the shard of that name."""


class Index(Artifact):
    """`index.sqlite`: a full-text index of documents (tasks/records/full_text.py)."""


class Provenance(Artifact):
    """Suffix arrays over all that a model was trained on, and full-text indexes of what was dropped (tasks/provenance/stage.py)."""


class Tokenizer(Artifact):
    """`tokenizer.json`, as the tokenizers library writes it."""


class Tokens(Artifact):
    """Token shards: `train/*.arrow` and `validation/*.arrow`."""


class Checkpoint(Artifact):
    """`model.safetensors`, `config.json` and the metrics of the run that made them."""


class BaseModel(Checkpoint):
    """A model that continues text: trained on tokens, or open weights."""


class SFTModel(Checkpoint):
    """A base model that was fine-tuned on conversations."""


class RewardModel(Checkpoint):
    """A model with a scalar head that scores a completion."""


class Policy(Checkpoint):
    """An SFT model that was trained with a reward."""


class Conversations(Artifact):
    """`train.jsonl` and `validation.jsonl`, a conversation a line."""


class Preferences(Artifact):
    """`train.jsonl` and `validation.jsonl`, a preference pair a line."""


class Prompts(Artifact):
    """`prompts.jsonl`, a prompt a line."""


class Questions(Artifact):
    """`questions.jsonl`, a question a line."""


class Probes(Artifact):
    """`probes.jsonl`, a question a line, which a base model is asked before it is fine-tuned."""


class Report(Artifact):
    """`report.md` and `report.json`."""


class Bundle(Artifact):
    """A model in the layout that inference engines load."""


def kind_named(name: str) -> type[Artifact] | None:
    """The kind of artifact of that name, as a manifest has it; None where there is no such kind."""
    # Classes register themselves by being subclasses; a table of names would be one more thing to keep.
    pending: list[type[Artifact]] = [Artifact]
    while pending:
        kind = pending.pop()
        if kind.__name__ == name:
            return kind
        pending += kind.__subclasses__()
    return None
