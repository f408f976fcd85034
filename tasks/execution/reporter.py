"""Reporters: who receives what a stage reports. The terminal is one, Prefect another; stages know neither."""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any

from tasks.artifacts.manifest import Manifest
from tasks.artifacts.step import Step

Row = dict[str, Any]
logger = logging.getLogger("crawl2chat")


class Reporter:
    """Who follows a run: the terminal, Prefect. Each overrides what it wants to hear."""

    def log(self, stage: str, message: str) -> None: ...
    def progress(self, stage: str, done: float, total: float, unit: str, values: dict[str, float]) -> None: ...
    def table(self, stage: str, name: str, rows: Sequence[Row], description: str) -> None: ...
    def markdown(self, stage: str, name: str, text: str, description: str) -> None: ...
    def finished(self, step: Step[Any], manifest: Manifest, is_skipped: bool) -> None: ...


REPORTERS: ContextVar[tuple[Reporter, ...]] = ContextVar("REPORTERS", default=())


@contextlib.contextmanager
def reporting(listener: Reporter) -> Iterator[None]:
    """Let `listener` hear what the stages of this block tell."""
    token = REPORTERS.set((*REPORTERS.get(), listener))
    try:
        yield
    finally:
        REPORTERS.reset(token)
