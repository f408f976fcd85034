"""The server's application: OpenAI's API over models, and the web page.

Reads the files of model/serve/page. Writes nothing: no log has a prompt in it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, Response
from starlette.exceptions import HTTPException

from model.errors import UserError
from model.serve import chat_completions, completions, models, tokens
from model.serve.errors import ApiError, invalid
from model.serve.guard import LOOPBACK, Guard, Limits
from model.serve.served import ServedModel
from model.tokenizer.chat import ChatTokenizer

PAGE = Path(__file__).with_name("page")


def create_app(
    served: Sequence[ServedModel],
    *,
    api_key: str | None = None,
    routers: Sequence[APIRouter] = (),
    vocabularies: Mapping[str, ChatTokenizer] | None = None,
    limits: Limits = Limits(),
    hosts: Sequence[str] | None = LOOPBACK,
) -> FastAPI:
    """The application. `routers`: further endpoints, behind the same checks. `hosts`: the names that this server answers to; None: any."""
    app = FastAPI(title="crawl2chat", openapi_url=None, lifespan=_lifespan)  # no /docs: it loads scripts from a CDN
    app.state.models = {one.id: one for one in served}
    app.state.vocabularies = dict(vocabularies or {})
    for router in (completions.router, chat_completions.router, tokens.router, models.router, _page(), *routers):
        app.include_router(router)
    for kind in (ApiError, UserError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, _refuse)
    app.add_middleware(Guard, api_key=api_key, hosts=hosts, limits=limits)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    for one in app.state.models.values():
        one.close()


async def _refuse(_: Request, error: Exception) -> Response:
    if isinstance(error, RequestValidationError):
        error = invalid(error.errors())
    elif isinstance(error, HTTPException):
        error = ApiError(error.status_code, _reason(error), headers=error.headers)
    elif isinstance(error, UserError):
        error = ApiError(400, str(error))
    assert isinstance(error, ApiError)
    return error.response()


def _reason(error: HTTPException) -> str:
    known: dict[int, Any] = {404: "there is no such path", 405: "this path takes another method"}
    return str(known.get(error.status_code, error.detail))


def _page() -> APIRouter:
    """The page at / and its files at /page/."""
    router = APIRouter()
    # Listed at the start: a path of a request is compared with names and never joined to a folder.
    files = {path.relative_to(PAGE).as_posix(): path for path in PAGE.rglob("*") if path.is_file()}

    @router.get("/", response_model=None)
    async def index() -> Response:
        return page_file("index.html")

    @router.get("/page/{name:path}", response_model=None)
    async def page_file_at(name: str) -> Response:
        return page_file(name)

    def page_file(name: str) -> Response:
        if name not in files:
            raise ApiError(404, "there is no such file")
        return FileResponse(files[name], headers={"cache-control": "no-cache"})

    return router
