"""Contamination: documents that contain questions of evaluation sets.

Reads evaluation sets: JSON Lines or Parquet, of which all strings count, at any depth; or text, one question a line; compressed
files by their suffix. A document that shares a 13-gram of words with one of these strings is contaminated. Strings with fewer words
are not searched for. N-grams that occur in many documents are common phrases and are ignored (both as in Brown et al. 2020, appendix
C, who cut out the passage; here the document is dropped). Words are those of MinHash (tasks/dedup/minhash.py): in Chinese and
Japanese 13 characters, in Thai about 40.

An n-gram that several questions share counts for the first of them. Costs 24 bytes of memory per distinct n-gram, and 8 in every
worker.
"""

import json
import lzma
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from model.errors import UserError
from model.files import write_lines
from tasks.dedup.minhash import U64, hash_ngrams, hash_words, split_words
from tasks.execution.reporter import Row

Places = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
# What readers of Parquet, gzip, bzip2, xz and zip raise for a file that is cut off or of another kind
DAMAGED = (pa.ArrowException, OSError, EOFError, zlib.error, lzma.LZMAError, zipfile.BadZipFile)


@dataclass(frozen=True)
class Questions:
    """The Q questions of the evaluation sets `names`, and their R distinct n-grams."""

    names: tuple[str, ...]
    eval_sets: Places  # (Q,) the index of its set in `names`
    lines: Places  # (Q,) its line in the file, from 1; blank lines are not counted
    is_long: Bools  # (Q,) whether it has an n-gram
    ngrams: U64  # (R,) sorted hashes
    owners: Places  # (R,) the first question that contains it


def check_files(files: Iterable[Path]) -> None:
    """Raises UserError for a file that is not JSON Lines, Parquet or text."""
    for path in files:
        for _ in read_questions(path):
            pass


def collect(files: Mapping[Path, str], ngram_size: int) -> Questions:
    """Read the questions of evaluation sets. `files`: path to the name of the set.

    Raises UserError for a file that is not JSON Lines, Parquet or text.
    """
    places: list[tuple[int, int]] = []
    ngrams = [np.zeros(0, np.uint64)]
    for place, path in enumerate(files):
        for line, strings in enumerate(read_questions(path), start=1):
            places.append((place, line))
            # String by string: no n-gram spans a question and its answers, which a text need not have in that order.
            hashed = [hash_ngrams(hash_words(split_words(text)), ngram_size) for text in strings]
            # The empty first entry gives a question without n-grams an array of the right type.
            ngrams.append(np.concatenate([ngrams[0], *hashed]))
    lengths = np.array([len(found) for found in ngrams[1:]], np.int64)
    # np.unique returns the first occurrence, which gives an n-gram that several questions share to the first of them.
    different, first = np.unique(np.concatenate(ngrams), return_index=True)
    # `owners` repeats each question for its n-grams, in the order of the concatenation; `first` picks one for each
    # distinct n-gram.
    owners = np.repeat(np.arange(len(places)), lengths)[first]
    # reshape, since an empty list has no second axis to transpose.
    eval_sets, lines = np.array(places, np.int64).reshape(-1, 2).T
    return Questions(tuple(files.values()), eval_sets, lines, lengths > 0, different, owners)


def short_names(paths: Sequence[PurePath]) -> list[str]:
    """Names for files: the bare name; if several files share it, with suffix and as few folders as make it unique."""

    def name(path: PurePath, num_parts: int) -> str:
        return "/".join(path.parts[-num_parts:]) if num_parts else path.name.partition(".")[0]

    def is_its_own(path: PurePath, num_parts: int) -> bool:
        return [name(other, num_parts) for other in paths].count(name(path, num_parts)) == 1

    most = [len(path.parts) for path in paths]
    return [
        name(path, next((num for num in range(num_all) if is_its_own(path, num)), num_all))
        for path, num_all in zip(paths, most, strict=True)
    ]


def read_questions(path: Path) -> Iterator[list[str]]:
    """The strings of every question in a file. Raises UserError for a damaged file, with the line of a malformed question."""
    # All suffixes: .jsonl.gz is compressed JSON Lines.
    suffixes = {suffix.lower() for suffix in path.suffixes}
    is_json = bool({".jsonl", ".ndjson", ".json"}.intersection(suffixes))
    try:
        yield from _read_parquet(path) if ".parquet" in suffixes else _read_lines(path, is_json)
    except DAMAGED as error:
        raise UserError(
            f"evaluation set {path.name} cannot be read ({error}): give JSON Lines, Parquet or text, whole, and with the "
            "suffix of its compression"
        ) from None


