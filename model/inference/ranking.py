"""How well a reward model ranks held-out preference pairs: by kind of prompt and fault, its calibration, and what length has to do with it.

Reads a reward model and pairs, writes nothing. The kind of a pair is "arithmetic/wrong": what the prompt asks for, and the fault of the rejected
completion. Overall accuracy hides what a model cannot rank: silence and rudeness are easy, wrong sums are not (Lambert et al. 2024,
https://arxiv.org/abs/2403.13787, report by category for that reason).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from model.inference.scoring import reply_tokens, rewards
from model.network.transformer import RewardModel
from model.tokenizer.chat import ChatTokenizer

NUM_BINS = 10


class Ranking(NamedTuple):
    """The scores of N pairs."""

    kinds: list[str]  # N
    margins: Tensor  # [N] score of the chosen minus that of the rejected completion
    lengths: Tensor  # [N] tokens of the chosen minus those of the rejected completion


def rank_pairs(
    model: RewardModel, tokenizer: ChatTokenizer, pairs: Sequence[Mapping[str, Any]], batch: int = 64
) -> Ranking:
    """Score both completions of each pair."""
    sides = [
        [reply_tokens(tokenizer, pair["messages"], pair[side]) for pair in pairs] for side in ("chosen", "rejected")
    ]
    chosen, rejected = (rewards(model, sequences, batch) for sequences in sides)
    lengths = torch.tensor([float(len(one[1]) - len(other[1])) for one, other in zip(*sides, strict=True)])
    return Ranking([pair.get("kind") or "" for pair in pairs], chosen - rejected, lengths)


def accuracy_by_kind(ranking: Ranking) -> dict[str, tuple[int, int]]:
    """Pairs ranked correctly and all pairs: of "all", each prompt's kind, each "kind/fault" and, over all kinds, each "*/fault"."""
    # A tie counts as wrong: a model that scores all alike has 0, not 1/2. So does NaN, which compares false.
    groups: dict[str, list[bool]] = defaultdict(list)
    for kind, is_right in zip(ranking.kinds, (ranking.margins > 0).tolist(), strict=True):
        prompt, slash, fault = kind.rpartition("/")
        names = {"all", prompt, kind, f"*/{fault}"} if slash else {"all", kind}
        for name in names - {""}:
            groups[name].append(is_right)
    return {name: (sum(found), len(found)) for name, found in sorted(groups.items())}


def ranking_metrics(ranking: Ranking) -> dict[str, float]:
    """All of it under names of metrics: pair_accuracy/KIND and pairs/KIND, the number of pairs."""
    metrics = {
        "pairs_calibration_error": calibration_error(ranking.margins),
        "pairs_length_correlation": length_correlation(ranking),
    }
    for kind, (num_right, num) in accuracy_by_kind(ranking).items():
        metrics |= {f"pair_accuracy/{kind}": num_right / num, f"pairs/{kind}": float(num)}
    return metrics


def calibration_error(margins: Tensor) -> float:
    """Expected calibration error (Guo et al. 2017, https://arxiv.org/abs/1706.04599) of sigmoid(margin), over bins of equal width.

    The probability is that of the completion with the higher score, 1/2 to 1. It is right if that one was chosen.
    """
    if not len(margins):
        return 0.0
    likely, is_right = margins.abs().sigmoid(), (margins > 0).float()
    bins = ((likely - 0.5) * 2 * NUM_BINS).long().clamp(max=NUM_BINS - 1)
    gaps = torch.zeros(NUM_BINS).index_add_(0, bins, likely - is_right)
    return float(gaps.abs().sum() / len(margins))


def length_correlation(ranking: Ranking) -> float:
    """Pearson's correlation of the margin with the difference in length; 0 where one of them does not vary."""
    both = torch.stack([ranking.margins, ranking.lengths]).double()
    centred = both - both.mean(-1, keepdim=True)
    scale = float(centred.square().sum(-1).prod().sqrt())
    return float((centred[0] * centred[1]).sum()) / scale if scale > 0 else 0.0
