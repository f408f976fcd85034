"""What a completion is rewarded for. Reads a reward model; writes nothing.

The reward of a completion is the sum of

- the model reward: model_weight times the reward model's score, in standard deviations from the mean score of the SFT model's completions
  (Ziegler et al. 2019, https://arxiv.org/abs/1909.08593, normalise to mean 0 and variance 1 too) and clipped to plus and minus score_clip:
  far outside of what the reward model was trained on, its scores mean little, and a policy would exploit them;
- the verifiable reward: verifiable_weight if the completion gives the prompt's answer (model/inference/answers.py), where it has one;
- the length penalty: minus unfinished_penalty if the completion was cut off at max_new_tokens.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.inference.answers import holds
from model.inference.logits import NonFiniteError
from model.inference.scoring import rewards
from model.network.transformer import RewardModel
from model.rl.config import RLConfig
from model.rl.prompts import Prompt
from model.tokenizer.chat import ChatTokenizer

# The scores are divided by at least this. A new reward head is 0 and scores everything alike, see `initialize`.
MIN_SCORE_DEVIATION = 1e-3


class Rewards(NamedTuple):
    """Of N completions."""

    scores: Tensor  # [N] of the reward model, in standard deviations, before clipping
    is_right: Tensor  # [N] 1 or 0; NaN where the prompt has no answer
    is_finished: Tensor  # [N] 1 where the completion ends with the end-of-turn token
    total: Tensor  # [N] the reward


class RewardFunction(NamedTuple):
    """Rewards completions. `mean` and `deviation` are those of the SFT model's scores, see `calibrated`."""

    config: RLConfig
    tokenizer: ChatTokenizer
    reward_model: RewardModel
    mean: float = 0.0
    deviation: float = 1.0

    def __call__(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> Rewards:
        """The rewards of a completion of each prompt. Raises NonFiniteError if the reward model gives NaN or infinity."""
        config, end = self.config, self.tokenizer.turn_end
        # The token, not its text: a completion that spells the end of turn in ordinary tokens has not ended.
        is_finished = torch.tensor([completion[-1:] == [end] for completion in map(list, completions)]).float()
        # Without a weight the scores would cost a tenth of a step and change nothing.
        scores = self.model_scores(prompts, completions) if config.model_weight else torch.zeros(len(prompts))
        is_right = self.verify(prompts, completions)
        total = (
            config.model_weight * scores.clamp(-config.score_clip, config.score_clip)
            # NaN, a prompt without an answer, adds 0. It is the same for the whole group, so the advantage does not see it.
            + config.verifiable_weight * is_right.nan_to_num()
            - config.unfinished_penalty * (1 - is_finished)
        )
        return Rewards(scores, is_right, is_finished, total)

    def model_scores(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> Tensor:
        """The reward model's scores [N] in standard deviations.

        A completion that was cut off is scored with an end-of-turn token, since the reward model was trained on whole turns.
        """
        end = self.tokenizer.turn_end
        rows = [
            (prompt.tokens, [*completion, *([] if list(completion[-1:]) == [end] else [end])])
            for prompt, completion in zip(prompts, completions, strict=True)
        ]
        scores = rewards(self.reward_model, rows)
        if not scores.isfinite().all():
            raise NonFiniteError(
                "the reward model's scores are NaN or infinite: its weights are corrupted, train it again"
            )
        return (scores - self.mean) / self.deviation

    def verify(self, prompts: Sequence[Prompt], completions: Sequence[Sequence[int]]) -> Tensor:
        """Whether each completion gives its prompt's answer: [N] 1 or 0, NaN where the prompt has none."""
        return torch.tensor(
            [
                float("nan")
                if prompt.answer is None
                else float(holds(self.tokenizer.decode(completion), [prompt.answer]))
                for prompt, completion in zip(prompts, completions, strict=True)
            ]
        )

    def calibrated(self, scores: Tensor) -> "RewardFunction":
        """The same with scores counted from the mean of these [N], in their standard deviations."""
        # Undo an earlier calibration first.
        raw = scores * self.deviation + self.mean
        # The floor: a reward model that prefers nothing would otherwise have its rounding errors scaled up.
        # correction=0: with one prompt the deviation is 0 and the floor applies, where the unbiased one would be NaN.
        deviation = max(raw.std(correction=0).item(), MIN_SCORE_DEVIATION)
        return self._replace(mean=raw.mean().item(), deviation=deviation)
