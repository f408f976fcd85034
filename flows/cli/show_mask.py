"""`crawl2chat show-mask`: the tokens of a conversation and which of them are learned. Reads the store, or a file of chat data."""

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from flows.cli.console import RecipeOption, console, found, visible
from flows.cli.show import resolve
from model.errors import UserError
from model.files import read_lines
from model.tokenizer.chat import ChatTokenizer, Rendered
from tasks.artifacts.manifest import Artifact, Conversations, SFTModel, Tokenizer
from tasks.artifacts.store import Store
from tasks.conversations.identity import find_files, stated_format
from tasks.conversations.readers import read_records
from tasks.records.conversations import Conversation, normal_form

LEARNED, CONTEXT = "green", "dim"
LINE_ENDS = str.maketrans({"\n": "\\n", "\t": "\\t"})


def show_mask(
    source: Annotated[
        str,
        typer.Argument(
            help="A file of conversations in any format, conversations/FINGERPRINT, or sft for those of its latest model."
        ),
    ],
    index: Annotated[int, typer.Option(min=0, help="Which conversation, from 0.")] = 0,
    tokenizer: Annotated[
        str, typer.Option(help="A tokenizer.json; without it the one of the artifact, or the latest.")
    ] = "",
    recipe: RecipeOption = "tiny",
) -> None:
    """Show the tokens of a conversation. Those that are learned are green, in lines that begin with +."""
    store = Store.default()
    records, encoder = conversations_of(source, recipe, store)
    if tokenizer or encoder is None:
        encoder = Path(tokenizer or _tokenizer_file(store.latest(recipe, "tokenizer"), store))
    record = next(itertools.islice(records, index, None), None)
    if record is None:
        raise UserError(f"{source} holds no conversation {index}: give a smaller --index")
    renderer = ChatTokenizer.load(encoder)
    # Not render_training: what SFT would refuse is what a person wants to see here.
    for line in mask_lines(renderer.render(record["messages"]), renderer):
        console.print(line, soft_wrap=True)


def conversations_of(source: str, recipe: str, store: Store) -> tuple[Iterator[Mapping[str, Any]], Path | None]:
    """The conversations that a name stands for, and the tokenizer of the artifact that it names, if there is one."""
    name, place = stated_format(source)
    if name or "://" in source or Path(source).expanduser().is_file():
        files = find_files(place)
        return (normal_form(record) for file in files for record in read_records(Conversation, file, name)), None
    manifest = found(store, resolve(store, source, recipe))
    artifact = store.open(manifest.id, Artifact)
    encoder = manifest.inputs.get("tokenizer")
    if manifest.kind == SFTModel.__name__:
        artifact = store.open(manifest.input("conversations"), Conversations)
    elif manifest.kind != Conversations.__name__:
        raise UserError(
            f"{manifest.id} is a {manifest.kind} and holds no conversations: name an artifact of conversations or sft"
        )
    records = (record for path in artifact.files("*.jsonl") if path.stem != "bad_lines" for record in read_lines(path))
    return records, Path(_tokenizer_file(encoder, store)) if encoder else None


def _tokenizer_file(artifact_id: str, store: Store) -> str:
    return str(store.open(artifact_id, Tokenizer).folder / "tokenizer.json")


def mask_lines(rendered: Rendered, tokenizer: ChatTokenizer) -> Iterator[Text]:
    """A line for each run of tokens that are learned or not, the tokens separated by bars, special ones bold; last a line of counts."""
    names = {token: name for name, token in tokenizer.special.items()}
    for is_learned, run in itertools.groupby(zip(*rendered, strict=True), key=lambda pair: pair[1]):
        colour = LEARNED if is_learned else CONTEXT
        line = Text("+ " if is_learned else "  ", colour)
        for number, (token, _) in enumerate(run):
            line.append("│" if number else "", "dim")
            # What a terminal would obey, and line ends, are escaped: a text must not look like a line of the mask.
            text = visible(names.get(token) or tokenizer.decode([token]).translate(LINE_ENDS))
            line.append(text, f"bold {colour}" if token in names else colour)
        yield line
    yield Text(f"{sum(rendered.mask)} of {len(rendered.tokens)} tokens are learned")
