"""How the pipeline runs one stage: as a subflow in the same process, or as a run of the stage's deployment.

A deployed stage gets its inputs as artifact ids, also the files from elsewhere, which the pipeline imports into the store first: a
worker on another machine makes exactly the artifact that the pipeline asked for.
"""

import os
from collections.abc import Sequence
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.forms import difference, form_of
from flows.prefect_reporter import PrefectReporter
from flows.recipes import Recipe, make_recipe
from flows.stage_run import TARGET, Summary, run_step, summary
from model.config import Config
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.step import ExistingArtifact, Step
from tasks.artifacts.store import Store
from tasks.execution.reporter import reporting
from tasks.execution.runner import execute, up_to_date

# A crash is an end without an error of the stage: a machine that was lost, or its memory used up. Spot machines are lost as a matter of
# course, and what is left of the stage takes little; a stage that needs too much memory crashes each time.
NUM_LAUNCHES = 3
POLL_SECONDS = 1.0  # between two questions whether the stage has ended; Prefect's 5 s are half a minute of a pipeline's small stages


def run_here(step: Step[Artifact], recipe: Recipe, force: bool) -> Summary:
    """Run a stage as a subflow of this process, under the name of its deployment."""

    # The parameters beyond `recipe` are for the UI, which shows what a run was given; the step itself knows more.
    def run(recipe: str, inputs: dict[str, str], config: dict[str, Any], force: bool) -> Summary:
        return run_step(step, recipe, Store.default(), force=force)

    # Made here for each run and not at import: Prefect stores a flow's parameters as JSON, which a step has no form in,
    # so `run` takes it from here.
    named = flow(name=step.stage, flow_run_name=f"{step.stage}-{recipe.name}")(run)
    inputs = {role: given.id for role, given in step.inputs.items()}
    return named(recipe.name, inputs, step.config.model_dump(mode="json"), force)


# The store decides what is up to date; Prefect's cache would hash the step, which is not JSON.
@task(cache_policy=NO_CACHE)
def make(step: Step[Any], recipe: str, upstream: Sequence[Summary], *, sets_latest: bool = True) -> Summary:
    """Make the artifact of a step of a study, which is no stage. `upstream` is what the UI draws arrows from."""
    return run_step(step, recipe, Store.default(), sets_latest=sets_latest)


def run_deployed(
    step: Step[Artifact], recipe: Recipe, chosen: dict[str, str], force: bool, upstream: list[Summary]
) -> Summary:
    """Run a stage through its deployment. One that is up to date is not launched: a worker would start for nothing.

    `chosen`: how the recipe was chosen, as parameters of a flow. `upstream`: the summaries that the UI draws arrows from.
    """
    store = Store.default()
    if not force and up_to_date(step, store):
        # Here, in the pipeline's process: it only reports that the artifact exists, and makes it the latest.
        return run_step(step, recipe.name, store)
    reporter = PrefectReporter()
    try:
        with reporting(reporter):
            # On this machine: it may be the only one that can read a local path.
            for _, source in imported(step):
                execute(source, store)
    finally:
        reporter.close()
    base = make_recipe(chosen["recipe"], text=chosen["recipe_yaml"])
    return launch(step.stage, step.id, chosen | parameters(step, base, force), upstream)


def imported(step: Step[Artifact]) -> list[tuple[str, Step[Artifact]]]:
    """The sources of a step that are files from elsewhere, or composed, by role: those that are made of no other artifact."""
    return [(role, source) for role, source in step.sources() if not source.inputs]


def parameters(step: Step[Artifact], base: Recipe, force: bool) -> dict[str, Any]:
    """The parameters of a stage's deployment: artifacts by id, and the settings that differ from those of the recipe `base`."""
    inputs = {
        role: given.id
        for role, given in step.inputs.items()
        if not (given.is_source or isinstance(given, ExistingArtifact))  # the config names existing artifacts
    }
    sources = {role: source.id for role, source in imported(step)}
    # Not every setting: the page of the run shows its parameters, and the form of a copied run unfolds what is filled in.
    assert isinstance(step.settings, Config)
    changes = difference(step.settings, getattr(base, step.stage))
    config = form_of({base.name: step.settings}).grouped(changes)
    return {**inputs, "config": config, "sources": sources, "force": force}


def _run_to_its_end(stage: str, parameters: dict[str, Any]) -> FlowRun:
    """The run of a stage's deployment, ended. One that crashed is followed by another one, which resumes its work."""
    run = _run_deployment(stage, parameters)
    for _ in range(NUM_LAUNCHES - 1):
        if run.state is None or not run.state.is_crashed():
            break
        get_run_logger().warning(
            "stage %s, run as %s, crashed and is launched again: %s", stage, run.name, run.state.message
        )
        run = _run_deployment(stage, parameters)
    return run


def _run_deployment(stage: str, parameters: dict[str, Any]) -> FlowRun:
    target = os.environ.get(TARGET)
    name = f"{stage}/{stage}-{target}" if target else f"{stage}/{stage}"
    run = run_deployment(name, parameters=parameters, poll_interval=POLL_SECONDS)
    assert isinstance(run, FlowRun)
    return run


# Prefect stores the result under the task run, so that a retried pipeline run does not launch a finished stage again.
# JSON, since the default serializer is pickle, which whoever can write the storage could use to run code.
@task(task_run_name="{stage}", persist_result=True, result_serializer="json")
def launch(stage: str, artifact_id: str, parameters: dict[str, Any], upstream: list[Summary]) -> Summary:
    """Run the deployment of a stage to its end: that of the target which this process belongs to."""
    run = _run_to_its_end(stage, parameters)
    # Its outcome is not read from Prefect: the artifact in the store is the proof.
    if run.state is None or not run.state.is_completed():
        reason = f"{run.state.name}: {run.state.message}" if run.state else "unknown"
        raise RuntimeError(f"stage {stage}, run as {run.name}, ended as {reason}")
    manifest = Store.default().find(artifact_id)
    if manifest is None:
        raise RuntimeError(
            f"stage {stage}, run as {run.name}, completed, and its artifact {artifact_id} is not in {Store.default().url}: give "
            "the pipeline and its workers the same CRAWL2CHAT_STORE and the same version of the code"
        )
    return summary(manifest)
