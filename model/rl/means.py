"""The metrics of reinforcement learning: means over all rollouts of a step, and over those of each kind of prompt.

Reads rollouts and log-probabilities, writes nothing. Means are kept as sums and counts, so that they are exact over microbatches and ranks. A reward
may rise on average while one kind of prompt collapses, so those of completions are also kept as `kind/KIND/...`, and those of the critic and of clipping are not.
"""

from collections import defaultdict
from collections.abc import Sequence

import torch
from torch import Tensor

from model import losses
from model.rl.rollouts import Rollouts
from model.training.engine import Engine
from model.training.metrics import Metrics


class Means:
    """Means by metric, of values that are added microbatch by microbatch."""

    def __init__(self, kinds: Sequence[str] = ()) -> None:
        """`kinds`: those of all prompts of the run, the same list on all ranks."""
        self.kinds = tuple(kinds)
        self.sums: dict[str, float] = defaultdict(float)
        self.counts: dict[str, float] = defaultdict(float)

    def add(self, name: str, values: Tensor, mask: Tensor | None = None, rows: Tensor | None = None) -> None:
        """Add the values [N, ...], those where mask [N, ...] is 1. `rows` [N]: the number of each row's kind; None: not by kind."""
        mask = torch.ones_like(values) if mask is None else mask
        self._add(name, values, mask)
        for number, kind in enumerate(self.kinds if rows is not None else ()):
            # A kind without a row in this part is added too, as 0 of 0: all ranks must have the same metrics.
            chosen = rows == number
            self._add(f"kind/{kind}/{name.replace('/', '_')}", values[chosen], mask[chosen])

    def _add(self, name: str, values: Tensor, mask: Tensor) -> None:
        value_sum, count = losses.masked_sum(values, mask)
        self.sums[name] += float(value_sum)
        self.counts[name] += float(count)

    def add_rollouts(self, rollouts: Rollouts, group_size: int = 1) -> None:
        """Add the rewards and lengths of completions, and of groups of them whether they are dead: all of a group have the same reward."""
        rewards, rows = rollouts.rewards, self.rows(rollouts)
        is_known = ~rewards.is_right.isnan()
        self.add("reward/mean", rewards.total, None, rows)
        self.add("reward/model", rewards.scores, None, rows)
        self.add("reward/verifiable", rewards.is_right, is_known, rows)
        self.add(
            "completion/tokens_mean", torch.tensor([float(len(done)) for done in rollouts.completions]), None, rows
        )
        self.add("completion/finished_fraction", rewards.is_finished, None, rows)
        self.add("completion/distinct_fraction", is_first(rollouts.completions), None, rows)
        if group_size > 1:
            grouped = rewards.total.view(-1, group_size)
            is_dead = losses.dead_groups(grouped).float()
            self.add("group/dead_fraction", is_dead, None, rows[::group_size])
            # Of prompts: some completion of the group is right.
            solved = rewards.is_right.view(-1, group_size).amax(-1)
            self.add("group/solved_fraction", solved, ~solved.isnan(), rows[::group_size])

    def rows(self, rollouts: Rollouts) -> Tensor:
        """The number of the kind of each rollout [N]."""
        numbers = {kind: number for number, kind in enumerate(self.kinds)}
        return torch.tensor([numbers.get(prompt.kind, -1) for prompt in rollouts.prompts])

    def over_ranks(self, engine: Engine) -> Metrics:
        """The means over all ranks, which must have added to the same metrics; all ranks call it."""
        # Sorted: all ranks must sum the same metric at the same time, and the order of a dict is that of its first additions.
        names = sorted(self.counts)
        totals = engine.totals([*map(self.sums.__getitem__, names), *map(self.counts.__getitem__, names)])
        pairs = zip(names, totals[: len(names)], totals[len(names) :], strict=True)
        return {name: value / count for name, value, count in pairs if count}


def is_first(completions: Sequence[Sequence[int]]) -> Tensor:
    """1 for each completion [N] that equals none before it: their mean falls where a policy says the same to everything."""
    seen: set[tuple[int, ...]] = set()
    flags = []
    for done in map(tuple, completions):
        flags.append(float(done not in seen))
        seen.add(done)
    return torch.tensor(flags)
