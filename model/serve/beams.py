"""Beam search next to the engine: in a separate thread with a separate cache, one search at a time.

Reads a model's weights, which it shares with the engine; writes nothing.
"""

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import torch
from torch import Tensor

from model.config import BeamConfig
from model.inference.beam_search import Beam, beam_search
from model.inference.decoder import Decoder
from model.serve.engine import Engine
from model.serve.errors import queue_full

MAX_SEARCHES = 8  # at once, all but one of them waiting


class SearchCancelled(Exception):
    """Nobody waits for the search any more."""


class BeamSearcher:
    """Searches with an engine's model."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.num_searches = 0
        self._executor = ThreadPoolExecutor(1, "beams", torch.set_num_threads, (max(1, engine.num_threads),))

    async def search(self, prompt: list[int], config: BeamConfig, stop_token: int) -> list[Beam]:
        """The best completions of a prompt, best first. Raises ApiError 429 where too many searches wait."""
        if self.num_searches >= MAX_SEARCHES:
            raise queue_full(self.num_searches)
        self.num_searches += 1
        is_cancelled = threading.Event()
        decoder = _fork(cast(Decoder, self.engine.slots), is_cancelled)
        try:
            loop = asyncio.get_running_loop()
            found = await loop.run_in_executor(self._executor, beam_search, decoder, [prompt], config, stop_token)
            return found[0]
        finally:
            # Set too where the caller was cancelled: the thread ends at its next step.
            is_cancelled.set()
            self.num_searches -= 1

    def close(self) -> None:
        """End the thread when its search is done."""
        self._executor.shutdown(cancel_futures=True)


def _fork(decoder: Decoder, is_cancelled: threading.Event) -> Decoder:
    """A decoder with the same weights and an empty cache, which stops when nobody waits for it."""
    fork = copy.copy(decoder)
    fork.keys, fork.values = ([decoder.embedding.new_zeros(0) for _ in decoder.keys] for _ in range(2))
    step = fork.step

    def checked_step(tokens: Tensor) -> Tensor:
        if is_cancelled.is_set():
            raise SearchCancelled
        return step(tokens)

    fork.step = checked_step  # type: ignore[method-assign]
    return fork
