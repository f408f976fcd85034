"""`crawl2chat chat` and `crawl2chat complete`: talk with the assistant, and let the base model continue a text."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import RecipeOption, console, errors, stream
from model.errors import UserError
from tasks.artifacts.manifest import Artifact, Tokenizer
from tasks.artifacts.store import Store

if TYPE_CHECKING:
    from model.inference.chat import Chat
    from model.inference.tool_use import ToolReply
    from model.tools.registry import Tools

TemperatureOption = Annotated[float, typer.Option(min=0.0, max=10.0, help="Sampling temperature; 0 is greedy.")]
SeedOption = Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Random seed for sampling.")]


def chat(
    prompt: Annotated[str, typer.Option("-p", "--prompt", help="Say this, print the reply, and end.")] = "",
    recipe: RecipeOption = "tiny",
    temperature: TemperatureOption = 0.0,
    seed: SeedOption = 0,
    tools: Annotated[
        bool,
        typer.Option("--tools", help="Let the model call its calculator, Python and search; calls are shown as steps."),
    ] = False,
    search_url: Annotated[
        str,
        typer.Option(
            envvar="CRAWL2CHAT_SEARCH_URL",
            help="Search by this service instead of the run's index: https://HOST/search?q={query}&format=json",
        ),
    ] = "",
    search_allows_private: Annotated[
        bool,
        typer.Option(envvar="CRAWL2CHAT_SEARCH_ALLOWS_PRIVATE", help="The service may be at a private address."),
    ] = False,
) -> None:
    """Talk with the model. Ends with an empty line or Ctrl-D."""
    # The exported bundle: what is tried here is what inference engines load.
    talk = _open_chat(recipe, "export", temperature, seed)
    offered = open_tools(recipe, search_url, search_allows_private) if tools else None
    messages: list[dict[str, Any]] = [{"role": "system", "content": offered.system_prompt()}] if offered else []
    # The whole conversation goes to the model each time; what does not fit into its sequence is left out there, and
    # reported by `talk.notice`.
    while text := prompt or _ask():
        messages.append({"role": "user", "content": text})
        if offered:
            messages += _reply_with_tools(talk, messages, offered)
        else:
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
    tokenizer = store.open(checkpoint.manifest.input("tokenizer"), Tokenizer)
    return Chat(checkpoint.folder, tokenizer.folder / "tokenizer.json", temperature=temperature, seed=seed)


def open_tools(recipe: str, search_url: str, allows_private: bool) -> "Tools":
    """The tools of a conversation; what is missing is reported and left out."""
    from flows.cli.search import open_index
    from model.tools.python import LACKS, find_room
    from tasks.conversations.tools import make_tools, search_index, search_service

    room = find_room()
    for lack in LACKS[room] if room else ("no sandbox works on this machine: there is no Python tool",):
        errors.print(lack, style="dim", highlight=False, soft_wrap=True, markup=False)
    if search_url:
        return make_tools(search_service(search_url, allows_private=allows_private))
    try:
        return make_tools(search_index(open_index(recipe)))
    except UserError as error:
        errors.print(f"no search: {error}", style="dim", highlight=False, soft_wrap=True, markup=False)
        return make_tools(None)


def _reply_with_tools(talk: "Chat", messages: list[dict[str, Any]], tools: "Tools") -> list[dict[str, Any]]:
    """Print the reply with each call and its result on a line. Returns the messages of the reply."""
    pieces = talk.reply_with_tools(messages, tools)
    _print_notice(talk)
    while True:
        try:
            piece = next(pieces)
        except StopIteration as stop:
            reply: ToolReply = stop.value
            break
        if isinstance(piece, str):
            stream(piece)
        else:
            call, result = piece
            # A result may have several lines; they are indented, so that none looks like a reply.
            shown = result.text.replace("\n", "\n    ")
            stream(f"\n  {call.name}({call.arguments})\n    {shown}\n")
    stream("\n")
    if reply.ended:
        errors.print(f"the reply ended early: {reply.ended}", style="dim", highlight=False, markup=False)
    return reply.messages


def _ask() -> str:
    try:
        return console.input("[bold]you[/]  ").strip()
    except EOFError:
        return ""


def _print_notice(talk: "Chat") -> None:
    if talk.notice:
        errors.print(talk.notice, style="dim", highlight=False, soft_wrap=True, markup=False)


def _streamed(talk: "Chat", pieces: Iterable[str]) -> Iterator[str]:
    """Print each piece as it comes, and before it what was left out of the prompt."""
    _print_notice(talk)
    for piece in pieces:
        stream(piece)
        yield piece
    stream("\n")
