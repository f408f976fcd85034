"""Gold scores: whether greedy completions of held-out prompts are right, by a measure that no reward of training depends on.

Reads a second reward model where one is given; writes nothing. A prompt whose answer is known is scored by it, more strictly than the verifiable
reward does: the completion must have ended, and it refuses where the answer is a refusal and nowhere else. So a policy that puts "I don't know"
next to a guess gains a reward and no gold score. Other prompts, those of real data, are scored by a second reward model, which was
trained on other pairs than the first (Gao et al. 2023, https://arxiv.org/abs/2210.10760, from whom the word is); without one they have none.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from model.inference.answers import holds
from model.inference.scoring import Answer
from model.rl.rewards import RewardFunction
from model.rl.rollouts import Rollouts
from model.rl.watch import Values
from model.tokenizer.chat import ChatTokenizer


class GoldScorer(NamedTuple):
    """Scores completions. `second`: the second reward model, None without one."""

    tokenizer: ChatTokenizer
    second: RewardFunction | None = None

    def __call__(self, rollouts: Rollouts) -> Values:
        """The gold score of each of N completions [N]: 1 or 0, a number between from a reward model, NaN without one."""
        prompts, completions = rollouts.prompts, rollouts.completions
        preferred = [float("nan")] * len(prompts)
        if self.second:
            # A logistic function of the score in standard deviations: 1/2 for a completion of the SFT model's mean score. Reward models
            # differ in their scale, and on Bradley-Terry's own one the scores of most are near 0 or 1.
            preferred = self.second.model_scores(prompts, completions).sigmoid().tolist()
        scores = [
            other if prompt.answer is None else float(self.is_right(prompt.answer, done))
            for prompt, done, other in zip(prompts, completions, preferred, strict=True)
        ]
        return np.array(scores, dtype=np.float64)

    def is_right(self, answer: str, completion: Sequence[int]) -> bool:
        """Whether a completion ends, gives the answer, and refuses only where the answer refuses."""
        is_finished = list(completion[-1:]) == [self.tokenizer.turn_end]
        reply, expected = (
            Answer(text, 0, is_finished) for text in (self.tokenizer.decode(list(completion)).strip(), answer)
        )
        return is_finished and reply.is_refusal == expected.is_refusal and holds(reply.text, [answer])
