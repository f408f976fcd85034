"""Deduplication without worker processes: for tests of what is found, not of how the work is spread."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tasks.execution.context import StageContext
from tasks.execution.shards import Counts


def work_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the passes of deduplication run in this process, one shard after the other."""
    for module in ("dedup.stage", "dedup.candidates"):
        monkeypatch.setattr(f"tasks.{module}.map_shards", _map_here)
        monkeypatch.setattr(f"tasks.{module}.tick", lambda num=1: None)


def _map_here(
    _: StageContext, work: Callable[[Any], Counts], shards: Sequence[tuple[str, Any]], **__: object
) -> Counts:
    counts: Counter[str] = Counter()
    for _, shard in shards:
        counts.update(work(shard))
    return dict(counts)
