"""`crawl2chat without`: a run of a recipe without a site, a page or a rule, compared with the run as it was.

Reads and writes the store. The removal is a setting of the recipe, so only what depends on it runs again; the artifacts of both runs stay.
Of a site or a page it ends in the proof that none of its text is left in what the model was trained on.
"""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer

from flows import recipe_files
from flows.checks import check_run
from flows.cli.console import InputOption, MaxFilesOption, RecipeArgument, SetOption, console, say
from flows.cli.why_said import JsonOption, print_place
from flows.prefect_server import Server
from flows.recipes import Recipe, make_recipe
from model.errors import UserError
from tasks.artifacts.manifest import Documents, Index, Report
from tasks.artifacts.store import Store
from tasks.execution.reporter import reporting
from tasks.filter.stage import excluded_key, is_excluded
from tasks.markdown import percent
from tasks.provenance.lineage import follow, open_training_data
from tasks.provenance.remedies import without_rule
from tasks.provenance.removal import (
    WORDS,
    Difference,
    Removal,
    artifacts_with,
    check_removal,
    compare_cards,
    own_facts,
    removed_documents,
)
from tasks.records.full_text import FullTextIndex
from tasks.tokenizer.encode import is_validation

MAX_FIGURES = 40  # that are printed
MAX_NAME = 40  # characters of the recipe's name in that of the run without


class Comparison(NamedTuple):
    """Both runs: their report cards, the figures that differ or not, facts of the removed documents, and what is left of their text.

    `held_by`: artifacts of the run without them that no model is trained on and that still have their text.
    """

    before: str
    after: str
    settings: list[str]
    figures: list[Difference]
    facts: list[dict[str, Any]]
    removal: Removal | None
    held_by: tuple[str, ...] = ()


def without(
    recipe: RecipeArgument,
    host: Annotated[list[str], typer.Option(help="A host to leave out, with all below it. May be repeated.")] = [],
    page: Annotated[list[str], typer.Option(help="The URL of a page to leave out. May be repeated.")] = [],
    reason: Annotated[
        str,
        typer.Option(help="A rule to leave out, by the reason in the funnel: quality/gopher_words, duplicate/minhash."),
    ] = "",
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    settings: SetOption = [],
    as_json: JsonOption = False,
    num_seeds: Annotated[
        int,
        typer.Option(
            "--seeds", min=1, max=100, help="Trainings of both runs, with other seeds, which shows what is chance."
        ),
    ] = 1,
) -> None:
    """Run a recipe again without a site, a page or a rule, and show what changes. Of a site, prove that nothing is left of it."""
    made, store = make_recipe(recipe, inputs, max_files, settings), Store.default()
    excluded = checked(host, page, reason)
    changes = [f"filter.exclude={json.dumps([*made.filter.exclude, *excluded])}"] if excluded else []
    if reason:
        changes += rule_changes(reason, made)
    before = [evaluated(one, store) for one in seeded(made, num_seeds)]
    if excluded and not reason and not is_any_kept(documents_of(store, before[0]), excluded):
        say(f"No document of {', '.join(excluded)} was kept, so nothing depends on it.")
        return
    name = f"{made.name[:MAX_NAME]}-without-{hashlib.sha256(' '.join(changes).encode()).hexdigest()[:8]}"
    changed = make_recipe(recipe, inputs, max_files, [*settings, f"name={name}", *changes])
    after = [evaluated(one, store) for one in seeded(changed, num_seeds)]
    found = compared(store, made, before, after, changes, excluded)
    if as_json:
        say(json.dumps(as_plain(found)))
    else:
        print_comparison(found, excluded)


def seeded(recipe: Recipe, num_seeds: int) -> list[Recipe]:
    """The recipe as it is, or with so many seeds."""
    from flows.seeds import with_seed

    return [recipe] if num_seeds == 1 else [with_seed(recipe, seed) for seed in range(num_seeds)]


