"""Rollouts: completions of prompts, sampled from a policy, with their rewards.

Reads a policy; `add_rollouts` writes a few rollouts into a JSON Lines file.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from model.config import GenerateConfig
from model.files import read_lines, write_lines
from model.inference.cpu_kernels import make_decoder
from model.inference.generate import draw
from model.network.transformer import Transformer
from model.rl.prompts import Prompt
from model.rl.rewards import RewardFunction, Rewards
from model.tokenizer.chat import ChatTokenizer
from model.training.metrics import Metrics, clocked

# One completion of each: the standard error of their mean is then an eighth of a standard deviation, 1 / sqrt(64). All advantages
# are differences within a group, in which the mean cancels but for clipping; the deviation sets the weight of the score.
CALIBRATION_PROMPTS = 64


class Rollouts(NamedTuple):
    """N completions and their rewards; those of one prompt are neighbours."""

    prompts: list[Prompt]  # N
    completions: list[list[int]]  # N
    rewards: Rewards
    # N: of each token under the policy that sampled it, at the temperature of sampling, or at 1 where it was greedy
    logprobs: Sequence[Sequence[float]] = ()


@torch.no_grad()
def roll_out(
    policy: Transformer,
    reward_function: RewardFunction,
    prompts: list[Prompt],
    seed: int,
    temperature: float | None = None,
    seconds: Metrics | None = None,
) -> Rollouts:
    """Sample a completion of each of N prompts and reward it. `temperature`: None takes the configuration's, 0 is greedy.

    The times of generation and of scoring are added to `seconds`.
    """
    seconds = Metrics() if seconds is None else seconds
    config, tokenizer = reward_function.config, reward_function.tokenizer
    sampling = GenerateConfig(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature if temperature is None else temperature,
        seed=seed,
    )
    # A new decoder for each call: it may copy the weights, which each update changes.
    with clocked(seconds, "phase/generation_seconds"):
        tokens = [prompt.tokens for prompt in prompts]
        drawn = draw(make_decoder(policy), tokens, sampling, tokenizer.turn_end, sampling.temperature or 1.0)
    completions = [completion.tokens for completion in drawn]
    with clocked(seconds, "phase/scoring_seconds"):
        rewards = reward_function(prompts, completions)
    return Rollouts(prompts, completions, rewards, [completion.logprobs for completion in drawn])


def calibrate(reward_function: RewardFunction, reference: Transformer, prompts: Sequence[Prompt]) -> RewardFunction:
    """The reward function with scores in standard deviations from the mean score of the SFT model's completions."""
    # From the reference and the seed, not from the policy: a resumed run gets the same scale.
    rollouts = roll_out(reference, reward_function, list(prompts[:CALIBRATION_PROMPTS]), reward_function.config.seed)
    # Not the scores of the rewards: where the reward model has no weight, those are 0, and a scale is needed for gold scores.
    return reward_function.calibrated(reward_function.model_scores(rollouts.prompts, rollouts.completions))


def add_samples(path: Path, rollouts: Rollouts, gold: Sequence[float], tokenizer: ChatTokenizer, step: int) -> None:
    """Add the completion of the first prompt of each kind: step, kind, prompt, completion, reward, gold score."""
    # Those of a step that is taken again after a kill are replaced.
    others = [sample for sample in read_lines(path) if sample["step"] != step] if path.exists() else []
    first: dict[str, int] = {}
    for row, prompt in enumerate(rollouts.prompts):
        first.setdefault(prompt.kind, row)
    samples = [
        {
            "step": step,
            "kind": kind,
            "prompt": rollouts.prompts[row].text,
            "completion": tokenizer.decode(rollouts.completions[row]),
            "reward": round(rollouts.rewards.total[row].item(), 4),
            "gold_score": None if math.isnan(gold[row]) else round(gold[row], 4),
        }
        for kind, row in sorted(first.items())
    ]
    write_lines(path, sorted([*others, *samples], key=lambda sample: sample["step"]))


def add_rollouts(path: Path, rollouts: Rollouts, tokenizer: ChatTokenizer, group_size: int, step: int) -> None:
    """Add the best and the worst completion of a step's first prompt: step, prompt, completion, reward, score.

    Those of a step that is taken again after a kill replace the earlier ones.
    """
    # Rewritten whole, as the samples of training are: two lines a step, next to rollouts that take seconds.
    before = [sample for sample in read_lines(path) if sample["step"] < step] if path.exists() else []
    # The first prompt of rank 0; best and worst show what the advantage rewards.
    group = rollouts.rewards.total[:group_size]
    samples = [
        {
            "step": step,
            "prompt": rollouts.prompts[row].text,
            "completion": tokenizer.decode(rollouts.completions[row]),
            "reward": round(rollouts.rewards.total[row].item(), 4),
            "score": round(rollouts.rewards.scores[row].item(), 4),
        }
        for row in (int(group.argmax()), int(group.argmin()))
    ]
    write_lines(path, [*before, *samples])
