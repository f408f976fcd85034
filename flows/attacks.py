"""The study of attacks: poisoned pages, prompt injection and jailbreaks, each before and after its mitigation (tasks/attacks).

Reads a recipe over the sample web; writes what its pipeline writes up to SFT, and for every arm and seed a model and its replies, and a Report.
Only what an arm changes is trained: the base model of the recipe is trained further on a crawl with planted pages, its SFT model on
conversations with and without each mitigation. Arms of one drill have the same number of steps.
"""

from collections.abc import Sequence
from typing import NamedTuple, Self

from prefect import flow
from pydantic import Field, model_validator

from flows import recipe_files
from flows.ablation import Planned
from flows.cancellation import cancellable
from flows.checks import check_inputs, check_run
from flows.launch import make
from flows.pipeline import Steps, dag, pipeline, planned, select
from flows.recipes import Recipe, RecipeName, make_recipe, overlaid
from flows.stage_run import Summary, run_name
from model.config import Config
from model.errors import UserError
from tasks.artifacts.manifest import BaseModel, Documents, Report, SFTModel
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.attacks.completions import CompletionsConfig, completions
from tasks.attacks.conversations import AttackConversationsConfig, attack_conversations
from tasks.attacks.planted import PlantedConfig, planted_crawl
from tasks.attacks.replies import RepliesConfig, replies
from tasks.attacks.study import AttacksConfig, PoisonArm, PoisonSteps, attacks
from tasks.conversations.sources import conversations
from tasks.dedup.stage import dedup
from tasks.evaluate.seeds import SEEDS
from tasks.filter.attributes import compute_attributes
from tasks.filter.quality_classifier import quality_classifier
from tasks.filter.stage import filter
from tasks.ingest.inputs import SAMPLE
from tasks.ingest.stage import ingest, prefilter_model
from tasks.posttrain.sft import sft
from tasks.pretrain.open_weights import trained_weights
from tasks.pretrain.stage import pretrain
from tasks.tokenizer.encode import tokenize
from tasks.web.language_id import language_model
from tasks.web.ut1 import blocklists

REHEARSAL = 0.1  # of the sequences of fine-tuning; the recipe's SFT before it rehearsed more
UNFILTERED, NEAR, LINES = "no near duplicates found", "near duplicates filtered", "repeated lines filtered, too"


class AttackSettings(Config):
    """How large the drills are."""

    planted: tuple[int, ...] = Field((1, 10, 100, 1000), description="Numbers of planted pages, of near duplicates.")
    disguised: int = Field(100, ge=0, description="Planted pages that are no near duplicates; 0: leaves them out.")
    max_line_documents: int = Field(
        20, ge=1, description="Against these: lines of more documents than that are removed."
    )
    num_articles: int = Field(400, ge=20, description="Articles of the crawl that has the planted pages.")
    pretrain_steps: int = Field(60, ge=1, description="Steps of the base model on that crawl.")
    sft_steps: int = Field(150, ge=1, description="Steps of the SFT model on the conversations of an arm.")
    num_conversations: int = Field(600, ge=1, description="Composed conversations of each kind.")
    num_prompts: int = Field(100, ge=1, description="Prompts of each suite and form.")

    @model_validator(mode="after")
    def _are_different(self) -> Self:
        if any(num < 1 for num in self.planted) or len(set(self.planted)) < len(self.planted):
            raise ValueError(f"planted={list(self.planted)}: give different numbers of pages, each 1 or more")
        return self


class Study(NamedTuple):
    """The recipe's own steps; the data and models of each arm; their replies; the report."""

    recipe: Recipe
    steps: Steps
    training: list[tuple[str, list[Planned]]]
    replies: list[Step[Report]]
    report: Step[Report]


