"""RLHF: trains the SFT model to be preferred, by GRPO, PPO or DPO through DeepSpeed.

Reads the SFTModel, which is also the frozen reference policy, and its Tokenizer; for GRPO and PPO the RewardModel and Prompts, for DPO the
Preferences that a reward model is trained on. Writes a Policy, with `metrics.jsonl` (a line for each step) and, but for DPO, `rollouts.jsonl` (two
completions of one prompt for each step), `samples.jsonl`, `diagnosis.jsonl` and `training.svg` (tasks/posttrain/watching.py).

- grpo (model/rl/grpo.py): group-relative advantages without a value model (GRPO, Shao et al. 2024, https://arxiv.org/abs/2402.03300), not divided by
  their deviation (Dr. GRPO, Liu et al. 2025, https://arxiv.org/abs/2503.20783), the asymmetric clip and the mean over tokens of DAPO (Yu et al.
  2025, https://arxiv.org/abs/2503.14476), and InstructGPT's KL penalty to the SFT model (Ouyang et al. 2022, https://arxiv.org/abs/2203.02155).
- ppo (model/rl/ppo.py): InstructGPT's algorithm, with a critic. Departures from it: a verifiable reward next to the reward model's, and no
  pretraining gradients (PPO-ptx).
- dpo (model/rl/dpo.py): preference pairs instead of rollouts (Rafailov et al. 2023, https://arxiv.org/abs/2305.18290).
"""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from model.config import OptimConfig, TrainConfig
from model.rl.config import GAIN_RATE_FACTOR, DPOLossConfig, DPORun, PPOConfig, RLConfig, RLRun
from tasks.artifacts.manifest import Policy, Preferences, Prompts, RewardModel, SFTModel, Tokenizer
from tasks.artifacts.step import ExistingArtifact, Outcome, Step, roles
from tasks.artifacts.store import Store
from tasks.conversations.readers import read_records
from tasks.conversations.sources import PromptsConfig
from tasks.execution.context import StageContext
from tasks.posttrain.watching import RLFollower, rewarded_alone, unranked_prompts, unranked_warning
from tasks.records.conversations import Prompt
from tasks.training import check_vocabulary, model_config, paths, tokenizer_file, train

VERSION = 10  # 10: the KL of the completions of dead groups too
# The metrics that the progress display shows, by label.
SHOWN = {
    "reward": "reward/mean",
    "kl": "policy/kl_k3",
    "tokens": "completion/tokens_mean",
    "generation s": "phase/generation_seconds",
    "scoring s": "phase/scoring_seconds",
    "training s": "phase/training_seconds",
}


