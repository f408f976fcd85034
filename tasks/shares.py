"""Shares with their uncertainty: how many of how many, and the interval in which the true share lies.

Pure functions. The interval is Wilson's score interval (Wilson 1927; Brown, Cai and DasGupta 2001 recommend it for small numbers): unlike
the normal approximation it stays within 0 and 1 and has a width where all or none are right.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Z_95 = 1.959964  # the normal distribution has 95% within so many standard deviations


def wilson_interval(num_right: int, num: int, z: float = Z_95) -> tuple[float, float]:
    """The interval of a share, of 95% by default; 0 to 1 where nothing was counted."""
    if not num:
        return 0.0, 1.0
    share, shrink = num_right / num, 1 + z**2 / num
    middle = (share + z**2 / (2 * num)) / shrink
    half = z / shrink * math.sqrt(share * (1 - share) / num + z**2 / (4 * num**2))
    return max(0.0, middle - half), min(1.0, middle + half)


def share(is_right: Sequence[bool]) -> dict[str, Any]:
    """The share of true values as JSON: `share`, `num` and the 95% interval `low` to `high`."""
    return share_of(sum(map(bool, is_right)), len(is_right))


def shares(is_right: Mapping[str, Sequence[bool]]) -> dict[str, dict[str, Any]]:
    """The share of true values of each kind."""
    return {kind: share(flags) for kind, flags in is_right.items()}


def share_of(num_right: int, num: int) -> dict[str, Any]:
    """The share of so many of so many, as JSON."""
    low, high = wilson_interval(num_right, num)
    return {"share": num_right / num if num else 0.0, "num": num, "low": low, "high": high}


def shown(value: dict[str, Any] | None) -> str:
    """A share for a table: "61.5% (53.0 to 69.4, n 130)"; a dash for None."""
    if value is None:
        return "–"
    low, high = (f"{100 * value[side]:.1f}" for side in ("low", "high"))
    return f"{100 * value['share']:.1f}% ({low} to {high}, n {value['num']:,})"