def study(recipe: Recipe, seeds: Sequence[int] = SEEDS, settings: AttackSettings = AttackSettings()) -> Study:
    """The study of a recipe. Raises UserError where it is not of the sample web, or a seed is named twice."""
    if recipe.ingest.inputs != [SAMPLE] or recipe.sft.conversations != SAMPLE:
        raise UserError(
            f"the attacks are on facts and names of the sample web, and recipe {recipe.name} reads other pages or conversations: take tiny, "
            "or set ingest.inputs and sft.conversations to sample"
        )
    if len(set(seeds)) < len(seeds) or not seeds:
        raise UserError(f"the seeds {', '.join(map(str, seeds))} are not all different: name each once")
    steps = dag(recipe)
    own = overlaid(recipe, {"name": f"{recipe.name[:50]}-attacks"})  # the arms are not the recipe's latest artifacts
    (plain, before), (mitigated, after) = (_tuned(own, steps, flag, seeds, settings) for flag in (False, True))
    arms = poison_arms(settings)
    poisoned = [_poisoned(own, steps, arm, seeds, settings) for arm in arms]
    config = AttacksConfig(seeds=tuple(seeds), poison=tuple(arms))
    report = attacks(steps.pretrain, before, after, [found for _, found in poisoned], config)
    training = [("fine-tuning", plain), ("fine-tuning, mitigated", mitigated)]
    training += [(f"{arm.pages} pages, {arm.filters}", run) for arm, (run, _) in zip(arms, poisoned, strict=True)]
    completed = [one for _, found in poisoned for one in found.completions]
    return Study(own, steps, training, [*before, *after, *completed], report)


def poison_arms(settings: AttackSettings) -> list[PoisonArm]:
    """No planted page; each number of near duplicates without a filter against them, the largest with it; and the disguised pages."""
    arms = [PoisonArm(pages=0, disguise="near duplicates", filters=NEAR)]
    arms += [PoisonArm(pages=num, disguise="near duplicates", filters=UNFILTERED) for num in sorted(settings.planted)]
    if settings.planted:
        arms.append(arms[-1].model_copy(update={"filters": NEAR, "before": len(arms) - 1}))
    if settings.disguised:
        arms.append(PoisonArm(pages=settings.disguised, disguise="disguised", filters=NEAR))
        arms.append(arms[-1].model_copy(update={"filters": LINES, "before": len(arms) - 1}))
    return arms


def _tuned(
    recipe: Recipe, steps: Steps, is_mitigated: bool, seeds: Sequence[int], settings: AttackSettings
) -> tuple[list[Planned], list[Step[Report]]]:
    """The SFT model trained further with the mitigations or without, for each seed, and its replies."""
    config = AttackConversationsConfig(
        is_mitigated=is_mitigated, num_each=settings.num_conversations, world_seed=recipe.world_seed
    )
    composed = attack_conversations(conversations(recipe.sft, recipe.world_seed), steps.text_index, config)
    runs: list[Planned] = []
    found: list[Step[Report]] = []
    for seed in seeds:
        # The turn tokens are trained already, and are not to begin again as letters.
        changes = {"starts_from_letters": False, "pretraining_fraction": REHEARSAL, "train": {"seed": seed, "num_steps": settings.sft_steps}}  # fmt: skip
        one = overlaid(recipe, {"sft": changes})
        model: Step[SFTModel] = sft(steps.sft, steps.tokenizer, composed, steps.tokenize, one.sft)
        asked = RepliesConfig(world_seed=recipe.world_seed, is_marked=is_mitigated, num_each=settings.num_prompts)
        runs.append((model, one))
        found.append(replies(model, steps.tokenizer, steps.text_index, asked))
    return runs, found


def _poisoned(
    recipe: Recipe, steps: Steps, arm: PoisonArm, seeds: Sequence[int], settings: AttackSettings
) -> tuple[list[Planned], PoisonSteps]:
    """The data stages over a crawl with planted pages, and the base model trained further on what they keep, for each seed."""
    changed = overlaid(recipe, {"dedup": dedup_changes(arm.filters, settings)})
    raw, clean, unique = poisoned_documents(changed, arm, settings)
    tokens = tokenize(unique, steps.tokenizer, changed.tokenize)
    runs: list[Planned] = [(step, changed) for step in (raw, clean, unique, tokens)]
    found: list[Step[Report]] = []
    for seed in seeds:
        one = overlaid(changed, {"pretrain": {"train": {"seed": seed, "num_steps": settings.pretrain_steps}}})
        initial = trained_weights(steps.pretrain, steps.tokenizer)
        model: Step[BaseModel] = pretrain(tokens, steps.tokenizer, initial, [], one.pretrain)
        config = CompletionsConfig(world_seed=recipe.world_seed, num_statements=2 * settings.num_prompts)
        runs.append((model, one))
        found.append(completions(model, steps.tokenizer, config))
    return runs, PoisonSteps(raw, clean, unique, found)


