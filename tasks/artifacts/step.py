"""Steps: a stage with its settings and inputs, as a value that names an artifact.

Building a step reads nothing and writes nothing. What the name depends on is found when the fingerprint is first asked for:
`resolve` turns the settings as typed (a path, a glob, "ut1") into what identifies them (the hashes of the files), once for a step.

A stage function declares what it reads as a frozen dataclass of artifacts: `fine_tune(ctx, config, inputs: SFTInputs)`. A builder
takes steps of the same kinds: `sft(base: Step[BaseModel], ...) -> Step[SFTModel]`, so that a wrong wiring is a type error.
"""

import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import cache, cached_property
from typing import Any, Generic, NamedTuple, TypeVar, cast

from pydantic import BaseModel

from model.config import Config
from model.errors import UserError
from tasks.artifacts.config import fingerprint
from tasks.artifacts.manifest import Artifact

A_co = TypeVar("A_co", bound=Artifact, covariant=True)
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """The counts and metrics of a finished stage. Its files lie in its folder."""

    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NoInputs:
    """The inputs of a stage that reads no artifact."""


# Covariant in the kind: a Step[Policy] is a Step[Checkpoint], as a Policy is a Checkpoint.
@dataclass(frozen=True)
class Step(Generic[A_co]):
    """One stage with its settings and inputs: a value that names an artifact, whether it was made already or not.

    `run(ctx, config, inputs)` makes the artifact; `inputs` is a value of the dataclass `takes`, or left out where that is NoInputs.
    """

    stage: str
    version: int
    kind: type[A_co]
    settings: BaseModel
    inputs: Mapping[str, "Step[Artifact]"]
    run: Callable[..., Outcome] = field(repr=False, compare=False)
    takes: type = NoInputs
    is_source: bool = False  # made on the way by whichever stage needs it; it has no deployment
    resolve: Callable[[Any], BaseModel] | None = field(default=None, repr=False, compare=False)  # settings -> config
    check: Callable[[Any], None] | None = field(default=None, repr=False, compare=False)  # raises where a file is bad

    def __post_init__(self) -> None:
        _check_inputs(self)

    @cached_property
    def config(self) -> BaseModel:
        """The settings with what they name found and hashed. Raises UserError where a file is missing."""
        # Late, because it hashes the files that settings name, and building the DAG must read nothing.
        return self.resolve(self.settings) if self.resolve else self.settings

    @cached_property  # the chain of inputs is hashed once, not once for every path that leads to it
    def fingerprint(self) -> str:
        """The hash of the stage, its version, its config without runtime fields, and the fingerprints of its inputs."""
        # Recursive up to the sources: an artifact is named after everything that shaped it, as a derivation of Nix is.
        inputs = {role: step.fingerprint for role, step in self.inputs.items()}
        return fingerprint(self.stage, self.version, self.config, inputs)

    @property
    def id(self) -> str:
        """The name of the artifact, STAGE/FINGERPRINT."""
        return f"{self.stage}/{self.fingerprint}"

    def sources(self, prefix: str = "") -> Iterator[tuple[str, "Step[Artifact]"]]:
        """The sources that this step needs, and those that they need, inputs first; each with its role: attributes.crawl."""
        # Sources only: an input that another stage makes has a run that shows it.
        for role, step in self.inputs.items():
            if step.is_source:
                yield from step.sources(f"{prefix}{role}.")
                yield prefix + role, step


@dataclass(frozen=True)
class ExistingArtifact(Step[A_co]):
    """A step whose artifact exists already, named by its fingerprint alone."""

    given_fingerprint: str = ""

    @classmethod
    def of(cls, kind: type[A_co], artifact_id: str) -> "ExistingArtifact[A_co]":
        """The artifact STAGE/FINGERPRINT, taken as it is."""
        # Version 0 and an empty config: its fingerprint is given, so neither is ever hashed.
        stage, _, given = artifact_id.partition("/")
        return cls(stage, 0, kind, Config(), {}, run=_refuse, given_fingerprint=given)

    @cached_property
    def fingerprint(self) -> str:
        """The fingerprint that was given, taken unchecked."""
        return self.given_fingerprint


def _refuse(*_: object, **__: object) -> Outcome:
    raise AssertionError("an existing artifact is read, never made")


