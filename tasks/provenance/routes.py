"""The route /why-said of the application of model/serve: which training data a reply comes from.

Reads the store through an Explainer; writes nothing, and no reply is logged.

    POST /why-said    {"model", "reply", "num": 5, "num_places": 2}    as `crawl2chat why-said --json`

Where there is no index, the answer is 404 with the code `no_index`, and its message says how to make one.
"""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from fastapi import APIRouter, Request
from pydantic import Field

from model.serve.errors import ApiError, queue_full
from model.serve.models import find_model
from model.serve.requests import Body
from tasks.provenance.served import Explainer, NoIndexError

MAX_WAITING = 16  # a long reply takes seconds


class WhySaid(Body):
    """A reply, and how much is shown: spans, and places of each for each kind of data."""

    model: str = Field("", max_length=256)
    reply: str = Field(min_length=1)
    num: int = Field(5, ge=1, le=100)
    num_places: int = Field(2, ge=1, le=40)


def why_said_router(explainer: Explainer) -> APIRouter:
    """The route."""
    router = APIRouter()
    # One thread: SQLite's connections belong to one, and more would take the processor from the models.
    thread = ThreadPoolExecutor(1, thread_name_prefix="why-said")
    num_waiting = 0

    @router.post("/why-said")
    async def why_said(body: WhySaid, request: Request) -> dict[str, Any]:
        nonlocal num_waiting
        served = find_model(request, body.model)
        if num_waiting >= MAX_WAITING:
            raise queue_full(num_waiting)
        num_waiting += 1
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(
                thread, explainer.explain, served.lineage, body.reply, body.num, body.num_places
            )
        except NoIndexError as error:
            raise ApiError(404, str(error), code="no_index") from None
        finally:
            num_waiting -= 1
        return {"model": served.lineage, **found}

    return router
