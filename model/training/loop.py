"""Training of base model, SFT model and reward model: `python -m model.training.loop RUN.json`.

Reads RUN.json (a `TrainRun`) and the files it names. Writes into the run's output folder what every trainer writes
(model/training/trainer.py), and

    samples.jsonl      completions by step, see model/training/samples.py

and, next to RUN.json, checkpoints/ and left_out.jsonl (the batches that are skipped), and with early stopping
best/ (model/training/early_stopping.py). Started again on the same RUN.json after a kill,
it resumes from the newest checkpoint with the losses of an undisturbed run. SIGTERM: it saves a checkpoint and exits with
status 143. Started alone it trains in this process; under torchrun every process is a rank.

After a bad step the run returns to its newest checkpoint, see model/training/loss_spikes.py.

Metrics: step (steps done), train/loss_nats (per learned token or pair), train/learning_rate (AdamW's), train/gradient_norm (before
clipping), train/tokens_per_second (padding included), train/mfu_fraction (of the devices' peak, see model/planning/devices.py),
train/memory_bytes (most so far of rank 0: of the GPU, or of the process), train/seconds (since this process began to train),
phase/NAME_seconds (data, forward, backward, optimizer; validation, samples and checkpoint of the step before; on a GPU, which works
asynchronously, the time until they were submitted), and where a validation was due validation/loss_nats with
validation/bits_per_byte (of learned text) or validation/accuracy (of pairs).
"""

import json
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.config import TrainRun, flops_per_token, num_parameters
from model.data.dataloader import (
    batch_indices,
    batch_records,
    microbatch_records,
    microbatches,
    open_training,
    open_validation,
)
from model.network.huggingface import copy_rows, load_weights, transformer_of
from model.network.transformer import Transformer
from model.planning.devices import peak_flops
from model.tokenizer.chat import ChatTokenizer
from model.training import optim
from model.training.checkpoints import Checkpoints, complete_checkpoints
from model.training.early_stopping import EarlyStopping
from model.training.engine import Engine, EngineConfig, join_ranks
from model.training.lora import add_adapters, merged
from model.training.loss_spikes import BadStep, SkippedBatches, step_problem
from model.training.metrics import Metrics, clocked
from model.training.objectives import make_objective, measures, num_learned
from model.training.samples import add_samples
from model.training.trainer import Trainer, is_due, run_rank


