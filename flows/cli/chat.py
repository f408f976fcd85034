"""`crawl2chat chat` and `crawl2chat complete`: talk with the assistant, and let the base model continue a text."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.console import RecipeOption, console, errors, stream
from tasks.artifacts.manifest import Artifact, Tokenizer
from tasks.artifacts.store import Store

if TYPE_CHECKING:
    from model.inference.chat import Chat

TemperatureOption = Annotated[float, typer.Option(min=0.0, max=10.0, help="Sampling temperature; 0 is greedy.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed for sampling.")]


def chat(
    prompt: Annotated[str, typer.Option("-p", "--prompt", help="Say this, print the reply, and end.")] = "",
    recipe: RecipeOption = "tiny",
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
) -> None:
    """Talk with the model. Ends with an empty line or Ctrl-D."""
    # The exported bundle: what is tried here is what inference engines load.
    talk = _open_chat(recipe, "export", temperature, seed)
    messages = []
    # The whole conversation goes to the model each time; what does not fit into its sequence is left out there, and
    # reported by `talk.notice`.
    while text := prompt or _ask():
        messages.append({"role": "user", "content": text})
        reply = "".join(_streamed(talk, talk.reply(messages)))
        messages.append({"role": "assistant", "content": reply})
        if prompt:
            return


def complete(
    text: Annotated[str, typer.Argument(help="The text that the base model continues.")],
    recipe: RecipeOption = "tiny",
    temperature: TemperatureOption = 0.7,
    seed: SeedOption = 0,
) -> None:
    """Let the base model continue a text."""
    talk = _open_chat(recipe, "pretrain", temperature, seed)
    stream(text)
    list(_streamed(talk, talk.complete(text)))


def _open_chat(recipe: str, stage: str, temperature: float, seed: int) -> "Chat":
    # Here, since it imports torch: all other commands would wait for it.
    from model.inference.chat import Chat

    store = Store.default()
    # The vocabulary by the model's own inputs: another one may be the latest by now, and its ids would mean other
    # words.
    checkpoint = store.open(store.latest(recipe, stage), Artifact)
    tokenizer = store.open(checkpoint.manifest.inputs["tokenizer"], Tokenizer)
    return Chat(checkpoint.folder, tokenizer.folder / "tokenizer.json", temperature=temperature, seed=seed)


def _ask() -> str:
    try:
        return console.input("[bold]you[/]  ").strip()
    except EOFError:
        return ""


def _streamed(talk: "Chat", pieces: Iterable[str]) -> Iterator[str]:
    """Print each piece as it comes, and before it what was left out of the prompt."""
    if talk.notice:
        errors.print(talk.notice, style="dim", highlight=False, soft_wrap=True, markup=False)
    for piece in pieces:
        stream(piece)
        yield piece
    stream("\n")
