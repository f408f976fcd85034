"""The scaling study: a small DAG on top of the pipeline's, which predicts the recipe's own pretraining from smaller runs.

Reads a recipe, writes a base model for each size on each budget of tokens and a Report of the law they follow. The prediction is
written before the predicted run is trained: first the Report without it, then the recipe's pretrain stage, then the Report with the error.

A size has that fraction of the recipe's layers, width, heads and feed-forward. What else depends on size and budget follows the
rules of the depth dial (model/planning/presets.py): learning rate against the width, Muon's the same for all, weight decay so that rate x
decay x steps is the same for all. The batch is the recipe's, so that only N and D differ; each run's learning rate decays to its end.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from prefect import flow

from flows.cancellation import cancellable
from flows.checks import check_run
from flows.launch import make
from flows.pipeline import PLANNED, Steps, dag, pipeline, planned, select
from flows.recipes import Recipe, RecipeName, make_recipe
from flows.stage_run import Summary, run_name
from model.config import ModelShape, num_matrix_parameters
from model.errors import UserError
from model.planning.scaling_law import require_enough_runs
from tasks.artifacts.manifest import BaseModel, Report
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.pretrain.stage import PretrainConfig, more_tokens, pretrain
from tasks.scaling.stage import BUDGETS, SIZES, ScalingConfig, scaling


class Study(NamedTuple):
    """The steps of a study, in order."""

    runs: dict[str, Step[BaseModel]]
    forecast: Step[Report]
    report: Step[Report]


def study(recipe: Recipe, steps: Steps, sizes: Sequence[float] = SIZES, budgets: Sequence[float] = BUDGETS) -> Study:
    """The study of a recipe whose pipeline is `steps`. `sizes` and `budgets`: fractions of its model and of its tokens. Raises UserError."""
    if recipe.pretrain.initial_model:
        raise UserError(
            f"pretrain.initial_model is {recipe.pretrain.initial_model!r}, and a scaling law describes models that are trained from "
            "random weights: leave it empty"
        )
    # Every size on every budget: 3 x 3 runs by default, enough for the five numbers of the law
    # (model/planning/scaling_law.py).
    configs = {
        f"size_{row}_budget_{column}": smaller(recipe.pretrain, size, budget)
        for row, size in enumerate(sizes, start=1)
        for column, budget in enumerate(budgets, start=1)
    }
    models = {name: config.model.with_vocabulary(recipe.tokenizer.vocab_size) for name, config in configs.items()}
    # Before any run: the law has five constants, and too few sizes or budgets cannot determine them.
    require_enough_runs(
        [(num_matrix_parameters(models[name]), config.train.num_steps) for name, config in configs.items()]
    )
    # The same text for all runs: only N and D may differ.
    mixture = more_tokens(recipe.pretrain.mixture)
    runs = {name: pretrain(steps.tokenize, steps.tokenizer, None, mixture, config) for name, config in configs.items()}
    train = recipe.pretrain.train
    config = ScalingConfig(model=recipe.pretrain.model, num_tokens=train.num_steps * train.batch_tokens)
    fitted = list(runs.values())
    # The two reports differ in their inputs, so they are two artifacts: the forecast cannot depend on the run that it
    # predicts.
    return Study(runs, scaling(fitted, None, config), scaling(fitted, steps.pretrain, config))


def smaller(config: PretrainConfig, size: float, budget: float) -> PretrainConfig:
    """The run of a fraction of the model on a fraction of the tokens."""
    for name, fraction in (("size", size), ("budget", budget)):
        if not 0.0 < fraction < 1.0:
            raise UserError(
                f"a {name} of {fraction} is not a part of the recipe's own: give a fraction between 0 and 1"
            )
    model = smaller_model(config.model, size)
    # Not `size`: heads are whole, so the width is only near that fraction, and the learning rate follows the width.
    width = model.width / config.model.width
    train = {
        "num_steps": max(1, round(budget * config.train.num_steps)),
        # Only the loss at the end counts, so evaluation and samples on the way would be lost time.
        "eval_every_steps": 0,
        "sample_every_steps": 0,
    }
    optim = {
        # Both are bounded as the config's fields are: a very small fraction must not fail for its rate.
        "learning_rate": min(1.0, config.optim.learning_rate / width),
        "weight_decay": min(10.0, config.optim.weight_decay * width / budget),
    }
    parts = {"train": config.train.model_copy(update=train), "optim": config.optim.model_copy(update=optim)}
    return config.model_copy(update={"model": model, **parts})


def smaller_model(model: ModelShape, size: float) -> ModelShape:
    """Whole layers and heads, at least one: a constant width a layer makes models of all sizes one family."""
    heads_per_kv = model.num_heads // model.num_kv_heads
    # From the key-value heads up: the query heads of each must stay a whole number.
    num_kv_heads = max(1, round(size * model.num_kv_heads))
    heads = num_kv_heads / model.num_kv_heads
    shape = {
        "num_layers": max(1, round(size * model.num_layers)),
        "width": round(heads * model.width),
        "num_heads": heads_per_kv * num_kv_heads,
        "num_kv_heads": num_kv_heads,
        # A multiple of 8, as matrix kernels want it.
        "ff_width": round(heads * model.ff_width / 8) * 8,
    }
    return ModelShape.model_validate(model.model_dump() | shape)


@flow(name="scaling", flow_run_name=run_name)
@cancellable
def scaling_study(
    recipe: RecipeName = "study",
    recipe_yaml: str = "",
    inputs: list[str] = [],
    max_files: int = 0,
    settings: list[str] = [],
    sizes: list[float] = list(SIZES),
    budgets: list[float] = list(BUDGETS),
    is_checked: bool = True,
    runs_deployments: bool = True,
) -> Summary:
    """Predict the loss of a recipe's base model from smaller runs, train it, and report the error. Stages that are up to date are skipped.

    Args:
        recipe: The recipe.
        recipe_yaml: The text of a recipe file, instead of a recipe by name.
        inputs: Web archive files instead of the recipe's: paths, globs, URLs, cc:CRAWL.
        max_files: Read at most so many files; 0 reads all.
        settings: Changes to the recipe, as STAGE.FIELD=VALUE.
        sizes: Fractions of the recipe's model; three or more.
        budgets: Fractions of the tokens that it is trained on; three or more.
        is_checked: Also train the predicted run, to report the error of the prediction.
        runs_deployments: Run the pipeline's stages through their deployments; else here, in this process.
    """
    made = make_recipe(recipe, inputs, max_files, settings, text=recipe_yaml)
    steps = PLANNED.get() or dag(made)
    plan = study(made, steps, sizes, budgets)
    if PLANNED.get() is None:
        check_run(steps.by_stage(), select("", "pretrain", ""), (), made.name, Store.default())
    chosen: dict[str, Any] = {"recipe": recipe, "recipe_yaml": recipe_yaml, "inputs": inputs, "max_files": max_files}
    chosen |= {"settings": settings, "runs_deployments": runs_deployments}
    # The flows of the pipeline take the same steps, so that the fingerprints of the study's inputs are theirs.
    with planned(steps):
        data = pipeline(**chosen, until="tokenize")
        runs = [
            # They must not become the recipe's latest: `crawl2chat complete` would open one of them.
            make.with_options(task_run_name=name)(
                step, made.name, [data["tokenizer"], data["tokenize"]], sets_latest=False
            )
            for name, step in plan.runs.items()
        ]
        forecast = make.with_options(task_run_name="forecast")(plan.forecast, made.name, runs)
        if not is_checked:
            return forecast
        base = pipeline(**chosen, only="pretrain")
    return make.with_options(task_run_name="report")(plan.report, made.name, [forecast, base["pretrain"]])
