"""CPU seconds of a step of GRPO, PPO and DPO, compared with TRL's trainers on the same weights, prompts and pairs.

    python -m tests.benchmarks.rl_speed [ALGORITHM ...]

The laptop recipe's model with initial weights, its reward model, texts of the sample web. A step of GRPO has 128 completions (8 of each of 16
prompts) of up to 32 tokens, scored by the reward model, and two updates; a step of PPO the same of 128 prompts, with a critic; a step of DPO 16
pairs, with the reference's log-probabilities computed before. TRL 1.16, and 1.12 for PPO, the last release that has it; their fastest settings
here: no gradient checkpointing, float32, whole updates as one microbatch, cached generation. One thread each; CPU seconds, since the machine may be
shared; the first step is left out, the mean of the others is shown. Both read the same tokens, and the models hardly ever end a completion, so both
generate equally many. Ours runs in the environment that stages give their ranks, which sets how memory is allocated (tasks/execution/launcher.py).
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from itertools import islice
from pathlib import Path
from statistics import mean
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import tokenizers
import torch

from model.config import OptimConfig, TrainConfig
from model.network.huggingface import save_weights
from model.network.transformer import RewardModel, Transformer, initialize
from model.rl.config import DPORun, RLConfig, RLRun
from model.rl.dpo import DPOTrainer
from model.rl.grpo import GRPOTrainer
from model.rl.ppo import PPOTrainer
from model.tokenizer.chat import ChatTokenizer
from tasks.execution import launcher
from tasks.pretrain.stage import PretrainConfig
from tasks.records.conversations import normal_form
from tasks.sample_web import chat
from tasks.sample_web.world import build_world
from tasks.tokenizer.train import TokenizerConfig
from tasks.tokenizer.train import train as train_tokenizer
from tests.benchmarks.harness import machine, peer, print_table, say

TRL = ("trl==1.16.0", "transformers==5.24.0", "torch==2.14.1")
OLD_TRL = "trl==1.12.0"
GROUP, ROLLOUTS, UPDATES, NEW_TOKENS, PAIRS, NUM_PAIRS = 8, 128, 2, 32, 16, 400
# The steps of DPO read every pair once: the lengths of pairs differ, and the two sides draw them in different orders.
NUM_STEPS = {"grpo": 6, "ppo": 6, "dpo": NUM_PAIRS // PAIRS}
OPTIM = OptimConfig(learning_rate=1e-5, weight_decay=0.0)
Seconds = list[dict[str, float]]  # of each step: all, and those of its generation


def main() -> None:
    """Measure both sides of each algorithm, print the table."""
    if sys.argv[1:2] == ["--ours"]:
        print(json.dumps(time_steps(sys.argv[2], Path(sys.argv[3]))))
        return
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        for algorithm in sys.argv[1:] or ("grpo", "ppo", "dpo"):
            ours, theirs = measure(algorithm, folder), measure_trl(algorithm, folder)
            mine, other = (mean(step["step"] for step in steps) for steps in (ours, theirs))
            rows.append(
                (algorithm.upper(), f"{mine:.2f}", share(ours), f"{other:.2f}", share(theirs), f"{other / mine:.2f}")
            )
    headings = ("", "CPU s a step", "of it generation", "TRL: CPU s a step", "of it generation", "TRL / ours")
    print_table("Steps of reinforcement learning compared with TRL", headings, rows, f"{machine()}.")


def share(steps: Seconds) -> str:
    """The part of the steps' time that is generation."""
    return f"{sum(step['generation'] for step in steps) / sum(step['step'] for step in steps):.0%}"


def write_inputs(folder: Path) -> None:
    """Tokenizer, models, prompts and pairs, for both sides."""
    world = build_world(1)
    pairs = [normal_form(pair) for pair in islice(chat.preferences(world, 600), NUM_PAIRS)]
    texts = [text for pair in pairs for text in (pair["messages"][-1]["content"], pair["chosen"], pair["rejected"])]
    train_tokenizer(iter(texts), TokenizerConfig(vocab_size=4096)).save(str(folder / "tokenizer.json"))
    encoder = ChatTokenizer.load(folder / "tokenizer.json")
    # The laptop recipe's size, whatever these few texts' vocabulary comes to.
    config = PretrainConfig().model.with_vocabulary(4096)
    for name, kind in (("sft", Transformer), ("reward_model", RewardModel)):
        (folder / name).mkdir()
        model = kind(config)
        initialize(model, seed=1)
        if isinstance(model, RewardModel):  # otherwise all rewards are 0, and no group has an update
            torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(2))
        weights = {part: parameter.detach() for part, parameter in model.named_parameters()}
        save_weights(folder / name, model, weights, max_tokens=512, token_ids=encoder.token_ids)
    parser = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
    sides = [{"prompt": prompt(encoder, parser, pair), **pair} for pair in pairs]
    write(folder / "prompts.jsonl", [{"messages": pair["messages"], "text": pair["prompt"]} for pair in sides])
    write(folder / "pairs.jsonl", pairs)
    write(folder / "trl_pairs.jsonl", sides)
    settings = {"group": GROUP, "rollouts": ROLLOUTS, "updates": UPDATES, "new_tokens": NEW_TOKENS, "pairs": PAIRS}
    settings |= {"pad": encoder.pad, "end": encoder.turn_end}
    (folder / "settings.json").write_text(json.dumps(settings))


