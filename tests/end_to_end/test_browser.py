"""Prefect's UI in a real browser, with a real server and worker: forms, a schedule, training that is cancelled, killed and retried.

Elements are found by role and label, as a person finds them, in both UIs of Prefect: the new one at /v2, the old one at /. The tests
are one story: each uses the artifacts of those before it. Skipped where no Chromium is installed.
"""

import os
import re
import shutil
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from flows.reconcile import run_processes
from flows.training_slot import LIMIT
from tasks.artifacts.store import Store
from tests.support.prefect_servers import LocalPrefect, kill, running_server, wait_for

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]
PATIENCE_MS = 300_000
NEW, OLD = "/v2", ""
SAMPLE = {"sample": {"num_articles": 40, "num_files": 2}, "num_workers": 1}
# What the stages before tokenization make, as settings of the pipeline: those that the forms below are filled with, so that the pipeline
# finds ingest and filter up to date.
SETTINGS = [
    "ingest.sample.num_articles=40",
    "ingest.sample.num_files=2",
    "ingest.num_workers=1",
    "filter.min_gopher_words=30",
    "filter.num_workers=1",
    "dedup.num_workers=1",
    "tokenizer.vocab_size=512",
    "tokenize.num_workers=1",
]
# A model so small that a step takes milliseconds, and more steps than are done before it is cancelled.
TRAINING = {
    "model": {"num_layers": 1, "width": 32, "num_heads": 2, "advanced": {"num_kv_heads": 2, "head_width": 16, "ff_width": 64}},
    "train": {
        "num_steps": 100_000,
        "batch_tokens": 1024,
        "sequence_tokens": 64,
        "num_ranks": 1,
        "advanced": {"checkpoint_every_steps": 50, "sample_every_steps": 0, "eval_every_steps": 0},
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrefect]:
    with running_server(tmp_path_factory.mktemp("prefect")) as local:
        local.deploy()
        # The slot of a run that was killed is free after a minute or two, which nobody has to wait for here.
        local.call("PATCH", f"/v2/concurrency_limits/{LIMIT}", {"limit": 2})
        local.start_worker()
        yield local
        for process in run_processes(local.api):  # one trains on: it has a session of its own
            os.kill(process.pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def page(prefect: LocalPrefect) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox needs user namespaces, which root in a container has not. The pages are our own server's.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        # Without motion: it takes the cores from the server and the worker, and an element that moves is not clicked.
        page = browser.new_page(viewport={"width": 1280, "height": 1200}, reduced_motion="reduce")
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def open_page(page: Any, prefect: LocalPrefect, path: str, ui: str = NEW) -> None:
    page.goto(f"{prefect.api.removesuffix('/api')}{ui}/{path}")


def leave(page: Any) -> None:
    """Close the UI for as long as nobody watches it: it asks the server each second, and draws each answer without a GPU."""
    page.goto("about:blank")


def deployment_of(prefect: LocalPrefect, stage: str) -> dict[str, Any]:
    return prefect.call("GET", f"/deployments/name/{stage}/{stage}")  # type: ignore[no-any-return]


def open_form(page: Any, prefect: LocalPrefect, stage: str, ui: str = NEW) -> None:
    """The form of a stage's deployment, loaded."""
    open_page(page, prefect, f"deployments/deployment/{deployment_of(prefect, stage)['id']}/run", ui)
    page.get_by_role("button", name="Submit").wait_for()


def fill_sample(form: Any) -> None:
    """Fill in SAMPLE."""
    form.get_by_label("Num Articles").fill("40")
    form.get_by_label("Num Files").fill("2")
    form.get_by_label("Num Workers").fill("1")


def runs_of(prefect: LocalPrefect, flow: str) -> list[dict[str, Any]]:
    return prefect.call("POST", "/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})  # type: ignore[no-any-return]


def submit(page: Any, prefect: LocalPrefect, stage: str) -> dict[str, Any]:
    """Send the form. Returns the run that it made."""
    before = {run["id"] for run in runs_of(prefect, stage)}
    page.get_by_role("button", name="Submit").click()
    made = wait_for(lambda: [run for run in runs_of(prefect, stage) if run["id"] not in before], "the form makes a run")
    leave(page)
    return made[0]


def choose(page: Any, prefect: LocalPrefect, run_id: str, action: str, ui: str = NEW) -> None:
    """Choose an action on the page of a run."""
    open_page(page, prefect, f"runs/flow-run/{run_id}", ui)
    if ui == NEW:
        page.get_by_role("button", name="Open menu").click()
        page.get_by_role("menuitem", name=action, exact=True).click()
    else:
        page.get_by_role("button", name=action, exact=True).click()


def cancel(page: Any, prefect: LocalPrefect, run_id: str, ui: str = NEW) -> None:
    """Cancel a run on its page. It ends as CANCELLED, and none of its processes is left."""
    choose(page, prefect, run_id, "Cancel", ui)
    page.get_by_role("button", name="Cancel Flow Run" if ui == NEW else "Confirm").click()
    prefect.wait_for_state(run_id, "CANCELLING")
    leave(page)
    ended = prefect.wait_for_state(run_id)
    assert ended["state"]["type"] == "CANCELLED", ended["state"]
    wait_for(lambda: not processes_of(prefect, run_id), "no process is left")


def processes_of(prefect: LocalPrefect, run_id: str) -> list[int]:
    """The processes of a run: its stage, its ranks, its workers."""
    return [process.pid for process in run_processes(prefect.api) if str(process.run_id) == run_id]


def store_of(prefect: LocalPrefect) -> Store:
    return Store(prefect.environment["CRAWL2CHAT_STORE"])


def steps_saved(prefect: LocalPrefect) -> int:
    """The step of the newest checkpoint of the base model that is being trained; 0 without one."""
    folders = store_of(prefect).root.glob("pretrain/*/.state/checkpoints/step-*")
    return max((int(folder.name.partition("-")[2]) for folder in folders), default=0)


def steps_resumed(prefect: LocalPrefect, run_id: str) -> list[int]:
    """The steps that were done before, by the log of a run, each time that it began."""
    found = [re.match(r"resuming: ([\d,]+) of [\d,]+ steps", line) for line in prefect.logs(run_id)]
    return [int(match[1].replace(",", "")) for match in found if match]


@pytest.mark.parametrize("ui", [NEW, OLD], ids=["new UI", "old UI"])
def test_forms_are_short_and_unfold(page: Any, prefect: LocalPrefect, ui: str) -> None:
    """With all of its fields at once, the form of filter was 7,500 pixels tall."""
    open_form(page, prefect, "filter", ui)
    page.get_by_text("Gopher rules").first.wait_for()
    height = "Math.max(...[...document.querySelectorAll('form')].map(form => form.scrollHeight))"
    assert page.evaluate(height) < 3000
    assert page.get_by_label("Min Gopher Words").count() == 0


def test_stage_runs_by_its_form(page: Any, prefect: LocalPrefect) -> None:
    open_form(page, prefect, "ingest")
    fill_sample(page)
    run = prefect.wait_for_state(submit(page, prefect, "ingest")["id"])
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert run["parameters"]["config"] == SAMPLE
    open_page(page, prefect, f"runs/flow-run/{run['id']}")
    page.get_by_role("tab", name="Artifacts").click()
    for name in ("ingest-counts", "ingest-inputs", "ingest-cost", "ingest-funnel"):
        page.get_by_role("link", name=name).first.wait_for()


def test_field_in_a_folded_section_can_be_changed(page: Any, prefect: LocalPrefect) -> None:
    open_form(page, prefect, "filter")
    page.get_by_label("Num Workers").fill("1")
    page.get_by_role("tab", name="changed").first.click()
    page.get_by_label("Min Gopher Words").fill("30")
    run = prefect.wait_for_state(submit(page, prefect, "filter")["id"])
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert run["parameters"]["config"] == {"gopher_rules": {"min_gopher_words": 30}, "num_workers": 1}
    manifest = store_of(prefect).find(store_of(prefect).latest("tiny", "filter"))
    assert manifest is not None
    assert manifest.config["min_gopher_words"] == 30


def test_interval_schedule_fires(page: Any, prefect: LocalPrefect) -> None:
    deployment = deployment_of(prefect, "ingest")
    open_page(page, prefect, f"deployments/deployment/{deployment['id']}")
    page.get_by_role("button", name="Schedule", exact=True).click()
    form = page.get_by_role("dialog")
    form.get_by_label("Value").fill("20")
    form.get_by_role("combobox", name="Interval").click()
    page.get_by_role("option", name="Seconds").click()
    fill_sample(form)
    form.get_by_role("button", name="Save").click()

    def fired() -> list[dict[str, Any]]:
        return [
            run for run in runs_of(prefect, "ingest") if run["auto_scheduled"] and run["state"]["type"] != "SCHEDULED"
        ]

    run = wait_for(fired, "the schedule has started a run")[0]
    page.get_by_role("switch", name="Every 20 seconds").click()
    page.get_by_role("switch", name="Every 20 seconds", checked=False).wait_for()
    leave(page)
    ended = prefect.wait_for_state(run["id"])
    assert ended["state"]["type"] == "COMPLETED", ended["state"]
    assert ended["parameters"]["config"] == SAMPLE
    (schedule,) = prefect.call("GET", f"/deployments/{deployment['id']}/schedules")
    assert not schedule["active"]


def test_cancelled_training_saves_and_its_copy_resumes(page: Any, prefect: LocalPrefect) -> None:
    made = prefect.trigger("pipeline", {"settings": SETTINGS, "until": "tokenize", "runs_deployments": False})
    assert made["state"]["type"] == "COMPLETED", made["state"]
    run = prefect.create_run("pretrain", {"config": TRAINING})
    wait_for(lambda: steps_saved(prefect), "a checkpoint is saved")
    assert len(processes_of(prefect, run["id"])) > 1
    cancel(page, prefect, run["id"])
    saved = steps_saved(prefect)
    choose(page, prefect, run["id"], "Copy to new run")
    copied = submit(page, prefect, "pretrain")
    assert copied["parameters"]["config"] == TRAINING
    assert wait_for(lambda: steps_resumed(prefect, copied["id"]), "the copy resumes") == [saved]


def test_training_whose_worker_was_killed_is_cancelled(page: Any, prefect: LocalPrefect) -> None:
    """It trains on without its worker, and another worker knows nothing of it."""
    run = next(run for run in runs_of(prefect, "pretrain") if run["state"]["type"] == "RUNNING")
    kill(prefect.processes[-1])  # the worker's session alone: a run has one of its own
    prefect.start("worker.log", "flows.cli.main", "worker")
    saved = steps_saved(prefect)
    wait_for(lambda: steps_saved(prefect) > saved, "it trains on")
    cancel(page, prefect, run["id"], OLD)


def test_training_that_was_lost_with_its_worker_is_ended_and_retried(page: Any, prefect: LocalPrefect) -> None:
    """As a machine dies: worker and run are killed at once. The next worker marks the run as crashed, and a retry resumes it."""
    run = next(run for run in runs_of(prefect, "pretrain") if run["state"]["type"] == "CANCELLED")
    before = steps_saved(prefect)
    choose(page, prefect, run["id"], "Retry", OLD)
    page.get_by_text("This will retry flow run").wait_for()
    page.get_by_role("button", name="Retry", exact=True).last.click()
    wait_for(lambda: prefect.run(run["id"])["state"]["type"] != "CANCELLED", "the run is retried")
    leave(page)
    wait_for(lambda: steps_saved(prefect) > before, "the retried run trains")
    kill(prefect.processes[-1])
    for process in processes_of(prefect, run["id"]):
        os.kill(process, signal.SIGKILL)
    saved = steps_saved(prefect)
    prefect.start("worker.log", "flows.cli.main", "worker")
    wait_for(lambda: prefect.run(run["id"])["state"]["type"] == "CRASHED", "the next worker ends the lost run")
    choose(page, prefect, run["id"], "Retry")
    page.get_by_role("alertdialog").or_(page.get_by_role("dialog")).get_by_role("button", name="Retry").click()
    wait_for(lambda: prefect.run(run["id"])["state"]["type"] != "CRASHED", "the run that was lost is retried")
    leave(page)
    wait_for(lambda: steps_resumed(prefect, run["id"])[-1] == saved, "the run that was lost resumes")
