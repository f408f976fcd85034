"""The stages as Prefect flows, each a deployment of its own: a form in the UI, a row in the list, a retry of its own.

Each reads the artifacts it is given, by STAGE/FINGERPRINT or as "latest" of a recipe, from the store that CRAWL2CHAT_STORE
names, and leaves its own artifact there. What a flow returns is a summary; data passes through the store alone.
"""

from typing import Any, TypeVar

from prefect import flow

from flows.recipes import RecipeName
from flows.stage_run import Summary, run_name, run_step
from tasks.artifacts.manifest import Artifact, Checkpoint, Documents, Report, Tokenizer, Tokens
from tasks.artifacts.step import ExistingArtifact, Step
from tasks.artifacts.store import Store
from tasks.dedup import stage as dedup_stage
from tasks.evaluate import stage as evaluate_stage
from tasks.export import stage as export_stage
from tasks.filter import stage as filter_stage
from tasks.ingest import stage as ingest_stage
from tasks.posttrain import reward as reward_stage
from tasks.posttrain import rlhf as rlhf_stage
from tasks.posttrain import sft as sft_stage
from tasks.pretrain import stage as pretrain_stage
from tasks.tokenizer import encode as tokenize_stage
from tasks.tokenizer import train as tokenizer_stage

LATEST = "latest"
A = TypeVar("A", bound=Artifact)


class Inputs:
    """Finds the artifacts that a stage was told to take."""

    def __init__(self, recipe: str) -> None:
        self.recipe, self.store = recipe, Store.default()

    def __call__(self, kind: type[A], stage: str, name: str) -> Step[A]:
        """`name`: "latest", FINGERPRINT or STAGE/FINGERPRINT."""
        artifact_id = (
            self.store.latest(self.recipe, stage) if name == LATEST else name if "/" in name else f"{stage}/{name}"
        )
        manifest = self.store.open(artifact_id, kind).manifest
        return ExistingArtifact.of(kind, artifact_id, manifest)

    def run(self, step: Step[Any], force: bool) -> Summary:
        return run_step(step, self.recipe, self.store, force=force)


@flow(flow_run_name=run_name)
def ingest(
    recipe: RecipeName = "tiny", config: ingest_stage.IngestConfig = ingest_stage.IngestConfig(), force: bool = False
) -> Summary:
    """Read web archive files into documents.

    Args:
        recipe: Whose latest artifact the result becomes.
        config: Which files, and how text is extracted.
        force: Run also where the artifact is up to date.
    """
    return Inputs(recipe).run(ingest_stage.ingest(config), force)


@flow(flow_run_name=run_name)
def filter(
    recipe: RecipeName = "tiny",
    documents: str = LATEST,
    config: filter_stage.FilterConfig = filter_stage.FilterConfig(),
    force: bool = False,
) -> Summary:
    """Drop documents by URL, language and quality, and redact personal data.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        documents: Artifact of ingest: STAGE/FINGERPRINT, or latest.
        config: The thresholds.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    return take.run(filter_stage.filter(take(Documents, "ingest", documents), config), force)


@flow(flow_run_name=run_name)
def dedup(
    recipe: RecipeName = "tiny",
    documents: str = LATEST,
    config: dedup_stage.DedupConfig = dedup_stage.DedupConfig(),
    force: bool = False,
) -> Summary:
    """Drop exact and near duplicates.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        documents: Artifact of filter: STAGE/FINGERPRINT, or latest.
        config: What counts as a duplicate.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    return take.run(dedup_stage.dedup(take(Documents, "filter", documents), config), force)


@flow(flow_run_name=run_name)
def tokenizer(
    recipe: RecipeName = "tiny",
    documents: str = LATEST,
    config: tokenizer_stage.TokenizerConfig = tokenizer_stage.TokenizerConfig(),
    force: bool = False,
) -> Summary:
    """Train a byte-level BPE tokenizer, or take one from elsewhere.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        documents: Artifact of dedup: STAGE/FINGERPRINT, or latest.
        config: Size of the vocabulary and how much text it is learned from.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    return take.run(tokenizer_stage.tokenizer(take(Documents, "dedup", documents), config), force)


@flow(flow_run_name=run_name)
def tokenize(
    recipe: RecipeName = "tiny",
    documents: str = LATEST,
    tokenizer: str = LATEST,
    config: tokenize_stage.TokenizeConfig = tokenize_stage.TokenizeConfig(),
    force: bool = False,
) -> Summary:
    """Turn documents into Arrow shards of tokens.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        documents: Artifact of dedup: STAGE/FINGERPRINT, or latest.
        tokenizer: Artifact of tokenizer: STAGE/FINGERPRINT, or latest.
        config: The validation split and the shards.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    given = take(Documents, "dedup", documents), take(Tokenizer, "tokenizer", tokenizer)
    return take.run(tokenize_stage.tokenize(*given, config), force)


