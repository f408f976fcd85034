"""Prefect's UI in a real browser, with a real server and worker: the forms of stages, and the page of a run.

Elements are found by role and label, as a person finds them. Skipped where no Chromium is installed.
"""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

from tasks.artifacts.store import Store
from tests.support.prefect_servers import LocalPrefect, running_server, wait_for

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3600),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]
PATIENCE_MS = 300_000
SAMPLE = {"sample": {"num_articles": 40, "num_files": 2}, "num_workers": 1}


@pytest.fixture(scope="module")
def prefect(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalPrefect]:
    with running_server(tmp_path_factory.mktemp("prefect")) as local:
        local.deploy()
        local.start_worker()
        yield local


@pytest.fixture(scope="module")
def page(prefect: LocalPrefect) -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox needs user namespaces, which root in a container has not. The pages are our own server's.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 1200})
        page.set_default_timeout(PATIENCE_MS)
        yield page
        browser.close()


def root(prefect: LocalPrefect) -> str:
    return prefect.api.removesuffix("/api")


def open_form(page: Any, prefect: LocalPrefect, stage: str, ui: str = "/v2") -> None:
    """The form of a stage's deployment, loaded."""
    deployment = prefect.call("GET", f"/deployments/name/{stage}/{stage}")
    page.goto(f"{root(prefect)}{ui}/deployments/deployment/{deployment['id']}/run")
    page.get_by_role("button", name="Submit").wait_for()


def open_run(page: Any, prefect: LocalPrefect, run_id: str) -> None:
    page.goto(f"{root(prefect)}/v2/runs/flow-run/{run_id}")
    page.get_by_role("tab", name="Artifacts").wait_for()


def runs_of(prefect: LocalPrefect, flow: str) -> list[dict[str, Any]]:
    return prefect.call("POST", "/flow_runs/filter", {"flows": {"name": {"any_": [flow]}}})  # type: ignore[no-any-return]


def submit(page: Any, prefect: LocalPrefect, stage: str) -> dict[str, Any]:
    """Send the form, and wait for the end of the run that it made."""
    before = {run["id"] for run in runs_of(prefect, stage)}
    page.get_by_role("button", name="Submit").click()
    made = wait_for(lambda: [run for run in runs_of(prefect, stage) if run["id"] not in before], "the form makes a run")
    return prefect.wait_for_state(made[0]["id"])


def run_a_stage_by_its_form(page: Any, prefect: LocalPrefect, num_articles: int) -> None:
    open_form(page, prefect, "ingest")
    page.get_by_label("Num Articles").fill(str(num_articles))
    page.get_by_label("Num Files").fill("2")
    page.get_by_label("Num Workers").fill("1")
    run = submit(page, prefect, "ingest")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert run["parameters"]["config"] == {"sample": {"num_articles": num_articles, "num_files": 2}, "num_workers": 1}
    open_run(page, prefect, run["id"])
    page.get_by_role("tab", name="Artifacts").click()
    for name in ("ingest-counts", "ingest-inputs", "ingest-cost", "ingest-funnel"):
        page.get_by_role("link", name=name).first.wait_for()


@pytest.mark.parametrize("ui", ["/v2", ""], ids=["new UI", "old UI"])
def test_forms_are_short_and_unfold(page: Any, prefect: LocalPrefect, ui: str) -> None:
    """With all of its fields at once, the form of filter was 7,500 pixels tall."""
    open_form(page, prefect, "filter", ui)
    page.get_by_text("Gopher rules").first.wait_for()
    height = "Math.max(...[...document.querySelectorAll('form')].map(form => form.scrollHeight))"
    assert page.evaluate(height) < 3000
    assert page.get_by_label("Min Gopher Words").count() == 0


def test_field_in_a_folded_section_can_be_changed(page: Any, prefect: LocalPrefect) -> None:
    before = prefect.trigger("ingest", {"config": SAMPLE})
    assert before["state"]["type"] == "COMPLETED", before["state"]
    open_form(page, prefect, "filter")
    page.get_by_label("Num Workers").fill("1")
    page.get_by_role("tab", name="changed").first.click()
    page.get_by_label("Min Gopher Words").fill("30")
    run = submit(page, prefect, "filter")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert run["parameters"]["config"] == {"gopher_rules": {"min_gopher_words": 30}, "num_workers": 1}
    store = Store(prefect.environment["CRAWL2CHAT_STORE"])
    manifest = store.find(store.latest("tiny", "filter"))
    assert manifest is not None
    assert manifest.config["min_gopher_words"] == 30


def test_stage_runs_by_its_form(page: Any, prefect: LocalPrefect) -> None:
    run_a_stage_by_its_form(page, prefect, 41)
