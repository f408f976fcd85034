"""`crawl2chat serve`: the models of a recipe, or an exported bundle, behind OpenAI's API and a web page."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.chat import open_tools
from flows.cli.console import recipe_name, say
from flows.cli.labels import feedback_routers
from model.errors import UserError
from tasks.artifacts.manifest import Bundle, Checkpoint, Report, Tokenizer
from tasks.artifacts.store import Store

if TYPE_CHECKING:
    from fastapi import APIRouter

    from model.serve.served import Kind, ServedModel
    from model.tokenizer.chat import ChatTokenizer
    from model.tools.registry import Tools

# The first one answers where a request names no model.
STAGES: "dict[Kind, str]" = {"policy": "rlhf", "assistant": "sft", "base": "pretrain"}
KINDS: "dict[str, Kind]" = {"Policy": "policy", "SFTModel": "assistant", "BaseModel": "base"}  # of artifacts


def serve(
    source: Annotated[
        str,
        typer.Argument(
            metavar="[RECIPE|BUNDLE]", help="A recipe, whose latest models are served, or the folder of a bundle."
        ),
    ] = "tiny",
    model: Annotated[
        list[str],
        typer.Option(help="A further model: STAGE/FINGERPRINT of any run in the store. May be repeated."),
    ] = [],
    host: Annotated[
        str, typer.Option(help="Address to listen at; any but this machine's own needs a key.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 8000,
    api_key: Annotated[
        str, typer.Option(envvar="CRAWL2CHAT_API_KEY", help="Key that requests must send: Authorization: Bearer KEY.")
    ] = "",
    tools: Annotated[
        bool, typer.Option(help="Run the model's calculator, Python and search where a request asks for it.")
    ] = True,
    vocabulary: Annotated[
        list[str],
        typer.Option(
            help="Vocabulary to compare with: a tokenizer.json, GPT-2's folder, cl100k_base.tiktoken. May be repeated."
        ),
    ] = [],
    max_running: Annotated[
        int, typer.Option(min=1, max=512, help="Completions of a model that are computed at once.")
    ] = 32,
    max_waiting: Annotated[
        int, typer.Option(min=0, max=100_000, help="Completions that may wait; more are refused.")
    ] = 256,
    labels: Annotated[
        str, typer.Option(help="File that keeps rankings and votes; by default feedback.sqlite in the store.")
    ] = "",
    guidelines: Annotated[
        str,
        typer.Option(help="A text file that people read next to what they rank, instead of the one of the package."),
    ] = "",
    threads: Annotated[
        int, typer.Option(min=0, max=1024, help="Threads of a model's computation; 0: by its size.")
    ] = 0,
) -> None:
    """Serve the base model, the assistant and the policy of a recipe, or a bundle: OpenAI's API, and a page to try them."""
    # Here, since it imports torch: all other commands would wait for it.
    from model.serve.server import check_address, run_server

    check_address(host, api_key)
    store = Store.default()
    settings = {"max_running": max_running, "max_waiting": max_waiting, "num_threads": threads}
    is_bundle = (Path(source) / "config.json").is_file()
    recipe = "tiny" if is_bundle else recipe_name(source)
    opened = open_tools(recipe, "", False) if tools else None
    served = [_bundle(Path(source), opened, settings)] if is_bundle else _models(store, recipe, opened, settings)
    served += _further_models(store, model, {one.lineage for one in served}, opened, settings)
    run_server(
        served,
        host=host,
        port=port,
        api_key=api_key or None,
        routers=[*feedback_routers(store, recipe, labels, guidelines), *_run_routers(store, recipe, served[0].lineage)],
        vocabularies=_vocabularies(vocabulary),
        announce=say,
    )


def _models(store: Store, recipe: str, tools: "Tools | None", settings: dict[str, int]) -> "list[ServedModel]":
    """The models of a recipe that are finished. Raises UserError where all are missing."""
    from model.inference.chat import other_name_reply

    found = [
        _checkpoint(store, store.latest(recipe, stage), tools, settings)
        for name, stage in STAGES.items()
        # A recipe may end earlier, and a run may not be finished.
        if name == "base" or _has(store, recipe, stage)
    ]
    # They reply as the recipe's bundle does.
    said = (
        other_name_reply(store.open(store.latest(recipe, "export"), Bundle).folder)
        if _has(store, recipe, "export")
        else ""
    )
    for served in found:
        served.other_name_reply = said if served.is_chat else ""
    return found


