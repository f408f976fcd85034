"""The stages as Prefect flows, each with a deployment: a form in the UI, a row in the list of runs, a separate retry.

A flow starts from the settings of a recipe, lays what the form changes over them, reads the artifacts that it is given, by
STAGE/FINGERPRINT or as "latest" of the recipe, and writes its own artifact into the store that CRAWL2CHAT_STORE names.
"""

from inspect import Parameter, Signature

from prefect import Flow, flow

from flows.cancellation import cancellable
from flows.checks import check_inputs
from flows.forms import Form, form_of
from flows.pipeline import dag
from flows.recipes import RECIPES, RecipeName, StageName, load, make_recipe, overlaid
from flows.stage_run import Summary, run_name, run_step
from tasks.artifacts.manifest import Artifact
from tasks.artifacts.step import Step, kind_of_role, with_existing
from tasks.artifacts.store import Store

LATEST = "latest"
LINEAGE = ("crawl", "attributes", "preferences")  # sources that go with an artifact: taken from its manifest
STEPS = dag(make_recipe("tiny")).by_stage()
# Each read once: every run of a deployment imports this.
LOADED = {name: load(name) for name in RECIPES}
FORMS = {stage: form_of({name: getattr(recipe, stage) for name, recipe in LOADED.items()}) for stage in STEPS}
DOCUMENTATION = """{purpose}

Args:
    recipe: Brings the settings; its latest artifacts are the inputs, and the result becomes its latest.
    {inputs}config: Changes to the recipe's settings. A field that is left empty is as in the recipe.
    force: Run the stage even if its artifact is up to date.
    recipe_yaml: The text of a recipe file, instead of a recipe by name.
    sources: Set by the pipeline: artifacts of the files from elsewhere, by role. Left empty, they are as in the recipe.
"""


def stage_flow(stage: StageName, purpose: str) -> Flow[..., Summary]:
    """The flow of a stage, with a parameter for each input that another stage makes and a form of its config."""
    producers = {role: given.stage for role, given in STEPS[stage].inputs.items() if not given.is_source}
    form = FORMS[stage]

    @cancellable
    def run(
        recipe: RecipeName, recipe_yaml: str, config: Form, sources: dict[str, str] | None, force: bool, **names: str
    ) -> Summary:
        chosen = overlaid(make_recipe(recipe, text=recipe_yaml), {stage: config.filled()})
        step = with_named_inputs(dag(chosen).by_stage()[stage], names, chosen.name, sources or {})
        store = Store.default()
        # A pipeline checks all its stages; a stage that is started alone has only this.
        check_inputs(step, store)
        return run_step(step, chosen.name, store, force=force)

    parameters = {
        "recipe": (RecipeName, "tiny"),
        **dict.fromkeys(producers, (str, LATEST)),
        "config": (form, form()),
        "force": (bool, False),
        "recipe_yaml": (str, ""),
        "sources": (dict[str, str] | None, None),  # None is drawn as one line, {} as an editor
    }
    # Prefect builds a flow's form from its signature. It differs by stage, so it is set on the function instead of
    # written once for each.
    run.__signature__ = Signature(  # type: ignore[attr-defined]
        [
            Parameter(name, Parameter.KEYWORD_ONLY, annotation=kind, default=default)
            for name, (kind, default) in parameters.items()
        ],
        return_annotation=Summary,
    )
    run.__annotations__ = {name: kind for name, (kind, _) in parameters.items()}
    run.__name__ = run.__qualname__ = stage
    inputs = "".join(
        f"{role}: Artifact of {producer}: STAGE/FINGERPRINT, or latest.\n    " for role, producer in producers.items()
    )
    # Prefect takes the descriptions of a form's fields from a docstring in Google's style.
    run.__doc__ = DOCUMENTATION.format(purpose=purpose, inputs=inputs)
    return flow(name=stage, flow_run_name=run_name)(run)


def with_named_inputs(
    step: Step[Artifact], names: dict[str, str], recipe: str, sources: dict[str, str]
) -> Step[Artifact]:
    """The step with the artifacts that were named as its inputs. Raises UserError where one is missing or of another kind."""
    store, by_stage = Store.default(), dict[str, str]()
    for role, name in names.items():
        stage = step.inputs[role].stage
        artifact_id = store.latest(recipe, stage) if name == LATEST else name if "/" in name else f"{stage}/{name}"
        # Opened as the kind that the stage declares: an SFT model given as the base model is refused here, by its
        # manifest.
        manifest = store.open(artifact_id, kind_of_role(step.takes, role)).manifest
        by_stage[stage] = artifact_id
        # With documents of an earlier crawl as input, the crawl must be theirs and not the recipe's, or truth and
        # documents would not match.
        lineage = {made_of.partition("/")[0]: made_of for made_of in manifest.inputs.values()}
        by_stage |= {source: lineage[source] for source in LINEAGE if source in lineage}
    return with_existing(step, by_stage, sources)


ingest = stage_flow("ingest", "Read web archive files into documents.")
filter = stage_flow("filter", "Drop documents by URL, language and quality, and redact personal data.")
dedup = stage_flow("dedup", "Drop exact and near duplicates.")
index = stage_flow("index", "Index the documents that were kept for full-text search.")
tokenizer = stage_flow("tokenizer", "Train a byte-level BPE tokenizer, or take an existing vocabulary.")
tokenize = stage_flow("tokenize", "Encode documents as Arrow shards of tokens.")
pretrain = stage_flow("pretrain", "Train a base model on tokens, or take an open-weights model.")
probe = stage_flow("probe", "Ask a base model what it knows, and write answers and refusals for SFT.")
sft = stage_flow("sft", "Fine-tune a base model on conversations.")
reward = stage_flow("reward", "Train a reward model on preference pairs.")
rlhf = stage_flow("rlhf", "Train the assistant to be preferred by the reward model.")
evaluate = stage_flow("evaluate", "Evaluate all models and write the report card.")
export = stage_flow("export", "Write the model in the layout that inference engines load.")
