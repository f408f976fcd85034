"""Rollouts: completions of prompts, drawn from a policy, and what they are worth.

Reads JSON Lines of prompts; `show` appends a few rollouts to a file for the eye. A reward is made of three parts: the reward model's
score, counted in standard deviations from the mean that the SFT model's completions reach (Ziegler et al. 2019 normalise to
mean 0 and variance 1 too, https://arxiv.org/abs/1909.08593), a verifiable part where the prompt has an answer, and a penalty for what was
cut off.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from model.config import GenerateConfig
from model.files import read_lines
from model.inference.answers import holds
from model.inference.decoder import Decoder
from model.inference.generate import generate
from model.inference.scoring import rewards
from model.network.transformer import RewardModel, Transformer
from model.rl.config import RLConfig
from model.tokenizer.chat import ChatTokenizer

CALIBRATION_PROMPTS = 64
LEAST_DEVIATION = 1e-3  # of the reward model's scores, which are divided by it


class Prompt(NamedTuple):
    """A conversation up to where the assistant has to speak."""

    text: str  # of the last turn, for the eye
    tokens: list[int]
    answer: str | None


class RewardFunction(NamedTuple):
    """What rewards a completion. The reward model's scores are counted from `mean` in units of `deviation`."""

    config: RLConfig
    tokenizer: ChatTokenizer
    reward_model: RewardModel
    mean: float = 0.0
    deviation: float = 1.0


class Rollouts(NamedTuple):
    """N completions and what they are worth; those of one prompt lie side by side."""

    prompts: list[Prompt]  # N
    completions: list[list[int]]  # N
    scores: Tensor  # [N] of the reward model, in deviations
    is_right: Tensor  # [N] 1 or 0, nan where the prompt has no answer
    is_finished: Tensor  # [N] 1 where the assistant ended its turn
    rewards: Tensor  # [N]


def read_prompts(paths: Sequence[str], tokenizer: ChatTokenizer, config: RLConfig) -> list[Prompt]:
    """The prompts that are short enough. Raises ValueError where none is."""
    records = [record for path in paths for record in read_lines(path)]
    prompts = []
    for record in records:
        answer = record.get("answer")  # a number, where who wrote it knew no better
        tokens = tokenizer.render_prompt(record["messages"])
        prompts.append(Prompt(record["messages"][-1]["content"], tokens, None if answer is None else str(answer)))
    fitting = [prompt for prompt in prompts if len(prompt.tokens) <= config.max_prompt_tokens]
    if not fitting:
        raise ValueError(
            f"none of {len(prompts)} prompts in {list(paths)} has at most max_prompt_tokens={config.max_prompt_tokens} tokens; "
            "make it larger or take other prompts"
        )
    return fitting


def split_prompts(prompts: Sequence[Prompt], config: RLConfig) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to train on, and held-out ones. A prompt is never on both sides.

    Few prompts, or many copies of few, can all fall on the held-out side. Then none is held out: a file that passed its check
    before the run must not stop the last training stage of it.
    """
    order = np.random.default_rng(config.seed).permutation(len(prompts))
    num_heldout = min(round(config.validation_fraction * len(prompts)), config.max_validation_prompts)
    heldout = [prompts[index] for index in order[:num_heldout]]
    texts = {prompt.text for prompt in heldout}
    rest = [prompts[index] for index in order[num_heldout:] if prompts[index].text not in texts]
    return (rest, heldout) if rest else (list(prompts), [])


def calibrate(reward_function: RewardFunction, reference: Transformer, prompts: Sequence[Prompt]) -> RewardFunction:
    """Count scores from the mean that the SFT model's completions reach, in their standard deviations."""
    drawn = roll_out(reference, reward_function, list(prompts[:CALIBRATION_PROMPTS]), reward_function.config.seed)
    deviation = max(drawn.scores.std(correction=0).item(), LEAST_DEVIATION)
    return reward_function._replace(mean=drawn.scores.mean().item(), deviation=deviation)


@torch.no_grad()
def roll_out(
    policy: Transformer,
    reward_function: RewardFunction,
    prompts: list[Prompt],
    seed: int,
    temperature: float | None = None,
) -> Rollouts:
    """A completion of each of N prompts, and what it is worth. `temperature` 0 is greedy."""
    config, tokenizer = reward_function.config, reward_function.tokenizer
    drawn = GenerateConfig(
        max_new_tokens=config.max_new_tokens,
        temperature=config.temperature if temperature is None else temperature,
        seed=seed,
    )
    completions = generate(Decoder(policy), [prompt.tokens for prompt in prompts], drawn, tokenizer.assistant_end)
    return reward(reward_function, prompts, completions)


def reward(reward_function: RewardFunction, prompts: list[Prompt], completions: list[list[int]]) -> Rollouts:
    """The reward model's score, whether the answer is there, and whether the completion has an end.

    A completion that was cut off is shown to the reward model as if it had ended there: it has seen no other.
    """
    config, tokenizer, end = reward_function.config, reward_function.tokenizer, reward_function.tokenizer.assistant_end
    finished = [completion[-1:] == [end] for completion in completions]
    whole = [done if is_done else [*done, end] for done, is_done in zip(completions, finished, strict=True)]
    judged = rewards(
        reward_function.reward_model, [[*prompt.tokens, *done] for prompt, done in zip(prompts, whole, strict=True)]
    )
    scores = (judged - reward_function.mean) / reward_function.deviation
    right = [
        float("nan") if prompt.answer is None else float(holds(tokenizer.decode(done), [prompt.answer]))
        for prompt, done in zip(prompts, completions, strict=True)
    ]
    is_right, is_finished = torch.tensor(right), torch.tensor(finished).float()
    worth = config.model_weight * scores.clamp(-config.score_clip, config.score_clip)
    worth = worth + config.verifiable_weight * is_right.nan_to_num() - config.unfinished_penalty * (1 - is_finished)
    return Rollouts(prompts, completions, scores, is_right, is_finished, worth)


def show(path: Path, rollouts: Rollouts, reward_function: RewardFunction, done: int) -> None:
    """Append the best and the worst completion of a step's first prompt."""
    group = rollouts.rewards[: reward_function.config.completions_per_prompt]
    with path.open("a", encoding="utf-8") as file:
        for row in (int(group.argmax()), int(group.argmin())):
            shown = {
                "step": done,
                "prompt": rollouts.prompts[row].text,
                "completion": reward_function.tokenizer.decode(rollouts.completions[row]),
                "reward": round(rollouts.rewards[row].item(), 4),
                "score": round(rollouts.scores[row].item(), 4),
            }
            file.write(json.dumps(shown, ensure_ascii=False) + "\n")
