"""What all commands share: the console, which any terminal can show and no web page can steer, and common options.

Text of web pages is printed next to our own. A control character in it could move the cursor, change the title or forge a line, so
the console writes it as an escape, \\x1b. Where the output is not UTF-8, our own signs are written in ASCII and others as "?".
"""

import re
import sys
from collections.abc import Iterable
from typing import Annotated

import typer
from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

from flows.recipes import RECIPES, is_file_name, load
from model.errors import UserError
from tasks.artifacts.manifest import Manifest
from tasks.artifacts.store import Store

# C0 and C1 controls but tab and line feed, and the marks that reorder what is shown (Unicode's bidirectional controls)
UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
ASCII = str.maketrans({"✓": "+", "✗": "x", "→": ">", "…": "~", "━": "-", "─": "-", "•": "*", "—": "-", "│": "|"})  # fmt: skip


def visible(text: str) -> str:
    """The text with control characters as escapes: \\x1b for the one that begins a terminal's escape sequences."""
    # surrogatepass: a lone surrogate, which no encoding takes, is escaped like the rest.
    return UNSAFE.sub(lambda match: match[0].encode("unicode_escape", "surrogatepass").decode(), text)


def encodable(text: str, encoding: str) -> str:
    """The text with what `encoding` lacks replaced."""
    # utf-8, UTF8, utf_16: whatever the platform calls it.
    if encoding.lower().replace("-", "").startswith("utf"):
        return text
    return text.translate(ASCII).encode(encoding, "replace").decode(encoding)


class SafeConsole(Console):
    """A console whose text is visible and fits the encoding of its output; colours and cursor movements are only its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments of a renderable."""
        # After Rich has rendered: its own colours and cursor movements are control segments or styles by then, so what
        # is left in a text came from the data.
        for segment in super().render(renderable, options):
            if segment.control:
                yield segment
            else:
                yield Segment(encodable(visible(segment.text), self.encoding), segment.style)


console = SafeConsole()
errors = SafeConsole(stderr=True)


def say(text: str) -> None:
    """Print a line as it is: no colours, no wrapping."""
    console.print(text, highlight=False, soft_wrap=True, markup=False)


def stream(text: str) -> None:
    """Print a part of a line."""
    # Not by Rich, which would wrap and style each piece as if it were a whole line.
    sys.stdout.write(encodable(visible(text), sys.stdout.encoding or "ascii"))
    sys.stdout.flush()


def recipe_name(recipe: str) -> str:
    """The name that a recipe's artifacts are found by: of a built-in recipe, of a file, or of an earlier run. Raises UserError."""
    if recipe in RECIPES:
        return recipe
    if is_file_name(recipe):
        return load(recipe).name
    # The recipe of an earlier run whose file is elsewhere now: its artifacts are still found by its name.
    if Store.default().has_recipe(recipe):
        return recipe
    return load(recipe).name  # raises, and lists the recipes


def found(store: Store, artifact_id: str) -> Manifest:
    """The manifest of an artifact. Raises UserError if it does not exist."""
    manifest = store.find(artifact_id)
    if manifest is None:
        raise UserError(
            f"there is no artifact {artifact_id} in {store.shown_url}: `crawl2chat stages` lists the artifacts"
        )
    return manifest


RecipeArgument = Annotated[
    str, typer.Argument(help=f"A recipe: {', '.join(RECIPES)}, or a recipe file, my-recipe.yaml.")
]
RecipeOption = Annotated[
    str, typer.Option(help="Recipe whose latest artifacts to use: a name or a recipe file.", callback=recipe_name)
]
InputOption = Annotated[
    list[str],
    typer.Option("--input", help="Web archive files: a path, glob, folder, URL or cc:CRAWL. May be repeated."),
]
SetOption = Annotated[list[str], typer.Option("--set", help="Change one setting: STAGE.FIELD=VALUE. May be repeated.")]
BaseModelOption = Annotated[
    str,
    typer.Option(
        help="Folder of a Qwen3 or Llama model, as `hf download` makes it, to take as the base model instead of training one."
    ),
]
MaxFilesOption = Annotated[int, typer.Option(min=0, help="Read at most so many files; 0 reads all.")]
