"""`crawl2chat show`: an artifact's record, its lineage and some of its content. Reads the store."""

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

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
    # The studies' reports are made by stages that no recipe has.
    if name in (*STAGE_NAMES, "scaling", "seeds"):
        return store.latest(recipe, name)
    # A scan of all manifests, which are small; a store has hundreds of artifacts, not millions.
    matches = [manifest.id for manifest in store.manifests() if manifest.fingerprint.startswith(name)]
    if len(matches) != 1:
        raise UserError(
            f"{len(matches)} artifacts in {store.url} are called {name!r}: `crawl2chat stages` lists the artifacts"
        )
    return matches[0]


def manifest_table(manifest: Manifest) -> Table:
    """Kind, provenance, config, counts and metrics."""
    # escape: a manifest may come from a store that others write to, and Rich reads [red] in a host name as markup.
    table = Table(title=escape(f"{manifest.kind} {manifest.id}"), show_header=False, box=None, title_justify="left")
    table.add_row("made", escape(made_text(manifest.provenance)))
    if argv := manifest.provenance.get("argv"):
        table.add_row("by", escape(" ".join(map(str, argv))))
    table.add_row("size", f"{len(manifest.files)} files, {sum(file.bytes for file in manifest.files):,} bytes")
    table.add_row("config", escape(json.dumps(manifest.config, indent=1)))
    for name, value in (manifest.counts | manifest.metrics).items():
        table.add_row(escape(name), f"{value:,}" if isinstance(value, int) else f"{value:.5g}")
    return table


def made_text(provenance: Mapping[str, Any]) -> str:
    """When, where, how long and by which commit an artifact was made: of these, what its manifest says."""
    # The store checks none of its fields: an artifact that was copied from elsewhere may lack any.
    parts = [str(provenance.get("started", "at an unknown time"))]
    if host := provenance.get("host"):
        parts.append(f"on {host}")
    if isinstance(seconds := provenance.get("wall_seconds"), int | float):
        parts.append(f"in {seconds:.1f} s")
    if commit := provenance.get("commit"):
        parts.append(f"by commit {str(commit)[:12]}{' with local changes' if provenance.get('is_dirty') else ''}")
    return " ".join(parts)


def lineage(manifest: Manifest, store: Store) -> Tree:
    """The artifacts it was made of, and theirs, up to the web archive files."""
    tree = Tree(f"[bold]{manifest.id}[/]")
    _climb(tree, manifest, store, seen=set())
    return tree


def _climb(tree: Tree, manifest: Manifest, store: Store, seen: set[str]) -> None:
    for role, artifact_id in manifest.inputs.items():
        # An artifact that several others read is drawn once: nearly every stage leads back to the crawl, on many ways.
        if artifact_id in seen:
            tree.add(f"{role}: {artifact_id} [dim](above)[/]")
            continue
        seen.add(artifact_id)
        branch = tree.add(f"{role}: [bold]{artifact_id}[/]")
        # An input may have been deleted to free space, or was never copied here.
        if made_of := store.find(artifact_id):
            _climb(branch, made_of, store, seen)
    if manifest.kind == "Crawl":
        files = read_lines(store.file(manifest.id, "inputs.jsonl"))
        for file in files[:SHOWN_FILES]:
            tree.add(f"[dim]{escape(file['url'])}[/]")
        if len(files) > SHOWN_FILES:
            tree.add(f"[dim]and {len(files) - SHOWN_FILES} more files[/]")
    for line in itertools.islice(_source_lines(manifest), SHOWN_FILES):
        tree.add(f"[dim]{escape(line)}[/]")


def _source_lines(manifest: Manifest) -> Iterator[str]:
    """What chat data was read from: how much people ranked, and files with the hash of their content."""
    if "labels" in manifest.counts and not manifest.inputs:
        yield f"rankings: {manifest.counts['labels']:,}, people: {manifest.counts.get('people', 0):,}"
    sources = manifest.config.get("sources")
    # A manifest of another version, or from elsewhere, may have anything there.
    for source in sources if isinstance(sources, list) else []:
        if (
            isinstance(source, dict)
            and isinstance(source.get("paths"), list)
            and isinstance(source.get("sha256"), list)
        ):
            named = zip(source["paths"], source["sha256"], strict=False)
            yield from (f"{path} sha256 {str(digest)[:12]}" for path, digest in named)


def peek(artifact: Artifact, store: Store, num: int) -> Iterator[RenderableType]:
    """A few documents, tokens, records or the report itself."""
    for name in ("documents/*.parquet", "dropped/*.parquet"):
        # A generator: only the row group of the first documents is read.
        documents = (document for path in artifact.files(name) for document in read_documents(path))
        yield from (_panel(document) for document in itertools.islice(documents, num))
    # The first shard may hold no document: panels are taken from as many shards as are needed.
    if shards := artifact.files("train/*.arrow"):
        tokenizer = ChatTokenizer.load(store.file(artifact.manifest.input("tokenizer"), "tokenizer.json"))
        panels = (panel for path in shards for panel in _token_panels(path, tokenizer))
        yield from itertools.islice(panels, num)
    for path in artifact.files("*.jsonl"):
        yield from (
            # Redacted before it is cut, since a cut may leave half of an address that no finder recognises. Text, as
            # markup in a page's text must not count.
            Panel(Text(redacted_line(line)[:SHOWN_CHARACTERS]), title=path.name)
            for line in _first_lines(path, num)
        )
    for path in artifact.files("report.md"):
        yield Markdown(path.read_text(encoding="utf-8"))


def dropped_for(artifact: Artifact, reason: str, num: int) -> Iterator[RenderableType]:
    """The first documents that were dropped for `reason`, or for any of its family. Raises UserError where none was."""
    counts = artifact.manifest.counts
    # By the manifest's counts, so that a wrong reason is reported without reading a shard.
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


def _token_panels(path: Path, tokenizer: ChatTokenizer) -> Iterator[Panel]:
    with pa.memory_map(str(path)) as source:
        reader = pa.ipc.open_file(source)
        for number in range(reader.num_record_batches):
            for tokens in map(pa.ListScalar.as_py, reader.get_batch(number)["tokens"]):
                shown = redacted_tokens(tokens, tokenizer)[:SHOWN_TOKENS]
                pieces = " | ".join(tokenizer.decode([token]) for token in shown)
                ids = " ".join(map(str, shown))
                yield Panel(Text(f"{ids}\n{pieces}"), title=f"{path.name}: {len(tokens)} tokens", title_align="left")


def redacted_tokens(tokens: Sequence[int], tokenizer: ChatTokenizer) -> list[int]:
    """The first tokens of a document, <|bos|> among them, without personal data and secrets."""
    # An address is spread over several tokens, so it is found in the text. Read on behind what is shown: one that is cut in two
    # would not be found.
    first = list(tokens[: 4 * SHOWN_TOKENS])
    text = tokenizer.decode(first)  # leaves <|bos|> out
    safe = redacted_excerpt(text, len(text))
    return first if safe == text else tokenizer.encode_document(safe)
