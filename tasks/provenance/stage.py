"""Provenance: indexes of everything that a model was trained on, and of what was dropped before.

Reads the Tokens of pretraining and the Documents they were made of, Conversations, Preferences and Prompts, the Tokenizer, and the
Documents of every stage that dropped some. Writes a Provenance:

    sources.json                      the sources, their files and the shards of their suffix arrays
    NAME.records.npy                  of each document of a source: its file, its row or line there, its turn: [N, 3]
    NAME.arrow                        the turns of chat data as a token shard; pretraining's are those of its Tokens
    NAME-000.{suffixes,keys,marks}.npy  a suffix array (tasks/provenance/suffix_array.py)
    records.sqlite                    full-text index (tasks/records/full_text.py) of dropped documents with their reasons, and chat data

No training needs it: it is made when it is first asked for. A stage that was killed begins again.

Costs, by tests/benchmarks/provenance.py: 7 bytes of memory for each byte of text in a shard of the index, and see there.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import Field

from model.config import Config
from model.data.token_stream import TokenStream
from model.files import read_lines, replacing
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.files import write_atomically
from tasks.artifacts.manifest import (
    Artifact,
    Conversations,
    Documents,
    Preferences,
    Prompts,
    Provenance,
    Tokenizer,
    Tokens,
)
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.provenance import suffix_array
from tasks.provenance.chat_texts import turns
from tasks.provenance.token_text import Vocabulary
from tasks.records.documents import read_documents
from tasks.records.full_text import IndexedText, IndexWriter, Kind
from tasks.tokenizer.encode import TokenWriter, batches, is_validation, read_texts

VERSION = 2
SOURCES = "sources.json"
RECORDS = "records.sqlite"


class ProvenanceConfig(Config):
    """How large the parts of the index are."""

    shard_tokens: int = Field(
        2**25,
        ge=2,
        le=2**29,
        description="Tokens of a suffix array at most. Sorting takes some 30 bytes of memory a token; fewer arrays are searched faster.",
    )


@dataclass(frozen=True)
class ProvenanceInputs:
    """What is indexed. `documents`: of each Tokens, those that it was made of."""

    tokenizer: Tokenizer
    tokens: tuple[Tokens, ...] = ()
    documents: tuple[Documents, ...] = ()
    conversations: tuple[Conversations, ...] = ()
    preferences: tuple[Preferences, ...] = ()
    prompts: tuple[Prompts, ...] = ()
    dropped: tuple[Documents, ...] = ()


class Source(NamedTuple):
    """Documents of one kind in the index. `artifact`: the role of the input that holds `files`, in which the records stand."""

    name: str
    kind: str
    artifact: str
    files: list[str]
    shards: list[tuple[int, int]]  # the first token of each suffix array, and the one after its last


def provenance(
    tokenizer: Step[Tokenizer],
    tokens: Sequence[Step[Tokens]],
    documents: Sequence[Step[Documents]],
    conversations: Sequence[Step[Conversations]],
    preferences: Sequence[Step[Preferences]],
    prompts: Sequence[Step[Prompts]],
    dropped: Sequence[Step[Documents]],
    config: ProvenanceConfig,
) -> Step[Provenance]:
    """Index what a model was trained on."""
    inputs = roles(
        tokenizer=tokenizer,
        tokens=tokens,
        documents=documents,
        conversations=conversations,
        preferences=preferences,
        prompts=prompts,
        dropped=dropped,
    )
    return Step("provenance", VERSION, Provenance, config, inputs, run=index_training_data, takes=ProvenanceInputs)


def index_training_data(ctx: StageContext, config: ProvenanceConfig, inputs: ProvenanceInputs) -> Outcome:
    """Write the suffix arrays of every source, and the full-text index."""
    path = inputs.tokenizer.folder / "tokenizer.json"
    encoder, vocabulary = ChatTokenizer.load(path), Vocabulary(path)
    sources, num_words, num_tokens = [], 0, 0
    for source, paths in prepared(ctx.folder, inputs, encoder):
        stream = TokenStream([str(path) for path in paths], encoder.vocab_size)
        for number, (first, stop) in enumerate(shards(stream, config.shard_tokens)):
            ctx.check_lease()
            num_words += suffix_array.build(stream, vocabulary, first, stop, ctx.folder / f"{source.name}-{number:03}")
            source.shards.append((first, stop))
            ctx.progress(stop, stream.num_tokens, f"tokens of {source.name}")
        num_tokens += stream.num_tokens
        sources.append(source)
    num_records = index_records(ctx, inputs)
    write_atomically(ctx.folder / SOURCES, json.dumps([source._asdict() for source in sources], indent=1))
    return Outcome({"tokens": num_tokens, "words": num_words, "records": num_records})


def prepared(folder: Path, inputs: ProvenanceInputs, encoder: ChatTokenizer) -> Iterator[tuple[Source, list[Path]]]:
    """Each source and its token shards, after its records are written."""
    for number, (tokens, documents) in enumerate(zip(inputs.tokens, inputs.documents, strict=True)):
        name = f"pretraining-{number}"
        paths = tokens.files("train/*.arrow")
        held_out = tokens.manifest.config["validation_fraction"]
        files = [f"documents/{path.stem}.parquet" for path in paths]
        rows = [
            (file, row, 0)
            for file, path in enumerate(files)
            for row in training_rows(documents.folder / path, held_out)
        ]
        write_records(folder / f"{name}.records.npy", rows)
        yield Source(name, "pretraining", f"documents_{number}", files, []), paths
    for role, artifact in chat_artifacts(inputs):
        name = role.replace("_", "-")
        file = "prompts.jsonl" if isinstance(artifact, Prompts) else "train.jsonl"
        found = [
            (line, turn, text)
            for line, record in enumerate(read_lines(artifact.folder / file))
            for turn, text in enumerate(turns(record))
        ]
        if found:
            write_records(folder / f"{name}.records.npy", [(0, line, turn) for line, turn, _ in found])
            with TokenWriter(folder / f"{name}.arrow", encoder, "") as writer:
                for texts in batches(text for *_, text in found):
                    writer.write(texts)
            yield Source(name, role.rpartition("_")[0], role, [file], []), [folder / f"{name}.arrow"]


def training_rows(path: Path, validation_fraction: float) -> Iterator[int]:
    """The rows of a shard of documents that are in the training split, which tokens hold in this order."""
    # Computed again, as tokens carry no ids: the split depends on the text alone.
    for row, text in enumerate(read_texts(path)):
        if not is_validation(text, validation_fraction):
            yield row


def chat_artifacts(inputs: ProvenanceInputs) -> Iterator[tuple[str, Artifact]]:
    """The artifacts of chat data, each with its role."""
    for name in ("conversations", "preferences", "prompts"):
        for number, artifact in enumerate(getattr(inputs, name)):
            yield f"{name}_{number}", artifact


def write_records(path: Path, rows: Sequence[tuple[int, int, int]]) -> None:
    """Write where the documents of a source stand."""
    with replacing(path) as temporary, temporary.open("wb") as stream:
        np.save(stream, np.array(rows, np.uint32).reshape(-1, 3))


def shards(stream: TokenStream, max_tokens: int) -> Iterator[tuple[int, int]]:
    """Ranges of whole documents of a stream, each of at most `max_tokens`; a longer document is one by itself."""
    begins = stream.documents()
    first = 0
    while first < stream.num_tokens:
        stop = int(begins[np.searchsorted(begins, first + max_tokens, side="right") - 1])
        if stop <= first:
            stop = int(begins[np.searchsorted(begins, first, side="right")])
        yield first, stop
        first = stop


def index_records(ctx: StageContext, inputs: ProvenanceInputs) -> int:
    """Write the full-text index of what was dropped, and of chat data. Returns the number of its records."""
    kinds: dict[str, Kind] = {"conversations": "conversation", "preferences": "preference", "prompts": "prompt"}
    with IndexWriter(ctx.state / RECORDS, stems=True) as writer:
        for documents in inputs.dropped:
            for path in documents.files("dropped/*.parquet"):
                name = f"{documents.manifest.id}/{path.name}"
                if not writer.has(name):
                    writer.add(name, dropped_records(path))
        for role, artifact in chat_artifacts(inputs):
            if not writer.has(role):
                writer.add(role, chat_records(kinds[role.rpartition("_")[0]], role, artifact))
        ctx.check_lease()
        return writer.finish(ctx.folder / RECORDS)


def dropped_records(path: Path) -> Iterator[IndexedText]:
    """The dropped documents of a shard that have a text."""
    for document in read_documents(path):
        if document.get("text"):
            origin = (document["url"], document["date"], document["file"], document["offset"])
            yield IndexedText("dropped", document["id"], document["text"], *origin, document["reason"])


def chat_records(kind: Kind, role: str, artifact: Artifact) -> Iterator[IndexedText]:
    """The records of chat data, each as its turns on lines."""
    file = "prompts.jsonl" if isinstance(artifact, Prompts) else "train.jsonl"
    for line, record in enumerate(read_lines(artifact.folder / file), 1):
        yield IndexedText(
            kind, f"{artifact.manifest.id}/{file}:{line}", "\n".join(turns(record)), file=file, offset=line
        )
