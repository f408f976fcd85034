"""TRL's side of tests/benchmarks/rl_speed.py, run in an environment with TRL: python trl_peer.py ALGORITHM FOLDER NUM_STEPS.

Reads the models, prompts and pairs of FOLDER; prints JSON with the CPU seconds of each step and those of its generation. Imports nothing of this project.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GenerationMixin,
    PreTrainedTokenizerFast,
    TrainerCallback,
)

SETTINGS = json.loads((Path(sys.argv[2]) / "settings.json").read_text())
COMMON: dict[str, Any] = {
    "output_dir": f"{sys.argv[2]}/trl",
    "use_cpu": True,
    "bf16": False,
    "gradient_checkpointing": False,
    "learning_rate": 1e-5,
    "save_strategy": "no",
    "report_to": [],
    "logging_strategy": "no",
    "disable_tqdm": True,
}


class Clock(TrainerCallback):
    """CPU seconds at the end of each step, and those spent in `generate` so far."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.generated: list[float] = []
        self.seconds = 0.0
        generate = GenerationMixin.generate

        def timed(*arguments: Any, **named: Any) -> Any:
            started = time.process_time()
            try:
                return generate(*arguments, **named)
            finally:
                self.seconds += time.process_time() - started

        GenerationMixin.generate = timed  # type: ignore[method-assign]

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.ends.append(time.process_time())
        self.generated.append(self.seconds)


def tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    """The project's vocabulary; the ids of padding and end are those of config.json."""
    made = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    made.pad_token, made.eos_token = (made.convert_ids_to_tokens(SETTINGS[name]) for name in ("pad", "end"))
    made.padding_side = "left"
    return made


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def grpo(folder: Path, num_steps: int, clock: Clock) -> int:
    from trl import GRPOConfig, GRPOTrainer

    config = GRPOConfig(
        **COMMON,
        per_device_train_batch_size=SETTINGS["rollouts"] // SETTINGS["updates"],
        steps_per_generation=SETTINGS["updates"],
        num_generations=SETTINGS["group"],
        max_completion_length=SETTINGS["new_tokens"],
        max_steps=num_steps * SETTINGS["updates"],
        beta=0.02,
        epsilon_high=0.28,
        loss_type="dapo",
        scale_rewards="none",
    )
    prompts = Dataset.from_list([{"prompt": record["text"]} for record in lines(folder / "prompts.jsonl")])
    encoder = tokenizer(folder)
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "sft", dtype=torch.float32),
        reward_funcs=reward_model(folder, encoder),
        reward_processing_classes=encoder,
        args=config,
        train_dataset=prompts,
        processing_class=encoder,
        callbacks=[clock],
    )
    trainer.train()
    return int(SETTINGS["updates"])


def dpo(folder: Path, num_steps: int, clock: Clock) -> int:
    from trl import DPOConfig, DPOTrainer

    config = DPOConfig(
        **COMMON,
        per_device_train_batch_size=SETTINGS["pairs"],
        max_steps=num_steps,
        precompute_ref_log_probs=True,
        beta=0.1,
    )
    pairs = [
        {name: record[name] for name in ("prompt", "chosen", "rejected")}
        for record in lines(folder / "trl_pairs.jsonl")
    ]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(folder / "sft", dtype=torch.float32),
        args=config,
        train_dataset=Dataset.from_list(pairs),
        processing_class=tokenizer(folder),
        callbacks=[clock],
    )
    trainer.train()
    return 1


def ppo(folder: Path, num_steps: int, clock: Clock) -> int:
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    config = PPOConfig(
        **COMMON,
        # The rollouts of a step: TRL 1.12 makes as many, and divides them by the number of minibatches.
        per_device_train_batch_size=SETTINGS["rollouts"],
        num_mini_batches=SETTINGS["updates"],
        num_ppo_epochs=1,
        local_rollout_forward_batch_size=SETTINGS["rollouts"],
        total_episodes=num_steps * SETTINGS["rollouts"],
        response_length=SETTINGS["new_tokens"],
        temperature=1.0,
        num_sample_generations=0,
        kl_coef=0.02,
    )
    encoder = tokenizer(folder)
    prompts = [{"input_ids": encoder(record["text"])["input_ids"]} for record in lines(folder / "prompts.jsonl")]
    policy, reference = (AutoModelForCausalLM.from_pretrained(folder / "sft", dtype=torch.float32) for _ in "ab")
    trainer = PPOTrainer(
        args=config,
        processing_class=encoder,
        model=policy,
        ref_model=reference,
        reward_model=reward_model(folder, encoder),
        value_model=reward_model(folder, encoder),
        train_dataset=Dataset.from_list(prompts),
        eval_dataset=Dataset.from_list(prompts[:8]),
        callbacks=[clock],
    )
    trainer.train()
    return 1


def reward_model(folder: Path, encoder: PreTrainedTokenizerFast) -> Any:
    model = AutoModelForSequenceClassification.from_pretrained(
        folder / "reward_model", num_labels=1, dtype=torch.float32
    )
    model.config.pad_token_id = encoder.pad_token_id
    return model


def main() -> None:
    algorithm, folder, num_steps = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    torch.set_num_threads(1)
    clock = Clock()
    every = {"grpo": grpo, "dpo": dpo, "ppo": ppo}[algorithm](folder, num_steps, clock)
    ends, generated = clock.ends[every - 1 :: every], clock.generated[every - 1 :: every]
    found = [
        {"step": end - before, "generation": spent - known}
        for before, end, known, spent in zip(ends, ends[1:], generated, generated[1:])
    ]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