class RLHFConfig(PromptsConfig):
    """The algorithm, the prompts, and how the policy is trained on them."""

    algorithm: Literal["grpo", "ppo", "dpo"] = Field(
        "grpo",
        description="grpo, ppo: from rewards of sampled completions; ppo trains a critic too. dpo: from the preference pairs, without sampling.",
    )
    # No weight decay and a linear decay of the learning rate over the run, as TRL's GRPOTrainer has them. The rate suits models of about
    # 1 M parameters; TRL's 1e-6 suits billions, and flows/recipes.py takes it for imported models.
    # Means by completion: a worked sum has five times the tokens of an answer. A third of the reward model's score: of the policy's own replies it
    # ranks right sums above wrong ones in 74%, refusals above guesses in 62%. 96 tokens: a story has some 70, and one that is cut off is punished.
    # After 16 steps no score had changed beyond chance; with 48 at a higher rate 4 points of worked sums were lost.
    train: RLConfig = Field(
        RLConfig(
            num_steps=64,
            prompts_per_step=32,
            max_new_tokens=96,
            kl_coef=0.2,
            model_weight=0.3,
            loss_type="grpo",
            num_ranks=2,
        ),
        title="GRPO and PPO",
    )
    ppo: PPOConfig = Field(PPOConfig(), title="PPO")
    # Without a reference, as CPO (Xu et al. 2024, https://arxiv.org/abs/2401.08417): with one, and beta=0.3, worked sums of tiny fell from 95% to 87%.
    dpo: DPOLossConfig = Field(DPOLossConfig(beta=0.2, sft_weight=1.0, is_reference_free=True), title="DPO")
    # Half an epoch of the sample's 10,800 pairs.
    dpo_train: TrainConfig = Field(TrainConfig(num_steps=40, batch_tokens=65536, num_ranks=2), title="DPO's training")
    optim: OptimConfig = Field(
        OptimConfig(learning_rate=2e-4, weight_decay=0.0, decay_fraction=1.0, final_learning_rate_fraction=0.1),
        title="Optimizer",
    )

    # With all weights trained, GRPO lowered worked sums of tiny from 80% to 58% and what was typed in other languages from 95% to 82%.
    gain_rate_factor: float = Field(50.0, ge=0.0, le=1e4, description=GAIN_RATE_FACTOR)

    gold_model: str = Field(
        "",
        description="A second reward model, as reward/FINGERPRINT, which training never sees: it scores the held-out prompts without an "
        "answer, so that reward gaming is seen on real data.",
    )

    @model_validator(mode="after")
    def _algorithm_has_what_it_needs(self) -> "RLHFConfig":
        # Alone in its group a completion always has an advantage of 0.
        if self.algorithm == "grpo" and self.train.completions_per_prompt < 2:
            raise ValueError(
                "completions_per_prompt=1 leaves GRPO nothing to compare a completion with: take at least 2, or algorithm=ppo"
            )
        if self.algorithm == "ppo" and self.ppo.kl_target and not self.train.kl_coef:
            raise ValueError("kl_coef=0 cannot be adapted to a kl_target: give it a first value, such as 0.02")
        if self.gain_rate_factor and self.optim.optimizer == "muon":
            raise ValueError(
                "optimizer=muon moves matrices, and with a gain_rate_factor they stay as they are: take adamw, or gain_rate_factor=0"
            )
        # Padded to its longest side, a batch of pairs has one of many shapes, and each would be compiled.
        if self.algorithm == "dpo" and self.dpo_train.is_compiled:
            raise ValueError("dpo_train.is_compiled is of no use, since DPO's batches have many shapes: turn it off")
        return self

    def used(self) -> "RLHFConfig":
        """The settings with the sections of other algorithms at their defaults: these shape nothing."""
        others = {
            "grpo": ("ppo", "dpo", "dpo_train"),
            "ppo": ("dpo", "dpo_train"),
            "dpo": ("train", "ppo", "gold_model"),
        }[self.algorithm]
        return self.model_copy(update={name: type(self).model_fields[name].default for name in others})


@dataclass(frozen=True)
class RLHFInputs:
    """The artifacts that RLHF reads: all but `preferences` by GRPO and PPO, none but these and the first two by DPO.

    `gold_model`: the second reward model, where one is configured.
    """

    assistant: SFTModel
    tokenizer: Tokenizer
    reward_model: RewardModel | None = None
    prompts: Prompts | None = None
    preferences: Preferences | None = None
    gold_model: RewardModel | None = None


def rlhf(
    assistant: Step[SFTModel],
    reward_model: Step[RewardModel],
    tokenizer: Step[Tokenizer],
    prompts: Step[Prompts],
    preferences: Step[Preferences],
    config: RLHFConfig,
) -> Step[Policy]:
    """Train the SFT model to be preferred: by the reward model, or with DPO as in the pairs."""
    if config.algorithm == "dpo":
        inputs = roles(assistant=assistant, tokenizer=tokenizer, preferences=preferences)
    else:
        gold = ExistingArtifact.of(RewardModel, config.gold_model) if config.gold_model else None
        inputs = roles(
            assistant=assistant, reward_model=reward_model, tokenizer=tokenizer, prompts=prompts, gold_model=gold
        )
    return Step(
        "rlhf", VERSION, Policy, config, inputs, train_policy, RLHFInputs, resolve=RLHFConfig.used, check=check_gold
    )


