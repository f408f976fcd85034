"""What is checked before the first stage of a run: that nothing is missing between its stages, and that all files are usable.

Reads the store and the files that the steps name. Writes nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Literal

from flows.recipes import STAGE_NAMES, StageName
from model.errors import UserError
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.step import Step
from tasks.artifacts.store import DamagedArtifact, Store
from tasks.execution.runner import up_to_date

State = Literal["up to date", "stale", "missing", "damaged"]
Steps = Mapping[StageName, Step[Artifact]]


def state(step: Step[Artifact], recipe_name: str, store: Store) -> State:
    """Whether the artifact of a step exists. Stale: there is one of another config, version or input."""
    try:
        # Compares the files with the manifest as well, which is where DamagedArtifact comes from.
        if up_to_date(step, store):
            return "up to date"
    except DamagedArtifact:
        return "damaged"
    try:
        # Only whether the recipe has an artifact of this stage under another fingerprint.
        store.latest(recipe_name, step.stage)
    except UserError:
        return "missing"
    return "stale"


def check_run(steps: Steps, names: Sequence[StageName], force: Sequence[str], recipe_name: str, store: Store) -> bool:
    """Check a run of the stages `names`. Returns whether there is anything to run.

    Raises UserError where a stage outside the run has no artifact, a file of an artifact was changed, or an input of any stage is
    missing or of a wrong shape.
    """
    # All stages, also those outside the run: its inputs come from them.
    states = {name: state(steps[name], recipe_name, store) for name in STAGE_NAMES}
    # The input files last: to read them can take minutes, and the two checks before need only the store.
    _check_gaps(steps, states, names)
    _check_damage(steps, states, names, force, store)
    for name in names:
        if name in force or states[name] != "up to date":
            check_inputs(steps[name], store)
    return bool(force) or any(states[name] != "up to date" for name in names)


def _check_gaps(steps: Steps, states: Mapping[StageName, State], names: Sequence[StageName]) -> None:
    for name in names:
        for producer in _producers(steps[name]):
            if producer not in names and states[producer] in ("missing", "stale"):
                raise UserError(
                    f"stage {name} needs the artifact of {producer}, which is {states[producer]}: run without --only and --from, or "
                    f"`--only {producer}` first"
                )


def _check_damage(
    steps: Steps, states: Mapping[StageName, State], names: Sequence[StageName], force: Sequence[str], store: Store
) -> None:
    needed = {*names, *(producer for name in names for producer in _producers(steps[name]))}
    for name in STAGE_NAMES:
        if name in needed and states[name] == "damaged" and name not in force:
            store.open(steps[name].id, Artifact)  # raises, and says which file


def check_inputs(step: Step[Artifact], store: Store) -> None:
    """Read the files that a stage needs and that are not in the store yet. Raises UserError where one cannot be used.

    A pipeline checks all its stages before the first runs: a mistake in the last must not cost the work of the others.
    """
    for checked in (*(source for _, source in step.sources()), step):
        # What is in the store was checked when it was made.
        if checked.check and store.find(checked.id) is None:
            checked.check(checked.config)


def _producers(step: Step[Artifact]) -> list[StageName]:
    """The stages of the pipeline whose artifacts a step reads, also through its sources."""
    # Sources are no stages of the pipeline but may read their artifacts: attributes are computed from the documents of
    # ingest.
    found = [given.stage for given in step.inputs.values()]
    found += [given.stage for _, source in step.sources() for given in source.inputs.values()]
    return [name for name in STAGE_NAMES if name in found]
