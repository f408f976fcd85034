"""The judge of reinforcement learning: whether greedy completions of held-out prompts are right, which no reward of training depends on.

Reads a second reward model where one is given; writes nothing. A prompt whose answer is known is judged by it, more strictly than the
verifiable reward does: the completion must have ended, and it refuses where the answer is a refusal and nowhere else. So a policy that puts "I
don't know" next to a guess gains a reward and no verdict. Other prompts, those of real data, are judged by a second reward model, which
was trained on other pairs than the first (Gao et al. 2023, https://arxiv.org/abs/2210.10760, have such a gold reward model); without one they have
no verdict.
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


class Judge(NamedTuple):
    """Judges completions. `second`: the second reward model, None without one."""

    tokenizer: ChatTokenizer
    second: RewardFunction | None = None

    def verdicts(self, rollouts: Rollouts) -> Values:
        """The verdict of each of N completions [N]: 1 or 0, a number between from a reward model, NaN where there is no verdict."""
        prompts, completions = rollouts.prompts, rollouts.completions
        scores = [float("nan")] * len(prompts)
        if self.second:
            # Through a logistic function: the probability that it is better than a completion of the mean score (Bradley-Terry).
            scores = self.second.model_scores(prompts, completions).sigmoid().tolist()
        judged = [
            score if prompt.answer is None else float(self.is_right(prompt.answer, done))
            for prompt, done, score in zip(prompts, completions, scores, strict=True)
        ]
        return np.array(judged, dtype=np.float64)

    def is_right(self, answer: str, completion: Sequence[int]) -> bool:
        """Whether a completion ends, gives the answer, and refuses only where the answer refuses."""
        is_finished = list(completion[-1:]) == [self.tokenizer.turn_end]
        reply, expected = (
            Answer(text, 0, is_finished) for text in (self.tokenizer.decode(list(completion)).strip(), answer)
        )
        return is_finished and reply.is_refusal == expected.is_refusal and holds(reply.text, [answer])