def _further_models(
    store: Store, names: list[str], known: set[str], tools: "Tools | None", settings: dict[str, int]
) -> "list[ServedModel]":
    """Artifacts of any run, under their own names. Raises UserError where one is missing, or no model that writes."""
    found = [_checkpoint(store, name, tools, settings) for name in dict.fromkeys(names) if name not in known]
    for served in found:
        served.id = served.lineage  # two policies cannot both be "policy"
    return found


def _checkpoint(store: Store, artifact_id: str, tools: "Tools | None", settings: dict[str, int]) -> "ServedModel":
    """The model of an artifact. Raises UserError where it cannot write, as a reward model."""
    from model.serve.served import ServedModel

    checkpoint = store.open(artifact_id, Checkpoint)
    if checkpoint.manifest.kind not in KINDS:
        given = f"{artifact_id} is a {checkpoint.manifest.kind}"
        raise UserError(f"{given}, and only models that write can be served: {', '.join(KINDS)}")
    kind = KINDS[checkpoint.manifest.kind]
    # The vocabulary by the model's own inputs: another one may be the latest by now.
    tokenizer = store.open(checkpoint.manifest.input("tokenizer"), Tokenizer)
    return ServedModel(
        kind,
        checkpoint.folder,
        tokenizer.folder / "tokenizer.json",
        lineage=checkpoint.manifest.id,
        tools=None if kind == "base" else tools,
        **settings,
    )


def _run_routers(store: Store, recipe: str, lineage: str) -> "list[APIRouter]":
    """What is known of the run: the training data behind a reply, and the report card of the first model."""
    from tasks.evaluate.routes import report_router
    from tasks.provenance.routes import why_said_router
    from tasks.provenance.served import Explainer

    return [why_said_router(Explainer(store, recipe)), report_router(lambda: _report(store, recipe, lineage))]


def _report(store: Store, recipe: str, lineage: str) -> Report | None:
    """The report card that a bundle was exported with, or the latest of the recipe, if it is of this model."""
    try:
        model = store.find(lineage)
        if model and "report" in model.inputs:
            return store.open(model.input("report"), Report)
        report = store.open(store.latest(recipe, "evaluate"), Report)
    except UserError:
        return None  # a bundle from elsewhere, or a run that is not evaluated yet
    return report if lineage in report.manifest.inputs.values() else None


def _has(store: Store, recipe: str, stage: str) -> bool:
    try:
        store.latest(recipe, stage)
    except UserError:
        return False
    return True


def _bundle(folder: Path, tools: "Tools | None", settings: dict[str, int]) -> "ServedModel":
    """A model in the layout of `export`. Raises UserError where the folder is no bundle."""
    from model.serve.served import ServedModel

    folder = folder.resolve()
    if not (folder / "tokenizer.json").is_file():
        raise UserError(f"{folder} has no tokenizer.json: give the folder of a bundle, as the stage export makes it")
    # An artifact's folder is named by its fingerprint, which says little without its stage.
    name = f"{folder.parent.name}/{folder.name}" if folder.parent.name == "export" else folder.name
    return ServedModel("bundle", folder, folder / "tokenizer.json", lineage=name, tools=tools, **settings)


def _vocabularies(paths: list[str]) -> "dict[str, ChatTokenizer]":
    """Vocabularies to compare with, by name. Raises UserError where two have one name."""
    found: dict[str, ChatTokenizer] = {}
    for path in paths:
        name, tokenizer = _vocabulary(path)
        if name in found:
            raise UserError(f"two vocabularies are called {name!r}, the second is {path}: rename its folder or file")
        found[name] = tokenizer
    return found


def _vocabulary(path: str) -> "tuple[str, ChatTokenizer]":
    """A vocabulary to compare with, by its short name."""
    from model.tokenizer.chat import ChatTokenizer
    from model.tokenizer.vocabularies import FILES, load, short_name

    place = Path(path)
    files = [file for name in FILES if (file := place / name).is_file()] if place.is_dir() else [place]
    if not files or not files[0].is_file():
        raise UserError(f"there is no vocabulary at {path}: give a tokenizer.json, GPT-2's folder or a file *.tiktoken")
    # All files of Hugging Face have one name: their folders tell them apart.
    named = place.resolve().parent if place.name == "tokenizer.json" else place
    return short_name(str(named)), ChatTokenizer(load(files))
