"""Deduplication of the same documents by this project's stage and by datatrove's four MinHash stages, each in a separate process.

Both read Parquet shards of documents and write the documents that are left. Measured is everything each process does, its start
and its workers included: CPU seconds, and the memory of the largest process.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.records.documents import Document, ShardWriter
from tests.benchmarks import harness

SHARD_DOCUMENTS = 10_000
POLL_SECONDS = 0.05
EQUAL = {"by_url": False, "by_content": False, "jaccard_threshold": 0.0, "num_workers": 1}  # what the peer's stages do

OURS = """
import json, shutil, sys
from model.config import Config
from tasks.artifacts.manifest import Documents
from tasks.artifacts.step import Outcome, Step
from tasks.artifacts.store import Store
from tasks.dedup.stage import DedupConfig
from tasks.execution.runner import execute
from tests.support.wiring import dedup

source, target, num_documents, settings = sys.argv[1:]

def copy(run, config):
    shutil.copytree(source, run.folder / "documents")
    return Outcome({"documents": int(num_documents)})

if __name__ == "__main__":
    documents = Step("source", 1, Documents, Config(), {}, run=copy, is_source=True)
    execute(dedup(documents, DedupConfig(**json.loads(settings))), Store(target))
"""

PEER = """
import sys
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.dedup import MinhashDedupBuckets, MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
from datatrove.pipeline.dedup.minhash import MinhashConfig
from datatrove.pipeline.readers import ParquetReader
from datatrove.pipeline.writers import JsonlWriter

source, target = sys.argv[1:3]
config = MinhashConfig(n_grams=5, num_buckets=14, hashes_per_bucket=8)
stages = [
    ([ParquetReader(source), MinhashDedupSignature(f"{target}/signatures", config)], 1),
    ([MinhashDedupBuckets(f"{target}/signatures", f"{target}/buckets", config=config)], 14),
    ([MinhashDedupCluster(f"{target}/buckets", f"{target}/remove", config=config)], 1),
    ([ParquetReader(source), MinhashDedupFilter(f"{target}/remove"), JsonlWriter(f"{target}/kept", compression=None)], 1),
]
for number, (pipeline, tasks) in enumerate(stages):
    executor = LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=f"{target}/logs/{number}")
    executor.run()
"""


class Result(NamedTuple):
    """CPU seconds, memory of the largest process, and the ids of the documents that were kept."""

    seconds: float
    peak_bytes: int
    kept: set[str]


def as_documents(texts: Iterable[str]) -> Iterator[Document]:
    """Documents with their number for id, from pages of their own."""
    for number, text in enumerate(texts):
        url = f"https://{number}.example/"
        yield Document(id=str(number), url=url, date="", file="f", offset=number, text=text)


def write_shards(folder: Path, texts: Iterable[str]) -> int:
    """Write shards of documents; how many documents there are."""
    documents, num = as_documents(texts), 0
    while some := list(itertools.islice(documents, SHARD_DOCUMENTS)):
        with ShardWriter(folder / f"{num:09}.parquet") as shard:
            for document in some:
                shard.write(document)
        num += len(some)
    return num


def ours(texts: Iterable[str], **settings: Any) -> Result:
    """By this project's stage, in one worker unless `settings` say otherwise. A document's id is its place in `texts`."""
    with tempfile.TemporaryDirectory() as folder:
        source, target, script = (Path(folder) / name for name in ("source", "store", "ours.py"))
        num_documents = write_shards(source, texts)
        script.write_text(OURS)  # a file, as its workers are spawned
        printed = json.dumps({"num_workers": 1, **settings})
        seconds, peak_bytes = measure([sys.executable, script, source, target, num_documents, printed])
        dropped = {json.loads(line)["id"] for line in read_lines(target.glob("dedup/*/clusters.jsonl"))}
        return Result(seconds, peak_bytes, set(map(str, range(num_documents))) - dropped)


def peer(texts: Iterable[str]) -> Result:
    """By datatrove's signatures, buckets, clusters and filter, with the parameters of FineWeb."""
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "source", Path(folder) / "target"
        write_shards(source, texts)
        seconds, peak_bytes = measure([harness.peer(*harness.DATATROVE), "-c", PEER, source, target])
        return Result(seconds, peak_bytes, {json.loads(line)["id"] for line in read_lines(target.glob("kept/*"))})


def read_lines(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        with path.open(encoding="utf-8") as stream:
            yield from stream


def measure(command: Sequence[object]) -> tuple[float, int]:
    """CPU seconds of a command with all its children, and the memory of the largest of these processes in bytes."""
    environment = os.environ | {"PYTHONPATH": str(harness.ROOT), "OMP_NUM_THREADS": "1"}
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(list(map(str, command)), env=environment, stdout=errors, stderr=errors)
        peak_bytes, ended = 0, 0
        while not ended:
            time.sleep(POLL_SECONDS)
            peak_bytes = max(peak_bytes, *map(resident_bytes, family(process.pid)))
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            errors.seek(0)
            sys.exit(f"{command[0]} ended with {process.returncode}:\n{errors.read().decode()[-4000:]}")
    return usage.ru_utime + usage.ru_stime, peak_bytes


def family(process: int) -> Iterator[int]:
    """A process and all its children."""
    yield process
    with contextlib.suppress(OSError):
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            yield from family(int(child))


def resident_bytes(process: int) -> int:
    """The most memory a process had since its program started; rusage has that of the program before, too."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return 0