class LossTrainer(Trainer):
    """Minimises an objective (model/training/objectives.py) over the batches of a data set."""

    def __init__(self, run: TrainRun, checkpoints: Path, stop: threading.Event) -> None:
        """Raises ValueError where data, tokenizer, model and ranks do not fit together."""
        config = run.train
        join_ranks(config.num_ranks)
        super().__init__(config, Checkpoints(checkpoints, config.keep_checkpoints), Path(run.output), stop)
        self.run = run
        self.tokenizer = ChatTokenizer.load(run.tokenizer)
        self.dataset, self.validation = open_training(run, self.tokenizer), open_validation(run, self.tokenizer)
        # Next to the checkpoints' folder and not in the output: a resumed
        # run must skip the same batches, or its losses would differ.
        self.skipped = SkippedBatches(checkpoints.parent / "left_out.jsonl")
        self.losses: list[float] = []  # of the steps so far
        self.early_stopping = EarlyStopping(checkpoints.parent / "best", config.patience)

    @property
    def model(self) -> torch.nn.Module:
        """The language model or reward model inside the objective."""
        return self.engine.module.model  # type: ignore[no-any-return]

    def train(self) -> None:
        """Train to the end. Raises RuntimeError where bad steps come again and again."""
        while True:
            # A new engine on each attempt: the old one holds the weights and optimizer state of the bad step.
            self.engine = self.start_engine()
            try:
                super().train()
                return
            except BadStep as bad:
                self.roll_back(bad)

    def make_objective(self) -> Any:
        """The objective around a model with fresh weights: a module that has it as `model`."""
        return make_objective(self.run, self.tokenizer)

    def start_engine(self) -> Engine:
        """The objective with its model, initial weights and optimizer."""
        run, config = self.run, self.run.train
        objective = self.make_objective()
        # Before DeepSpeed shards them.
        if run.initial_weights is not None:
            load_weights(objective.model, Path(run.initial_weights))
            copy_rows(objective.model, run.copied_rows)
        if run.lora.rank:
            add_adapters(objective.model, run.lora, config.seed)
        if config.is_compiled:
            # All training microbatches have one shape, so one static graph serves them all.
            objective.compile(dynamic=False)
        # Every rank and microbatch has the same number of records, as DeepSpeed's accumulation needs it.
        size = microbatch_records(config, self.dataset)
        settings = EngineConfig(
            run.optim,
            config.dtype,
            config.zero_stage,
            config.num_ranks,
            microbatch=size,
            num_microbatches=batch_records(config, self.dataset) // config.num_ranks // size,
            offload_optimizer=config.offload_optimizer,
        )
        return Engine(objective, settings, is_resharded=self.checkpoints.is_resharded(config.num_ranks))

    def resume(self, first_step: int) -> None:
        """Get ready for step `first_step`, with the losses of the steps before it, which spikes are measured against."""
        super().resume(first_step)
        # From the log rather than the checkpoint. Every rank reads it: all must decide alike whether a step is bad. Rank 0
        # appends to it only after the next step, whose collective operations wait for the slowest reader.
        lines = self.log.lines(first_step)
        self.losses = [line["train/loss_nats"] for line in lines]
        self.early_stopping.resume(lines)

    def train_step(self, step: int) -> Metrics:
        """One optimizer step on the batch of `step`. Raises BadStep where its loss or gradient is out of bounds."""
        number = self.skipped.batch_of(step)
        metrics = self.learn(step, number)
        loss, norm = metrics["train/loss_nats"], metrics["train/gradient_norm"]
        if problem := step_problem(loss, norm, self.losses, self.run.train.spike_nats):
            # The optimizer has moved already; the caller discards the engine and loads a checkpoint.
            raise BadStep(step, number, problem)
        self.losses.append(loss)
        return metrics

    def learn(self, step: int, batch_number: int) -> Metrics:
        """An optimizer step. The loss is divided by what the whole batch has to learn, however it is split over ranks and microbatches."""
        started = time.monotonic()
        engine, run, config = self.engine, self.run, self.run.train
        factor = optim.learning_rate_factor(run.optim, step, config.num_steps)
        engine.set_learning_rates(factor)
        seconds: Metrics = {}
        with clocked(seconds, "phase/data_seconds"):
            # The whole share of a rank at once: 8 bytes a token and 4 of its mask, some 6 MB for half a million tokens.
            batch = list(microbatches(self.dataset, config, batch_number, engine.rank))
        # Over all ranks, before the first backward: each microbatch's sum is divided by the terms of the whole batch.
        num_terms = engine.total(sum(map(num_learned, batch)))
        # Summed on the device: a float per microbatch would make the CPU wait for the GPU each time.
        nats = torch.zeros((), device=engine.device)
        for microbatch in batch:
            with clocked(seconds, "phase/forward_seconds"):
                loss, reported = engine(*engine.to_device(microbatch))
                nats += reported.detach()
            with clocked(seconds, "phase/backward_seconds"):
                engine.backward(loss, num_terms)
            with clocked(seconds, "phase/optimizer_seconds"):
                engine.step()
        loss_nats = engine.total(float(nats)) / num_terms
        return {
            "train/loss_nats": loss_nats,
            "train/learning_rate": factor * run.optim.learning_rate,
            "train/gradient_norm": engine.gradient_norm,
            # float(nats) above waited for the GPU, so this is the time of the whole step.
            **self.speed(time.monotonic() - started),
            "train/memory_bytes": engine.memory_bytes(),
            **seconds,
        }

    def speed(self, step_seconds: float) -> Metrics:
        """Tokens a second, and the fraction of the devices' peak that this is."""
        config = self.run.train
        rate = config.batch_tokens / step_seconds
        # On a CPU the peak is measured once a process, in the first step: MFU then depends on what else ran at that moment.
        peak = peak_flops(str(self.engine.device), getattr(torch, config.dtype)) * config.num_ranks
        flops = flops_per_token(self.run.model, config.sequence_tokens)
        return {"train/tokens_per_second": rate, "train/mfu_fraction": rate * flops / peak}

    def validate(self) -> Metrics:
        """The objective's report on the first validation records, split over the ranks; empty where they teach nothing."""
        dataset, config, engine = self.validation, self.run.train, self.engine
        if dataset is None:
            return {}
        # The same records at each validation, so that losses of different steps can be compared.
        num_records = min(len(dataset), config.eval_sequences // dataset.record_sequences)
        # With ZeRO 3 every forward gathers weights from all ranks: a rank with one microbatch more would hang.
        if engine.config.effective_zero_stage == 3:
            num_records -= num_records % config.num_ranks
        mine = np.arange(num_records)[engine.rank :: config.num_ranks]
        parts = measures(engine.module, dataset, mine, microbatch_records(config, dataset), engine.device)
        # Sums, not means: ranks may have different numbers of learned tokens.
        sums = sum(parts, start=np.zeros(engine.module.num_sums))
        totals = engine.totals(sums.tolist())
        return engine.module.report(*totals) if totals[-1] else {}

    def record(self, done: int, metrics: Metrics) -> None:
        """Write the metrics, and where they are due the samples."""
        super().record(done, metrics | {"train/seconds": time.monotonic() - self.started})
        if is_due(done, self.run.train.sample_every_steps):
            with clocked(self.seconds, "phase/samples_seconds"):
                self.sample(done)
        # The sums of a validation are those of all ranks, so that all decide alike.
        if self.early_stopping.is_better({"step": done, **metrics}):
            weights = self.current_weights()
            if self.engine.rank == 0:
                self.early_stopping.save(weights, self.best_step_of_oldest_checkpoint())

    def best_step_of_oldest_checkpoint(self) -> int:
        """The step whose weights are the best where the oldest checkpoint resumes; 0 without one."""
        kept = complete_checkpoints(self.checkpoints.folder)
        then = EarlyStopping(self.early_stopping.folder, self.early_stopping.patience)
        then.resume(self.log.lines(int(kept[0].name.removeprefix("step-"))) if kept else [])
        return int(then.best.get("step", 0))

    def is_over(self) -> bool:
        """Whether early stopping ends the run."""
        return self.early_stopping.is_over

    def result(self) -> dict[str, Tensor]:
        """The weights of the best validation if the run stops early, else those after the last step."""
        if not self.early_stopping.best:
            return self.current_weights()
        # Rank 0 writes them, and its node alone may have the file.
        return self.early_stopping.weights() if self.engine.rank == 0 else {}

    def current_weights(self) -> dict[str, Tensor]:
        """The weights of the model by name, those of adapters added to its own; all ranks gather them."""
        weights = self.engine.full_weights(self.model)
        return merged(weights, self.run.lora) if self.run.lora.rank else weights

    def sample(self, done: int) -> None:
        """Write completions on rank 0, of a copy of the model in float32: its own weights may be sharded and in half precision."""
        model = self.model
        if not isinstance(model, Transformer):
            return
        # All ranks: with ZeRO 3 gathering is a collective operation.
        weights = self.current_weights()
        if self.engine.rank == 0:
            # On rank 0 alone: the others wait at their next collective operation.
            copy = transformer_of(weights, model.config).to(self.engine.device)
            add_samples(self.output / "samples.jsonl", done, copy, self.tokenizer, self.run)

    def roll_back(self, bad: BadStep) -> None:
        """Skip the batch of a bad step from now on. Raises RuntimeError where that has been done `max_rollbacks` times."""
        # Named for the user, who can then look at the data.
        files = self.dataset.files(batch_indices(self.dataset, self.run.train, bad.batch))
        message = f"step {bad.step + 1} went wrong ({bad}) on batch {bad.batch}, of {', '.join(files)}"
        if len(self.skipped.batches) >= self.run.train.max_rollbacks:
            raise RuntimeError(
                f"{message}, after batches {self.skipped.batches} were skipped already: check these files, lower the "
                "learning rate, or allow more max_rollbacks"
            )
        if self.engine.rank == 0:
            print(f"{message}: returning to the newest checkpoint without it", file=sys.stderr, flush=True)
        # Checkpoints before the bad step stay valid: taking its batch
        # out moves later batches alone, see `SkippedBatches.batch_of`.
        # All ranks have the same sums and so the same decision; one writes it down.
        self.skipped.add(bad.batch, is_written=self.engine.rank == 0)
        self.engine.destroy()
        self.checkpoints.fetch(self.output)

    def max_tokens(self) -> int:
        """The longest sequence that the model was trained on, here or before."""
        initial = self.run.initial_weights
        # A fine-tuned model keeps the positions of its base, even if its own sequences are shorter.
        before = json.loads((Path(initial) / "config.json").read_text()) if initial else {}
        return max(self.run.train.sequence_tokens, int(before.get("max_position_embeddings", 0)))

    def token_ids(self) -> dict[str, int]:
        """Those of a reward model: transformers needs its pad_token_id to score batches."""
        return self.tokenizer.token_ids if self.run.objective == "reward" else {}

    def summary(self, last: Metrics) -> Metrics:
        """Parameters, steps, tokens and records of the run, its epochs, and the last loss and validation.

        With early stopping the validation, and `best_step`, are those of the weights that were kept.
        """
        config, best = self.run.train, self.early_stopping.best
        steps = last.get("step", 0)
        shown = ("train/loss", "train/seconds", "validation/")
        return {
            # A figure of the shape alone: with ZeRO 3 a rank holds a part of the parameters.
            "parameters": num_parameters(self.run.model),
            "steps": steps,
            **({"best_step": best["step"]} if best else {}),
            "tokens": steps * config.batch_tokens,
            **self.dataset.counts(),
            **self.dataset.epochs(steps * batch_records(config, self.dataset)),
            **{name: value for name, value in last.items() if name.startswith(shown)},
            **{name: value for name, value in best.items() if name.startswith("validation/")},
        }


def train(run: TrainRun, checkpoints: Path, stop: threading.Event) -> None:
    """Train a run to the end, with its checkpoints in the folder `checkpoints`. Every rank calls it.

    Raises SystemExit where `stop` is set on some rank, ValueError where data, tokenizer, model and ranks do not fit together.
    """
    LossTrainer(run, checkpoints, stop).train()


def main() -> None:
    """Train the run whose file the command line names."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # from DeepSpeed's calls
    run_rank(
        lambda path, stop: train(TrainRun.model_validate_json(path.read_text()), path.parent / "checkpoints", stop)
    )


if __name__ == "__main__":
    main()
