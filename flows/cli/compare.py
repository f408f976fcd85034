"""`crawl2chat compare`: two runs, or two recipes with several seeds each. Reads report cards of the store or of files; shows verdicts."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from flows.cli.console import console, found, recipe_name, say
from model.errors import UserError
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import Manifest, Report
from tasks.artifacts.store import Store
from tasks.evaluate.compare import Side, compare_rows, render_comparison
from tasks.evaluate.compare_page import render_comparison_page
from tasks.markdown import Figures, size

WHAT = "A recipe, an artifact id (evaluate/FINGERPRINT, seeds/FINGERPRINT), or a report.json or its folder."


def compare(
    a: Annotated[str, typer.Argument(metavar="A", help=WHAT)],
    b: Annotated[str, typer.Argument(metavar="B", help="The same, for the other side.")],
    html: Annotated[str, typer.Option(metavar="FILE", help="Write it as one HTML file too.")] = "",
) -> None:
    """Compare two runs: settings, funnel, every figure with an interval, and a verdict for each."""
    sides = side(a), side(b)
    rows = compare_rows(*sides)
    console.print(Markdown(render_comparison(*sides, rows)))
    if html:
        path = Path(html).expanduser()
        write_atomically(path, render_comparison_page(*sides, rows))
        say(f"{path}: the comparison as a page, {size(path.stat().st_size)}")


def side(source: str) -> Side:
    """The report cards that a name stands for: one, or one for each seed. Raises UserError."""
    path = Path(source).expanduser()
    if path.is_dir() and (path / "report.json").is_file():
        path /= "report.json"
    if path.suffix == ".json":
        return Side(source, [read_card(path)])
    store = Store.default()
    if source.count("/") == 1 and not source.startswith(("/", ".")) and (manifest := store.find(source)):
        return _of_artifact(source, manifest, store)
    if "/" in source and not source.endswith((".yaml", ".yml")):
        raise UserError(f"there is no report card {source!r}: give {WHAT[0].lower()}{WHAT[1:-1]}")
    name = recipe_name(source)
    return _of_artifact(name, found(store, latest_report(name, store)), store)


def latest_report(recipe: str, store: Store) -> str:
    """The report over seeds of a recipe, if its latest run is one of them, else the report of that run."""
    reports = {stage: _latest(recipe, stage, store) for stage in ("seeds", "evaluate")}
    # A recipe that was changed and run again after its seeds is the run, not the older seeds.
    if (seeds := reports["seeds"]) and (
        reports["evaluate"] is None or reports["evaluate"] in found(store, seeds).inputs.values()
    ):
        return seeds
    return store.latest(recipe, "evaluate")


def _latest(recipe: str, stage: str, store: Store) -> str | None:
    try:
        return store.latest(recipe, stage)
    except UserError:  # never run
        return None


def _of_artifact(name: str, manifest: Manifest, store: Store) -> Side:
    if manifest.stage not in ("evaluate", "seeds"):
        raise UserError(
            f"{manifest.id} is no report card: give an artifact of evaluate or seeds, or the name of a recipe"
        )
    cards = [manifest.id] if manifest.stage == "evaluate" else list(manifest.inputs.values())
    return Side(
        f"{name}, {manifest.id}" if name != manifest.id else name,
        [read_card(store.open(card, Report).folder / "report.json") for card in cards],
    )


def read_card(path: Path) -> Figures:
    """The figures of a card. Raises UserError where a file is not one."""
    try:
        figures = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no JSON: {error}: give the report.json of a run") from None
    if not isinstance(figures, dict) or "documents" not in figures:
        raise UserError(f"{path} is no report card: it has no figures of documents: give the report.json of a run")
    return figures
