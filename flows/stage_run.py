"""How a flow runs one stage: reports to Prefect, waits for the machine where the stage trains, and records the result as latest."""

import contextlib
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any, TypedDict

from coolname.data import config as coolnames
from prefect import runtime

from flows.metrics import MetricsReporter, served_metrics
from flows.prefect_reporter import PrefectReporter
from flows.training_slot import training_slot
from tasks.artifacts.manifest import STATE, Checkpoint, Manifest
from tasks.artifacts.step import Step
from tasks.artifacts.store import DamagedArtifact, Store
from tasks.execution.json_logs import log_error, write_json_logs
from tasks.execution.reporter import Reporter, reporting
from tasks.execution.runner import execute, up_to_date

UP_TO_DATE = "up to date"
TARGET = "CRAWL2CHAT_TARGET"  # the variable that names the target of flows/targets.py whose deployments belong together

# Prefect's server names a run without a name by coolname, `flashy-ocelot`. The form of its UI (3.8.8) proposes `Tasty-Poke`.
# The parts of coolname's two-word names: any of the first lists, then any of the second.
COOLNAME_LISTS = (
    ("adjective", "adjective_near", "noun_adjective", "prefix", "size"),
    ("animal", "animal_breed", "animal_legendary"),
)
UI_ADJECTIVES = frozenset({
    "Awesome", "Rustic", "Small", "Gorgeous", "Fantastic", "Sleek", "Intelligent", "Unbranded", "Refined",
    "Licensed", "Generic", "Practical", "Ergonomic", "Handcrafted", "Tasty", "Handmade", "Incredible",
})  # fmt: skip


class Summary(TypedDict):
    """What a flow returns: the artifact, what it was made of and how, and what is in it. Data passes through the store alone."""

    artifact: str
    inputs: dict[str, str]
    config: dict[str, Any]
    counts: dict[str, int]
    metrics: dict[str, float]


def summary(manifest: Manifest) -> Summary:
    """The summary of an artifact."""
    return Summary(
        artifact=manifest.id,
        inputs=manifest.inputs,
        config=manifest.config,
        counts=manifest.counts,
        metrics=manifest.metrics,
    )


def run_step(step: Step[Any], recipe: str, store: Store, *, force: bool = False, sets_latest: bool = True) -> Summary:
    """Make the artifact of `step` unless it is up to date. Returns its summary."""
    run_label = str(runtime.flow_run.name or "")
    write_json_logs(run_label)
    reporter, metrics = PrefectReporter(), _metrics(run_label, step.stage)
    try:
        state = state_before(step, store, force)
        reporter.started(step, recipe, state)
        # A run from the command line has a server, and the machine, for itself: only deployments wait for each other.
        # On Kubernetes each run has a pod with GPUs of its node, for which pods wait; a pool's limit bounds the runs.
        is_shared = runtime.deployment.id is not None and os.environ.get(TARGET) != "kubernetes"
        needs_machine = issubclass(step.kind, Checkpoint) and state != UP_TO_DATE and is_shared
        # Nothing happens before `with`: a context manager of contextlib runs from there on.
        slot = training_slot(runtime.flow_run.name, lambda line: reporter.log(step.stage, line))
        with slot if needs_machine else contextlib.nullcontext(), reporting(reporter), reporting(metrics):
            manifest = execute(step, store, force=force)
    except BaseException as error:  # also of a run that is cancelled
        log_error(step.stage, error)
        if isinstance(metrics, MetricsReporter):
            metrics.failed(step.stage)
        raise
    finally:
        reporter.close()
    if sets_latest:
        # Also for a stage that was up to date: another recipe may have made the artifact.
        store.set_latest(recipe, manifest)
    return summary(manifest)


def _metrics(run: str, stage: str) -> Reporter:
    """The reporter of the metrics; one that ignores all where they are off."""
    metrics = served_metrics()
    if metrics is None:
        return Reporter()
    scheduled = runtime.flow_run.scheduled_start_time
    delay = (datetime.now(UTC) - scheduled).total_seconds() if scheduled else 0.0
    return MetricsReporter(metrics, run, stage, max(0.0, delay))


def state_before(step: Step[Any], store: Store, force: bool = False) -> str:
    """What a run of `step` begins with, in words for its page: up to date, forced, resumed, or new."""
    if force:
        return "forced: runs although its artifact may be there"
    # `execute` raises for a damaged artifact, after the run's page is written.
    with contextlib.suppress(DamagedArtifact):
        if up_to_date(step, store):
            return UP_TO_DATE
    work = store.folder(step.id) / STATE
    if work.is_dir() and any(work.iterdir()):
        return "resumes the unfinished work of an earlier run"
    return "new"


def run_name() -> str:
    """The name of a flow run: the one that a person gave it, else FLOW-RECIPE instead of Prefect's random one."""
    given = str(runtime.flow_run.name or "")
    if given and not is_random_name(given):
        return given
    return f"{runtime.flow_run.flow_name}-{runtime.flow_run.parameters['recipe']}"


def is_random_name(name: str) -> bool:
    """Whether Prefect's server, or the form of its UI, made up a name."""
    first, _, rest = name.partition("-")
    # A name of two words from the lists that a person did type is replaced too: a risk of little harm, the name is a
    # label.
    return first in UI_ADJECTIVES or all(word in words for word, words in zip((first, rest), _words(), strict=True))


@cache
def _words() -> tuple[frozenset[str], frozenset[str]]:
    """Coolname's adjectives and nouns."""
    lists: dict[str, Any] = coolnames
    first, second = (
        frozenset(_plain(entry) for name in names for entry in lists[name]["words"]) for names in COOLNAME_LISTS
    )
    return first, second


def _plain(entry: str | Sequence[str]) -> str:
    return entry.replace(" ", "-") if isinstance(entry, str) else "-".join(entry)
