"""How a policy is trained on rewards: frozen values that form a run's identity. No torch here.

Reads and writes nothing. `RLRun` is the JSON that a training process group is started with: `python -m model.rl.grpo RUN.json`.
"""

from typing import Literal

from pydantic import Field, model_validator

from model.config import Config, ModelConfig, OptimConfig, runtime


class RLConfig(Config):
    """GRPO: how many rollouts of what length, what they are rewarded for, and how far the policy may move."""

    num_steps: int = Field(30, ge=1, description="Rounds of rollouts, each followed by its optimizer updates.")
    prompts_per_step: int = Field(16, ge=1, description="P: prompts of a step, over all ranks.")
    completions_per_prompt: int = Field(8, ge=2, le=1024, description="G: completions that compete as one group.")
    updates_per_step: int = Field(
        2, ge=1, description="Optimizer updates on the rollouts of a step; from the second on, the clip matters."
    )
    microbatch_sequences: int = Field(16, ge=1, description="At most so many rollouts per forward on one rank.")
    max_new_tokens: int = Field(64, ge=1, le=2**20, description="A completion is cut off after so many tokens.")
    max_prompt_tokens: int = Field(192, ge=4, le=2**20, description="Longer prompts are left out.")
    temperature: float = Field(
        1.0, gt=0.0, le=10.0, description="Of the rollouts, and of the logprobs they are held to."
    )
    clip_low: float = Field(0.2, gt=0.0, lt=1.0, description="Epsilon below 1 that the ratio of policies may reach.")
    clip_high: float = Field(
        0.28, gt=0.0, le=10.0, description="Epsilon above 1; larger than clip_low keeps exploring."
    )
    kl_coef: float = Field(0.02, ge=0.0, le=100.0, description="Of the KL to the frozen reference policy, per token.")
    is_advantage_scaled: bool = Field(
        True, description="Divide by the group's standard deviation (GRPO); without it easy prompts weigh less."
    )
    model_weight: float = Field(1.0, ge=0.0, description="Of the reward model's score, in its standard deviations.")
    score_clip: float = Field(3.0, gt=0.0, description="The normalised score is held within plus and minus this.")
    verifiable_weight: float = Field(3.0, ge=0.0, description="Given for a completion that holds the prompt's answer.")
    unfinished_penalty: float = Field(1.0, ge=0.0, description="Taken from a completion that was cut off.")
    validation_fraction: float = Field(0.1, ge=0.0, lt=1.0, description="Prompts that are held out for validation.")
    max_validation_prompts: int = Field(64, ge=1, description="At most so many prompts are held out.")
    eval_every_steps: int = Field(20, ge=0, description="Steps between validations; 0: only before and after training.")
    checkpoint_every_steps: int = runtime(10, ge=0, description="Steps between checkpoints; 0 keeps none on the way.")
    keep_checkpoints: int = runtime(2, ge=1, description="Newest checkpoints that are kept for resuming.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of weights and activations; with bfloat16 the optimizer keeps float32 masters."
    )
    zero_stage: int = Field(
        0, ge=0, le=2, description="DeepSpeed ZeRO: 1 shards optimizer, 2 gradients; 3 would gather weights per token."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Of the prompts' order and of the rollouts.")
    num_ranks: int = Field(
        1,
        ge=1,
        description="Processes that train together, each on rollouts of its own draw; must divide the prompts of a step.",
    )

    @model_validator(mode="after")
    def _rollouts_divide(self) -> "RLConfig":
        if self.prompts_per_step % self.num_ranks:
            raise ValueError(
                f"num_ranks={self.num_ranks} does not divide prompts_per_step={self.prompts_per_step}; choose a divisor of it"
            )
        rollouts = self.prompts_per_step // self.num_ranks * self.completions_per_prompt
        if rollouts % self.updates_per_step:
            raise ValueError(
                f"updates_per_step={self.updates_per_step} does not divide the {rollouts} rollouts of a rank and step; "
                "choose a divisor of it"
            )
        return self


class RLRun(Config):
    """All that a training process group is told, as JSON."""

    config: RLConfig
    optim: OptimConfig
    model: ModelConfig = Field(description="The policy's shape, and the reference policy's.")
    initial_weights: str = Field(description="Folder with the SFT model's model.safetensors.")
    reward_model: str = Field(description="Folder with the reward model's model.safetensors.")
    tokenizer: str = Field(description="Path of tokenizer.json.")
    prompts: tuple[str, ...] = Field(min_length=1, description="JSONL files of prompts.")
    output: str = Field(description="Folder for weights, metrics.jsonl, rollouts.jsonl and summary.json.")
