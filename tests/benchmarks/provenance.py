"""Size, time and memory of the index of training data, and the time of a question, by the number of tokens.

    python -m tests.benchmarks.provenance [TOKENS[/ARRAYS] ...]

Makes token shards of pages of the sample web, and of documents that are put together of runs of eight of their tokens, so that words and
phrases have the frequencies of the pages. A reply is some sentences of pages put together, 40 words; 200 are asked. ARRAYS: at least so
many suffix arrays, as more tokens would have. Times are CPU times of one process, those of cold replies also wait for the disk: before each of these, the
arrays are put out of the system's page cache and what the process remembers of them is forgotten, as after a restart.
"""

import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
import pyarrow as pa

from model.data.token_stream import TokenStream
from model.tokenizer.chat import ChatTokenizer
from tasks.provenance import suffix_array
from tasks.provenance.spans import encoded, find_spans, maximal_spans
from tasks.provenance.stage import ProvenanceConfig, shards
from tasks.provenance.suffix_array import SuffixArray
from tasks.provenance.token_text import Vocabulary
from tasks.records.excerpts import SENTENCE_END
from tasks.sample_web.articles import write_articles
from tasks.sample_web.world import build_world
from tasks.tokenizer.train import TokenizerConfig, train
from tests.benchmarks.harness import machine, print_table, say

SIZES = ("1000000", "10000000", "10000000/3", "10000000/10", "100000000")
NUM_ARTICLES = 2_400
NUM_REPLIES = 200
NUM_COLD = 40
DOCUMENT_TOKENS, RUN_TOKENS, BATCH_TOKENS = 400, 8, 400_000
VOCAB_SIZE = 3_072


