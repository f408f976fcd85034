"""Steps: a stage with its config and inputs, as a value that names an artifact. Reads and writes nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

from pydantic import BaseModel

from model.config import Config
from tasks.artifacts.config import fingerprint
from tasks.artifacts.manifest import Artifact, Manifest

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
class ExistingArtifact(Step[A_co]):
    """A step whose artifact exists already, named by its fingerprint alone."""

    given_fingerprint: str = ""

    @classmethod
    def of(cls, kind: type[A_co], artifact_id: str, manifest: Manifest | None = None) -> "ExistingArtifact[A_co]":
        """The artifact STAGE/FINGERPRINT, taken as it is; with its manifest, its inputs are given steps too."""
        stage, _, given = artifact_id.partition("/")
        inputs = (
            {role: ExistingArtifact.of(Artifact, input_id) for role, input_id in manifest.inputs.items()}
            if manifest
            else {}
        )
        return cls(stage, 0, kind, Config(), inputs, run=_refuse, given_fingerprint=given)

    @cached_property
    def fingerprint(self) -> str:
        return self.given_fingerprint


def _refuse(*_: object, **__: object) -> Outcome:
    raise AssertionError("a given artifact is read, never made")