def prompt(encoder: ChatTokenizer, parser: tokenizers.Tokenizer, pair: dict[str, Any]) -> str:
    """The text of a prompt with its special tokens, which TRL's side parses: so both read the same tokens."""
    tokens = encoder.render_prompt(pair["messages"])
    text = str(encoder.encoder.decode(tokens, skip_special_tokens=False))
    # Another encoder: ours takes the names of special tokens in a text for plain characters.
    assert parser.encode(text, add_special_tokens=False).ids == tokens
    return text


def write(path: Path, records: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


def measure(algorithm: str, folder: Path) -> Seconds:
    """CPU seconds of this project's steps, in the environment that stages give their ranks."""
    command = [sys.executable, "-m", "tests.benchmarks.rl_speed", "--ours", algorithm, folder]
    return seconds_of(f"ours, {algorithm}", command, launcher._environment(1))


def seconds_of(name: str, command: list[Any], environment: dict[str, str]) -> Seconds:
    """What a process of either side prints last."""
    printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    found: Seconds = json.loads(printed.splitlines()[-1])
    say(f"{name}: {[round(step['step'], 2) for step in found]}")
    return found


def time_steps(algorithm: str, folder: Path) -> Seconds:
    """CPU seconds of this project's steps, in this process."""
    torch.set_num_threads(1)
    output = folder / f"our-{algorithm}"
    output.mkdir()
    trainer = make_trainer(algorithm, folder, output)
    # What `train` does before the first step; checkpoints, logs and validations are not part of a step on either side.
    trainer.resume(0)
    found = []
    for step in range(NUM_STEPS[algorithm]):
        started = time.process_time()
        metrics = trainer.train_step(step)
        # One thread: the seconds of the clock are CPU seconds where nothing else runs, and more where something does.
        wall = sum(seconds for name, seconds in metrics.items() if name.startswith("phase/"))
        spent = time.process_time() - started
        found.append({"step": spent, "generation": metrics.get("phase/generation_seconds", 0.0) / wall * spent})
    return found[1:]


def make_trainer(algorithm: str, folder: Path, output: Path) -> Any:
    """The trainer of an algorithm, on one rank."""
    shape = PretrainConfig().model.with_vocabulary(4096)
    common: dict[str, Any] = {
        "optim": OPTIM,
        "model": shape,
        "initial_weights": str(folder / "sft"),
        "tokenizer": str(folder / "tokenizer.json"),
        "output": str(output),
    }
    stop = threading.Event()
    if algorithm == "dpo":
        # Sides are padded to the longest of a microbatch; sequence_tokens only says how many sequences a batch has.
        train = TrainConfig(
            num_steps=NUM_STEPS[algorithm],
            batch_tokens=2 * PAIRS * 256,
            microbatch_sequences=16,
            checkpoint_every_steps=0,
        )
        run = DPORun(objective="dpo", train=train, train_paths=(str(folder / "pairs.jsonl"),), **common)
        trainer = DPOTrainer(run, output / "checkpoints", stop)
        trainer.engine = trainer.start_engine()
        return trainer
    config = RLConfig(
        num_steps=NUM_STEPS[algorithm],
        prompts_per_step=ROLLOUTS // GROUP if algorithm == "grpo" else ROLLOUTS,
        completions_per_prompt=GROUP if algorithm == "grpo" else 1,
        updates_per_step=UPDATES,
        max_new_tokens=NEW_TOKENS,
        validation_fraction=0.0,
    )
    rl_run = RLRun(
        config=config, reward_model=str(folder / "reward_model"), prompts=(str(folder / "prompts.jsonl"),), **common
    )
    return (GRPOTrainer if algorithm == "grpo" else PPOTrainer)(rl_run, output / "checkpoints", stop)


def measure_trl(algorithm: str, folder: Path) -> Seconds:
    """CPU seconds of TRL's steps."""
    python = peer(*TRL)
    # LOCAL_RANK: set by our engine in this process; accelerate would wait for other ranks.
    environment = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "PYTHONPATH")}
    environment["TRL_EXPERIMENTAL_SILENCE"] = "1"
    if algorithm == "ppo":
        older = python.parents[1] / "trl-1.12"
        if not older.exists():
            command = [python, "-m", "pip", "install", "-q", "--no-deps", "-t", older, OLD_TRL]
            subprocess.run(command, check=True, stdout=sys.stderr)
        environment["PYTHONPATH"] = str(older)
    script = Path(__file__).with_name("trl_peer.py")
    command = [python, script, algorithm, folder, str(NUM_STEPS[algorithm])]
    return seconds_of(f"TRL, {algorithm}", command, environment)


if __name__ == "__main__":
    main()