def checked(hosts: Sequence[str], pages: Sequence[str], reason: str) -> list[str]:
    """The hosts and pages to leave out. Raises UserError where nothing is named, or what is named is no host or page."""
    if not (hosts or pages or reason):
        raise UserError("nothing to leave out: give --host, --page or --reason")
    for entry, kind in [*((entry, "host ") for entry in hosts), *((entry, "page ") for entry in pages)]:
        if not (excluded_key(entry) or "").startswith(kind):
            example = "example.org" if kind == "host " else "https://example.org/a"
            raise UserError(f"--{kind.strip()} {entry[:80]!r} is not one: give it as {example}")
    return [*hosts, *pages]


def rule_changes(reason: str, recipe: Recipe) -> list[str]:
    """The settings that leave a rule out. Raises UserError where none does."""
    changes = without_rule(reason, recipe.filter.model_dump())
    if not changes:
        raise UserError(
            f"no setting leaves out {reason[:80]!r}: give a reason of the filter or of dedup, as `crawl2chat show {recipe.name}` lists them"
        )
    return changes


def matches(url: str, excluded: Sequence[str]) -> bool:
    """Whether a document of this URL is left out."""
    return is_excluded(url, frozenset(map(excluded_key, excluded)))


def is_any_kept(documents: Documents, excluded: Sequence[str]) -> bool:
    """Whether a document that is to be left out was kept."""
    return any(True for _ in removed_documents(documents, lambda item: matches(item["url"], excluded)))


def evaluated(recipe: Recipe, store: Store) -> Report:
    """The report card of a recipe, after all that is not up to date has run."""
    server = Server()
    from flows.cli.terminal import Terminal
    from flows.pipeline import dag, pipeline, planned, select

    names, planned_steps = select("", "evaluate", ""), dag(recipe)
    steps = planned_steps.by_stage()
    if check_run(steps, names, (), recipe.name, store):
        with server.used(), Terminal(console) as terminal, reporting(terminal), planned(planned_steps):
            pipeline(recipe_yaml=recipe_files.write(recipe, comments=False), until="evaluate", runs_deployments=False)
    return store.open(steps["evaluate"].id, Report)


def documents_of(store: Store, report: Report) -> Documents:
    """The documents that the models of a report card were trained on."""
    return store.open(report.manifest.input("unique"), Documents)


def compared(
    store: Store,
    recipe: Recipe,
    before: Sequence[Report],
    after: Sequence[Report],
    settings: list[str],
    excluded: Sequence[str],
) -> Comparison:
    """Both sides compared, each of one run or of one for each seed. What is left is checked in the first: all have the same documents."""
    figures = compare_cards(before, after, seeds_of(store, recipe.name))
    facts: list[dict[str, Any]] = []
    removal, held_by = None, list[str]()
    if excluded:
        runs = [follow(store, reports[0].manifest.id) for reports in (before, after)]
        one, two = (open_training_data(store, run) for run in runs)
        documents = documents_of(store, before[0])
        index = index_of(store, recipe, documents)
        if index:
            facts = own_facts(before, after, index, one, lambda url: matches(url, excluded))
        held_out = follow(store, before[0].manifest.input("tokens")).model.config["validation_fraction"]
        texts = (
            document["text"]
            for document in removed_documents(documents, lambda item: matches(item["url"], excluded))
            if not is_validation(document["text"], held_out)  # no model was trained on these
        )
        removal = check_removal(one, two, texts)
        held_by = artifacts_with(store, runs[1], lambda item: matches(item["url"], excluded))
        # The index of dropped documents, which `why-not` searches
        held_by += [two.provenance.manifest.id] if held_by else []
    earlier, later = (", ".join(report.manifest.id for report in reports) for reports in (before, after))
    return Comparison(earlier, later, settings, figures, facts, removal, tuple(held_by))


def seeds_of(store: Store, recipe: str) -> Report | None:
    """The study of a recipe over seeds, where there is one."""
    try:
        return store.open(store.latest(recipe, "seeds"), Report)
    except UserError:
        return None


def index_of(store: Store, recipe: Recipe, documents: Documents) -> FullTextIndex | None:
    """The full-text index of documents, where the recipe has made it."""
    from flows.pipeline import dag

    manifest = store.find(dag(recipe).by_stage()["index"].id)
    if manifest is None or manifest.inputs.get("documents") != documents.manifest.id:
        return None
    return FullTextIndex(store.open(manifest.id, Index).folder / "index.sqlite")


