"""Runs of reinforcement learning on the small models of tests/support/tiny_models.py."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.config import OptimConfig
from model.rl.config import RLConfig, RLRun
from model.tokenizer.chat import ChatTokenizer
from tests.support.tiny_models import tiny_config


def rl_run(folder: Path, output: str, config: RLConfig, learning_rate: float = 1e-2, **more: Any) -> RLRun:
    """A run with the SFT model, reward model, tokenizer and prompts of a folder. `more`: further fields of RLRun."""
    return RLRun(
        config=config,
        optim=OptimConfig(learning_rate=learning_rate, weight_decay=0.0),
        model=tiny_config(ChatTokenizer.load(folder / "tokenizer.json").vocab_size),
        initial_weights=str(folder / "sft"),
        reward_model=str(folder / "reward_model"),
        tokenizer=str(folder / "tokenizer.json"),
        prompts=(str(folder / "prompts.jsonl"),),
        output=str(folder / output),
        **more,
    )


def logged(train: Callable[[RLRun, Path, threading.Event], None], run: RLRun) -> list[dict[str, Any]]:
    """Train a run, or resume it, and return its log."""
    train(run, Path(run.output) / "checkpoints", threading.Event())
    return [json.loads(line) for line in (Path(run.output) / "metrics.jsonl").read_text().splitlines()]


def untimed(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The log without what depends on the machine."""
    return [{name: value for name, value in line.items() if not name.endswith("_seconds")} for line in lines]
