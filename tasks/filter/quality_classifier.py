"""A classifier of quality, learned from two sets of documents: some like those wanted, some like those that come.

Reads texts: a Parquet column `text`, JSON Lines with a field `text`, or files with a text a line; compressed ones too.
Writes files/model.bin, a fastText classifier (Joulin et al. 2016), and what it is worth on documents held out. DCLM
(Li et al. 2024) took such a classifier for its one filter on quality.

Trained on the way to the attributes that need it. It learns in one thread from documents in the order of their hashes: the
same documents and settings give the same bytes. Held in memory are `max_documents` of either set and the model.
"""

import heapq
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, Self

import fasttext
import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import xxhash
from pydantic import Field, model_validator

from model.config import Config, runtime
from model.errors import UserError
from tasks.artifacts.manifest import Resource
from tasks.artifacts.step import Outcome, Step, roles
from tasks.execution.context import StageContext
from tasks.resources import resource
from tasks.web import language_id
from tasks.web.language_id import LABEL

VERSION = 2
MODEL = "files/model.bin"
POSITIVE, NEGATIVE = f"{LABEL}positive", f"{LABEL}negative"
CHECKED_TEXTS = 1_000  # of each file, before a run
MAX_CHARACTERS = 20_000  # of a document, its start


class QualityModelConfig(Config):
    """What is learned from, and how."""

    positives: str = runtime(
        "", description="Texts like those wanted: a file or folder, or any fsspec URL. Empty: off."
    )
    negatives: str = runtime("", description="Texts like those that come: a file or folder, or any fsspec URL.")
    max_documents: int = Field(200_000, ge=2, description="Learn from at most so many of either, drawn by hash.")
    held_out_fraction: float = Field(
        0.1, gt=0, lt=1, description="Documents that are not learned from; the classifier is evaluated on them."
    )
    num_epochs: int = Field(10, ge=1, description="How often each document is seen.")
    learning_rate: float = Field(0.5, gt=0, description="Of the first step; it falls to zero.")
    width: int = Field(32, ge=1, description="Numbers for each word.")
    max_word_ngrams: int = Field(2, ge=1, le=5, description="Runs of so many words count as words.")
    num_buckets: int = Field(200_000, ge=1, description="Hashes of runs: each takes 4 * width bytes.")
    min_word_occurrences: int = Field(2, ge=1, description="Words that come less often are left out.")
    seed: int = Field(0, ge=0, description="Of the first weights.")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if bool(self.positives) != bool(self.negatives):
            raise ValueError("a quality model needs both positives and negatives: name two files or folders of texts")
        return self


@dataclass(frozen=True)
class QualityClassifierInputs:
    """The texts a classifier is trained on."""

    positives: Resource
    negatives: Resource


def quality_classifier(config: QualityModelConfig) -> Step[Resource] | None:
    """The step that trains the classifier; None where no texts are named."""
    if not config.positives:
        return None
    inputs = roles(
        positives=resource("set of positive texts", config.positives, check_files=check_texts),
        negatives=resource("set of negative texts", config.negatives, check_files=check_texts),
    )
    return Step(
        "quality_classifier",
        VERSION,
        Resource,
        config,
        inputs,
        run=train_quality_classifier,
        takes=QualityClassifierInputs,
        is_source=True,
    )


def check_texts(files: Iterable[Path]) -> None:
    """Raises UserError where one of the first texts of a file cannot be read."""
    for path in files:
        for _ in islice(read_texts(path), CHECKED_TEXTS):
            pass


class Drawn(NamedTuple):
    """A document to learn from: the hash that says when and whether, and its line as fastText reads it."""

    key: int
    line: str
    is_positive: bool


def train_quality_classifier(ctx: StageContext, config: QualityModelConfig, inputs: QualityClassifierInputs) -> Outcome:
    """Train on one part of the texts and evaluate on the other. Raises UserError where a set is too small for both."""
    # Merged by hash, not one class after the other: fastText reads its file in order and does not shuffle.
    drawn = list(heapq.merge(draw(inputs.positives, True, config), draw(inputs.negatives, False, config)))
    learned = [document for document in drawn if not is_held_out(document, config)]
    held_out = [document for document in drawn if is_held_out(document, config)]
    for part in (learned, held_out):
        if len({document.is_positive for document in part}) < 2:
            raise UserError(
                f"{len(drawn)} texts in {config.positives!r} and {config.negatives!r} are too few to learn from and to hold out "
                f"a fraction of {config.held_out_fraction}: give more"
            )
    model = learn(learned, config, ctx.state / "learned.txt")
    path = ctx.folder / MODEL
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save_model(str(path))
    counts = {"positive_documents": sum(document.is_positive for document in drawn), "documents": len(drawn)}
    scores = np.array([probability(document.line, model) for document in held_out])
    metrics = evaluate_classifier(scores, np.array([document.is_positive for document in held_out]))
    ctx.log("of documents held out: " + ", ".join(f"{name} {value:.3f}" for name, value in metrics.items()))
    return Outcome({**counts, "held_out_documents": len(held_out)}, {f"held_out/{n}": v for n, v in metrics.items()})