def with_existing(
    step: Step[A_co], by_stage: Mapping[str, str], sources: Mapping[str, str], prefix: str = ""
) -> Step[A_co]:
    """The step with existing artifacts as its inputs.

    `by_stage`: stage -> artifact id, for every input that this stage makes. `sources`: role -> artifact id of sources; the role of an
    input of a source is written after that of the source, attributes.language_model.
    """
    inputs: dict[str, Step[Artifact]] = {}
    for role, given in step.inputs.items():
        artifact_id = sources.get(prefix + role) if given.is_source else None
        if artifact_id is None and not isinstance(given, ExistingArtifact):
            artifact_id = by_stage.get(given.stage)
        if artifact_id is not None:
            inputs[role] = ExistingArtifact.of(given.kind, artifact_id)
        else:
            inputs[role] = with_existing(given, by_stage, sources, f"{prefix}{role}.") if given.is_source else given
    return replace(step, inputs=inputs)


def roles(**inputs: Step[Artifact] | Sequence[Step[Artifact]] | None) -> dict[str, Step[Artifact]]:
    """The inputs of a step by role. Several under one name are numbered, blocklists_0, blocklists_1; None is left out."""
    by_role: dict[str, Step[Artifact]] = {}
    for name, given in inputs.items():
        if isinstance(given, Step):
            by_role[name] = given
        elif given is not None:
            by_role |= {f"{name}_{number}": step for number, step in enumerate(given)}
    return by_role


class InputField(NamedTuple):
    """A field of a stage's inputs: the kind of artifact, whether there may be several, whether it may be absent."""

    kind: type[Artifact]
    is_several: bool
    is_optional: bool


@cache
def input_fields(takes: type) -> dict[str, InputField]:
    """The fields of a dataclass of inputs. A field is an artifact, `Artifact | None = None`, or `tuple[Artifact, ...] = ()`."""
    # Resolved hints and not `field.type`, which is a text where a module has `from __future__ import annotations`.
    hints = typing.get_type_hints(takes)
    found: dict[str, InputField] = {}
    for item in fields(takes):
        hint, is_optional = hints[item.name], item.default is not MISSING
        is_several = typing.get_origin(hint) is tuple
        if isinstance(hint, types.UnionType) or is_several:
            hint = typing.get_args(hint)[0]
        assert isinstance(hint, type), f"{takes.__name__}.{item.name} is not an artifact"
        found[item.name] = InputField(hint, is_several, is_optional)
    return found


def kind_of_role(takes: type, role: str) -> type[Artifact]:
    """The kind of artifact that a stage takes as `role`. Raises TypeError where it takes none."""
    known = input_fields(takes)
    # As `roles` numbers them. A field may itself end in a number: the whole role is tried first.
    name = re.sub(r"_\d+$", "", role)
    # blocklists_0 is the first of `blocklists: tuple[Resource, ...]`; see `roles`.
    if role in known and not known[role].is_several:
        return known[role].kind
    if name in known and known[name].is_several:
        return known[name].kind
    raise TypeError(f"{takes.__name__} has no field for the input {role!r}")


def gather(takes: type[T], artifacts: Mapping[str, Artifact]) -> T:
    """The artifacts by role, as the value that a stage function takes."""
    values: dict[str, Artifact | tuple[Artifact, ...]] = {}
    known: Mapping[str, InputField] = input_fields(cast(type, takes))
    for name, item in known.items():
        if item.is_several:
            # Counted and then asked for by number: sorted as texts, blocklists_10 would come before blocklists_2.
            numbered = [role for role in artifacts if re.fullmatch(rf"{name}_\d+", role)]
            values[name] = tuple(artifacts[f"{name}_{number}"] for number in range(len(numbered)))
        elif name in artifacts:
            values[name] = artifacts[name]
    return takes(**values)


def _check_inputs(step: Step[Any]) -> None:
    """Raises UserError where an input is of another kind than the stage takes, TypeError where one is missing or unknown."""
    for role, given in step.inputs.items():
        wanted = kind_of_role(step.takes, role)
        if not issubclass(given.kind, wanted):
            raise UserError(
                f"stage {step.stage} takes a {wanted.__name__} as {role}, and {given.stage} makes a {given.kind.__name__}: "
                f"name an artifact of kind {wanted.__name__}"
            )
    # A mistake of the programmer, hence TypeError: a user cannot cause it.
    for name, item in input_fields(step.takes).items():
        if not (item.is_optional or item.is_several or name in step.inputs):
            raise TypeError(f"stage {step.stage} has no input {name}")
