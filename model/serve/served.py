"""A model that is served: its name, its tokenizer, its engine and the tools that the server runs for it.

Reads a folder with model.safetensors and config.json, and a tokenizer.json. Writes nothing.
"""

import random
from collections import OrderedDict
from collections.abc import AsyncGenerator, Iterable, Sequence
from contextlib import aclosing
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch

from model.config import num_parameters
from model.errors import UserError
from model.inference.chat import other_name_reply
from model.inference.names import checked
from model.network.huggingface import default_device, load_transformer, max_tokens_of
from model.serve.beams import BeamSearcher
from model.serve.engine import Engine
from model.serve.errors import ApiError
from model.serve.follow import aside, finish, follow
from model.serve.grammar import Grammar, Vocabulary
from model.serve.jobs import Job, Sampling
from model.serve.text import Written
from model.tokenizer.chat import ChatTokenizer, Messages
from model.tokenizer.pieces import Piece, token_pieces
from model.tools.registry import Tools

Kind = Literal["base", "assistant", "policy", "bundle"]
MAX_TOKENS = 32_768  # of a context, whatever the model was made for: it bounds the cache
MIN_TEXT_BYTES = 2**18
SMALL = 20e6  # parameters: below it several threads wait for each other longer than they compute


class ServedModel:
    """A model behind a name."""

    def __init__(
        self,
        kind: Kind,
        folder: Path,
        tokenizer: Path,
        *,
        lineage: str = "",
        tools: Tools | None = None,
        max_running: int = 32,
        max_waiting: int = 256,
        num_threads: int = 0,
    ) -> None:
        """Raises UserError if the tokenizer is not the model's."""
        self.id: str = kind
        self.kind, self.lineage, self.tools = kind, lineage or folder.name, tools
        self.tokenizer = ChatTokenizer.load(tokenizer)
        model = load_transformer(folder).to(default_device())
        if model.config.vocab_size != self.tokenizer.vocab_size:
            raise UserError(
                f"the model in {folder} has a vocabulary of {model.config.vocab_size} tokens, {tokenizer} one of "
                f"{self.tokenizer.vocab_size}: give the tokenizer that the model was trained with"
            )
        self.max_tokens = min(max_tokens_of(folder), MAX_TOKENS)
        self.other_name_reply = other_name_reply(folder)
        self.vocab_size = model.config.vocab_size
        self.num_parameters = num_parameters(model.config)
        self.grammars: OrderedDict[str, Grammar] = OrderedDict()  # of the latest requests
        is_small = self.num_parameters < SMALL
        self.engine = Engine(
            model,
            max_tokens=self.max_tokens,
            max_running=max_running,
            max_waiting=max_waiting,
            num_threads=num_threads or (1 if is_small else torch.get_num_threads()),
        )

    @property
    def is_chat(self) -> bool:
        """Whether the model has learned to answer: a base model only continues texts."""
        return self.kind != "base"

    @cached_property
    def pieces(self) -> list[Piece]:
        """What each token stands for [V]."""
        return token_pieces(self.tokenizer)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        """The tokens as a tree, for grammars."""
        return Vocabulary(self.pieces)

    @cached_property
    def beams(self) -> BeamSearcher:
        """Beam search with this model."""
        return BeamSearcher(self.engine)

    def close(self) -> None:
        """End the threads."""
        self.engine.close()
        if "beams" in vars(self):
            self.beams.close()

    def describe(self) -> dict[str, Any]:
        """The model's entry in /v1/models."""
        return {
            "id": self.id,
            "object": "model",
            "created": 0,
            "owned_by": "crawl2chat",
            "kind": self.kind,
            "is_chat": self.is_chat,
            "max_tokens": self.max_tokens,
            "vocab_size": self.vocab_size,
            "parameters": self.num_parameters,
            "lineage": self.lineage,
            "tools": sorted(self.tools.tools) if self.tools else [],
        }

    @cached_property
    def max_text_bytes(self) -> int:
        """Bytes of a text that is tokenized: more than any that could fit, a conversation apart whose beginning is left out."""
        # A normal form may shorten a text; by less than that.
        return max(MIN_TEXT_BYTES, 4 * self.max_tokens * max(len(piece.content) for piece in self.pieces))

    def check_texts(self, texts: Iterable[str], param: str) -> None:
        """Raises ApiError where texts are too long to be tokenized: 4 MB take seconds and a gigabyte."""
        num_bytes = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if num_bytes > self.max_text_bytes:
            raise ApiError(
                400,
                f"the text has {num_bytes} bytes, and {self.id} takes {self.max_text_bytes} in a request: shorten it",
                param,
                "context_length_exceeded",
            )

    def check_prompt(self, prompt: Sequence[int], max_tokens: int) -> int:
        """The number of tokens that may follow a prompt, at most max_tokens. Raises ApiError where the prompt is unfit."""
        if not prompt:
            raise ApiError(400, "the prompt is empty: give at least one token", "prompt")
        if bad := next((token for token in prompt if token >= self.vocab_size), None):
            raise ApiError(400, f"token {bad} is not in the vocabulary of {self.vocab_size} tokens", "prompt")
        room = self.max_tokens - len(prompt)
        if room < min(1, max_tokens):
            raise ApiError(
                400,
                f"the prompt has {len(prompt)} tokens, and {self.id} reads {self.max_tokens}, those of the completion among them: "
                "shorten it",
                "prompt",
                "context_length_exceeded",
            )
        return min(max_tokens, room)

    async def reply(self, messages: Messages, **settings: Any) -> str:
        """The assistant's next turn, as text. Settings: temperature, top_p, seed, max_tokens. Raises ApiError."""
        text = await self._text(await self._prompt(messages), self.tokenizer.turn_end, **settings)
        return checked(text, messages, self.other_name_reply)

    async def continue_text(self, text: str, **settings: Any) -> str:
        """The continuation of a document. Settings and errors as of `reply`."""
        tokens = await aside([text], self.tokenizer.encode_document, text)
        return await self._text(tokens, self.tokenizer.bos, **settings)

    async def stream_reply(self, messages: Messages, **settings: Any) -> AsyncGenerator[str]:
        """The same as `reply` in pieces; in one where the names in it are checked."""
        if self.other_name_reply:
            yield await self.reply(messages, **settings)
            return
        job = self._job(await self._prompt(messages), self.tokenizer.turn_end, **settings)
        written = Written(self.tokenizer, job)
        async with aclosing(follow(self.engine, [job], is_streamed=True)) as steps:
            async for _ in steps:
                if taken := written.take():
                    yield taken[0]

    async def _prompt(self, messages: Messages) -> list[int]:
        return await aside([message["content"] for message in messages], self.tokenizer.render_prompt, messages)

    async def _text(self, prompt: list[int], stop_token: int, **settings: Any) -> str:
        job = self._job(prompt, stop_token, **settings)
        await finish(self.engine, [job])
        return self.tokenizer.decode(job.ids)

    def _job(
        self,
        prompt: list[int],
        stop_token: int,
        *,
        temperature: float = 0.7,
        top_p: float = 1.0,
        seed: int | None = None,
        max_tokens: int = 256,
    ) -> Job:
        sampling = Sampling(
            max_tokens=self.check_prompt(prompt, max_tokens),
            temperature=temperature,
            top_p=top_p,
            stop_tokens=frozenset({stop_token}),
        )
        return Job(prompt, sampling, draws_of(seed, 0))


def draws_of(seed: int | None, index: int) -> random.Random:
    """The random numbers of a request's completion number `index`."""
    return random.Random(None if seed is None else f"{seed}/{index}")
