"""The command `crawl2chat`.

Reads and writes the store that CRAWL2CHAT_STORE names (default: ./artifacts). Exit status: 0 done; 1 failed; 2 wrong use, with one line
that says what, where and the remedy; 3 done, but what could not be read of a damaged input file was skipped.
"""

import errno
import logging
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table

from flows.prefect_server import Server, prepare_environment
from flows.recipes import STAGE_NAMES, StageName, make_recipe
from model.files import read_lines
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import Artifact, Manifest
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.reporter import reporting
from tasks.scaling.stage import BUDGETS, SIZES

if TYPE_CHECKING:
    from model.inference.chat import Chat

FAILED, WRONG_USE, DAMAGED_FILES = 1, 2, 3
SHOWN_FILES = 20
FULL_DISK = " in {store}: make room, or name a store elsewhere with CRAWL2CHAT_STORE, and run the same command again"
CARD_START, CARD_END = "<!-- card -->", "<!-- /card -->"

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="From raw Common Crawl WARC files to a chat assistant, stage by stage.",
)
console = Console()
errors = Console(stderr=True)


def _known(recipe: str) -> str:
    make_recipe(recipe)  # raises where there is none of that name
    return recipe


RecipeArgument = Annotated[str, typer.Argument(help="A recipe: tiny, small, gpt2, study.")]
RecipeOption = Annotated[str, typer.Option(help="Whose latest artifacts are meant.", callback=_known)]
InputOption = Annotated[
    list[str],
    typer.Option("--input", help="Web archive files: a path, glob, folder, URL or cc:CRAWL. May be repeated."),
]
SetOption = Annotated[list[str], typer.Option("--set", help="Change one setting: STAGE.FIELD=VALUE. May be repeated.")]
BaseModelOption = Annotated[
    str,
    typer.Option(
        help="Folder of a Qwen3 or Llama model to take as the base model instead of training one, as `hf download` makes it."
    ),
]
TemperatureOption = Annotated[float, typer.Option(min=0.0, max=10.0, help="0 always says the likeliest.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Of what is drawn.")]
MaxFilesOption = Annotated[int, typer.Option(min=0, help="Read at most so many files; 0 reads all.")]


@app.command()
def run(
    recipe: RecipeArgument = "tiny",
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    start: Annotated[str, typer.Option("--from", help="The first stage to run; what is before it must be there.")] = "",
    until: Annotated[str, typer.Option(help="The last stage to run.")] = "",
    only: Annotated[str, typer.Option(help="The one stage to run.")] = "",
    force: Annotated[list[str], typer.Option(help="Run this stage also where it is up to date. May be repeated.")] = [],
    settings: SetOption = [],
    base_model: BaseModelOption = "",
) -> None:
    """Run the stages of a recipe. What is up to date is skipped."""
    server = Server()
    from flows.cli.terminal import Terminal
    from flows.pipeline import dag, pipeline, planned, select, state

    bounds: dict[str, Any] = {"start": start, "until": until, "only": only}
    shaping: dict[str, Any] = {"inputs": inputs, "max_files": max_files, "settings": settings, "base_model": base_model}
    told = bounds | shaping | {"recipe": recipe, "force": force}
    steps = dag(make_recipe(recipe, **shaping)).by_stage()
    store = Store.default()
    names = select(start, until, only, force)
    states: dict[str, str] = {name: state(steps[name], recipe, store) for name in STAGE_NAMES}
    _refuse_gaps(steps, states, names, force, store)
    if not force and all(states[name] == "up to date" for name in names):
        what = f"{len(names)} stages of recipe {recipe} are" if len(names) > 1 else f"{names[0]} of recipe {recipe} is"
        console.print(f"{what} up to date, nothing to run.")
    else:
        with server.used(), Terminal(console) as terminal, reporting(terminal), planned(steps):
            pipeline(**told, runs_deployments=False)
    _finish(steps, names, recipe, store)
    if names[-1] in ("evaluate", "export"):
        _tell_next(recipe, **shaping)
    if names[0] == "ingest":
        _tell_damaged(store.open(steps["ingest"].id, Artifact))


