"""`crawl2chat stages`: the stages of a recipe, and whether the artifact of each is up to date. Reads the store."""

from rich.table import Table

from flows.checks import state
from flows.cli.console import BaseModelOption, InputOption, MaxFilesOption, RecipeArgument, SetOption, console
from flows.recipes import make_recipe
from tasks.artifacts.store import Store


def stages(
    recipe: RecipeArgument = "tiny",
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    settings: SetOption = [],
    base_model: BaseModelOption = "",
) -> None:
    """List the stages of a recipe and whether each is up to date."""
    from flows.cli.terminal import summary
    from flows.pipeline import dag

    store, made = Store.default(), make_recipe(recipe, inputs, max_files, settings, base_model)
    table = Table("stage", "state", "artifact", "wall s", "what it holds", box=None)
    for name, step in dag(made).by_stage().items():
        manifest = store.find(step.id)
        # An artifact that was copied from elsewhere may say nothing about how it was made.
        wall_seconds = manifest.provenance.get("wall_seconds") if manifest else None
        seconds = f"{wall_seconds:.1f}" if isinstance(wall_seconds, int | float) else ""
        holds = summary(manifest) if manifest else ""
        table.add_row(name, state(step, made.name, store), step.fingerprint, seconds, holds)
    console.print(table)
