"""The pipeline: the whole DAG on one page, and the flow that runs it.

Reads a recipe, writes every stage's artifact. In one process each stage is a subflow. Deployed, each stage is a run of its
deployment behind a small task with a persisted result, so that a retry of the pipeline keeps what is finished.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, NamedTuple

from prefect import flow

from flows.cancellation import cancellable
from flows.checks import check_run
from flows.launch import run_deployed, run_here
from flows.recipes import STAGE_NAMES, Recipe, RecipeName, StageName, make_recipe
from flows.stage_run import Summary, run_name
from model.errors import UserError
from tasks.artifacts.manifest import (
    Artifact,
    BaseModel,
    Bundle,
    Conversations,
    Documents,
    Index,
    Policy,
    Report,
    RewardModel,
    SFTModel,
    Tokenizer,
    Tokens,
)
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.conversations.sources import conversations, preferences, probes, prompts, questions
from tasks.conversations.tool_sources import tool_conversations, tool_questions
from tasks.dedup.stage import dedup, earlier_documents, evaluation_sets
from tasks.evaluate.stage import evaluate
from tasks.export.stage import export
from tasks.filter.attributes import compute_attributes
from tasks.filter.quality_classifier import quality_classifier
from tasks.filter.stage import filter
from tasks.index.stage import index as index_documents
from tasks.ingest.inputs import web_archives
from tasks.ingest.stage import ingest, prefilter_model
from tasks.posttrain.reward import reward
from tasks.posttrain.rlhf import rlhf
from tasks.posttrain.sft import sft
from tasks.pretrain.open_weights import open_weights
from tasks.pretrain.stage import more_tokens, pretrain
from tasks.probe.stage import probe
from tasks.tokenizer.encode import tokenize
from tasks.tokenizer.train import compared_vocabularies, existing_vocabulary
from tasks.tokenizer.train import tokenizer as train_tokenizer
from tasks.web.language_id import language_model
from tasks.web.ut1 import blocklists


class Steps(NamedTuple):
    """The step of every stage. The sources are inputs of these."""

    ingest: Step[Documents]
    filter: Step[Documents]
    dedup: Step[Documents]
    text_index: Step[Index]  # `index` is a method of tuples
    tokenizer: Step[Tokenizer]
    tokenize: Step[Tokens]
    pretrain: Step[BaseModel]
    probe: Step[Conversations]
    sft: Step[SFTModel]
    reward: Step[RewardModel]
    rlhf: Step[Policy]
    evaluate: Step[Report]
    export: Step[Bundle]

    def by_stage(self) -> dict[StageName, Step[Artifact]]:
        """The steps by the name of their stage, in order."""
        return dict(zip(STAGE_NAMES, self, strict=True))


def dag(recipe: Recipe) -> Steps:
    """Every step of a recipe. Nothing runs here and no file is opened: a step names what it would make."""
    seed = recipe.world_seed  # of the sample web, where no other source is named

    crawl = web_archives(recipe.ingest, seed)  # files, URLs, cc:CRAWL, or the sample web
    prefilter = prefilter_model(recipe.ingest)  # None: languages are decided by the filter alone
    blocked = blocklists(recipe.ingest.blocklists)
    raw = ingest(crawl, prefilter, blocked, recipe.ingest)  # HTML -> text

    languages = language_model(recipe.filter.language_model)
    unwanted = blocklists(recipe.filter.blocklists)
    classifier = quality_classifier(recipe.filter.quality_model)  # None: off
    attributes = compute_attributes(raw, crawl, languages, unwanted, classifier, recipe.filter)
    clean = filter(raw, attributes, recipe.filter)  # URL, language, quality, PII

    earlier = earlier_documents(recipe.dedup.against)
    eval_sets = evaluation_sets(recipe.dedup.eval_sets)
    unique = dedup(clean, earlier, eval_sets, recipe.dedup)  # exact and MinHash
    index = index_documents(unique, recipe.index)  # full-text search over the crawl

    vocabulary = existing_vocabulary(recipe.tokenizer.vocabulary)  # None: one is trained
    compared = compared_vocabularies(recipe.tokenizer.compared_with)
    tokenizer = train_tokenizer(unique, vocabulary, compared, recipe.tokenizer)  # byte-level BPE
    tokens = tokenize(unique, tokenizer, recipe.tokenize)  # sharded Arrow

    initial = open_weights(recipe.pretrain.initial_model)  # None: training starts from random weights
    mixture = more_tokens(recipe.pretrain.mixture)
    base = pretrain(tokens, tokenizer, initial, mixture, recipe.pretrain)  # DeepSpeed

    chats, tool_chats = conversations(recipe.sft, seed), tool_conversations(recipe.sft, index, seed)  # None: no tools
    qa = probe(base, tokenizer, unique, chats, probes(recipe.probe, seed), recipe.probe)  # what it knows
    assistant = sft(base, tokenizer, chats, tokens, recipe.sft, tool_chats, qa)  # with some pretraining text
    pairs = preferences(recipe.reward, seed)
    reward_model = reward(assistant, tokenizer, pairs, recipe.reward)  # Bradley-Terry
    tasks = prompts(recipe.rlhf, seed)
    policy = rlhf(assistant, reward_model, tokenizer, tasks, pairs, recipe.rlhf)  # GRPO, PPO or DPO

    asked, tool_asked = questions(recipe.evaluate, seed), tool_questions(recipe.evaluate, seed)
    card = evaluate(
        crawl, raw, attributes, clean, unique, tokenizer, tokens,
        base, assistant, reward_model, policy, pairs, asked, recipe.evaluate, tool_asked, index,
    )  # fmt: skip
    bundle = export(policy, assistant, tokenizer, card, recipe.export, raw)  # the SFT model if the policy is worse
    return Steps(raw, clean, unique, index, tokenizer, tokens, base, qa, assistant, reward_model, policy, card, bundle)


def select(start: str, until: str, only: str, force: Sequence[str] = ()) -> tuple[StageName, ...]:
    """The stages from `start` to `until`, or `only` one, with all of `force`; an empty name sets no bound. Raises UserError."""
    # By hand and not by the type: the names come from a command line as well as from a form.
    for name in (start, until, only, *force):
        if name and name not in STAGE_NAMES:
            raise UserError(f"there is no stage {name!r}: take one of {', '.join(STAGE_NAMES)}")
    if only and (start or until):
        raise UserError(f"--only {only} is given with another bound: give --only, or --from and --until")
    names: tuple[str, ...] = STAGE_NAMES
    first = names.index(only or start) if only or start else 0
    last = names.index(only or until) if only or until else len(names) - 1
    if last < first:
        raise UserError(f"stage {until} comes before {start}: there is nothing to run from {start} until {until}")
    chosen = STAGE_NAMES[first : last + 1]
    if excluded := [name for name in force if name not in chosen]:
        raise UserError(f"--force {excluded[0]}: it is not among the stages to run: {', '.join(chosen)}")
    return chosen


# A context variable and not a parameter: steps are not JSON, and whoever starts the flow from the UI has none.
PLANNED: ContextVar[Steps | None] = ContextVar("PLANNED", default=None)


@contextmanager
def planned(steps: Steps) -> Iterator[None]:
    """Let the flows in this block take these steps, which are checked already: a command builds its DAG and reads its files once."""
    token = PLANNED.set(steps)
    try:
        yield
    finally:
        PLANNED.reset(token)


@flow(flow_run_name=run_name)
@cancellable
def pipeline(
    recipe: RecipeName = "tiny",
    start: Literal["", StageName] = "",
    until: Literal["", StageName] = "",
    only: Literal["", StageName] = "",
    force: list[StageName] = [],
    settings: list[str] = [],
    inputs: list[str] = [],
    max_files: int = 0,
    base_model: str = "",
    recipe_yaml: str = "",
    runs_deployments: bool = True,
) -> dict[str, Summary]:
    """Run the stages of a recipe, in order. A stage that is up to date is skipped.

    To run one stage and everything after it again, choose it as `start` and under `force`: later stages run where its result
    differs. To run it alone, choose it as `only` and under `force`. To run stages from it on with other settings, add these under
    `settings`; nothing has to be forced then.

    Args:
        recipe: Brings the settings of all stages.
        start: The first stage to run; the artifacts of the stages before it must exist. To run it again, choose it under force too.
        until: The last stage to run.
        only: The one stage to run, without start and until.
        force: Stages to run even if they are up to date. Later ones run where the result differs.
        settings: Changes to the recipe, as STAGE.FIELD=VALUE, such as pretrain.train.num_steps=800.
        inputs: Web archive files instead of the recipe's: paths, globs, URLs, cc:CRAWL.
        max_files: Read at most so many files; 0 reads all.
        base_model: Folder of a Qwen3 or Llama model to take as the base model instead of training one.
        recipe_yaml: The text of a recipe file, instead of a recipe by name.
        runs_deployments: Run each stage through its deployment; else here, in this process.
    """
    chosen = {"recipe": recipe, "recipe_yaml": recipe_yaml}
    made = make_recipe(recipe, inputs, max_files, settings, base_model, recipe_yaml)
    names = select(start, until, only, force)
    # A command has built and checked the DAG already; for a run from the UI it is done here.
    steps = (PLANNED.get() or dag(made)).by_stage()
    if PLANNED.get() is None:
        check_run(steps, names, force, made.name, Store.default())
    done: dict[str, Summary] = {}
    for name in names:
        if runs_deployments:
            # Only what the UI draws as arrows. The data comes from the store.
            upstream = [done[given.stage] for given in steps[name].inputs.values() if given.stage in done]
            done[name] = run_deployed(steps[name], made, chosen, name in force, upstream)
        else:
            done[name] = run_here(steps[name], made, name in force)
    return done
