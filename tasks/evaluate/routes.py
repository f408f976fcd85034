"""The report card of the run whose models are served, for the application of model/serve.

Reads the report; writes nothing.

    GET /report         the artifact of the card, or null where the run was not evaluated
    GET /report/page    the card as one HTML file
"""

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from fastapi import APIRouter
from fastapi.responses import HTMLResponse

from model.serve.errors import ApiError
from tasks.artifacts.manifest import Report
from tasks.evaluate.card_page import render_page
from tasks.page import POLICY


def report_router(find: Callable[[], Report | None]) -> APIRouter:
    """The routes. `find`: the report, asked for each time, since the run may be evaluated while its models are served."""
    router = APIRouter(prefix="/report")

    @router.get("")
    def state() -> dict[str, Any]:
        found = find()
        return {"artifact": found.manifest.id if found else None}

    @router.get("/page")
    def page() -> HTMLResponse:
        found = find()
        if found is None:
            raise ApiError(404, "there is no report card of these models: run the stage evaluate")
        # The card has its style in itself, which the policy of the other pages forbids.
        headers = {"content-security-policy": f"{POLICY}; frame-ancestors 'none'"}
        return HTMLResponse(_rendered(found.folder, found.manifest.id), headers=headers)

    return router


@lru_cache(maxsize=2)
def _rendered(folder: Path, name: str) -> str:
    return render_page(json.loads((folder / "report.json").read_text(encoding="utf-8")), f"Report card: {name}")