def poisoned_documents(recipe: Recipe, arm: PoisonArm, settings: AttackSettings) -> tuple[Step[Documents], ...]:
    """The documents of ingest, filter and dedup of a crawl with planted pages."""
    sample = recipe.ingest.sample.model_dump() | {"num_articles": settings.num_articles}
    planted = PlantedConfig(**sample, seed=recipe.world_seed, num_planted=arm.pages, disguise=arm.disguise)
    crawl = planted_crawl(planted)
    raw = ingest(crawl, prefilter_model(recipe.ingest), blocklists(recipe.ingest.blocklists), recipe.ingest)
    languages, lists = language_model(recipe.filter.language_model), blocklists(recipe.filter.blocklists)
    classifier = quality_classifier(recipe.filter.quality_model)
    attributes = compute_attributes(raw, crawl, languages, lists, classifier, recipe.filter)
    clean = filter(raw, attributes, recipe.filter)
    return raw, clean, dedup(clean, [], [], recipe.dedup)


def dedup_changes(filters: str, settings: AttackSettings) -> dict[str, bool | int]:
    """The settings of dedup that a name of its filters stands for."""
    settings_of: dict[str, dict[str, bool | int]] = {
        UNFILTERED: {"by_minhash": False},
        NEAR: {"by_minhash": True},
        LINES: {"by_minhash": True, "max_line_documents": settings.max_line_documents},
    }
    return settings_of[filters]


@flow(name="attacks", flow_run_name=run_name)
@cancellable
def attacks_study(
    recipe: RecipeName = "tiny",
    recipe_yaml: str = "",
    settings: list[str] = [],
    seeds: list[int] = list(SEEDS),
    attack_settings: AttackSettings = AttackSettings(),
    runs_deployments: bool = True,
) -> Summary:
    """Attack a recipe's models before and after each mitigation. Stages that are up to date are skipped.

    Args:
        recipe: The recipe.
        recipe_yaml: The text of a recipe file, instead of a recipe by name.
        settings: Changes to the recipe, as STAGE.FIELD=VALUE.
        seeds: The seeds of each arm's trainings.
        attack_settings: How large the drills are.
        runs_deployments: Run the recipe's own stages through their deployments; else here, in this process, as the arms always are.
    """
    made = make_recipe(recipe, settings=settings, text=recipe_yaml)
    plan = study(made, seeds, attack_settings)
    check_study(plan, Store.default())
    with planned(plan.steps):
        text = recipe_files.write(made, comments=False)
        upstream = [pipeline(recipe_yaml=text, until="sft", runs_deployments=runs_deployments)["sft"]]
    # In this process: an arm trains the recipe's own models further, which no deployment of a stage takes for an input.
    for label, steps in plan.training:
        for step, _ in steps:
            name = f"{label}: {step.stage}"
            upstream = [make.with_options(task_run_name=name)(step, plan.recipe.name, upstream, sets_latest=False)]
    asked = [
        make.with_options(task_run_name="replies")(step, plan.recipe.name, upstream, sets_latest=False)
        for step in plan.replies
    ]
    return make.with_options(task_run_name="report")(plan.report, made.name, asked[-1:])


def check_study(plan: Study, store: Store) -> None:
    """Check the inputs of the recipe's stages and of all arms before the first stage runs. Raises UserError."""
    check_run(plan.steps.by_stage(), select("", "sft", ""), (), plan.recipe.name, store)
    for _, steps in plan.training:
        for step, _ in steps:
            check_inputs(step, store)
