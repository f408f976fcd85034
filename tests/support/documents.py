"""Documents for tests of what comes after them."""

from collections.abc import Mapping, Sequence

from model.config import Config
from tasks.artifacts.manifest import Artifact, Documents
from tasks.artifacts.step import Outcome, Step
from tasks.execution.context import StageContext
from tasks.records.documents import Document, ShardWriter


class Texts(Config):
    shards: dict[str, list[str]]


def documents_of(shards: Mapping[str, Sequence[str]]) -> Step[Documents]:
    """A step that writes these texts, by shard. A document's id is made of its text."""
    config = Texts(shards={name: list(texts) for name, texts in shards.items()})
    return Step("texts", 1, Documents, config, {}, run=_write, is_source=True)


def _write(ctx: StageContext, config: Texts, **_: Artifact) -> Outcome:
    for name, texts in config.shards.items():
        with ShardWriter(ctx.folder / "documents" / f"{name}.parquet") as shard:
            for text in texts:
                shard.write(Document(id=f"id {text}", url="", date="", file=name, offset=0, text=text))
    texts = [text for shard in config.shards.values() for text in shard]
    return Outcome({"documents": len(texts), "text_bytes": sum(len(text.encode()) for text in texts)})
