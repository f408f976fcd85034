"""A server of the page with three small models, for tests in a browser: `with served_page(folder) as server:`."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from fastapi import APIRouter
from torch.nn.functional import cross_entropy

from model.network.huggingface import load_transformer, save_weights
from model.serve.app import create_app
from model.serve.served import Kind, ServedModel
from model.tokenizer.chat import Messages
from model.tools.registry import Tools
from tasks.artifacts.manifest import Report
from tasks.evaluate.routes import report_router
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.routes import feedback_router
from tests.support.served_models import running, sharpen
from tests.support.tiny_models import TEXT, write_model, write_tokenizer

KINDS: tuple[Kind, ...] = ("policy", "assistant", "base")

EXAMPLE: list[dict[str, Any]] = [
    {"role": "system", "content": "Tools: calculator."},
    {"role": "user", "content": "What is 12 times 7?"},
    {"role": "assistant", "content": "Let me see.", "tool_calls": [{"name": "calculator", "arguments": "12*7"}]},
    {"role": "tool", "content": "84"},
    {"role": "assistant", "content": "It is 84."},
]


@dataclass
class PageServer:
    """Where it listens, and the folder with `tokenizer.json` and a folder for each model."""

    url: str
    folder: Path


def teach(folder: Path, tokens: Sequence[int], num_steps: int = 60, step_size: float = 0.01) -> None:
    """Train a model until it repeats the tokens: sign descent with a falling step size, which needs no optimizer's state."""
    model, ids = load_transformer(folder), torch.tensor([tokens])
    parameters = dict(model.named_parameters())
    for step in range(num_steps):
        loss = cross_entropy(model(ids[:, :-1])[0].float(), ids[0, 1:])
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        with torch.no_grad():
            for parameter, gradient in zip(parameters.values(), gradients, strict=True):
                parameter.sub_(gradient.sign(), alpha=step_size * (1 - step / num_steps))
    assert loss.item() < 0.1
    save_weights(folder, model, {name: parameter.detach() for name, parameter in parameters.items()}, max_tokens=128)


@contextmanager
def served_page(
    folder: Path,
    *,
    api_key: str | None = None,
    taught: Messages = (),
    tools: Tools | None = None,
    lineages: Mapping[str, str] = {},
    routers: Sequence[APIRouter] = (),
    report: Report | None = None,
) -> Iterator[PageServer]:
    """One random model under three names, another vocabulary to compare with, and the routes of people's feedback.

    `taught`: a conversation that the policy has learned by heart; `tools`: what the server runs for it; `lineages`: artifacts of the
    models; `routers`: further routes.
    """
    tokenizer = write_tokenizer(folder)
    other = write_tokenizer(folder / "other", TEXT + "another vocabulary of other words " * 20, vocab_size=360)
    for name in KINDS:
        write_model(folder / name, tokenizer.vocab_size)
        sharpen(folder / name / "model.safetensors")
    if taught:
        teach(folder / "policy", tokenizer.render(taught).tokens)
    served = [
        ServedModel(name, folder / name, folder / "tokenizer.json", tools=tools, lineage=lineages.get(name, ""))
        for name in KINDS
    ]
    app = create_app(
        served,
        api_key=api_key,
        routers=[
            feedback_router(folder / "feedback.db", Guidelines.read()),
            report_router(lambda: report),
            *routers,
        ],
        vocabularies={"other": other},
    )
    with running(app) as url:
        yield PageServer(url, folder)
