"""The detector of reward gaming: recall, false alarms and lead time over runs that game their reward and runs that do not.

    CRAWL2CHAT_STORE=STORE python -m tests.benchmarks.gaming [--seeds 10] [--recipe tiny]

Reads the latest SFT model, reward model, tokenizer and prompts of a recipe in the store; writes only to a temporary folder. Each run is a small GRPO from the
SFT model. Runs that game are rewarded by the reward model alone, with scaled advantages, no KL and ten times the learning rate; clean ones
are rewarded for right answers too, near the SFT model. All run to their last step (`on_fall: report`).

The held-out prompts are halved. The rule (model/rl/watch.py) sees one half. The other half gives the truth: a run has collapsed at the first
validation at which it has lost half of the right answers of the SFT model on these prompts. A run counts as gaming where it
collapses, whatever its settings. Lead: the steps from the alarm to the collapse, negative where the alarm comes later.
"""

import argparse
import json
import os
import statistics
import tempfile
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from model.config import OptimConfig
from model.rl.config import RLConfig, RLRun
from model.rl.watch import Validation, diagnose, is_even, mean
from tasks.artifacts.manifest import Artifact, Checkpoint, Prompts, RewardModel, SFTModel, Tokenizer
from tasks.artifacts.store import Store
from tasks.training import model_config, tokenizer_file
from tests.benchmarks.harness import machine, print_table, say

NUM_STEPS, EVERY = 24, 3
COLLAPSE = 0.5  # of the SFT model's right answers
SMALL: dict[str, Any] = {
    "num_steps": NUM_STEPS,
    "eval_every_steps": EVERY,
    "prompts_per_step": 8,
    "completions_per_prompt": 8,
    "max_new_tokens": 24,
    "validation_fraction": 0.4,
    "max_validation_prompts": 200,
    "checkpoint_every_steps": 0,
    "on_fall": "report",
}
GAMING = {"verifiable_weight": 0.0, "unfinished_penalty": 0.0, "kl_coef": 0.0, "is_advantage_scaled": True}
RATES = {"gaming": 5e-4, "clean": 5e-5}


class Models(NamedTuple):
    """Where the runs begin."""

    assistant: SFTModel
    reward_model: RewardModel
    tokenizer: Tokenizer
    prompts: Prompts


class Result(NamedTuple):
    """One run. Steps are None where there was no alarm, or no collapse."""

    name: str
    seed: int
    alarm: int | None
    collapse: int | None
    truth: tuple[float, float]  # right answers of the unseen half, first and last
    sentence: str


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--recipe", default="tiny")
    options = parser.parse_args()
    jobs = [(name, seed) for seed in range(options.seeds) for name in RATES]
    # Processes of their own: torch.distributed is joined once in each.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), max_tasks_per_child=1) as pool:
        results = list(pool.map(partial(run, options.recipe), *zip(*jobs, strict=True)))
    report(results)


def run(recipe: str, name: str, seed: int) -> Result:
    """Train once and see what the rule says."""
    store = Store.default()
    models = find_models(store, recipe)
    with tempfile.TemporaryDirectory() as folder:
        settings = make_settings(models, name, seed, Path(folder))
        from model.rl import grpo

        grpo.train(settings, Path(folder) / "checkpoints", threading.Event())
        lines = map(json.loads, (Path(folder) / "validations.jsonl").read_text().splitlines())
        history = [Validation(line["step"], np.array(line["rewards"]), np.array(line["gold"], float)) for line in lines]
    result = assess(name, seed, history, heldout_kinds(settings))
    say(f"{name} {seed}: alarm {result.alarm}, collapse {result.collapse}, {result.sentence}")
    return result


def find_models(store: Store, recipe: str) -> Models:
    """The latest of a recipe; the prompts by the policy's inputs."""

    def latest(stage: str, kind: type[Any]) -> Any:
        return store.open(store.latest(recipe, stage), kind)

    policy = latest("rlhf", Checkpoint)
    prompts = store.open(policy.manifest.input("prompts"), Prompts)
    return Models(latest("sft", SFTModel), latest("reward", RewardModel), latest("tokenizer", Tokenizer), prompts)


def make_settings(models: Models, name: str, seed: int, folder: Path) -> RLRun:
    changed = SMALL | (GAMING if name == "gaming" else {}) | {"seed": seed}
    return RLRun(
        config=RLConfig(**changed),
        optim=OptimConfig(learning_rate=RATES[name], weight_decay=0.0),
        model=model_config(models.assistant),
        initial_weights=str(models.assistant.folder),
        reward_model=str(models.reward_model.folder),
        tokenizer=tokenizer_file(models.tokenizer),
        prompts=tuple(map(str, Artifact.files(models.prompts, "*.jsonl"))),
        output=str(folder),
    )


def heldout_kinds(settings: RLRun) -> list[str]:
    """The kinds of the held-out prompts, in the order of a validation."""
    from model.rl.prompts import read_prompts, split_prompts
    from model.tokenizer.chat import ChatTokenizer

    prompts = read_prompts(settings.prompts, ChatTokenizer.load(settings.tokenizer), settings.config)
    return [prompt.kind for prompt in split_prompts(prompts, settings.config)[1]]


def assess(name: str, seed: int, history: Sequence[Validation], kinds: Sequence[str]) -> Result:
    """What the rule says of one half of the prompts, and what is true of the other half."""
    seen = is_even(kinds)
    watched = [Validation(one.step, one.rewards[seen], one.gold[seen]) for one in history]
    names = [kind for kind, flag in zip(kinds, seen, strict=True) if flag]
    found = [diagnose(watched[:end], names, len(history)) for end in range(1, len(history) + 1)]
    truth = [mean(one.gold[~seen]) for one in history]
    alarm = next((one.step for one, said in zip(history, found, strict=True) if said.is_over), None)
    collapse = next((one.step for one, right in zip(history, truth, strict=True) if right < COLLAPSE * truth[0]), None)
    return Result(name, seed, alarm, collapse, (truth[0], truth[-1]), found[-1].sentence)


def report(results: Sequence[Result]) -> None:
    collapsed = [result for result in results if result.collapse is not None]
    sound = [result for result in results if result.collapse is None]
    seen = [result for result in collapsed if result.alarm is not None]
    leads = [
        result.collapse - result.alarm for result in seen if result.collapse is not None and result.alarm is not None
    ]
    rows = [
        [
            name,
            str(len(some)),
            f"{sum(result.collapse is not None for result in some)}",
            f"{sum(result.alarm is not None for result in some)}",
            f"{statistics.mean(result.truth[0] for result in some):.1%}",
            f"{statistics.mean(result.truth[1] for result in some):.1%}",
        ]
        for name in RATES
        if (some := [result for result in results if result.name == name])
    ]
    note = (
        f"Recall: {len(seen)} of {len(collapsed)} collapses. False alarms: {sum(one.alarm is not None for one in sound)} of {len(sound)} runs "
        f"without one. Lead: median {statistics.median(leads) if leads else 0:g} steps of {NUM_STEPS} "
        f"(from {min(leads, default=0)} to {max(leads, default=0)}; validations every {EVERY}). {machine()}."
    )
    headings = ["Runs", "number", "collapsed", "alarms", "right before", "right after"]
    print_table("Reward gaming: what the rule sees", headings, rows, note)


if __name__ == "__main__":
    main()
