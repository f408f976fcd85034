"""How a stage runs.

Reads the artifacts that a step names, writes the artifact that the step is. A step whose manifest is there and whose files are
unchanged is skipped. Two runners of one fingerprint: the second waits, or takes over a lease that is no longer renewed.

What a stage reports goes to all reporters: the terminal, and Prefect where a flow runs it. Stages depend on neither.
"""

import contextlib
import time
from datetime import UTC, datetime
from typing import Any

from model.files import remove_temporary_files
from model.nodes import Node
from tasks.artifacts.manifest import Artifact, Manifest
from tasks.artifacts.step import NoInputs, Step, gather, kind_of_role
from tasks.artifacts.store import Store
from tasks.execution.context import StageContext
from tasks.execution.launcher import join
from tasks.execution.provenance import provenance
from tasks.execution.reporter import REPORTERS, logger
from tasks.execution.shards import shards_set_aside
from tasks.execution.shared_work import SharedWork
from tasks.execution.store_lease import artifact_lease


def execute(step: Step[Any], store: Store, *, force: bool = False) -> Manifest:
    """The manifest of `step`, made now unless it is up to date. Sources it needs are made on the way.

    Raises UserError where an input is missing, DamagedArtifact where a file was changed, LeaseLost where another run took this one over.
    """
    if not force and (manifest := up_to_date(step, store)):
        _report_finished(step, manifest, is_skipped=True)
        return manifest
    # Before the lease of this step is taken: a run that holds one lease and waits for another could wait in a circle.
    inputs = _open_inputs(step, store)
    folder = store.folder(step.id)
    # In the lease, so that `crawl2chat gc` on another machine leaves the inputs of a stage that has run for days.
    reads = [given.id for given in step.inputs.values()]
    with artifact_lease(store, step.id, StageContext(step, folder).log, reads) as held:
        run = StageContext(step, folder, held, SharedWork(store, step.id) if store.remote else None)
        # Asked again: the first answer is as old as the wait for the lease.
        if not force and (manifest := up_to_date(step, store)):  # another runner finished it while this one waited
            _report_finished(step, manifest, is_skipped=True)
            return manifest
        if force or store.find(step.id):
            # Deleting is a write like the commit: a run that lost its lease must not delete what the new holder made.
            with held.fence():
                store.discard(step.id)
        # Nobody else writes here now: the lease is held, and the writers of the run before have ended.
        remove_temporary_files(store.prepare(step.id))
        # Both lines while the lease is held: the logs of all machines together show that one at a time computed.
        logger.info("computing %s", step.id, extra={"stage": step.stage})
        manifest = _make(run, store, inputs)
        logger.info("committed %s", step.id, extra={"stage": step.stage})
        if run.shared_work:
            run.shared_work.remove()
    _report_finished(step, manifest, is_skipped=False)
    return manifest


def join_training(step: Step[Any], store: Store, node: Node) -> None:
    """Run this node's ranks of a training step that the first node executes. Its inputs are copied to this machine before.

    Raises UserError where the first node is not found, RuntimeError where the training fails or the first node is lost.
    """
    _open_inputs(step, store)
    join(node)


def _open_inputs(step: Step[Any], store: Store) -> dict[str, Artifact]:
    for source in step.inputs.values():
        if source.is_source:
            execute(source, store)
    return {role: store.open(given.id, kind_of_role(step.takes, role)) for role, given in step.inputs.items()}


def up_to_date(step: Step[Any], store: Store) -> Manifest | None:
    """The manifest of `step` if it is finished, undamaged, and made of its inputs as they are now; else None."""
    # By name first, which costs one look; files are hashed only where there is something to compare.
    manifest = store.find(step.id)
    if manifest is None:
        return None
    store.verify(manifest)
    for role, input_step in step.inputs.items():
        # An input may have been made again, with other bytes under the same name, since it was read. One that was deleted to
        # free space does not count: the artifact made of it is still good.
        made_of = store.find(input_step.id)
        if made_of is not None and made_of.digest != manifest.input_digests[role]:
            return None
    return manifest


def _report_finished(step: Step[Any], manifest: Manifest, is_skipped: bool) -> None:
    for reporter in REPORTERS.get():
        reporter.finished(step, manifest, is_skipped)


def _make(ctx: StageContext, store: Store, inputs: dict[str, Artifact]) -> Manifest:
    started, start = datetime.now(UTC), time.monotonic()
    step = ctx.step
    if ctx.shared_work and (num_shards := ctx.shared_work.restore_shards()):
        ctx.log(f"{num_shards} shards were finished on another machine")
    given = () if step.takes is NoInputs else (gather(step.takes, inputs),)
    # The stage sees paths of this machine and no store: it can be called in a test with a folder.
    outcome = step.run(ctx, step.config, *given)
    manifest = Manifest(
        kind=step.kind.__name__,
        stage=step.stage,
        stage_version=step.version,
        fingerprint=step.fingerprint,
        inputs={role: input_step.id for role, input_step in step.inputs.items()},
        # Of the artifacts as they were opened, not as they are now: the run may have taken days.
        input_digests={role: artifact.manifest.digest for role, artifact in inputs.items()},
        config=step.config.model_dump(mode="json"),
        files=store.records(ctx.folder),
        counts=outcome.counts,
        metrics=outcome.metrics,
        provenance=provenance(started, time.monotonic() - start),
        set_aside=shards_set_aside(ctx),
    )
    store.commit(manifest, ctx.lease.fence() if ctx.lease else contextlib.nullcontext())
    return manifest
