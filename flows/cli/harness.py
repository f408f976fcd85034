"""`crawl2chat harness`: score models of a recipe on tasks of local files with the lm-evaluation-harness. Reads the store; prints a table."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.markdown import Markdown

from flows.cli.console import RecipeOption, console, say
from model.errors import UserError
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import BaseModel, Checkpoint, Policy, SFTModel, Tokenizer
from tasks.artifacts.store import Store
from tasks.evaluate.eval_tasks import load_task, read_tasks
from tasks.evaluate.harness import harness_table, run_harness
from tasks.evaluate.lm_eval_model import lm_eval_model
from tasks.training import check_vocabulary, load_language_model

STAGES: dict[str, tuple[str, type[Checkpoint]]] = {
    "base": ("pretrain", BaseModel),
    "assistant": ("sft", SFTModel),
    "policy": ("rlhf", Policy),
}


def harness(
    tasks: Annotated[str, typer.Argument(metavar="TASKS", help="A YAML list of tasks: name, path, format, licence.")],
    recipe: RecipeOption = "tiny",
    models: Annotated[list[str], typer.Option("--model", help=f"{', '.join(STAGES)}. May be repeated.")] = [
        "base",
        "policy",
    ],
    max_tokens: Annotated[int, typer.Option(min=8, help="Longer contexts lose their beginning.")] = 1024,
    batch: Annotated[int, typer.Option(min=1, help="Sequences in a batch.")] = 32,
    as_json: Annotated[str, typer.Option("--json", metavar="FILE", help="Write the scores as JSON too.")] = "",
) -> None:
    """Score models with the lm-evaluation-harness, on tasks of local files, without a network."""
    from model.tokenizer.chat import ChatTokenizer

    if unknown := [name for name in models if name not in STAGES]:
        raise UserError(f"--model {unknown[0]!r}: take one of {', '.join(STAGES)}")
    loaded = [load_task(task) for task in read_tasks(tasks)]
    store = Store.default()
    vocabulary = store.open(store.latest(recipe, "tokenizer"), Tokenizer)
    tokenizer = ChatTokenizer.load(vocabulary.folder / "tokenizer.json")
    rows = {}
    for name in dict.fromkeys(models):
        stage, kind = STAGES[name]
        checkpoint = store.open(store.latest(recipe, stage), kind)
        check_vocabulary(checkpoint, vocabulary)
        rows[name] = run_harness(lm_eval_model(load_language_model(checkpoint), tokenizer, max_tokens, batch), loaded)
    console.print(Markdown(harness_table(dict(rows))))
    if as_json:
        path = Path(as_json).expanduser()
        write_atomically(path, json.dumps(rows, indent=1))
        say(f"{path}: the scores as JSON")