class Searched:
    """An index as `tasks.provenance.training_data.TrainingData` has it, without pages behind it."""

    def __init__(self, folder: Path, num_tokens: int, num_arrays: int, texts: list[str]) -> None:
        tokenizer = ChatTokenizer.load(folder / "tokenizer.json")
        path = folder / f"{num_tokens}.arrow"
        write_tokens(path, tokenizer, num_tokens, texts)
        self.stream = stream = TokenStream([str(path)], tokenizer.vocab_size)
        self.vocabulary = vocabulary = Vocabulary(folder / "tokenizer.json")
        self.num_tokens = stream.num_tokens
        start = time.process_time()
        shard_tokens = min(ProvenanceConfig().shard_tokens, -(-self.num_tokens // num_arrays) + DOCUMENT_TOKENS)
        ranges = list(shards(stream, shard_tokens))
        self.num_words = sum(
            suffix_array.build(stream, vocabulary, *bounds, folder / f"{num_tokens}-{number}")
            for number, bounds in enumerate(ranges)
        )
        self.build_seconds = time.process_time() - start
        self.prefixes = {bounds: str(folder / f"{num_tokens}-{number}") for number, bounds in enumerate(ranges)}
        self.files = [file for prefix in self.prefixes.values() for file in folder.glob(f"{Path(prefix).name}.*.npy")]
        self.num_bytes = sum(file.stat().st_size for file in self.files)
        self.arrays: list[SuffixArray] = []
        self.open()

    def open(self) -> None:
        """Open the arrays, with nothing remembered of their texts."""
        self.arrays = [
            SuffixArray(self.stream, self.vocabulary, *bounds, Path(prefix)) for bounds, prefix in self.prefixes.items()
        ]
        self.count_word = lru_cache(maxsize=100_000)(self.count)  # as `TrainingData` has it

    def evict(self) -> None:
        """Put the arrays out of the page cache, which keeps those that are mapped or not yet written. Not the tokens: a start checks them."""
        self.arrays = []
        for file in self.files:
            with file.open("rb") as opened:
                os.fsync(opened.fileno())
                os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)

    def longest(self, text: bytes) -> int:
        """As `Searchable` has it."""
        return max(array.longest(text) for array in self.arrays)

    def count(self, text: bytes) -> int:
        """As `Searchable` has it."""
        return sum(array.count(text) for array in self.arrays)


def write_tokens(path: Path, tokenizer: ChatTokenizer, num_tokens: int, texts: list[str]) -> None:
    """A token shard of all texts, and then of documents that are put together of short runs of their tokens."""
    pages = [[tokenizer.bos, *tokens] for tokens in tokenizer.encode_batch(texts)]
    tokens = np.array([token for page in pages for token in page if token != tokenizer.bos], np.uint16)
    rng = np.random.default_rng(0)
    schema = pa.schema([("tokens", pa.list_(pa.uint16()))], metadata={"vocab_size": str(tokenizer.vocab_size)})
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(pa.record_batch([pa.array(pages, pa.list_(pa.uint16()))], schema=schema))
        for _ in range(max(0, num_tokens - len(tokens)) // BATCH_TOKENS):
            starts = rng.integers(0, len(tokens) - RUN_TOKENS, BATCH_TOKENS // RUN_TOKENS)
            made = tokens[(starts[:, None] + np.arange(RUN_TOKENS)).ravel()]
            made[::DOCUMENT_TOKENS] = tokenizer.bos
            offsets = np.arange(0, len(made) + 1, DOCUMENT_TOKENS, dtype=np.int32)
            column = pa.ListArray.from_arrays(pa.array(offsets), pa.array(made))
            writer.write_batch(pa.record_batch([column], schema=schema))


def replies(texts: list[str]) -> Iterator[str]:
    """Replies of sentences of different pages."""
    rng = random.Random(0)
    while True:
        sentences = [rng.choice(SENTENCE_END.split(rng.choice(texts))) for _ in range(6)]
        yield " ".join(" ".join(sentences).split()[:40])


def seconds_of(data: Searched, reply: str, clock: Callable[[], float]) -> float:
    """The time of the spans of a reply."""
    start = clock()
    text = encoded(reply)
    find_spans(data, text, maximal_spans(data, text))
    return clock() - start


def seconds_without_queue() -> float:
    """Wall time without what this thread waited for a core, of which other work on the machine decides: what it computed, or waited for the disk."""
    queued_ns = int(Path("/proc/thread-self/schedstat").read_text(encoding="utf-8").split()[1])
    return time.perf_counter() - queued_ns / 1e9


def middle_and_p95(seconds: list[float]) -> tuple[float, float]:
    """The median and the 95th percentile."""
    return statistics.median(seconds), statistics.quantiles(seconds, n=20)[-1]


def main() -> None:
    """Print a row for each number of tokens."""
    sizes = sys.argv[1:] or SIZES
    texts = ["\n".join(article.paragraphs) for article in write_articles(build_world(1), NUM_ARTICLES)]
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(iter(texts), TokenizerConfig(vocab_size=VOCAB_SIZE)).save(str(folder / "tokenizer.json"))
        for size in sizes:
            num_tokens, _, num_arrays = size.partition("/")
            say(f"{num_tokens} tokens")
            data = Searched(folder, int(num_tokens), int(num_arrays or 1), texts)
            # One thread, and the pages of the index are in memory after a few replies.
            warm = [seconds_of(data, reply, time.process_time) for reply in islice(replies(texts), NUM_REPLIES)]
            memory = getrusage(RUSAGE_SELF).ru_maxrss
            cold, reads = [], []
            for reply in islice(replies(texts), NUM_COLD):
                data.evict()
                start, num_reads = seconds_without_queue(), getrusage(RUSAGE_SELF).ru_majflt
                data.open()
                seconds_of(data, reply, time.perf_counter)
                cold.append(seconds_without_queue() - start)
                reads.append(getrusage(RUSAGE_SELF).ru_majflt - num_reads)
            rows.append(
                (
                    f"{data.num_tokens:,}",
                    len(data.arrays),
                    f"{data.num_bytes / data.num_tokens:.2f}",
                    f"{data.build_seconds:.1f} s",
                    f"{memory / 1e6:.2f} GB",
                    *(f"{1000 * value:.0f} ms" for value in (*middle_and_p95(warm), *middle_and_p95(cold))),
                    f"{statistics.median(reads):.0f}",
                )
            )
            say(" | ".join(map(str, rows[-1])))
    headings = [
        "Tokens",
        "Suffix arrays",
        "Bytes a token",
        "Build",
        "Peak memory",
        "Reply, CPU median",
        "p95",
        "Cold, without other work, median",
        "p95",
        "Waits for the disk, median",
    ]
    print_table("The index of training data, and the spans of a reply", headings, rows, machine())


if __name__ == "__main__":
    main()
