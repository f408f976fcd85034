"""What is learned from equally many tokens with equally many parameters: model.training.loop with AdamW and with Muon, and a plain GPT.

    python -m tests.benchmarks.learning [--grid]

Learns a vocabulary of children's books and an encyclopedia and writes token shards with the stages' own functions, then trains
every model on the same batches in the same order and validates it on all of the same text: books and articles that none was trained
on. Ours have the recipes' settings, trained by `python -m model.train`; the plain GPT (tests/benchmarks/plain_gpt.py) has nanoGPT's:
warm-up, then cosine to a tenth. Each has the learning rate that was best for it among those of GRID: --grid trains
GRID_STEPS steps with each of them and tells all.

Trains as many models at once as there are cores, a thread each: some 25 CPU minutes.
"""

import gzip
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

from model.config import OptimConfig, TrainConfig, TrainRun
from model.planning.presets import preset
from model.tokenizer.chat import ChatTokenizer
from tasks.execution.launcher import Metrics, launch
from tasks.tokenizer.encode import TokenWriter, batches
from tasks.tokenizer.train import TokenizerConfig, train
from tests.benchmarks.harness import machine, print_table, say, shared_data

VOCAB_SIZE = 2048
DOCUMENT_CHARACTERS = 4_000
HELD_OUT_BOOKS = {"Treasure Island", "Through the Looking Glass"}
HELD_OUT_CHARACTERS = 100_000  # of each source
NUM_STEPS, GRID_STEPS, BATCH_TOKENS = 1000, 320, 2048
SEEDS = (0,)
PARTS = 4  # of a run, after each of which the model is validated


class Entry(NamedTuple):
    """A way to learn."""

    name: str
    module: str
    optim: OptimConfig


PLAIN = OptimConfig(schedule="cosine", final_learning_rate_fraction=0.1, learning_rate=2e-3)
MUON = OptimConfig(optimizer="muon", learning_rate=4e-3, muon_learning_rate=0.02)
ENTRIES = (
    Entry("plain GPT, AdamW", "tests.benchmarks.plain_gpt", PLAIN),
    Entry("ours, AdamW", "model.training.loop", OptimConfig(learning_rate=2e-3)),
    Entry("ours, Muon", "model.training.loop", MUON),
)
GRID = {
    "adamw": [{"learning_rate": rate} for rate in (1e-3, 2e-3, 4e-3, 8e-3)],
    "muon": [{"muon_learning_rate": rate} for rate in (0.01, 0.02, 0.04)],
}


class Curve(NamedTuple):
    """What a run came to: parameters, and bits per byte after each part of it."""

    parameters: int
    bits_per_byte: list[float]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_data(folder)
        (tell_grid if "--grid" in sys.argv else tell_curves)(folder)


def write_data(folder: Path) -> None:
    """tokenizer.json, train.arrow and validation.arrow."""
    texts = {split: [part for text in sources(split) for part in parts(text)] for split in ("train", "validation")}
    train(iter(texts["train"]), TokenizerConfig(vocab_size=VOCAB_SIZE)).save(str(folder / "tokenizer.json"))
    encoder = ChatTokenizer.load(folder / "tokenizer.json")
    for split, documents in texts.items():
        with TokenWriter(folder / f"{split}.arrow", encoder, "") as writer:
            num_tokens = sum(map(writer.write, batches(documents)))
        say(f"{split}: {sum(len(text.encode()) for text in documents):,} bytes, {num_tokens:,} tokens")


def sources(split: str) -> Iterator[str]:
    """Whole texts of a split."""
    folder, is_held_out = shared_data() / "pretrain", split == "validation"
    limit = HELD_OUT_CHARACTERS if is_held_out else None
    with gzip.open(
        folder / f"wikitext2-{'valid' if is_held_out else 'train-excerpt'}.txt.gz", "rt", encoding="utf-8"
    ) as stream:
        yield stream.read()[:limit]
    with gzip.open(folder / "gutenberg-childrens.jsonl.gz", "rt", encoding="utf-8") as stream:
        for book in map(json.loads, stream):
            if (book["title"] in HELD_OUT_BOOKS) == is_held_out:
                yield book["text"][:limit]


def parts(text: str) -> Iterator[str]:
    return (text[start : start + DOCUMENT_CHARACTERS] for start in range(0, len(text), DOCUMENT_CHARACTERS))


