"""Contamination: documents that give away the questions of evaluation sets.

Reads evaluation sets: JSON Lines or Parquet, of which all strings are text, at whatever depth; or text, a question a line;
gzip and the like by their suffix. A document with a run of 13 words of one of their strings is contaminated. Strings of
fewer words are not looked for. Runs that are in many documents are phrases of everybody, and are left alone (both as Brown
et al. 2020, appendix C, who cut out the passage; here the document goes). Words are compared as MinHash compares them.

Of a run that several questions have, the first question is the one that is found. Costs 24 bytes of memory a different run,
in every worker 8.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import fsspec
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from model.files import write_lines
from tasks.dedup.minhash import U64, hash_runs, hash_words, split_words
from tasks.execution.reporter import Row

Places = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Questions:
    """The Q questions of the evaluation sets `names`, and their R different runs of words."""

    names: tuple[str, ...]
    evaluations: Places  # (Q,) of which set
    lines: Places  # (Q,) where there, from 1
    is_long: Bools  # (Q,) whether it has a run
    runs: U64  # (R,) sorted
    owners: Places  # (R,) the first question that has it


def collect(files: Mapping[Path, str], ngram_size: int) -> Questions:
    """The questions of evaluation sets, from files and what these are called.

    Raises ValueError where a file is no JSON Lines, Parquet or text.
    """
    places: list[tuple[int, int]] = []
    runs = [np.zeros(0, np.uint64)]
    for place, path in enumerate(files):
        for line, strings in enumerate(read_questions(path), start=1):
            places.append((place, line))
            hashed = [hash_runs(hash_words(split_words(text)), ngram_size) for text in strings]
            runs.append(np.concatenate([runs[0], *hashed]))
    lengths = np.array([len(found) for found in runs[1:]], np.int64)
    different, first = np.unique(np.concatenate(runs), return_index=True)
    owners = np.repeat(np.arange(len(places)), lengths)[first]
    evaluations, lines = np.array(places, np.int64).reshape(-1, 2).T
    return Questions(tuple(files.values()), evaluations, lines, lengths > 0, different, owners)


def short_names(paths: Sequence[PurePath]) -> list[str]:
    """What files are called: without folders and suffixes, or where others are called so too, with both, as few folders as it takes."""

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
    """The strings of every question of a file."""
    suffixes = {suffix.lower() for suffix in path.suffixes}
    if ".parquet" in suffixes:
        for batch in pq.ParquetFile(path).iter_batches():
            yield from (list(strings_in(question)) for question in batch.to_pylist())
        return
    is_json = bool({".jsonl", ".ndjson", ".json"}.intersection(suffixes))
    with fsspec.open(str(path), "rb", compression="infer") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                yield list(strings_in(json.loads(line))) if is_json else [line.decode()]
            except ValueError as error:
                raise ValueError(
                    f"line {number} of evaluation set {path.name} is not {'JSON' if is_json else 'text'} ({error}): give JSON Lines, "
                    "Parquet or text, in UTF-8"
                ) from None


def strings_in(value: Any) -> Iterator[str]:
    """The strings of a JSON value, its keys apart."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for inner in value.values() if isinstance(value, dict) else value:
            yield from strings_in(inner)


def find(words: U64, runs: U64, ngram_size: int) -> Places:
    """The places in `runs`, which are sorted, of those that a text of these hashed words has, each once."""
    found = hash_runs(words, ngram_size)
    places = np.searchsorted(runs, found)
    places[places == len(runs)] = 0
    return np.unique(places[runs[places] == found])


@dataclass(frozen=True)
class Findings:
    """What came of it: in how many documents each run (R,) and each question is, and which documents are to go."""

    num_documents: Places
    questions: Counter[int]
    dropped: Places
    evaluations: Places  # the first set that a dropped document gives away


def find_contaminated(
    hits: Sequence[Path], is_kept: Callable[[Places], Bools], questions: Questions, max_documents: int
) -> Findings:
    """From the hits of every shard, (2, H) numbers of documents and places of runs, of documents that are kept."""
    num_documents = np.zeros(len(questions.runs), np.int64)
    for _, places in _kept(hits, is_kept):
        np.add.at(num_documents, places, 1)
    found: Counter[int] = Counter()
    dropped, evaluations = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for numbers, places in _kept(hits, is_kept):
        is_rare = num_documents[places] <= max_documents
        pairs = np.unique([numbers[is_rare], questions.owners[places[is_rare]]], axis=1)
        found.update(pairs[1].tolist())
        document, first = np.unique(pairs[0], return_index=True)
        dropped.append(document)
        evaluations.append(questions.evaluations[pairs[1][first]])
    return Findings(num_documents, found, np.concatenate(dropped), np.concatenate(evaluations))


def _kept(hits: Iterable[Path], is_kept: Callable[[Places], Bools]) -> Iterator[tuple[Places, Places]]:
    for path in hits:
        numbers, places = np.load(path)
        kept = is_kept(numbers)
        yield numbers[kept], places[kept]


def report(questions: Questions, findings: Findings, max_documents: int) -> list[Row]:
    """Of each evaluation set: what was looked for, what was found, what was too common to count."""
    rows = []
    for place, name in enumerate(questions.names):
        ours = questions.evaluations == place
        is_common = (findings.num_documents > max_documents) & ours[questions.owners]
        rows.append(
            {
                "evaluation": name,
                "questions": int(ours.sum()),
                "too short": int((ours & ~questions.is_long).sum()),
                "found": sum(ours[question] for question in findings.questions),
                "documents dropped": int((findings.evaluations == place).sum()),
                "common runs ignored": int(is_common.sum()),
            }
        )
    return rows


def write_found(path: Path, questions: Questions, found: Counter[int]) -> None:
    """A line for every question that was found: {"evaluation", "line", "documents"}."""
    records = (
        {
            "evaluation": questions.names[questions.evaluations[question]],
            "line": int(questions.lines[question]),
            "documents": num,
        }
        for question, num in sorted(found.items())
    )
    write_lines(path, records)
