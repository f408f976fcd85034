"""The settings of reinforcement learning: frozen values that form a run's identity. No torch here.

Reads and writes nothing. `RLRun` is the JSON that a training process group is started with: `python -m model.rl.grpo RUN.json`.
"""

from typing import Literal

from pydantic import Field, model_validator

from model.config import Config, ModelConfig, OptimConfig, runtime


class RLConfig(Config):
    """GRPO: the number and length of rollouts, their rewards, and how far the policy may move from the one that sampled them."""

    # Where a default is a paper's: DeepSeekMath is Shao et al. 2024, section 4.2; DAPO is Yu et al. 2025, section 4.1.
    num_steps: int = Field(30, ge=1, description="Rounds of rollouts, each followed by its optimizer updates.")
    prompts_per_step: int = Field(16, ge=1, description="P: prompts of a step, over all ranks.")
    # At least 2: alone in its group a completion always has an advantage of 0. DeepSeekMath sampled 64.
    completions_per_prompt: int = Field(8, ge=2, le=1024, description="G: completions that compete as one group.")
    # Each rollout is in one update of its step: more updates are smaller ones, not more passes over the rollouts as GRPO's mu
    # (algorithm 1) counts them. DeepSeekMath made one.
    updates_per_step: int = Field(
        2, ge=1, description="Optimizer updates on the rollouts of a step. Clipping has an effect from the second on."
    )
    microbatch_sequences: int = Field(16, ge=1, description="The most rollouts in one forward pass on one rank.")
    max_new_tokens: int = Field(64, ge=1, le=2**20, description="The length at which a completion is cut off.")
    max_prompt_tokens: int = Field(192, ge=4, le=2**20, description="Prompts with more tokens are not used.")
    # One temperature for both, so that the gradient is that of the distribution which was sampled.
    temperature: float = Field(
        1.0, gt=0.0, le=10.0, description="Temperature of sampling and of the log-probabilities in the loss."
    )
    # 0.2 and 0.28 are DAPO's.
    clip_low: float = Field(0.2, gt=0.0, lt=1.0, description="The ratio of policies is clipped below 1 - clip_low.")
    clip_high: float = Field(
        0.28,
        gt=0.0,
        le=10.0,
        description="The ratio of policies is clipped above 1 + clip_high. Larger than clip_low, it keeps the policy exploring.",
    )
    # DeepSeekMath took 0.04; DAPO has no such term.
    kl_coef: float = Field(
        0.02, ge=0.0, le=100.0, description="Weight of the KL to the frozen reference policy, per token."
    )
    # Off as in Dr. GRPO (Liu et al. 2025). With it, a difference of 0.03 in the reward model's score, which is noise, counts as much as right
    # against wrong: a policy of about 1 M parameters came to answer every sum with the same number.
    is_advantage_scaled: bool = Field(
        False,
        description="Divide advantages by the group's standard deviation (GRPO). Without it (Dr. GRPO), groups with little spread weigh less.",
    )
    # The three parts of the reward, see model/rl/rewards.py. By default a right answer weighs as much as the largest score.
    model_weight: float = Field(1.0, ge=0.0, description="Weight of the reward model's score in standard deviations.")
    score_clip: float = Field(3.0, gt=0.0, description="The normalised score is clipped to plus and minus this.")
    verifiable_weight: float = Field(3.0, ge=0.0, description="Reward of a completion that gives the prompt's answer.")
    unfinished_penalty: float = Field(
        1.0, ge=0.0, description="Subtracted from the reward of a completion that was cut off."
    )
    validation_fraction: float = Field(0.1, ge=0.0, lt=1.0, description="Fraction of prompts held out for validation.")
    max_validation_prompts: int = Field(64, ge=1, description="The most prompts held out for validation.")
    eval_every_steps: int = Field(20, ge=0, description="Steps between validations; 0: only before and after training.")
    checkpoint_every_steps: int = runtime(10, ge=0, description="Steps between checkpoints; 0 keeps none on the way.")
    keep_checkpoints: int = runtime(2, ge=1, description="The number of newest checkpoints kept for resuming.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of weights and activations; with bfloat16 the optimizer keeps float32 masters."
    )
    zero_stage: int = Field(
        0, ge=0, le=2, description="DeepSpeed ZeRO: 1 shards optimizer, 2 gradients; 3 would gather weights per token."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the prompts' order and of the rollouts.")
    # Part of the result, unlike a supervised run's: every rank draws its
    # completions from a separate stream, see `GRPOTrainer.roll_out`.
    num_ranks: int = Field(
        1,
        ge=1,
        description="Processes that train together, each on rollouts of other prompts. Must divide prompts_per_step.",
    )

    on_fall: Literal["stop", "report"] = Field(
        "stop",
        description="When the held-out judge falls beyond chance: end the run and return to its best step, or only report it "
        "(model/rl/watch.py has the rule).",
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
    """The input of a training process group, as JSON."""

    config: RLConfig
    optim: OptimConfig
    model: ModelConfig = Field(description="The policy's shape, and the reference policy's.")
    initial_weights: str = Field(description="Folder with the SFT model's model.safetensors.")
    reward_model: str = Field(description="Folder with the reward model's model.safetensors.")
    judge_model: str = Field("", description="Folder of a second reward model, which judges prompts without an answer.")
    tokenizer: str = Field(description="Path of tokenizer.json.")
    prompts: tuple[str, ...] = Field(min_length=1, description="JSONL files of prompts.")
    output: str = Field(description="Folder for weights, metrics.jsonl, rollouts.jsonl and summary.json.")
