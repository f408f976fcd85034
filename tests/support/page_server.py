"""A server of the page with three small models, for tests in a browser: `with served_page(folder) as server:`."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from safetensors.torch import load_file, save_file

from model.serve.app import create_app
from model.serve.served import Kind, ServedModel
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.routes import feedback_router
from tests.support.tiny_models import TEXT, write_model, write_tokenizer

KINDS: tuple[Kind, ...] = ("policy", "assistant", "base")


@dataclass
class PageServer:
    """Where it listens, and the folder with `tokenizer.json` and a folder for each model."""

    url: str
    folder: Path


def sharpen(weights: Path, factor: float = 8.0) -> None:
    """Scale the last norm, and so the logits: a random model finds all tokens about equally likely, and rounding would choose."""
    tensors = load_file(weights)
    save_file(tensors | {"model.norm.weight": tensors["model.norm.weight"] * factor}, weights, {"format": "pt"})


@contextmanager
def served_page(folder: Path, *, api_key: str | None = None) -> Iterator[PageServer]:
    """One random model under three names, another vocabulary to compare with, and the routes of people's feedback."""
    tokenizer = write_tokenizer(folder)
    other = write_tokenizer(folder / "other", TEXT + "another vocabulary of other words " * 20, vocab_size=360)
    for name in KINDS:
        write_model(folder / name, tokenizer.vocab_size)
        sharpen(folder / name / "model.safetensors")
    served = [ServedModel(name, folder / name, folder / "tokenizer.json") for name in KINDS]
    app = create_app(
        served,
        api_key=api_key,
        routers=[feedback_router(folder / "feedback.db", Guidelines.read())],
        vocabularies={"other": other},
    )
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive(), "the server has ended before it was started"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield PageServer(f"http://127.0.0.1:{port}", folder)
    finally:
        server.should_exit = True
        thread.join()
