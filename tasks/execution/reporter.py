"""Reporters receive what a stage reports. The terminal is one, Prefect another; a stage depends on neither."""

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
    """A receiver of the reports of a run. Every method ignores its report; a subclass overrides those that it shows."""

    def log(self, stage: str, message: str) -> None:
        """A line of text."""

    def progress(self, stage: str, done: float, total: float, unit: str, values: dict[str, float]) -> None:
        """`done` of `total` in `unit` are finished. `values`: other figures of this moment, such as rates, by name."""

    def table(self, stage: str, name: str, rows: Sequence[Row], description: str) -> None:
        """A table, which replaces the one reported before under this name."""

    def markdown(self, stage: str, name: str, text: str, description: str) -> None:
        """A page of Markdown, which replaces the one reported before under this name."""

    def finished(self, step: Step[Any], manifest: Manifest, is_skipped: bool) -> None:
        """The artifact of a stage is there; `is_skipped`: it was up to date, and nothing was made."""


# A tuple: a context that is copied to a thread must not see what is added later.
REPORTERS: ContextVar[tuple[Reporter, ...]] = ContextVar("REPORTERS", default=())


@contextlib.contextmanager
def reporting(reporter: Reporter) -> Iterator[None]:
    """Send what the stages of this block report to `reporter` as well."""
    # A context variable and not a global: flows that run in one process at the same time have different reporters.
    # Added to those of the caller: a flow reports to Prefect and to the terminal.
    token = REPORTERS.set((*REPORTERS.get(), reporter))
    try:
        yield
    finally:
        REPORTERS.reset(token)