def draw(texts: Resource, is_positive: bool, config: QualityModelConfig) -> list[Drawn]:
    """The documents with the smallest hashes, in order."""
    # A uniform sample that does not depend on the order of files, in one pass and with max_documents in memory (bottom-k sampling).
    lines = (as_line(text) for path in texts.files("*") for text in read_texts(path))
    hashed = (Drawn(xxhash.xxh3_64_intdigest(line.encode()), line, is_positive) for line in lines if line)
    return heapq.nsmallest(config.max_documents, hashed)


def is_held_out(document: Drawn, config: QualityModelConfig) -> bool:
    """Whether a document is for evaluation, by the last digits of its hash."""
    # By its hash, so that two copies of one text never lie on both sides.
    return document.key % 10_000 < config.held_out_fraction * 10_000


def read_texts(path: Path) -> Iterator[str]:
    """The texts of one file. Raises UserError where a record has none."""
    if path.suffix == ".parquet":
        with pq.ParquetFile(path) as shard:
            if "text" not in shard.schema_arrow.names:
                raise UserError(
                    f"{path.name} has no column text but {shard.schema_arrow.names}: rename the one with the texts"
                )
            for batch in shard.iter_batches(batch_size=1000, columns=["text"]):
                yield from (text or "" for text in batch["text"].to_pylist())
        return
    with fsspec.open(str(path), "rt", compression="infer", encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield parse(line, f"{path.name}:{number}") if ".json" in path.name else line


def parse(line: str, place: str) -> str:
    """The text of a line of JSON Lines. `place`: where the line is, for the UserError that a malformed one raises."""
    try:
        text = str(json.loads(line)["text"] or "")
        return text.encode(errors="replace").decode()  # JSON can write the half of a character, UTF-8 cannot
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise UserError(f"{place} is no JSON object with a field text: write one document a line") from error


def as_line(text: str) -> str:
    """A text in the form for training and prediction: one line in lower case, without words that have a meaning for fastText."""
    return " ".join(language_id.as_one_line(text[:MAX_CHARACTERS].lower()).split())


def learn(documents: Iterable[Drawn], config: QualityModelConfig, path: Path) -> Any:
    """The classifier of `documents`, which are written to `path` for fastText to read."""
    with path.open("w", encoding="utf-8") as stream:
        for document in documents:
            stream.write(f"{POSITIVE if document.is_positive else NEGATIVE} {document.line}\n")
    return fasttext.train_supervised(
        str(path),
        lr=config.learning_rate,
        dim=config.width,
        epoch=config.num_epochs,
        wordNgrams=config.max_word_ngrams,
        bucket=config.num_buckets,
        minCount=config.min_word_occurrences,
        seed=config.seed,
        thread=1,  # several threads update the weights without locks (Hogwild), and no two runs give the same bytes
        verbose=0,
    )


def score(text: str, model: Any) -> float:
    """How likely `text` is one of the positives, in 0..1; 0 of an empty text."""
    return probability(line, model) if (line := as_line(text)) else 0.0


def probability(line: str, model: Any) -> float:
    """How likely a line, as `as_line` gives it, is one of the positives, in 0..1."""
    labels, scores = model.predict(line, k=2)
    # fastText adds 1e-5 to a probability before it takes the logarithm, so that its result may lie a little above 1.
    return min(1.0, float(dict(zip(labels, scores, strict=True))[POSITIVE]))


def evaluate_classifier(scores: npt.NDArray[np.float64], is_positive: npt.NDArray[np.bool_]) -> dict[str, float]:
    """Precision and recall of scores above a half, and the area under the curve: how often a positive is above a negative."""
    # The area under the curve equals the chance that a positive scores above a negative (the Mann-Whitney U statistic).
    is_found = scores > 0.5
    num_right = int((is_found & is_positive).sum())
    below = np.sort(scores[~is_positive])
    ranks = [np.searchsorted(below, scores[is_positive], side) for side in ("left", "right")]  # equal ones count half
    return {
        "precision": num_right / max(int(is_found.sum()), 1),
        "recall": num_right / max(int(is_positive.sum()), 1),
        "auc": float(np.mean(ranks)) / max(len(below), 1),
    }