@flow(flow_run_name=run_name)
def pretrain(
    recipe: RecipeName = "tiny",
    tokens: str = LATEST,
    tokenizer: str = LATEST,
    config: pretrain_stage.PretrainConfig = pretrain_stage.PretrainConfig(),
    force: bool = False,
) -> Summary:
    """Train a base model on tokens, or take one from elsewhere.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        tokens: Artifact of tokenize: STAGE/FINGERPRINT, or latest.
        tokenizer: Artifact of tokenizer: STAGE/FINGERPRINT, or latest.
        config: The model, its training and its optimizer.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    given = take(Tokens, "tokenize", tokens), take(Tokenizer, "tokenizer", tokenizer)
    return take.run(pretrain_stage.pretrain(*given, config), force)


@flow(flow_run_name=run_name)
def sft(
    recipe: RecipeName = "tiny",
    base: str = LATEST,
    tokenizer: str = LATEST,
    config: sft_stage.SFTConfig = sft_stage.SFTConfig(),
    force: bool = False,
) -> Summary:
    """Fine-tune a base model on conversations.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        base: Artifact of pretrain: STAGE/FINGERPRINT, or latest.
        tokenizer: Artifact of tokenizer: STAGE/FINGERPRINT, or latest.
        config: The conversations, the training and its optimizer.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    given = take(Checkpoint, "pretrain", base), take(Tokenizer, "tokenizer", tokenizer)
    return take.run(sft_stage.sft(*given, config), force)


@flow(flow_run_name=run_name)
def reward(
    recipe: RecipeName = "tiny",
    assistant: str = LATEST,
    tokenizer: str = LATEST,
    config: reward_stage.RewardConfig = reward_stage.RewardConfig(),
    force: bool = False,
) -> Summary:
    """Train a reward model on preference pairs.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        assistant: Artifact of sft: STAGE/FINGERPRINT, or latest.
        tokenizer: Artifact of tokenizer: STAGE/FINGERPRINT, or latest.
        config: The pairs, the training and its optimizer.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    given = take(Checkpoint, "sft", assistant), take(Tokenizer, "tokenizer", tokenizer)
    return take.run(reward_stage.reward(*given, config), force)


@flow(flow_run_name=run_name)
def rlhf(
    recipe: RecipeName = "tiny",
    assistant: str = LATEST,
    reward_model: str = LATEST,
    tokenizer: str = LATEST,
    config: rlhf_stage.RLHFConfig = rlhf_stage.RLHFConfig(),
    force: bool = False,
) -> Summary:
    """Train the assistant to be preferred by the reward model.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        assistant: Artifact of sft: STAGE/FINGERPRINT, or latest.
        reward_model: Artifact of reward: STAGE/FINGERPRINT, or latest.
        tokenizer: Artifact of tokenizer: STAGE/FINGERPRINT, or latest.
        config: The prompts and the training.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    given = (
        take(Checkpoint, "sft", assistant),
        take(Checkpoint, "reward", reward_model),
        take(Tokenizer, "tokenizer", tokenizer),
    )
    return take.run(rlhf_stage.rlhf(*given, config), force)


@flow(flow_run_name=run_name)
def evaluate(
    recipe: RecipeName = "tiny",
    raw: str = LATEST,
    clean: str = LATEST,
    unique: str = LATEST,
    tokenizer: str = LATEST,
    tokens: str = LATEST,
    base: str = LATEST,
    assistant: str = LATEST,
    reward_model: str = LATEST,
    policy: str = LATEST,
    config: evaluate_stage.EvaluateConfig = evaluate_stage.EvaluateConfig(),
    force: bool = False,
) -> Summary:
    """Write the report card.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        raw: Artifact of ingest: STAGE/FINGERPRINT, or latest.
        clean: Artifact of filter: STAGE/FINGERPRINT, or latest.
        unique: Artifact of dedup: STAGE/FINGERPRINT, or latest.
        tokenizer: Artifact of tokenizer: STAGE/FINGERPRINT, or latest.
        tokens: Artifact of tokenize: STAGE/FINGERPRINT, or latest.
        base: Artifact of pretrain: STAGE/FINGERPRINT, or latest.
        assistant: Artifact of sft: STAGE/FINGERPRINT, or latest.
        reward_model: Artifact of reward: STAGE/FINGERPRINT, or latest.
        policy: Artifact of rlhf: STAGE/FINGERPRINT, or latest.
        config: How much is asked.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    step = evaluate_stage.evaluate(
        raw=take(Documents, "ingest", raw),
        clean=take(Documents, "filter", clean),
        unique=take(Documents, "dedup", unique),
        tokenizer=take(Tokenizer, "tokenizer", tokenizer),
        tokens=take(Tokens, "tokenize", tokens),
        base=take(Checkpoint, "pretrain", base),
        assistant=take(Checkpoint, "sft", assistant),
        reward_model=take(Checkpoint, "reward", reward_model),
        policy=take(Checkpoint, "rlhf", policy),
        config=config,
    )
    return take.run(step, force)


@flow(flow_run_name=run_name)
def export(
    recipe: RecipeName = "tiny",
    policy: str = LATEST,
    tokenizer: str = LATEST,
    report: str = LATEST,
    config: export_stage.ExportConfig = export_stage.ExportConfig(),
    force: bool = False,
) -> Summary:
    """Write the model as inference engines load it.

    Args:
        recipe: Whose latest artifacts are meant, and whose latest the result becomes.
        policy: Artifact of rlhf: STAGE/FINGERPRINT, or latest.
        tokenizer: Artifact of tokenizer: STAGE/FINGERPRINT, or latest.
        report: Artifact of evaluate: STAGE/FINGERPRINT, or latest.
        config: What the bundle says of itself.
        force: Run also where the artifact is up to date.
    """
    take = Inputs(recipe)
    given = take(Checkpoint, "rlhf", policy), take(Tokenizer, "tokenizer", tokenizer), take(Report, "evaluate", report)
    return take.run(export_stage.export(*given, config), force)


FLOWS = {
    stage.name: stage
    for stage in (ingest, filter, dedup, tokenizer, tokenize, pretrain, sft, reward, rlhf, evaluate, export)
}
