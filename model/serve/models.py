"""/v1/models, /health and /metrics, and the model that a request names. Reads and writes nothing."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse

from model.serve.errors import ApiError
from model.serve.served import ServedModel

router = APIRouter()


def find_model(request: Request, name: str) -> ServedModel:
    """The model of that name, or the first where none is named. Raises ApiError 404."""
    models: dict[str, ServedModel] = request.app.state.models
    if not name:
        return next(iter(models.values()))
    if name not in models:
        raise ApiError(
            404, f"there is no model {name[:80]!r}; there are {', '.join(models)}", "model", "model_not_found"
        )
    return models[name]


@router.get("/v1/models")
async def list_models(request: Request) -> dict[str, Any]:
    """All models."""
    return {"object": "list", "data": [served.describe() for served in request.app.state.models.values()]}


@router.get("/v1/models/{name:path}")
async def show_model(name: str, request: Request) -> dict[str, Any]:
    """One model."""
    return find_model(request, name).describe()


@router.get("/health")
async def health(request: Request) -> dict[str, Any]:
    """Whether the server answers, and what each model is busy with."""
    models: dict[str, ServedModel] = request.app.state.models
    load = {
        name: {"running": len(served.engine.active), "waiting": len(served.engine.waiting)}
        for name, served in models.items()
    }
    return {"status": "ok", "models": load}


@router.get("/metrics")
async def metrics(request: Request) -> PlainTextResponse:
    """Counters and gauges in Prometheus's text format."""
    models: dict[str, ServedModel] = request.app.state.models
    lines: list[str] = []
    for name in ("requests", "prompt_tokens", "cached_tokens", "generated_tokens", "cancelled"):
        lines.append(f"# TYPE crawl2chat_{name}_total counter")
        lines += [
            f'crawl2chat_{name}_total{{model="{served.id}"}} {served.engine.counts[name]}' for served in models.values()
        ]
    for name, field in (("running", "active"), ("waiting", "waiting")):
        lines.append(f"# TYPE crawl2chat_requests_{name} gauge")
        lines += [
            f'crawl2chat_requests_{name}{{model="{served.id}"}} {len(getattr(served.engine, field))}'
            for served in models.values()
        ]
    return PlainTextResponse("\n".join(lines) + "\n", media_type="text/plain; version=0.0.4")
