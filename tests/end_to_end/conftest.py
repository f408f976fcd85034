"""A server of the page with small models, and a person in a browser who visits it."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.page_server import PageServer, served_page
from tests.support.visitors import CHROMIUM, PATIENCE_MS, Visitor, visiting


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with served_page(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
    playwright.expect.set_options(timeout=PATIENCE_MS)
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox needs user namespaces, which root in a container has not. The pages are this project's.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, served: PageServer, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """Parametrized indirectly with options of the browser's context."""
    with visiting(browser, served.url, **getattr(request, "param", {})) as visitor:
        yield visitor
