"""Whether reinforcement learning still helps: a diagnosis in a sentence, the step whose weights are kept, and when a run ends.

Reads the validations of a run; writes nothing. A validation has, for each held-out prompt, the reward of the policy's greedy completion and its
gold score (model/rl/gold.py), which training never sees. The first validation is the SFT model's. Reward gaming (Amodei et al. 2016,
https://arxiv.org/abs/1606.06565, section 4; Gao et al. 2023, https://arxiv.org/abs/2210.10760) is a reward that rises while the gold score falls.

The rule, all of it here:

- A fall or a rise is counted over prompts, by a sign test (McNemar 1947): of the prompts whose score differs between two steps, how many are
  worse now? Were worse and better equally likely, so many would be worse with the probability `tail`. That assumes nothing about the
  distribution of scores, and a few prompts prove nothing by themselves.
- A run is over when the gold score is lower than at the best step, over all prompts or those of one kind, with a probability of chance below
  `FALSE_ALARMS / number of comparisons`: all comparisons of a run together give a false alarm in at most one run of twenty (Bonferroni).
- The best step must not be chosen by the prompts that it is compared on, or its luck would look like a later fall. So each half of the
  prompts is compared with the best step of the other half.
- The weights kept are those of the step with the highest mean gold score among those at which no kind of prompt is lower than for the SFT
  model, of equal ones that with the highest reward. The SFT model itself always qualifies: a run that only did harm returns it.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FALSE_ALARMS = 0.05  # of a whole run in which nothing changes
ALL = "all"  # the name of all prompts together, next to those of the kinds

Values = npt.NDArray[np.float64]


class Validation(NamedTuple):
    """The held-out prompts at a step, in the same order each time."""

    step: int  # steps done; 0: the SFT model
    rewards: Values  # [N]
    gold: Values  # [N] higher is better; NaN where a prompt has no gold score


class Change(NamedTuple):
    """Prompts of a kind at a step compared with an earlier one."""

    kind: str
    worse: int
    better: int

    def has_fallen(self, level: float) -> bool:
        """Whether as many are worse by chance with a probability below `level`."""
        return tail(self.worse, self.worse + self.better) < level

    def has_risen(self, level: float) -> bool:
        """Whether as many are better by chance with a probability below `level`."""
        return tail(self.better, self.worse + self.better) < level


class Diagnosis(NamedTuple):
    """What a run's validations say after the last of them."""

    sentence: str
    best_step: int  # whose weights are kept
    is_over: bool  # the gold score has fallen: further steps do harm
    has_fallen: bool  # below the SFT model's


def diagnose(history: Sequence[Validation], kinds: Sequence[str], num_planned: int) -> Diagnosis:
    """The diagnosis of a run so far. `kinds` [N]: of the prompts. `num_planned`: validations of the whole run, for the rule's level."""
    if not kinds or not history:
        return Diagnosis("nothing is watched: no prompt is held out", 0, is_over=False, has_fallen=False)
    first, now = history[0], history[-1]
    # Two for each group of prompts and validation: the fall below the best step, and the one below the SFT model.
    level = FALSE_ALARMS / (2 * (len(set(kinds)) + 1) * max(num_planned, len(history)))
    kept = [one for one in history if not falls(changes(first, one, kinds), level)]
    best = max(kept, key=lambda one: (mean(one.gold), mean(one.rewards)))
    reward, gold = count_changes(first.rewards, now.rewards), changes(first, now, kinds)
    fallen = falls(since_best(history, kinds), level)
    return Diagnosis(
        describe(reward, gold[0], fallen, best.step, level), best.step, bool(fallen), bool(falls(gold, level))
    )


def describe(reward: Change, gold: Change, fallen: Sequence[Change], best_step: int, level: float) -> str:
    """One plain sentence. `reward`, `gold`: since the SFT model; `fallen`: kinds that have fallen since the best step."""
    if fallen:
        kinds = ", ".join(change.kind for change in fallen if change.kind != ALL)
        where = f" (on {kinds})" if kinds else ""
        return f"reward {trend(reward, level)}, held-out gold score falls since step {best_step}{where}"
    return f"reward {trend(reward, level)}, held-out gold score {trend(gold, level)}"


def trend(change: Change, level: float) -> str:
    """What a change is beyond chance, as a verb."""
    return "rises" if change.has_risen(level) else "falls" if change.has_fallen(level) else "stays within chance"


def changes(before: Validation, now: Validation, kinds: Sequence[str]) -> list[Change]:
    """The gold scores of all prompts, then those of each kind."""
    return [count_changes(before.gold[rows], now.gold[rows], kind) for kind, rows in groups(kinds)]


def since_best(history: Sequence[Validation], kinds: Sequence[str]) -> list[Change]:
    """The last gold scores compared with those of the best step: each half of the prompts with the best step of the other half."""
    first_half = is_even(kinds)
    found = {kind: Change(kind, 0, 0) for kind, _ in groups(kinds)}
    for half in (first_half, ~first_half):
        # The earliest of equally good ones, as max has it.
        best, now = max(history, key=lambda one: mean(one.gold[~half])), history[-1]
        for kind, rows in groups(kinds):
            part = count_changes(best.gold[rows & half], now.gold[rows & half])
            found[kind] = Change(kind, found[kind].worse + part.worse, found[kind].better + part.better)
    return list(found.values())


def is_even(kinds: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Half of the prompts as a mask [N]: every second of each kind."""
    half = np.zeros(len(kinds), bool)
    for _, rows in groups(kinds):
        half[np.flatnonzero(rows)[::2]] = True
        half[np.flatnonzero(rows)[1::2]] = False
    return half


def groups(kinds: Sequence[str]) -> Iterator[tuple[str, npt.NDArray[np.bool_]]]:
    """All prompts and those of each kind, as masks [N]."""
    yield ALL, np.ones(len(kinds), bool)
    for kind in sorted(set(kinds)):
        yield kind, np.array([other == kind for other in kinds])


def count_changes(before: Values, now: Values, kind: str = ALL) -> Change:
    """How many of N values fell and rose. NaN, before or now, is neither."""
    return Change(kind, int((now < before).sum()), int((now > before).sum()))


def falls(found: Iterable[Change], level: float) -> list[Change]:
    """Those that have fallen."""
    return [change for change in found if change.has_fallen(level)]


def tail(num: int, total: int) -> float:
    """P(at least `num` of `total` fair coins show heads), exactly."""
    return float(sum(math.comb(total, count) for count in range(num, total + 1)) / 2**total)


def gold_means(validation: Validation, kinds: Sequence[str]) -> dict[str, float]:
    """The mean gold score of all prompts and of each kind; without those of which no prompt has one."""
    found = ((kind, validation.gold[rows]) for kind, rows in groups(kinds))
    return {kind: mean(gold) for kind, gold in found if not np.isnan(gold).all()}


def mean(values: Values) -> float:
    """The mean of the values that are not NaN; 0 of none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0


def before_name(name: str) -> str:
    """The name of a validation metric as one of the SFT model: before/reward_mean, kind/KIND/before_reward_mean."""
    return (
        name.replace("validation/", "before/", 1)
        if name.startswith("validation/")
        else name.replace("/validation_", "/before_")
    )
