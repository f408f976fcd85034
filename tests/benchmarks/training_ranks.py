"""How the laptop recipe should train: tokens/s of `model.train` by ranks, number format and compilation, in one run.

    python tests/benchmarks/training_ranks.py [STORE]      # a store in which the recipe tiny was run until tokenize

Every run takes 14 steps of the tiny recipe's model; the median of the last 11 is told, with the seconds before the first.
"""

import json
import statistics
import sys
import tempfile
import time
from itertools import product
from pathlib import Path

from flows.pipeline import dag
from flows.recipes import make_recipe
from model.config import TrainRun
from tasks.artifacts import Store, Tokenizer, Tokens
from tasks.launcher import Metrics, launch
from tasks.training import paths, tokenizer_file, vocab_size

NUM_STEPS, SKIPPED_STEPS = 14, 3


def measure(store: Store, num_ranks: int, dtype: str, is_compiled: bool) -> str:
    steps, config = dag(make_recipe("tiny")), make_recipe("tiny").pretrain
    tokens, tokenizer = store.open(steps["tokenize"].id, Tokens), store.open(steps["tokenizer"].id, Tokenizer)
    changes = {"num_steps": NUM_STEPS, "num_ranks": num_ranks, "dtype": dtype, "is_compiled": is_compiled}
    with tempfile.TemporaryDirectory() as folder:
        run = TrainRun(
            objective="pretrain",
            model=config.model.model_copy(update={"vocab_size": vocab_size(tokenizer)}),
            train=config.train.model_copy(update={**changes, "eval_every_steps": 0, "checkpoint_every_steps": 0}),
            optim=config.optim,
            tokenizer=tokenizer_file(tokenizer),
            train_paths=paths(tokens, "train/*.arrow"),
            output=folder,
        )
        run_file = Path(folder) / "state" / "run.json"
        run_file.parent.mkdir()
        run_file.write_text(run.model_dump_json())
        lines: list[Metrics] = []
        start = time.monotonic()
        launch(
            "model.train",
            run_file,
            num_ranks=num_ranks,
            metrics_file=Path(folder) / "metrics.jsonl",
            on_metrics=lines.append,
        )
        seconds = time.monotonic() - start
    rates = [line["train/tokens_per_second"] for line in lines[SKIPPED_STEPS:]]
    until_first = seconds - lines[-1]["train/seconds"] + lines[0]["train/seconds"]
    return f"{statistics.median(rates):8,.0f} tokens/s   {until_first:5.1f} s around the steps"


def main() -> None:
    store = Store(sys.argv[1]) if len(sys.argv) > 1 else Store.default()
    for num_ranks, dtype, is_compiled in product((1, 2), ("float32", "bfloat16"), (False, True)):
        told = json.dumps({"num_ranks": num_ranks, "dtype": dtype, "is_compiled": is_compiled})
        print(f"{told:<66} {measure(store, num_ranks, dtype, is_compiled)}", flush=True)


if __name__ == "__main__":
    main()