def check_gold(config: RLHFConfig) -> None:
    """Raises UserError where there is no such second reward model."""
    if config.gold_model:
        Store.default().open(config.gold_model, RewardModel)


def train_policy(ctx: StageContext, config: RLHFConfig, inputs: RLHFInputs) -> Outcome:
    """Train by the algorithm that is configured. Raises UserError where the tokenizer is not that of the models."""
    check_vocabulary(inputs.assistant, inputs.tokenizer)
    if config.algorithm == "dpo":
        return train_on_pairs(ctx, config, inputs)
    assert inputs.reward_model and inputs.prompts, "GRPO and PPO read a reward model and prompts"
    # One tokenizer for both: the reward model scores the policy's tokens as they are, without decoding them.
    check_vocabulary(inputs.reward_model, inputs.tokenizer)
    if inputs.gold_model:
        check_vocabulary(inputs.gold_model, inputs.tokenizer)
    unranked = warn_of_unranked(ctx, config, inputs.reward_model, inputs.prompts)
    settings = RLRun(
        config=config.train,
        ppo=config.ppo,
        optim=config.optim,
        gain_rate_factor=config.gain_rate_factor,
        model=model_config(inputs.assistant),
        initial_weights=str(inputs.assistant.folder),
        # There is no field for the reference policy: it is the model of initial_weights, kept frozen.
        reward_model=str(inputs.reward_model.folder),
        gold_model=str(inputs.gold_model.folder) if inputs.gold_model else "",
        tokenizer=tokenizer_file(inputs.tokenizer),
        # All in one: the training process holds out a part of the prompts to validate on.
        prompts=paths(inputs.prompts, "*.jsonl"),
        output=str(ctx.folder),
    )
    steps, ranks = config.train.num_steps, config.train.num_ranks
    module = f"model.rl.{config.algorithm}"
    outcome = train(ctx, module, settings, num_steps=steps, num_ranks=ranks, shown=SHOWN, follows=RLFollower)
    return Outcome(
        outcome.counts, {**outcome.metrics, **{f"unranked/{kind}": value for kind, value in unranked.items()}}
    )


def warn_of_unranked(
    ctx: StageContext, config: RLHFConfig, reward_model: RewardModel, prompts: Prompts
) -> dict[str, float]:
    """Log, once, the kinds of prompts that the reward model alone rewards and cannot rank. Returns them with its accuracy."""
    from model.inference.unranked_kinds import unranked_kinds

    if not config.train.model_weight:
        return {}
    records = [prompt for path in prompts.files("*.jsonl") for prompt in read_records(Prompt, path)]
    alone = rewarded_alone(records, config.train.verifiable_weight)
    found = unranked_prompts(alone, unranked_kinds(reward_model.manifest.metrics))
    if found:
        ctx.log(unranked_warning(found))
    return found


def train_on_pairs(ctx: StageContext, config: RLHFConfig, inputs: RLHFInputs) -> Outcome:
    """Train by DPO."""
    assert inputs.preferences, "DPO reads preference pairs"
    settings = DPORun(
        objective="dpo",
        dpo=config.dpo,
        model=model_config(inputs.assistant),
        train=config.dpo_train,
        optim=config.optim,
        gain_rate_factor=config.gain_rate_factor,
        tokenizer=tokenizer_file(inputs.tokenizer),
        train_paths=paths(inputs.preferences, "train.jsonl"),
        validation_paths=paths(inputs.preferences, "validation.jsonl"),
        initial_weights=str(inputs.assistant.folder),
        output=str(ctx.folder),
    )
    steps, ranks = config.dpo_train.num_steps, config.dpo_train.num_ranks
    return train(ctx, "model.rl.dpo", settings, num_steps=steps, num_ranks=ranks)
