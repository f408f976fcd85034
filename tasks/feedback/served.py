"""The served models as Rank and Arena use them, and replies by several of them. Reads and writes nothing.

The protocols are structural: model/serve has these classes, with torch, and this layer imports none of them.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Coroutine, Iterable, Mapping, Sequence
from typing import Any, Protocol

from fastapi import Request

from model.errors import UserError
from tasks.feedback.labels import Completion, Draft, Messages

MAX_ROUNDS = 3  # of sampling until all completions differ; a model at temperature 0 has one only


class ServedModel(Protocol):
    """A model of the server."""

    @property
    def id(self) -> str:
        """The name under which it is served."""

    @property
    def is_chat(self) -> bool:
        """Whether it was trained on conversations."""

    @property
    def lineage(self) -> str:
        """The artifact that it is."""

    async def reply(self, messages: Messages, *, seed: int | None = None, **sampling: Any) -> str:
        """The assistant's turn."""

    def stream_reply(self, messages: Messages, *, seed: int | None = None, **sampling: Any) -> AsyncGenerator[str]:
        """The assistant's turn, in pieces."""


class Drafter(Protocol):
    """A reward model that drafts rankings."""

    name: str

    def score(self, messages: Messages, completions: Sequence[str]) -> list[float]:
        """A score of each completion, the higher the better."""


def served_models(request: Request) -> Mapping[str, ServedModel]:
    """The models of the server by name."""
    models: Mapping[str, ServedModel] = request.app.state.models
    return models


def chosen_models(request: Request, names: Sequence[str]) -> list[ServedModel]:
    """The models of these names, or all that chat. Raises UserError where a name is unknown."""
    models = served_models(request)
    for name in names:
        if name not in models:
            raise UserError(f"there is no model {name[:80]!r}: take one of {', '.join(models)}")
    return [models[name] for name in names] or chat_models(request)


def chat_models(request: Request) -> list[ServedModel]:
    """The models that chat, one for each artifact; all models where none chats."""
    models = served_models(request).values()
    chatting = [model for model in models if model.is_chat] or list(models)
    return list({model.lineage: model for model in reversed(chatting)}.values())[::-1]


async def sample_completions(
    models: Sequence[ServedModel], messages: Messages, count: int, sampling: dict[str, Any]
) -> list[Completion]:
    """`count` replies by the models in turn, in random order. Fewer where they repeat themselves; two completions always differ."""
    found: dict[str, Completion] = {}
    for _ in range(MAX_ROUNDS):
        missing = count - len(found)
        writers = [models[number % len(models)] for number in range(len(found), count)]
        seeds = [random.getrandbits(31) for _ in range(missing)]
        texts = await _all([m.reply(messages, seed=seed, **sampling) for m, seed in zip(writers, seeds, strict=True)])
        for model, seed, text in zip(writers, seeds, texts, strict=True):
            found.setdefault(text.strip(), Completion(text, model.lineage, {**sampling, "seed": seed}))
        if len(found) == count:
            break
    if len(found) < 2:
        raise UserError("the models give one and the same completion: raise the temperature, or take more models")
    return random.sample(list(found.values()), len(found))


async def _all(replies: Iterable[Coroutine[Any, Any, str]]) -> list[str]:
    """The results of all; after the first error the others are cancelled, so that no model works for a request that has failed."""
    tasks = list(map(asyncio.ensure_future, replies))
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def draft_of(drafter: Drafter, messages: Messages, completions: Sequence[Completion]) -> Draft:
    """The completions ranked by a reward model."""
    scores = drafter.score(messages, [completion.text for completion in completions])
    # Equal scores are a tie.
    return Draft(drafter.name, [1 + sum(other > score for other in scores) for score in scores])