def run(folder: Path, entry: Entry, num_steps: int, seed: int) -> Curve:
    """Train an entry in a separate process."""
    with tempfile.TemporaryDirectory(dir=folder) as output:
        run_file, metrics_file = Path(output) / "state" / "run.json", Path(output) / "metrics.jsonl"
        run_file.parent.mkdir()
        run_file.write_text(settings(folder, entry.optim, num_steps, seed, output).model_dump_json())
        lines: list[Metrics] = []
        launch(entry.module, run_file, num_ranks=1, metrics_file=metrics_file, on_metrics=lines.append)
        parameters = json.loads((Path(output) / "summary.json").read_text())["parameters"]
    bits = [line["validation/bits_per_byte"] for line in lines if "validation/bits_per_byte" in line]
    say(f"{entry.name}, {rate_text(entry.optim)}, seed {seed}: {', '.join(f'{value:.4f}' for value in bits)}")
    return Curve(parameters, bits)


def settings(folder: Path, optim: OptimConfig, num_steps: int, seed: int, output: str) -> TrainRun:
    return TrainRun(
        objective="pretrain",
        model=preset("tiny", VOCAB_SIZE).model,
        train=TrainConfig(
            num_steps=num_steps,
            batch_tokens=BATCH_TOKENS,
            seed=seed,
            eval_every_steps=num_steps // PARTS,
            eval_sequences=10**9,  # all there are
            checkpoint_every_steps=0,
        ),
        optim=optim,
        tokenizer=str(folder / "tokenizer.json"),
        train_paths=(str(folder / "train.arrow"),),
        validation_paths=(str(folder / "validation.arrow"),),
        output=output,
    )


def run_all(folder: Path, asked: Sequence[tuple[Entry, int, int]]) -> list[Curve]:
    """Of each (entry, num_steps, seed) its curve."""
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        return list(pool.map(lambda one: run(folder, *one), asked))


def tell_curves(folder: Path) -> None:
    curves = run_all(folder, [(entry, NUM_STEPS, seed) for entry in ENTRIES for seed in SEEDS])
    found = [curves[start : start + len(SEEDS)] for start in range(0, len(curves), len(SEEDS))]
    means = [[statistics.mean(bits) for bits in zip(*(curve.bits_per_byte for curve in some))] for some in found]
    spread = max(statistics.pstdev(curve.bits_per_byte[-1] for curve in some) for some in found)
    rows = [
        [
            entry.name,
            f"{some[0].parameters:,}",
            rate_text(entry.optim),
            *(f"{bits:.3f}" for bits in mean),
            f"{100 * (1 - mean[-1] / means[0][-1]):.1f}%",
        ]
        for entry, some, mean in zip(ENTRIES, found, means, strict=True)
    ]
    print_table(
        f"Bits per byte of held-out text after {NUM_STEPS * BATCH_TOKENS / 1e6:.1f} M tokens, and on the way",
        ["", "parameters", "learning rate", *(f"{100 * part // PARTS}%" for part in range(1, PARTS + 1)), "fewer bits"],
        rows,
        (f"Means of {len(SEEDS)} seeds, with a deviation of at most {spread:.3f}. " if SEEDS[1:] else "One seed. ")
        + f"Muon's learning rate stands before AdamW's. {machine()}.",
    )


def rate_text(config: OptimConfig) -> str:
    """Muon's and AdamW's, or AdamW's."""
    rates = [config.muon_learning_rate] * (config.optimizer == "muon") + [config.learning_rate]
    return ", ".join(f"{rate:g}" for rate in rates)


def tell_grid(folder: Path) -> None:
    asked = [
        (entry._replace(optim=entry.optim.model_copy(update=rates)), GRID_STEPS, SEEDS[0])
        for entry in ENTRIES
        for rates in GRID[entry.optim.optimizer]
    ]
    curves = run_all(folder, asked)
    rows = [
        [entry.name, rate_text(entry.optim), f"{curve.bits_per_byte[-1]:.3f}"]
        for (entry, _, _), curve in zip(asked, curves, strict=True)
    ]
    print_table(
        f"Bits per byte after {GRID_STEPS * BATCH_TOKENS / 1e6:.1f} M tokens, by learning rate",
        ["", "learning rate", "bits per byte"],
        rows,
        f"One seed. {machine()}.",
    )


if __name__ == "__main__":
    main()
