"""The reward model: trains a scalar score of completions on preference pairs.

Reads the SFTModel that it is initialised from, the Tokenizer and Preferences; writes a RewardModel, a transformer with a scalar head. The loss is
-log sigmoid(score(chosen) - score(rejected)), the Bradley-Terry model (1952) as in InstructGPT (Ouyang et al. 2022,
https://arxiv.org/abs/2203.02155, section 3.5). Metrics: accuracy on held-out pairs by kind of prompt and fault, calibration and correlation with
length (model/inference/ranking.py); reinforcement learning warns by them.

Pairs come one by one, or from rankings of several completions (`crawl2chat labels export`), whose pairs share a weight of 1.

Departures: the score is the head's at the token that ends the completion plus a multiple of the mean log-probability of the completion's tokens
(`RewardModel`), without which a small model ranks wrong facts and sums little better than by chance. InstructGPT puts all pairs of a ranking
into one batch element; here they are drawn one by one with their weights.
"""

from dataclasses import dataclass, replace

from pydantic import Field

from model.config import OptimConfig, TrainConfig, TrainRun
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import Preferences, RewardModel, SFTModel, Tokenizer
from tasks.artifacts.step import Outcome, Step, roles
from tasks.conversations.readers import read_records
from tasks.conversations.sources import PreferencesConfig
from tasks.execution.context import StageContext
from tasks.records.conversations import Preference, normal_form
from tasks.training import check_vocabulary, model_config, paths, tokenizer_file, train

VERSION = 6  # 6: the likelihood of the completion is a part of the score


class RewardConfig(PreferencesConfig):
    """The preference pairs, and how long the model is trained on them."""

    # Less than an epoch of the sample's 10,800 pairs: InstructGPT's reward model overfits in the second (appendix C.2).
    train: TrainConfig = Field(
        TrainConfig(num_steps=40, batch_tokens=16_384, microbatch_sequences=32, num_ranks=2), title="Training"
    )
    # A sixth of the rate of pretraining (OptimConfig): the layers are trained already, and only the head is new.
    optim: OptimConfig = Field(OptimConfig(learning_rate=5e-4), title="Optimizer")
    # SimPO's authors take 2 to 10. Without it, 200 steps of 32 pairs left wrong facts ranked right in 67% and wrong sums in 64%.
    likelihood_weight: float = Field(
        5.0,
        ge=0.0,
        description="Weight of the mean log-probability of a completion's tokens in its score; 0: the head alone, as transformers reads it. "
        "Without effect for a model whose head is not its embedding.",
    )


@dataclass(frozen=True)
class RewardInputs:
    """The artifacts that reward-model training reads."""

    assistant: SFTModel
    tokenizer: Tokenizer
    preferences: Preferences


def reward(
    assistant: Step[SFTModel], tokenizer: Step[Tokenizer], preferences: Step[Preferences], config: RewardConfig
) -> Step[RewardModel]:
    """Train a reward model on preference pairs."""
    inputs = roles(assistant=assistant, tokenizer=tokenizer, preferences=preferences)
    return Step("reward", VERSION, RewardModel, config, inputs, run=train_reward_model, takes=RewardInputs)


def train_reward_model(ctx: StageContext, config: RewardConfig, inputs: RewardInputs) -> Outcome:
    """Train a scalar head and the SFT model's layers. Raises UserError where the tokenizer is not the SFT model's."""
    # Here and not when the DAG is built: the sizes are known once both artifacts exist.
    check_vocabulary(inputs.assistant, inputs.tokenizer)
    model = model_config(inputs.assistant)
    settings = TrainRun(
        objective="reward",
        model=model,
        # A reward model keeps the embedding alone, not a head apart from it.
        likelihood_weight=config.likelihood_weight if model.tie_embeddings else 0.0,
        train=config.train,
        optim=config.optim,
        tokenizer=tokenizer_file(inputs.tokenizer),
        train_paths=paths(inputs.preferences, "train.jsonl"),
        validation_paths=paths(inputs.preferences, "validation.jsonl"),
        # The scalar head is not in these weights and starts from its own initial values, see load_weights.
        initial_weights=str(inputs.assistant.folder),
        output=str(ctx.folder),
    )
    outcome = train(
        ctx, "model.training.loop", settings, num_steps=config.train.num_steps, num_ranks=config.train.num_ranks
    )
    # How much of people is in it: the first question about a reward model.
    given = inputs.preferences.manifest.counts
    labels = {name: given[name] for name in ("labels", "people") if name in given}
    return replace(outcome, counts=outcome.counts | labels, metrics=outcome.metrics | measure(ctx, inputs))


def measure(ctx: StageContext, inputs: RewardInputs) -> dict[str, float]:
    """The metrics of the finished model on the held-out pairs; reports what it cannot rank."""
    from model.inference.ranking import rank_pairs, ranking_metrics
    from model.inference.unranked_kinds import unranked_kinds
    from model.network.huggingface import default_device, load_reward_model

    pairs = list(map(normal_form, read_records(Preference, inputs.preferences.folder / "validation.jsonl")))
    if not pairs:
        return {}
    model = load_reward_model(ctx.folder).to(default_device())
    metrics = ranking_metrics(rank_pairs(model, ChatTokenizer.load(tokenizer_file(inputs.tokenizer)), pairs))
    for name, accuracy in unranked_kinds(metrics).items():
        ctx.log(f"the reward model cannot rank pairs of {name}: {accuracy:.0%} of them are ranked correctly")
    return metrics
