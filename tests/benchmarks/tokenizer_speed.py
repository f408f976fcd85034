"""How fast documents become tokens: the stage from Parquet to Arrow, next to the bare encoder and tiktoken, on one core.

    python -m tests.benchmarks.tokenizer_speed

Reads novels, cut into documents of some kilobytes, and the main texts of web pages; the vocabulary is cl100k for all. The rounds of
the stage and of the bare encoder take turns; the best round of each is reported.
"""

import gzip
import hashlib
import json
import os
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["RAYON_NUM_THREADS"] = "1"  # before the encoder starts its threads

import numpy as np
import pyarrow as pa
import tokenizers

from model.tokenizer import vocabularies
from tasks.records.documents import Document, ShardWriter
from tasks.tokenizer.encode import BATCH_DOCUMENTS, SPLITS, Shard, tokenize_shard
from tests.benchmarks import harness

ROUNDS = 4
DOCUMENT_CHARACTERS = 4_000
NOVELS_BYTES = 8_000_000
TIKTOKEN = r"""
import base64, gzip, hashlib, json, sys, time
from array import array
from tiktoken import Encoding

path, pattern, texts, rounds = sys.argv[1:]
lines = [line.split() for line in gzip.open(path)]
ranks = {base64.b64decode(token): int(rank) for token, rank in lines}
encoding = Encoding("cl100k", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
texts = json.load(open(texts))
lists, arrays = [], []
for _ in range(int(rounds)):
    start = time.process_time()
    encoded = encoding.encode_ordinary_batch(texts, num_threads=1)
    lists.append(time.process_time() - start)
    start = time.process_time()
    for text in texts:
        encoding.encode_to_numpy(text, disallowed_special=())
    arrays.append(time.process_time() - start)
digests = [hashlib.sha256(array("I", tokens).tobytes()).hexdigest() for tokens in encoded]
print(json.dumps({"lists": min(lists), "arrays": min(arrays), "digests": digests}))
"""


def read_texts(data: Path) -> Iterator[str]:
    num_bytes = 0
    with gzip.open(data / "pretrain" / "english-novels.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            text = json.loads(line)["text"]
            for start in range(0, len(text), DOCUMENT_CHARACTERS):
                if num_bytes < NOVELS_BYTES:
                    yield text[start : start + DOCUMENT_CHARACTERS]
                    num_bytes += DOCUMENT_CHARACTERS
    with gzip.open(data / "extraction" / "wcxb-dev-sample.gold.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            yield from filter(None, [json.loads(line).get("main_content")])


def write_shard(path: Path, texts: list[str]) -> None:
    with ShardWriter(path) as shard:
        for number, text in enumerate(texts):
            shard.write(Document(id=str(number), url="", date="", file="", offset=0, text=text))


def seconds(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def bare(encoder: tokenizers.Tokenizer, texts: list[str]) -> None:
    for start in range(0, len(texts), BATCH_DOCUMENTS):
        encoder.encode_batch_fast(texts[start : start + BATCH_DOCUMENTS], add_special_tokens=False)


def tiktoken(ranks: Path, texts_file: Path) -> dict[str, Any]:
    """Seconds of tiktoken's two ways, and a digest of the tokens of each document."""
    pattern = vocabularies.PATTERNS["gpt4"].replace("DIGITS", "3")
    command = [harness.peer("tiktoken==0.14.0", "numpy"), "-c", TIKTOKEN, ranks, pattern, texts_file, str(ROUNDS)]
    printed: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    return printed


def measure(folder: Path, encoder: tokenizers.Tokenizer, texts: list[str]) -> tuple[list[float], list[float]]:
    """Seconds of each round of the bare encoder, and of the stage."""
    write_shard(folder / "shard.parquet", texts)
    encoder.save(str(folder / "tokenizer.json"))
    shard = Shard(folder / "shard.parquet", folder, folder / "tokenizer.json", "", validation_fraction=0.02)
    rounds = [
        (seconds(lambda: bare(encoder, texts)), seconds(lambda: tokenize_shard(shard))) for _ in range(ROUNDS + 1)
    ]
    return tuple(list(times) for times in zip(*rounds[1:], strict=True))  # type: ignore[return-value]


def num_same(folder: Path, texts: list[str], digests: list[str]) -> int:
    """Documents whose tokens in the Arrow files are those of tiktoken."""
    found = []
    for split in SPLITS:
        for document in pa.ipc.open_file(str(folder / split / "shard.arrow")).read_all()["tokens"]:
            tokens = document.values.to_numpy()[1:]
            found.append(hashlib.sha256(tokens.astype(np.uint32).tobytes()).hexdigest())
    return (Counter(found) & Counter(digests)).total()


def main() -> None:
    data = harness.shared_data()
    texts = list(read_texts(data))
    megabytes = sum(len(text.encode()) for text in texts) / 1e6
    ranks = data / "tokenizer" / "tiktoken" / "cl100k_base.tiktoken.gz"
    encoder = vocabularies.load([ranks])
    encoder.encode_special_tokens = True
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        harness.say(f"{len(texts)} documents, {megabytes:.1f} MB: {ROUNDS + 1} rounds")
        bare_seconds, stage_seconds = measure(folder, encoder, texts)
        (folder / "texts.json").write_text(json.dumps(texts), encoding="utf-8")
        harness.say("tiktoken")
        theirs = tiktoken(ranks, folder / "texts.json")
        same = num_same(folder, texts, theirs["digests"])
    figures = {
        "`encode_batch_fast` alone, nothing written": min(bare_seconds),
        "**stage tokenize, Parquet to Arrow**": min(stage_seconds),
        "tiktoken `encode_ordinary_batch`, nothing written": theirs["lists"],
        "tiktoken `encode_to_numpy`, nothing written": theirs["arrays"],
    }
    table = [
        (name, f"{seconds:.2f}", f"{megabytes / seconds:.2f}", f"{100 * min(bare_seconds) / seconds:.0f}%")
        for name, seconds in figures.items()
    ]
    harness.print_table(
        f"From text to tokens of cl100k, one core, {len(texts):,} documents, {megabytes:.1f} MB",
        ["", "CPU seconds", "MB/s", "speed of `encode_batch_fast`"],
        table,
        f"{same:,} of {len(texts):,} documents have the very tokens of tiktoken. {harness.machine()}.",
    )


if __name__ == "__main__":
    main()
