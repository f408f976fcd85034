"""A small model as the server has it, and a server in a thread."""

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import uvicorn
from fastapi import FastAPI
from safetensors.torch import load_file, save_file

from model.network.huggingface import load_transformer
from model.network.transformer import Transformer
from model.serve.connections import BoundedProtocol
from model.serve.engine import Engine
from model.serve.jobs import Job, Sampling
from model.serve.served import Kind, ServedModel, draws_of
from tests.support.tiny_models import write_model, write_tokenizer


def sharpen(weights: Path, factor: float = 8.0) -> None:
    """Scale the last norm, and so the logits: a random model finds all tokens about equally likely, and rounding would choose."""
    tensors = load_file(weights)
    save_file(tensors | {"model.norm.weight": tensors["model.norm.weight"] * factor}, weights, {"format": "pt"})


def write_sharp_model(folder: Path) -> Transformer:
    """tokenizer.json and a model whose choices rounding does not change."""
    tokenizer = write_tokenizer(folder)
    write_model(folder, tokenizer.vocab_size)
    sharpen(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 512}))
    return load_transformer(folder)


def serve_small(folder: Path, kind: Kind = "policy", **settings: Any) -> ServedModel:
    """A served model of random weights."""
    write_sharp_model(folder)
    return ServedModel(kind, folder, folder / "tokenizer.json", **settings)


def make_job(prompt: list[int], seed: int = 0, **settings: Any) -> Job:
    """A job with default settings and `settings` of Sampling or Job."""
    fields = {name: settings.pop(name) for name in list(settings) if name in Sampling.__dataclass_fields__}
    return Job(prompt, Sampling(**fields), draws_of(seed, 0), **settings)


def finished(engine: Engine, *jobs: Job, seconds: float = 60.0) -> list[list[int]]:
    """Submit jobs, wait for their end, and return their tokens. Raises the error of a job that failed."""
    engine.submit(jobs)
    deadline = time.monotonic() + seconds
    while not all(job.is_done for job in jobs):
        assert time.monotonic() < deadline, "jobs have not ended"
        time.sleep(0.001)
    for job in jobs:
        if job.error:
            raise job.error
    return [job.ids for job in jobs]


def plain_logprobs(model: Transformer, tokens: list[int]) -> torch.Tensor:
    """Log-probabilities [T, V] of what follows each token, by a plain forward pass."""
    with torch.inference_mode():
        logprobs: torch.Tensor = model(torch.tensor([tokens]))[0].float().log_softmax(-1)
        return logprobs


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The application behind a real server, at the URL that is yielded."""
    config = uvicorn.Config(app, port=0, http=BoundedProtocol, ws="none", log_level="warning", access_log=False)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server has ended before it was started"
            time.sleep(0.01)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