def as_plain(found: Comparison) -> dict[str, Any]:
    """The comparison as values of JSON."""
    removal = found.removal
    return {
        **found._asdict(),
        "figures": [figure._asdict() for figure in found.figures],
        "removal": removal and {**removal._asdict(), "left": [vars(place) for place in removal.left]},
    }


def print_comparison(found: Comparison, excluded: Sequence[str]) -> None:
    """Print the figures of both runs, then the facts of what was removed, then what is left of it."""
    say(f"\nWith {found.before}, without {found.after}, by {' '.join(found.settings)}\n")
    changed = [figure for figure in found.figures if figure.before != figure.after]
    if changed:
        say(f"{'':<63} {'before':>7} {'after':>7} {'change':>7}  noise of seeds")
    for figure in changed[:MAX_FIGURES]:
        print_figure(figure)
    say(f"{len(changed)} of {len(found.figures)} figures differ; --json has them all.")
    if not any(figure.noise for figure in found.figures):
        say(
            "--seeds 3, or `crawl2chat seeds RECIPE`, measures how far a difference is chance; this is then shown here."
        )
    for row in found.facts:
        print_facts(row)
    if found.removal:
        print_removal(found.removal, found.held_by, excluded)


def print_facts(row: dict[str, Any]) -> None:
    """Print how many answers of a model were right on both sides: about facts of removed documents alone, or others."""
    what = "stated there alone" if row["facts"] == "own" else "stated elsewhere"
    num_questions = row["before"]["num"] // len(row["before_by_seed"])
    say(
        f"{row['model']:<16} facts {what:<20} {num_questions:>5} questions: {by_seed(row['before_by_seed'])} right before, "
        f"{by_seed(row['after_by_seed'])} after{verdict(row)}"
    )


def verdict(row: dict[str, Any]) -> str:
    """Facts of removed documents alone: whether they are known no better than by chance. Others: whether the difference is chance."""
    if row["facts"] == "own" and row["chance"] is not None:
        where = "at" if row["after"]["low"] <= row["chance"] else "above"
        return f"  {where} chance, {percent(row['chance'])}"
    if row["noise"] is None:
        return ""
    return (
        f"{within_noise(100 * (row['after']['share'] - row['before']['share']), 100 * row['noise'], digits=1)} points"
    )


def by_seed(shares: Sequence[float]) -> str:
    """ "71.2%", with the lowest and the highest where several seeds were trained."""
    spread = f" ({100 * min(shares):.1f} to {100 * max(shares):.1f})" if len(shares) > 1 else ""
    return percent(sum(shares) / len(shares)) + spread


def within_noise(difference: float, noise: float | None, digits: int = 3) -> str:
    """Whether a difference is chance; "" where nothing tells."""
    if noise is None:
        return ""
    return f"  {'within' if abs(difference) <= noise else 'beyond'} ±{noise:.{digits}f}"


def print_figure(figure: Difference) -> None:
    """Print one figure of both sides."""
    noise = within_noise(figure.after - figure.before, figure.noise)
    say(
        f"{figure.measure[:52]:<52} {figure.model:<10} {figure.before:>7.3f} {figure.after:>7.3f} {figure.after - figure.before:>+7.3f}{noise}"
    )


def print_removal(removal: Removal, held_by: Sequence[str], excluded: Sequence[str]) -> None:
    """Print what is left of removed documents, and where else their text still is."""
    what = ", ".join(excluded)[:200]
    say(
        f"\n{removal.num_documents:,} documents of {what} have {removal.num_spans:,} spans of {WORDS} words; {removal.num_own:,} stood nowhere "
        f"else. Of these, {removal.num_left:,} are left in what the model was trained on."
    )
    if removal.left:
        say("They stand on pages that were dropped as duplicates before; leave these out as well:")
        for place in removal.left:
            print_place(place)
    say(
        f"No model is trained on these, and they still have the text: {', '.join(['the archives', *held_by])}. Delete them as well to forget it."
    )
