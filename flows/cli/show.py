"""`crawl2chat show`: an artifact's record, its lineage and some of its content. Reads the store."""

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pyarrow as pa
import typer
from rich.console import RenderableType
from rich.markdown import Markdown
from rich.markup import escape
from rich.panel import Panel
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from flows.cli.console import RecipeOption, console, found
from flows.recipes import STAGE_NAMES
from model.errors import UserError
from model.files import read_lines
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import Artifact, Manifest
from tasks.artifacts.store import Store
from tasks.records.documents import Document, read_documents
from tasks.records.samples import redacted_excerpt, redacted_line, redacted_url

SHOWN_CHARACTERS = 600
SHOWN_TOKENS = 60
SHOWN_FILES = 20


def show(
    artifact: Annotated[str, typer.Argument(help="STAGE/FINGERPRINT, FINGERPRINT, or a stage, for its latest.")],
    recipe: RecipeOption = "tiny",
    num: Annotated[int, typer.Option(min=0, help="How many documents or tokens are shown.")] = 3,
    reason: Annotated[
        str,
        typer.Option(help="Show documents dropped for this reason, or family of reasons: quality/gopher_words, url."),
    ] = "",
) -> None:
    """Show an artifact: its manifest, its lineage up to the web archive files, and some of its content."""
    store = Store.default()
    manifest = found(store, resolve(store, artifact, recipe))
    opened = store.open(manifest.id, Artifact)
    if reason:
        console.print(*dropped_for(opened, reason, num))
        return
    console.print(manifest_table(manifest), lineage(manifest, store))
    for shown in peek(opened, store, num):
        console.print(shown)


def resolve(store: Store, name: str, recipe: str) -> str:
    """The artifact id that a name stands for: itself, the latest of a stage, or the one whose fingerprint begins so."""
    if "/" in name:
        return name
    if name in (*STAGE_NAMES, "scaling"):
        return store.latest(recipe, name)
    matches = [manifest.id for manifest in store.manifests() if manifest.fingerprint.startswith(name)]
    if len(matches) != 1:
        raise UserError(
            f"{len(matches)} artifacts in {store.url} are called {name!r}: `crawl2chat stages` lists the artifacts"
        )
    return matches[0]


def manifest_table(manifest: Manifest) -> Table:
    """Kind, provenance, config, counts and metrics."""
    table = Table(title=f"{manifest.kind} {manifest.id}", show_header=False, box=None, title_justify="left")
    made = manifest.provenance
    dirty = " with local changes" if made["is_dirty"] else ""
    table.add_row(
        "made",
        f"{made['started']} on {made['host']} in {made['wall_seconds']:.1f} s, commit {made['commit'][:12]}{dirty}",
    )
    table.add_row("by", escape(" ".join(made["argv"])))
    table.add_row("size", f"{len(manifest.files)} files, {sum(file.bytes for file in manifest.files):,} bytes")
    table.add_row("config", escape(json.dumps(manifest.config, indent=1)))
    for name, value in (manifest.counts | manifest.metrics).items():
        table.add_row(name, f"{value:,}" if isinstance(value, int) else f"{value:.5g}")
    return table


def lineage(manifest: Manifest, store: Store) -> Tree:
    """The artifacts it was made of, and theirs, up to the web archive files."""
    tree = Tree(f"[bold]{manifest.id}[/]")
    _climb(tree, manifest, store, seen=set())
    return tree


def _climb(tree: Tree, manifest: Manifest, store: Store, seen: set[str]) -> None:
    for role, artifact_id in manifest.inputs.items():
        if artifact_id in seen:
            tree.add(f"{role}: {artifact_id} [dim](above)[/]")
            continue
        seen.add(artifact_id)
        branch = tree.add(f"{role}: [bold]{artifact_id}[/]")
        if made_of := store.find(artifact_id):
            _climb(branch, made_of, store, seen)
    if manifest.kind == "Crawl":
        files = read_lines(store.folder(manifest.id) / "inputs.jsonl")
        for file in files[:SHOWN_FILES]:
            tree.add(f"[dim]{escape(file['url'])}[/]")
        if len(files) > SHOWN_FILES:
            tree.add(f"[dim]and {len(files) - SHOWN_FILES} more files[/]")


def peek(artifact: Artifact, store: Store, num: int) -> Iterator[RenderableType]:
    """A few documents, tokens, records or the report itself."""
    for name in ("documents/*.parquet", "dropped/*.parquet"):
        documents = (document for path in artifact.files(name) for document in read_documents(path))
        yield from (_panel(document) for document in itertools.islice(documents, num))
    for path in artifact.files("train/*.arrow")[:1]:
        tokenizer = store.folder(artifact.manifest.inputs["tokenizer"]) / "tokenizer.json"
        yield from _token_panels(path, ChatTokenizer.load(tokenizer), num)
    for path in artifact.files("*.jsonl"):
        yield from (
            Panel(Text(redacted_line(line)[:SHOWN_CHARACTERS]), title=path.name) for line in _first_lines(path, num)
        )
    for path in artifact.files("report.md"):
        yield Markdown(path.read_text(encoding="utf-8"))


def dropped_for(artifact: Artifact, reason: str, num: int) -> Iterator[RenderableType]:
    """The first documents that were dropped for `reason`, or for any of its family. Raises UserError where none was."""
    counts = artifact.manifest.counts
    known = [name.removeprefix("dropped/") for name in counts if name.startswith("dropped/")]
    wanted = {name for name in known if reason in (name, name.partition("/")[0])}
    if not wanted:
        known_reasons = f"these are the reasons: {', '.join(known)}" if known else "it dropped none"
        raise UserError(f"{artifact.manifest.id} dropped no document for {reason!r}: {known_reasons}")
    documents = (document for path in artifact.files("dropped/*.parquet") for document in read_documents(path))
    chosen = (document for document in documents if document["reason"] in wanted)
    yield from (_panel(document) for document in itertools.islice(chosen, num))


def _panel(document: Document) -> Panel:
    text = Text(redacted_excerpt(document["text"], SHOWN_CHARACTERS) or "(no text)")
    reason = f"[red]dropped: {escape(document['reason'])}[/]" if "reason" in document else None
    return Panel(
        text, title=escape(redacted_url(document["url"])), subtitle=reason, title_align="left", subtitle_align="left"
    )


def _first_lines(path: Path, num: int) -> list[str]:
    with path.open(encoding="utf-8") as stream:
        return [line.rstrip("\n") for line, _ in zip(stream, range(num), strict=False)]


def _token_panels(path: Path, tokenizer: ChatTokenizer, num: int) -> Iterator[Panel]:
    with pa.memory_map(str(path)) as source:
        documents = pa.ipc.open_file(source).get_batch(0)["tokens"][:num].to_pylist()
    for tokens in documents:
        pieces = " | ".join(tokenizer.decode([token]) for token in tokens[:SHOWN_TOKENS])
        ids = " ".join(map(str, tokens[:SHOWN_TOKENS]))
        yield Panel(Text(f"{ids}\n{pieces}"), title=f"{path.name}: {len(tokens)} tokens", title_align="left")
