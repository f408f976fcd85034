"""Manifests and the kinds of artifacts. Reads and writes nothing: `tasks.artifacts.store` does."""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field

MANIFEST = "manifest.json"
STATE = (
    ".state"  # what a stage needs to resume after a kill: finished shards' records, checkpoints. Gone on completion.
)


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
