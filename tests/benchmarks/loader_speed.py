"""How fast the loader gives tokens, next to how fast a model takes them.

    python -m tests.benchmarks.loader_speed

Reads shards of novels through `model.dataloader.microbatches`, shuffled, as training does: concatenated documents and packed whole
ones. The model is the smallest there is a preset for, forward and backward alone. Both on one core, in CPU seconds.
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # before torch starts its threads

import torch
import torch.nn.functional as F

from model.config import Packing, TrainConfig, num_parameters
from model.data.dataloader import microbatches, open_dataset
from model.network.transformer import Transformer, initialize
from model.planning.presets import PRESETS
from model.tokenizer.chat import ChatTokenizer
from tests.benchmarks.harness import machine, print_table, say
from tests.benchmarks.token_data import write_tokens

LENGTHS = (256, 1024)
PACKINGS: tuple[Packing, ...] = ("concatenated", "whole_documents")
BATCH_TOKENS, MIN_SECONDS = 4096, 3.0
MODEL = PRESETS["tiny"].model


def rate(work: Callable[[int], None]) -> float:
    """Tokens per CPU second of `work` on batches 1, 2, 3 ... Batch 0 warms up: it draws the order of the epoch."""
    work(0)
    num_batches, start = 0, time.process_time()
    while time.process_time() - start < MIN_SECONDS:
        num_batches += 1
        work(num_batches)
    return num_batches * BATCH_TOKENS / (time.process_time() - start)


def loader(folder: Path, config: TrainConfig) -> Callable[[int], None]:
    tokenizer = ChatTokenizer.load(folder / "tokenizer.json")
    paths = [str(folder / "train.arrow")]
    dataset = open_dataset("pretrain", paths, config.sequence_tokens, tokenizer, config.packing)

    def load(number: int) -> None:
        for _ in microbatches(dataset, config, number, rank=0):
            pass

    return load


def model(config: TrainConfig) -> Callable[[int], None]:
    transformer = Transformer(MODEL)
    initialize(transformer, seed=0)
    tokens = torch.randint(MODEL.vocab_size, (config.microbatch_sequences, config.sequence_tokens + 1))

    def learn(number: int) -> None:
        for _ in range(config.batch_tokens // tokens[:, 1:].numel()):
            logits = transformer(tokens[:, :-1])
            F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten()).backward()

    return learn


def main() -> None:
    rows = []
    with tempfile.TemporaryDirectory() as name:
        write_tokens(Path(name), MODEL.vocab_size)
        for sequence_tokens in LENGTHS:
            config = TrainConfig(batch_tokens=BATCH_TOKENS, sequence_tokens=sequence_tokens)
            say(f"the model at T {sequence_tokens}")
            taken = rate(model(config))
            for packing in PACKINGS:
                say(f"the loader at T {sequence_tokens}, {packing}")
                given = rate(loader(Path(name), config.model_copy(update={"packing": packing})))
                rows.append(
                    (f"T {sequence_tokens:,}, {packing}", f"{given:,.0f}", f"{taken:,.0f}", f"{given / taken:.0f}")
                )
    print_table(
        f"The loader alone, one core, compared with forward and backward of a model of {num_parameters(MODEL) / 1e6:.1f} M parameters",
        ["", "loader, tokens/s", "model, tokens/s", "times as fast"],
        rows,
        f"CPU seconds, the files in memory, microbatches of {TrainConfig().microbatch_sequences}. {machine()}.",
    )


if __name__ == "__main__":
    main()
