"""What a model was made of, by the manifests of the store: the artifacts of a run, and the index over them.

Reads the store; `open_training_data` makes the index where it is missing. The latest artifacts of a recipe need not be of one run: so
the newest model is followed from its own inputs to theirs.
"""

import errno
from collections.abc import Iterator
from typing import NamedTuple, TypeVar

from model.errors import UserError
from tasks.artifacts.manifest import (
    Artifact,
    Conversations,
    Documents,
    Index,
    Manifest,
    Preferences,
    Prompts,
    Provenance,
    Tokenizer,
    Tokens,
)
from tasks.artifacts.step import ExistingArtifact, Step
from tasks.artifacts.store import Store
from tasks.execution.runner import execute, up_to_date
from tasks.provenance.stage import ProvenanceConfig, provenance
from tasks.provenance.training_data import TrainingData
from tasks.records.full_text import FullTextIndex

# The last of these that a recipe has is the model whose replies are explained.
MODELS = ("rlhf", "sft", "pretrain", "tokenize")
READ_ONLY = {errno.EACCES, errno.EPERM, errno.EROFS}
A = TypeVar("A", bound=Artifact)


class Run(NamedTuple):
    """A model and everything that it was made of: manifests by id, nearest first."""

    model: Manifest
    manifests: dict[str, Manifest]

    def of_kind(self, kind: type[Artifact]) -> list[Manifest]:
        """The manifests of a kind."""
        return [manifest for manifest in self.manifests.values() if manifest.kind == kind.__name__]

    def of_stage(self, stage: str) -> Manifest | None:
        """The manifest of the artifact that a stage made for this run."""
        return next((manifest for manifest in self.manifests.values() if manifest.stage == stage), None)


def find_run(store: Store, recipe: str) -> Run:
    """The newest model of a recipe, or the artifact STAGE/FINGERPRINT, with what it was made of. Raises UserError where it is missing."""
    if "/" in recipe:
        return follow(store, recipe)
    for stage in MODELS:
        try:
            return follow(store, store.latest(recipe, stage))
        except UserError:
            if stage == MODELS[-1]:
                raise
    raise AssertionError("MODELS is not empty")


def follow(store: Store, artifact_id: str) -> Run:
    """An artifact with its inputs, and theirs. One that was deleted from the store is left out, with what it was made of."""
    waiting, found = [artifact_id], dict[str, Manifest]()
    while waiting:
        name = waiting.pop(0)
        if name not in found and (manifest := store.find(name)):
            found[name] = manifest
            waiting += manifest.inputs.values()
    if artifact_id not in found:
        raise UserError(f"there is no artifact {artifact_id} in {store.shown_url}: run its stage again")
    return Run(found[artifact_id], found)


def provenance_step(run: Run, config: ProvenanceConfig | None = None) -> Step[Provenance]:
    """The step that indexes what a model was trained on."""
    tokens = [manifest for manifest in run.of_kind(Tokens) if manifest.inputs.get("documents") in run.manifests]
    if not tokens:
        raise UserError(f"the tokens that {run.model.id} was trained on are no longer in the store: run tokenize again")
    return provenance(
        ExistingArtifact.of(Tokenizer, tokens[0].input("tokenizer")),
        list(_existing(Tokens, tokens)),
        [ExistingArtifact.of(Documents, manifest.input("documents")) for manifest in tokens],
        list(_existing(Conversations, run.of_kind(Conversations))),
        list(_existing(Preferences, run.of_kind(Preferences))),
        list(_existing(Prompts, run.of_kind(Prompts))),
        list(_existing(Documents, run.of_kind(Documents))),
        config or ProvenanceConfig(),
    )


def _existing(kind: type[A], manifests: list[Manifest]) -> Iterator[Step[A]]:
    return (ExistingArtifact.of(kind, manifest.id) for manifest in manifests)


def open_training_data(store: Store, run: Run) -> TrainingData:
    """The training data of a model, searchable. Makes the index where it is missing; raises UserError where it cannot be written."""
    step = provenance_step(run)
    if up_to_date(step, store) is None:
        try:
            execute(step, store)
        except OSError as error:
            if error.errno not in READ_ONLY:
                raise
            raise UserError(
                f"{run.model.id} has no index of its training data yet, and {store.shown_url} cannot be written: ask again where it can be, "
                "or copy the store"
            ) from None
    return TrainingData(store, store.open(step.id, Provenance))


def open_text_index(store: Store, recipe: str, run: Run) -> FullTextIndex | None:
    """The full-text index over the documents that a model was trained on; None where the stage has not run on these."""
    try:
        index = store.open(store.latest(recipe, "index"), Index)
    except UserError:
        return None
    if index.manifest.inputs.get("documents") not in run.manifests:
        return None
    return FullTextIndex(index.folder / "index.sqlite")
