"""The pipeline: the whole DAG on one page, and the flow that runs it.

Reads a recipe, writes every stage's artifact. In one process each stage is a subflow; deployed, each is a run of its own
deployment behind a small task with a persisted result, so that a retry of the pipeline keeps what is finished.
"""

from collections.abc import Sequence
from typing import Any, Literal

from prefect import flow, task
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from flows.recipes import STAGE_NAMES, Recipe, RecipeName, StageName, make_recipe
from flows.stage_run import Summary, run_name
from flows.stages import FLOWS
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.step import ExistingArtifact, Step
from tasks.artifacts.store import DamagedArtifact, Store
from tasks.dedup.stage import dedup
from tasks.evaluate.stage import evaluate
from tasks.execution.runner import up_to_date
from tasks.export.stage import export
from tasks.filter.stage import filter
from tasks.ingest.stage import ingest
from tasks.posttrain.reward import reward
from tasks.posttrain.rlhf import rlhf
from tasks.posttrain.sft import sft
from tasks.pretrain.stage import pretrain
from tasks.tokenizer.encode import tokenize
from tasks.tokenizer.train import tokenizer as train_tokenizer

Steps = dict[StageName, Step[Artifact]]


def dag(recipe: Recipe) -> Steps:
    """The steps of a recipe, in order. Nothing runs here: a step names what it would make."""
    raw = ingest(recipe.ingest)  # WARC bytes -> Documents
    clean = filter(raw, recipe.filter)  # URL, language, quality, PII
    unique = dedup(clean, recipe.dedup)  # exact and MinHash
    tokenizer = train_tokenizer(unique, recipe.tokenizer)  # byte-level BPE
    tokens = tokenize(unique, tokenizer, recipe.tokenize)  # sharded Arrow
    base = pretrain(tokens, tokenizer, recipe.pretrain)  # DeepSpeed
    assistant = sft(base, tokenizer, recipe.sft)  # conversations
    reward_model = reward(assistant, tokenizer, recipe.reward)  # preference pairs
    policy = rlhf(assistant, reward_model, tokenizer, recipe.rlhf)  # GRPO
    report = evaluate(raw, clean, unique, tokens, tokenizer, base, assistant, reward_model, policy, recipe.evaluate)
    bundle = export(policy, tokenizer, report, recipe.export)
    steps = (raw, clean, unique, tokenizer, tokens, base, assistant, reward_model, policy, report, bundle)
    return dict(zip(STAGE_NAMES, steps, strict=True))


def select(start: str, until: str, only: str, force: Sequence[str] = ()) -> tuple[StageName, ...]:
    """The stages from `start` to `until`, or `only` one, with all of `force`; an empty name sets no bound. Raises ValueError."""
    for name in (start, until, only, *force):
        if name and name not in STAGE_NAMES:
            raise ValueError(f"there is no stage {name!r}: take one of {', '.join(STAGE_NAMES)}")
    if only and (start or until):
        raise ValueError(f"only stage {only} is to run, and another bound is set: give --only, or --from and --until")
    names: tuple[str, ...] = STAGE_NAMES
    first = names.index(only or start) if only or start else 0
    last = names.index(only or until) if only or until else len(names) - 1
    if last < first:
        raise ValueError(f"stage {until} comes before {start}: there is nothing to run from {start} until {until}")
    chosen = STAGE_NAMES[first : last + 1]
    if left_out := [name for name in force if name not in chosen]:
        raise ValueError(f"stage {left_out[0]} is to be forced, and is not among those to run: {', '.join(chosen)}")
    return chosen


def state(step: Step[Artifact], recipe_name: str, store: Store) -> Literal["up to date", "stale", "missing", "damaged"]:
    """Whether the artifact of a step is there. Stale: there is one, of another config, version or input."""
    try:
        if up_to_date(step, store):
            return "up to date"
        store.latest(recipe_name, step.stage)
    except DamagedArtifact:
        return "damaged"
    except ValueError:
        return "missing"
    return "stale"


def parameters(step: Step[Artifact], recipe_name: str, force: bool) -> dict[str, Any]:
    """What the flow of a step's stage is called with. What the config itself names is left out."""
    inputs = {
        role: given.id
        for role, given in step.inputs.items()
        if not (given.is_source or isinstance(given, ExistingArtifact))
    }
    return {"recipe": recipe_name, **inputs, "config": step.config.model_dump(mode="json"), "force": force}


@task(task_run_name="{stage}", persist_result=True, result_serializer="json")
def launch(stage: str, parameters: dict[str, Any], upstream: list[Summary]) -> Summary:
    """Run the deployment of a stage to its end. `upstream` is what the UI draws arrows from."""
    run = run_deployment(f"{stage}/{stage}", parameters=parameters)
    assert isinstance(run, FlowRun)
    if run.state is None or not run.state.is_completed():
        told = f"{run.state.name}: {run.state.message}" if run.state else "unknown"
        raise RuntimeError(f"stage {stage}, run as {run.name}, ended as {told}")
    artifact_id = Store.default().latest(parameters["recipe"], stage)
    return {"artifact": artifact_id}


@flow(flow_run_name=run_name)
def pipeline(
    recipe: RecipeName = "tiny",
    inputs: list[str] = [],
    max_files: int = 0,
    settings: list[str] = [],
    base_model: str = "",
    start: Literal["", StageName] = "",
    until: Literal["", StageName] = "",
    only: Literal["", StageName] = "",
    force: list[StageName] = [],
    runs_deployments: bool = True,
) -> dict[str, Summary]:
    """Run the stages of a recipe, in order. What is up to date is skipped.

    Args:
        recipe: The recipe.
        inputs: Web archive files instead of the recipe's: paths, globs, URLs, cc:CRAWL.
        max_files: Read at most so many files; 0 reads all.
        settings: Changes to the recipe, as STAGE.FIELD=VALUE.
        base_model: Folder of a Qwen3 or Llama model to take as the base model instead of training one.
        start: The first stage to run; what is before it must be there.
        until: The last stage to run.
        only: The one stage to run.
        force: Stages to run also where they are up to date.
        runs_deployments: Run each stage through its deployment; else here, in this process.
    """
    steps = dag(make_recipe(recipe, inputs, max_files, settings, base_model))
    done: dict[str, Summary] = {}
    for name in select(start, until, only, force):
        step = steps[name]
        told = parameters(step, recipe, name in force)
        upstream = [done[given.stage] for given in step.inputs.values() if given.stage in done]
        done[name] = launch(name, told, upstream) if runs_deployments else FLOWS[name](**told)
    return done