def _refuse_gaps(
    steps: Mapping[StageName, Step[Artifact]],
    states: Mapping[str, str],
    names: Sequence[StageName],
    force: Sequence[str],
    store: Store,
) -> None:
    """Raises ValueError where a stage that is not to run has no artifact, or where a file of an artifact was changed."""
    for name in names:
        for given in steps[name].inputs.values():
            if given.stage in states and given.stage not in names and states[given.stage] in ("missing", "stale"):
                raise ValueError(
                    f"stage {name} needs what {given.stage} makes, which is {states[given.stage]}: run without --only and --from, "
                    f"or `--only {given.stage}` first"
                )
    needed = {*names, *(given.stage for name in names for given in steps[name].inputs.values())}
    for name in STAGE_NAMES:
        if name in needed and states[name] == "damaged" and name not in force:
            store.verify(_found(store, steps[name].id))


def _found(store: Store, artifact_id: str) -> Manifest:
    manifest = store.find(artifact_id)
    if manifest is None:
        raise ValueError(f"there is no artifact {artifact_id} in {store.url}: `crawl2chat stages` lists what is there")
    return manifest


def _finish(
    steps: Mapping[StageName, Step[Artifact]],
    names: Sequence[StageName],
    recipe: str,
    store: Store,
) -> None:
    """Tell what came of it."""
    for name in names:
        store.set_latest(recipe, _found(store, steps[name].id))
    if names[-1] in ("evaluate", "export"):
        report = store.open(steps["evaluate"].id, Artifact).folder / "report.md"
        console.print(Markdown(report.read_text(encoding="utf-8")))
    else:
        told = f"`crawl2chat show {steps[names[-1]].id}` shows what the last stage made."
        console.print(told, highlight=False, soft_wrap=True)


NEXT = """
What to do next
  crawl2chat chat{whose}                              talk with the model
  crawl2chat complete "The river"{whose}              let the base model go on
  crawl2chat run {again} --force sft              run one stage again
  crawl2chat run {elsewhere} --input 'my/*.warc.gz'   your own web archive files
  prefect server start                         the UI of the runs, at http://127.0.0.1:4200
"""


def _tell_next(recipe: str, inputs: Iterable[str], max_files: int, settings: Iterable[str], base_model: str) -> None:
    """The commands that go on from this run: with its settings, and with its input where they do not name another."""
    given = [("--set", setting) for setting in settings] + [("--base-model", base_model)] * bool(base_model)
    read = [("--input", path) for path in inputs] + [("--max-files", str(max_files))] * bool(max_files)
    elsewhere, again = (shlex.join([recipe, *chain.from_iterable(options)]) for options in (given, given + read))
    whose = "" if recipe == "tiny" else f" --recipe {recipe}"
    told = NEXT.format(again=again, elsewhere=elsewhere, whose=whose)
    console.print(told, highlight=False, soft_wrap=True, markup=False)


def _tell_damaged(documents: Artifact) -> None:
    """Name the damaged places of input files. A file that is only cut off in its last record is no failure."""
    damaged = read_lines(documents.folder / "errors.jsonl")
    for file in damaged[:SHOWN_FILES]:
        told = "damaged input file {file}, at byte {offset}, {bytes} bytes passed over: {error}".format(**file)
        errors.print(told, highlight=False, soft_wrap=True, markup=False)
    if len(damaged) > SHOWN_FILES:
        errors.print(
            f"and {len(damaged) - SHOWN_FILES} more: {documents.folder / 'errors.jsonl'}",
            highlight=False,
            soft_wrap=True,
        )
    if documents.manifest.counts["files_with_errors"]:
        raise typer.Exit(DAMAGED_FILES)


@app.command()
def scaling(
    recipe: RecipeArgument = "study",
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    settings: SetOption = [],
    sizes: Annotated[
        list[float], typer.Option("--size", help="A fraction of the recipe's model. Three or more.")
    ] = list(SIZES),
    budgets: Annotated[
        list[float], typer.Option("--budget", help="A fraction of the tokens it is trained on. Three or more.")
    ] = list(BUDGETS),
    is_checked: Annotated[
        bool, typer.Option("--check/--no-check", help="Train the run that is foretold too, and tell the error.")
    ] = True,
) -> None:
    """Foretell what a recipe's base model will come to, from smaller ones that are trained on less: a scaling law."""
    server = Server()
    from flows.cli.terminal import Terminal
    from flows.scaling import scaling_study, study
    from tasks.execution.runner import up_to_date

    shaping: dict[str, Any] = {"inputs": inputs, "max_files": max_files, "settings": settings}
    planned, store = study(make_recipe(recipe, **shaping), sizes, budgets), Store.default()
    last = planned.report if is_checked else planned.forecast
    if not up_to_date(last, store):
        told = shaping | {"recipe": recipe, "sizes": sizes, "budgets": budgets, "is_checked": is_checked}
        with server.used(), Terminal(console) as terminal, reporting(terminal):
            scaling_study(**told, runs_deployments=False)
    folder = store.open(last.id, Artifact).folder
    console.print(Markdown((folder / "report.md").read_text(encoding="utf-8")))
    console.print(f"The plot: {folder / 'scaling.svg'}", highlight=False, soft_wrap=True)


