"""Whether reinforcement learning still helps: a diagnosis in a sentence, the step whose weights are kept, and when a run ends.

Reads the validations of a run; writes nothing. A validation has, for each held-out prompt, the reward of the policy's greedy completion and
the verdict of a judge that training never sees (model/rl/judge.py). The first validation is the SFT model's. Reward gaming (Amodei et al. 2016,
https://arxiv.org/abs/1606.06565, section 4; Gao et al. 2023, https://arxiv.org/abs/2210.10760) is a reward that rises while the judge falls.

The rule, all of it here:

- A fall or a rise is counted over prompts, by a sign test (McNemar 1947): of the prompts whose verdict differs between two steps, how many are
  worse now? Were worse and better equally likely, so many would be worse with the probability `tail`. It needs no assumption about the
  distribution of verdicts, and none about how many prompts are enough.
- A run is over when the judge is lower than at the best step, over all prompts or those of one kind, with a probability of chance below
  `FALSE_ALARMS / number of comparisons`: all comparisons of a run together give a false alarm in at most one run of twenty (Bonferroni).
- The best step must not be chosen by the prompts that it is compared on, or its luck would look like a later fall. So each half of the
  prompts is compared with the best step of the other half.
- The weights kept are those of the step with the highest mean verdict among those at which no kind of prompt is lower than at the SFT
  model's step. That step itself always qualifies, so a run that only did harm returns the SFT model.
"""

import math
from collections.abc import Iterable, Sequence
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
    verdicts: Values  # [N] higher is better; NaN where the judge has none


class Change(NamedTuple):
    """Prompts of a kind at a step compared with an earlier one."""

    kind: str
    worse: int
    better: int

    @property
    def chance_of_fall(self) -> float:
        """The probability that as many are worse by chance."""
        return tail(self.worse, self.worse + self.better)

    @property
    def chance_of_rise(self) -> float:
        """The probability that as many are better by chance."""
        return tail(self.better, self.worse + self.better)


class Diagnosis(NamedTuple):
    """What a run's validations say after the last of them."""

    sentence: str
    best_step: int  # whose weights are kept
    is_over: bool  # the judge has fallen: further steps do harm


def diagnose(history: Sequence[Validation], kinds: Sequence[str], num_planned: int) -> Diagnosis:
    """The diagnosis of a run so far. `kinds` [N]: of the prompts. `num_planned`: validations of the whole run, for the rule's bound."""
    if not history:
        return Diagnosis("nothing is watched: no prompt is held out", 0, is_over=False)
    first, now = history[0], history[-1]
    # Two for each group and validation: the fall below the best step, and the one below the SFT model.
    level = FALSE_ALARMS / (2 * (len(set(kinds)) + 1) * max(num_planned, len(history), 2))
    kept = [one for one in history if not falls(changes(first, one, kinds), level)]
    best = max(kept, key=mean_verdict)
    fallen = falls(since_best(history, kinds), level)
    reward = count_changes(first.rewards, now.rewards)
    sentence = describe(reward, changes(first, now, kinds)[0], fallen, best.step, level)
    return Diagnosis(sentence, best.step, is_over=bool(fallen))


def describe(reward: Change, judge: Change, fallen: Sequence[Change], best_step: int, level: float) -> str:
    """One plain sentence. `reward`, `judge`: since the SFT model; `fallen`: kinds that have fallen since the best step."""
    rewarded = (
        "reward rises"
        if reward.chance_of_rise < level
        else "reward falls"
        if reward.chance_of_fall < level
        else "reward does not change beyond chance"
    )
    if fallen:
        kinds = ", ".join(change.kind for change in fallen if change.kind != ALL)
        return f"{rewarded}, held-out judge falls since step {best_step}" + (f" (on {kinds})" if kinds else "")
    if not judge.worse + judge.better and reward.worse + reward.better:
        return f"{rewarded}, held-out judge does not change"
    judged = "rises" if judge.chance_of_rise < level else "does not change beyond chance"
    return f"{rewarded}, held-out judge {judged}"


def changes(before: Validation, now: Validation, kinds: Sequence[str]) -> list[Change]:
    """The verdicts of all prompts, then those of each kind."""
    return [count_changes(before.verdicts[rows], now.verdicts[rows], kind) for kind, rows in groups(kinds)]


def since_best(history: Sequence[Validation], kinds: Sequence[str]) -> list[Change]:
    """The last verdicts compared with those of the best step: each half of the prompts with the best step of the other half."""
    halves = np.arange(len(kinds)) % 2 == 0
    sums: dict[str, Change] = {}
    for half in (halves, ~halves):
        # The earliest of equally good ones, as max has it.
        best = max(history, key=lambda one: mean(one.verdicts[~half]))
        for kind, rows in groups(kinds):
            part = count_changes(best.verdicts[rows & half], history[-1].verdicts[rows & half], kind)
            known = sums.get(kind, Change(kind, 0, 0))
            sums[kind] = Change(kind, known.worse + part.worse, known.better + part.better)
    return list(sums.values())


def groups(kinds: Sequence[str]) -> Iterable[tuple[str, npt.NDArray[np.bool_]]]:
    """All prompts and those of each kind, as masks [N]."""
    yield ALL, np.ones(len(kinds), bool)
    for kind in sorted(set(kinds)):
        yield kind, np.array([other == kind for other in kinds])


def count_changes(before: Values, now: Values, kind: str = ALL) -> Change:
    """How many of N values fell and rose. NaN, before or now, is neither."""
    return Change(kind, int((now < before).sum()), int((now > before).sum()))


def falls(found: Iterable[Change], level: float) -> list[Change]:
    """Those whose fall is less likely by chance than `level`."""
    return [change for change in found if change.chance_of_fall < level]


def tail(num: int, total: int) -> float:
    """P(at least `num` of `total` fair coins show heads), exactly."""
    return sum(math.comb(total, count) for count in range(num, total + 1)) / 2**total


def mean_verdicts(validation: Validation, kinds: Sequence[str]) -> dict[str, float]:
    """The mean verdict of all prompts and of each kind; without those of which no prompt has a verdict."""
    found = ((kind, validation.verdicts[rows]) for kind, rows in groups(kinds))
    return {kind: mean(verdicts) for kind, verdicts in found if not np.isnan(verdicts).all()}


def mean_verdict(validation: Validation) -> float:
    """The mean verdict of all prompts that have one."""
    return mean(validation.verdicts)


def mean(values: Values) -> float:
    """The mean of the values that are not NaN; 0 of none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else 0.0
