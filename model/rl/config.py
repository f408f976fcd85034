"""The settings of reinforcement learning: frozen values that form a run's identity. No torch here.

Reads and writes nothing. `RLRun` is the JSON that a training process group of GRPO or PPO is started with, `python -m model.rl.grpo RUN.json`,
and `DPORun` that of DPO.
"""

from typing import Literal

from pydantic import Field, model_validator

from model.config import Config, ModelConfig, OptimConfig, TrainRun, runtime

GAIN_RATE_FACTOR = (
    "The gains of the policy's norms alone are trained, at this multiple of the learning rate (model/rl/gains.py); 0: all weights are "
    "trained, at the learning rate."
)


class RLConfig(Config):
    """GRPO and PPO: the number and length of rollouts, their rewards, and how far the policy may move from the one that sampled them."""

    # Where a default is a paper's: DeepSeekMath is Shao et al. 2024, section 4.2; DAPO is Yu et al. 2025, section 4.1.
    num_steps: int = Field(30, ge=1, description="Rounds of rollouts, each followed by its optimizer updates.")
    prompts_per_step: int = Field(16, ge=1, description="P: prompts of a step, over all ranks.")
    # DeepSeekMath sampled 64.
    completions_per_prompt: int = Field(
        8,
        ge=1,
        le=1024,
        description="G: completions that compete as one group. GRPO takes at least 2, PPO may do with 1.",
    )
    # Each rollout is in one update of a pass: more updates are smaller ones. DeepSeekMath made one.
    updates_per_step: int = Field(
        2, ge=1, description="Optimizer updates on the rollouts of a step. Clipping has an effect from the second on."
    )
    # DeepSeekMath's mu (algorithm 1) is 1; PPO for language models commonly makes 4 (Huang et al. 2024, https://arxiv.org/abs/2403.17031).
    epochs_per_step: int = Field(1, ge=1, description="Passes over the rollouts of a step, each of updates_per_step.")
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
    ratio_level: Literal["token", "sequence"] = Field(
        "token",
        description="The ratio of policies is that of each token, or one for a completion, the geometric mean over its tokens (GSPO, Zheng et "
        "al. 2025, which takes loss_type=grpo, clip_low=3e-4 and clip_high=4e-4).",
    )
    loss_type: Literal["grpo", "bnpo", "dr_grpo", "dapo"] = Field(
        "dapo",
        description="Length normalisation. grpo: mean over the tokens of a completion, then over completions (DeepSeekMath). dapo: mean over all "
        "tokens of an update (DAPO). bnpo: over those of a microbatch (TRL). dr_grpo: sum over a completion's tokens divided by max_new_tokens "
        "(Dr. GRPO, Liu et al. 2025).",
    )
    # DeepSeekMath took 0.04; DAPO has no such term. InstructGPT (Ouyang et al. 2022, appendix C.4) took 0.02 in PPO's reward.
    kl_coef: float = Field(
        0.02,
        ge=0.0,
        le=100.0,
        description="Weight of the KL to the frozen reference policy, per token: in GRPO's loss, where that of dead groups counts too, or in "
        "PPO's reward.",
    )
    # k1 is left out: the mean of its gradient is 0.
    kl_estimator: Literal["k2", "k3"] = Field(
        "k3", description="Schulman's estimate of the KL in GRPO's loss: k3 as in DeepSeekMath (equation 4), or k2."
    )
    skip_dead_groups: bool = Field(
        True,
        description="Leave groups with equal rewards out of the loss and of the number of tokens it is divided by. Each step counts them.",
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
    # Enough for the rule of model/rl/watch.py to see the fall of one kind of prompts: of a dozen that change, all must be worse.
    validation_fraction: float = Field(0.15, ge=0.0, lt=1.0, description="Fraction of prompts held out for validation.")
    max_validation_prompts: int = Field(150, ge=1, description="The most prompts held out for validation.")
    eval_every_steps: int = Field(8, ge=0, description="Steps between validations; 0: only before and after training.")
    checkpoint_every_steps: int = runtime(10, ge=0, description="Steps between checkpoints; 0 keeps none on the way.")
    keep_checkpoints: int = runtime(2, ge=1, description="The number of newest checkpoints kept for resuming.")
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of weights and activations; with bfloat16 the optimizer keeps float32 masters."
    )
    zero_stage: int = Field(
        0,
        ge=0,
        le=3,
        description="DeepSpeed ZeRO: 1 shards optimizer, 2 gradients, 3 weights, of which each rank gathers a copy to sample from.",
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
        description="When the held-out gold score falls beyond chance: end the run and return to its best step, or only report it "
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


class PPOConfig(Config):
    """What PPO has besides rollouts and a policy: a critic, advantages by token, and a KL that may be held at a target."""

    # DeepSpeed-Chat and InstructGPT start it from the reward model.
    critic: Literal["reward_model", "sft"] = Field(
        "reward_model",
        description="What the critic starts from: the reward model, whose head gives the first values, or the SFT model with a new head.",
    )
    # A factor, so that a model which is fine-tuned at a fiftieth of the rate has such a critic too. InstructGPT's is 1.
    critic_rate_factor: float = Field(
        4.0, gt=0.0, le=1e4, description="The critic's learning rate as a multiple of the policy's, at every step."
    )
    # 1 and 0.95: InstructGPT (appendix C.4), and N+ implementation details of RLHF with PPO (Huang et al. 2024).
    discount: float = Field(1.0, ge=0.0, le=1.0, description="Gamma: the weight of a reward one token later.")
    trace: float = Field(
        0.95, ge=0.0, le=1.0, description="Lambda of the advantage estimates (GAE): 0 trusts the critic, 1 the rewards."
    )
    value_clip: float = Field(
        0.2,
        gt=0.0,
        description="How far the critic may move from its values at sampling, as PPO's clip does for the policy.",
    )
    kl_estimator: Literal["k1", "k3"] = Field(
        "k1", description="Schulman's estimate of the KL in a token's reward: k1 as in Ziegler et al. 2019, or k3."
    )
    # Ziegler et al. 2019, section 2.2: a target of 6 to 10 nats a completion, a horizon of 10,000 completions (their code).
    kl_target: float = Field(
        0.0,
        ge=0.0,
        description="Nats of KL per completion that kl_coef is adapted to, within 20% of the error at a time; 0: kl_coef stays.",
    )
    kl_horizon: int = Field(
        10000, ge=1, description="Completions over which kl_coef changes by a factor of e at an error of 100%."
    )
    # Advantages are always whitened, over all tokens of a step: one scale for all prompts, unlike GRPO's division by each group's deviation.
    whiten_rewards: bool = Field(
        False, description="Divide the rewards of tokens by their standard deviation, as TRL's option does."
    )


class DPOLossConfig(Config):
    """The loss of direct preference optimization, see `losses.preference_loss`."""

    loss_type: Literal["sigmoid", "robust", "hinge", "ipo"] = Field(
        "sigmoid",
        description="sigmoid: DPO, or with label_smoothing conservative DPO. robust: unbiased if that fraction of pairs is the wrong way round. "
        "hinge: SLiC. ipo: IPO.",
    )
    # 0.1: Rafailov et al. 2023, appendix B.
    beta: float = Field(
        0.1,
        gt=0.0,
        le=100.0,
        description="How strongly the policy is kept near the reference: that of the KL in the reward.",
    )
    label_smoothing: float = Field(
        0.0, ge=0.0, lt=0.5, description="The probability that a pair is the wrong way round, for sigmoid and robust."
    )
    # 1 in Pang et al. 2024, https://arxiv.org/abs/2404.19733, equation 2; TRL's rpo_alpha.
    sft_weight: float = Field(
        0.0,
        ge=0.0,
        description="Weight of the negative log-likelihood of the chosen completion, a mean over its tokens: DPO alone makes the chosen "
        "completions less likely, too.",
    )
    is_reference_free: bool = Field(
        False, description="Compare with a reference that finds all completions equally likely."
    )


class RLRun(Config):
    """The input of a training process group, as JSON."""

    config: RLConfig
    ppo: PPOConfig = Field(PPOConfig(), description="Read by PPO alone.")
    optim: OptimConfig
    gain_rate_factor: float = Field(0.0, ge=0.0, description=GAIN_RATE_FACTOR)
    model: ModelConfig = Field(description="The policy's shape, and the reference policy's.")
    initial_weights: str = Field(description="Folder with the SFT model's model.safetensors.")
    reward_model: str = Field(description="Folder with the reward model's model.safetensors.")
    gold_model: str = Field(
        "", description="Folder of a second reward model, which scores held-out prompts without an answer."
    )
    tokenizer: str = Field(description="Path of tokenizer.json.")
    prompts: tuple[str, ...] = Field(min_length=1, description="JSONL files of prompts.")
    output: str = Field(description="Folder for weights, metrics.jsonl, rollouts.jsonl and summary.json.")


class DPORun(TrainRun):
    """The input of a process group of DPO, as JSON: a training run on preference pairs, from an SFT model."""

    initial_weights: str = Field(
        description="Folder with the SFT model's model.safetensors, which is also the reference policy."
    )
    dpo: DPOLossConfig = Field(DPOLossConfig())
    gain_rate_factor: float = Field(0.0, ge=0.0, description=GAIN_RATE_FACTOR)