@app.command()
def stages(
    recipe: RecipeArgument = "tiny",
    inputs: InputOption = [],
    max_files: MaxFilesOption = 0,
    settings: SetOption = [],
    base_model: BaseModelOption = "",
) -> None:
    """List the stages of a recipe and whether each is up to date."""
    from flows.cli.terminal import summary
    from flows.pipeline import dag, state

    store = Store.default()
    table = Table("stage", "state", "artifact", "wall s", "what it holds", box=None)
    for name, step in dag(make_recipe(recipe, inputs, max_files, settings, base_model)).by_stage().items():
        manifest = store.find(step.id)
        seconds = f"{manifest.provenance['wall_seconds']:.1f}" if manifest else ""
        table.add_row(
            name, state(step, recipe, store), step.fingerprint, seconds, summary(manifest) if manifest else ""
        )
    console.print(table)


@app.command()
def show(
    artifact: Annotated[str, typer.Argument(help="STAGE/FINGERPRINT, FINGERPRINT, or a stage, for its latest.")],
    recipe: RecipeOption = "tiny",
    num: Annotated[int, typer.Option(min=0, help="How many documents or tokens are shown.")] = 3,
    reason: Annotated[
        str,
        typer.Option(
            help="Show documents dropped for this reason, or family of reasons, alone: quality/gopher_words, url."
        ),
    ] = "",
) -> None:
    """Show an artifact: its manifest, its lineage up to the web archive files, and some of what it holds."""
    from flows.cli.show import dropped_for, lineage, manifest_table, peek

    store = Store.default()
    manifest = _found(store, _resolve(store, artifact, recipe))
    opened = store.open(manifest.id, Artifact)
    if reason:
        console.print(*dropped_for(opened, reason, num))
        return
    console.print(manifest_table(manifest), lineage(manifest, store))
    for shown in peek(opened, store, num):
        console.print(shown)


@app.command()
def trace(
    url: Annotated[str, typer.Argument(help="The address of a page, as it was crawled.")],
    recipe: RecipeOption = "tiny",
) -> None:
    """Tell what became of a page: every capture of it, stage by stage, with the reason where it was dropped."""
    from flows.cli.trace import captures_told
    from flows.cli.trace import trace as follow

    if not (captures := follow(url, recipe, Store.default())):
        raise ValueError(f"no capture of {url} is in the crawl that recipe {recipe} read last: check the address")
    for line in captures_told(captures):
        console.print(line, highlight=False, soft_wrap=True)


def _resolve(store: Store, name: str, recipe: str) -> str:
    if "/" in name:
        return name
    if name in (*STAGE_NAMES, "scaling"):
        return store.latest(recipe, name)
    matches = [manifest.id for manifest in store.manifests() if manifest.fingerprint.startswith(name)]
    if len(matches) != 1:
        raise ValueError(
            f"{len(matches)} artifacts in {store.url} are called {name!r}: `crawl2chat stages` lists what is there"
        )
    return matches[0]


@app.command()
def report(
    recipe: RecipeOption = "tiny",
    into: Annotated[
        str, typer.Option(help="Write it into this Markdown file, between <!-- card --> and <!-- /card -->.")
    ] = "",
) -> None:
    """Print the report card of the last run."""
    store = Store.default()
    card = (store.open(store.latest(recipe, "evaluate"), Artifact).folder / "report.md").read_text(encoding="utf-8")
    if not into:
        console.print(Markdown(card))
        return
    before, opening, rest = Path(into).read_text(encoding="utf-8").partition(CARD_START)
    _, closing, after = rest.partition(CARD_END)
    if not opening or not closing:
        raise ValueError(f"{into} has no lines {CARD_START} and {CARD_END}: put them where the card belongs")
    below_heading = re.sub("^##", "###", card.partition("\n")[2], flags=re.MULTILINE).strip()
    write_atomically(Path(into), f"{before}{opening}\n\n{below_heading}\n\n{closing}{after}")


