"""How the cost of a function grows with its input: a ratio of CPU times, taken again until noise cannot explain it, and its memory."""

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

NUM_TRIES = 6


def grows_linearly(function: Callable[[Any], Any], short: Any, long: Any, length_ratio: float) -> bool:
    """Whether `long`, `length_ratio` times as long as `short`, costs about as many times more.

    The limit is the geometric mean of what linear and quadratic growth cost. A busy machine can at most double the CPU time of one try,
    and one try below the limit is enough; quadratic growth is above it in each.
    """
    limit = length_ratio**1.5
    return any(
        _cpu_seconds(function, long) < limit * max(_cpu_seconds(function, short), 1e-5) for _ in range(NUM_TRIES)
    )


def _cpu_seconds(function: Callable[[Any], Any], value: Any) -> float:
    start = time.thread_time()
    function(value)
    return time.thread_time() - start


def peak_bytes(function: Callable[[Any], Any], value: Any) -> int:
    """The most memory that Python objects of a call take at once."""
    tracemalloc.start()
    try:
        function(value)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
