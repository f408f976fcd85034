"""Real text as tokens, for the benchmarks of training: English novels, in a vocabulary that is learned from them.

Reads pretrain/english-novels.jsonl.gz of the real data. Writes tokenizer.json, train.arrow and validation.arrow, as the stages
tokenizer and tokenize do, and train.bin: the same tokens as 16-bit numbers one after the other, which is what peers read.
"""

import gzip
import json
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from model.tokenizer.chat import ChatTokenizer
from tasks.tokenizer.encode import TokenWriter
from tasks.tokenizer.train import TokenizerConfig, train
from tests.benchmarks.harness import say, shared_data

DOCUMENT_CHARACTERS = 4_000
NUM_DOCUMENTS, NUM_HELD_OUT = 2_000, 50
DOCUMENTS_PER_TOKEN = 0.1  # a larger vocabulary needs more text to be learned from


def write_tokens(folder: Path, vocab_size: int) -> None:
    """All files for one vocabulary."""
    num_documents = max(NUM_DOCUMENTS, round(DOCUMENTS_PER_TOKEN * vocab_size))
    say(f"{num_documents:,} documents into tokens of a vocabulary of {vocab_size:,}")
    documents = list(islice(read_documents(), num_documents))
    train(iter(documents), TokenizerConfig(vocab_size=vocab_size)).save(str(folder / "tokenizer.json"))
    encoder = ChatTokenizer.load(folder / "tokenizer.json")
    assert encoder.vocab_size == vocab_size, f"the text gives {encoder.vocab_size} tokens"
    for split, part in (("train", documents[NUM_HELD_OUT:]), ("validation", documents[:NUM_HELD_OUT])):
        with TokenWriter(folder / f"{split}.arrow", encoder, "novels") as writer:
            writer.write(part)
    tokens = pa.ipc.open_file(str(folder / "train.arrow")).read_all()["tokens"].combine_chunks().values
    tokens.to_numpy().astype(np.uint16).tofile(folder / "train.bin")


def read_documents() -> Iterator[str]:
    """Novels, cut."""
    with gzip.open(shared_data() / "pretrain" / "english-novels.jsonl.gz", "rt", encoding="utf-8") as stream:
        for line in stream:
            text = json.loads(line)["text"]
            for start in range(0, len(text), DOCUMENT_CHARACTERS):
                yield text[start : start + DOCUMENT_CHARACTERS]