@app.command()
def chat(
    prompt: Annotated[str, typer.Option("-p", "--prompt", help="Say this, print the reply, and end.")] = "",
    recipe: RecipeOption = "tiny",
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
) -> None:
    """Talk with the model. Ends with an empty line or Ctrl-D."""
    talk = _open_chat(recipe, "export", temperature, seed)
    messages = []
    while text := prompt or _ask():
        messages.append({"role": "user", "content": text})
        reply = "".join(_streamed(talk, talk.reply(messages)))
        messages.append({"role": "assistant", "content": reply})
        if prompt:
            return


@app.command()
def complete(
    text: Annotated[str, typer.Argument(help="What the base model goes on from.")],
    recipe: RecipeOption = "tiny",
    temperature: TemperatureOption = 0.7,
    seed: SeedOption = 0,
) -> None:
    """Let the base model complete a text."""
    talk = _open_chat(recipe, "pretrain", temperature, seed)
    print(text, end="")
    list(_streamed(talk, talk.complete(text)))


def _open_chat(recipe: str, stage: str, temperature: float, seed: int) -> "Chat":
    from model.inference.chat import Chat

    store = Store.default()
    checkpoint = store.open(store.latest(recipe, stage), Artifact)
    tokenizer = store.open(checkpoint.manifest.inputs["tokenizer"], Artifact)
    return Chat(checkpoint.folder, tokenizer.folder / "tokenizer.json", temperature=temperature, seed=seed)


def _ask() -> str:
    try:
        return console.input("[bold]you[/]  ").strip()
    except EOFError:
        return ""


def _streamed(talk: "Chat", pieces: Iterable[str]) -> Iterator[str]:
    """Print each piece as it comes, without a terminal's escape sequences, and what was left out of the prompt."""
    from model.inference.chat import printable

    if talk.notice:
        errors.print(f"[dim]{escape(talk.notice)}[/]", highlight=False, soft_wrap=True)
    for piece in pieces:
        print(printable(piece), end="", flush=True)
        yield piece
    print()


@app.command()
def plan(
    preset: Annotated[
        str, typer.Argument(help="tiny, gpt2, gpt2-medium, gpt2-large, gpt2-xl, or d and a depth: d24.")
    ] = "gpt2",
    gpus: Annotated[str, typer.Option(help="How many of which: 8xH100.")] = "8xH100",
    mfu: Annotated[float, typer.Option(help="The share of the GPUs' peak that training reaches.")] = 0.4,
    price: Annotated[float, typer.Option(min=0.0, help="Dollars for an hour of one GPU; 0 takes a usual price.")] = 0.0,
    vocab_size: Annotated[int, typer.Option(min=0, help="V; 0 takes the preset's.")] = 0,
) -> None:
    """Tell what a model would take: parameters, FLOPs, tokens, memory by ZeRO stage, hours and cost."""
    from flows.cli.plan import plan_text

    console.print(plan_text(preset, gpus, mfu, price, vocab_size or None), highlight=False, soft_wrap=True)


@app.command()
def deploy(pool: Annotated[str, typer.Option(help="The work pool.")] = "crawl2chat") -> None:
    """Register every stage as a deployment with the Prefect server that PREFECT_API_URL names."""
    from flows import deployments as deployment

    deployment.deploy(pool)
    told = f"The deployments are registered. Start a worker with: prefect worker start --pool {pool}"
    console.print(told, highlight=False, soft_wrap=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command; every error a user can cause is one line and a status of 2."""
    logging.getLogger("crawl2chat").addHandler(logging.NullHandler())
    prepare_environment()
    try:
        app(args=list(arguments) if arguments is not None else None)
    except (ValueError, OSError) as error:
        is_full = isinstance(error, OSError) and error.errno == errno.ENOSPC
        remedy = FULL_DISK.format(store=Store.default().url) if is_full else ""
        errors.print(f"[red]error:[/] {escape(str(error) + remedy)}", highlight=False, soft_wrap=True)
        sys.exit(WRONG_USE)
    except RuntimeError as error:
        errors.print(f"[red]failed:[/] {escape(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(FAILED)


if __name__ == "__main__":
    main()