def _read_parquet(path: Path) -> Iterator[list[str]]:
    with pq.ParquetFile(path) as table:
        for batch in table.iter_batches():
            yield from (list(strings_in(question)) for question in batch.to_pylist())


def _read_lines(path: Path, is_json: bool) -> Iterator[list[str]]:
    with fsspec.open(str(path), "rb", compression="infer") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield list(strings_in(json.loads(line))) if is_json else [line.decode()]
            # RecursionError: a line of a hundred thousand brackets is valid JSON, and deeper than Python's stack.
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"line {number} of evaluation set {path.name} is not {'JSON' if is_json else 'text'} ({error}): give JSON Lines, "
                    "Parquet or text, in UTF-8"
                ) from None


def strings_in(value: Any) -> Iterator[str]:
    """All strings of a JSON value, except keys."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings_in(inner)


def find(words: U64, ngrams: U64, ngram_size: int) -> Places:
    """The indices in `ngrams` (sorted) of those that a text with these hashed words contains, each once."""
    found = hash_ngrams(words, ngram_size)
    # A binary search in a sorted array takes 8 bytes for each n-gram in every worker, where a set of Python's integers
    # takes many times that.
    places = np.searchsorted(ngrams, found)
    places[places == len(ngrams)] = 0  # above all of them: the comparison with the first fails as well
    return np.unique(places[ngrams[places] == found])


@dataclass(frozen=True)
class Findings:
    """In how many documents each n-gram (R,) and each question occurs, and the numbers of the documents to drop."""

    num_documents: Places
    questions: Counter[int]
    dropped: Places
    eval_sets: Places  # per dropped document, the first set it contains a question of


def find_contaminated(
    hits: Sequence[Path], is_kept: Callable[[Places], Bools], questions: Questions, max_documents: int
) -> Findings:
    """Find the documents to drop from the hits of every shard: (2, H) document numbers and indices of n-grams."""
    num_documents = np.zeros(len(questions.ngrams), np.int64)
    for _, places in _kept(hits, is_kept):
        # `num_documents[places] += 1` would count an n-gram once for a whole shard, however often it comes.
        np.add.at(num_documents, places, 1)
    found: Counter[int] = Counter()
    dropped, eval_sets = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    # The hits are read a second time: which n-grams are rare is known only when all shards are counted.
    for numbers, places in _kept(hits, is_kept):
        is_rare = num_documents[places] <= max_documents
        # (2, n) document and question, sorted by document: a question counts once for a document, however many n-grams
        # they share.
        pairs = np.unique([numbers[is_rare], questions.owners[places[is_rare]]], axis=1)
        found.update(pairs[1].tolist())
        # The first pair of a document has its lowest question, which gives the set in the reason to drop it.
        document, first = np.unique(pairs[0], return_index=True)
        dropped.append(document)
        eval_sets.append(questions.eval_sets[pairs[1][first]])
    return Findings(num_documents, found, np.concatenate(dropped), np.concatenate(eval_sets))


def _kept(hits: Iterable[Path], is_kept: Callable[[Places], Bools]) -> Iterator[tuple[Places, Places]]:
    for path in hits:
        numbers, places = np.load(path)
        kept = is_kept(numbers)
        yield numbers[kept], places[kept]


def report(questions: Questions, findings: Findings, max_documents: int) -> list[Row]:
    """One row per evaluation set: questions searched for, found, and n-grams too common to count."""
    rows = []
    for place, name in enumerate(questions.names):
        ours = questions.eval_sets == place
        is_common = (findings.num_documents > max_documents) & ours[questions.owners]
        rows.append(
            {
                "evaluation": name,
                "questions": int(ours.sum()),
                "too short": int((ours & ~questions.is_long).sum()),
                "found": sum(ours[question] for question in findings.questions),
                "documents dropped": int((findings.eval_sets == place).sum()),
                "common n-grams ignored": int(is_common.sum()),
            }
        )
    return rows


def write_found(path: Path, questions: Questions, found: Counter[int]) -> None:
    """Write one line per question found: {"evaluation", "line", "documents"}."""
    records = (
        {
            "evaluation": questions.names[questions.eval_sets[question]],
            "line": int(questions.lines[question]),
            "documents": num,
        }
        for question, num in sorted(found.items())
    )
    write_lines(path, records)
