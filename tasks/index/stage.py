"""Index: full-text search over the documents that a run kept.

Reads Documents, those of dedup in the pipeline. Writes an Index: `index.sqlite` (tasks/records/full_text.py). A stage that was killed resumes
after its last finished shard. The same documents give the same bytes with the same version of SQLite.

Costs, measured on the sample web: a second of one core for 2.6 MB of text, and 2.5 times the text on disk (the text itself, and the places of
the words in overlapping passages). A query takes some milliseconds.
"""

import sqlite3
from dataclasses import dataclass
from itertools import count

from pydantic import Field

from model.config import Config
from model.errors import UserError
from tasks.artifacts.manifest import Documents, Index
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.records.documents import Document, read_documents
from tasks.records.full_text import IndexedText, IndexWriter

VERSION = 2  # 2: passages
REPORT_DOCUMENTS = 500


class IndexConfig(Config):
    """How words are found."""

    stems: bool = Field(True, description='Cut English endings off, so that "works" finds "worked".')


@dataclass(frozen=True)
class IndexInputs:
    """What is indexed."""

    documents: Documents


def index(documents: Step[Documents], config: IndexConfig) -> Step[Index]:
    """Make a full-text index of documents."""
    inputs = roles(documents=documents)
    return Step("index", VERSION, Index, config, inputs, run=index_documents, takes=IndexInputs, check=check_fts5)


def check_fts5(_: IndexConfig) -> None:
    """Raises UserError where Python's SQLite was built without FTS5."""
    database = sqlite3.connect(":memory:")
    try:
        database.execute("CREATE VIRTUAL TABLE words USING fts5(text)")
    except sqlite3.OperationalError:
        raise UserError(
            f"SQLite {sqlite3.sqlite_version} of this Python has no FTS5: take a Python with it, as Debian's and python.org's are"
        ) from None
    finally:
        database.close()


def index_documents(ctx: StageContext, config: IndexConfig, inputs: IndexInputs) -> Outcome:
    """Index every kept document, shard by shard."""
    documents = inputs.documents
    total = documents.manifest.counts["documents"]
    numbers = count(1)

    def record(document: Document) -> IndexedText:
        if (number := next(numbers)) % REPORT_DOCUMENTS == 0:
            ctx.progress(number, total, "documents")
        origin = (document["url"], document["date"], document["file"], document["offset"])
        return IndexedText("document", document["id"], document["text"], *origin)

    with IndexWriter(ctx.state / "index.sqlite", stems=config.stems) as writer:
        for path in documents.files("documents/*.parquet"):
            # The shard's name with its folder, so that dropped ones can join them.
            name = f"documents/{path.name}"
            if not writer.has(name):
                writer.add(name, map(record, read_documents(path)))
        ctx.check_lease()
        num_documents = writer.finish(ctx.folder / "index.sqlite")
    num_bytes = (ctx.folder / "index.sqlite").stat().st_size
    return Outcome({"documents": num_documents, "bytes": num_bytes})
