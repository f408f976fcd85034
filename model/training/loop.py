"""The training loop of base model, SFT model and reward model, on a DeepSpeed engine: `python -m model.training.loop RUN.json`.

Reads RUN.json (a `TrainRun`) and the files it names. Writes into the run's output folder

    metrics.jsonl      one JSON object a step, while it runs
    samples.jsonl      what the model said now and then, see model/training/samples.py
    model.safetensors  the weights after the last step, with config.json
    summary.json       what came of it: counts are integers, measures are floats

and checkpoints beside RUN.json. Started again on the same RUN.json after a kill, it goes on from the newest checkpoint with
the losses that an undisturbed run has. SIGTERM: it saves a checkpoint and exits with status 143. Started alone it trains
in this process; under torchrun every process is a rank.

A step that goes wrong takes the run back to its newest checkpoint, see model/training/loss_spikes.py.

Metrics: step (steps done), train/loss_nats (per learned token or pair), train/learning_rate (AdamW's), train/gradient_norm (before
clipping), train/tokens_per_second (padding included), train/mfu_fraction (of the devices' peak, see model/planning/devices.py),
train/memory_bytes (most so far of rank 0: of the GPU, or of the process), train/seconds (since this process began to train),
phase/NAME_seconds (data, forward, backward, optimizer; validation, samples and checkpoint of the step before; on a GPU, which is not
waited for, when they were asked for), and where a validation was due validation/loss_nats with validation/bits_per_byte (of
learned text) or validation/accuracy (of pairs).
"""

import json
import os
import resource
import signal
import sys
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
import torch.distributed as dist

from model.config import OptimConfig, TrainConfig, TrainRun, flops_per_token, num_parameters
from model.data.dataloader import (
    batch_indices,
    batch_records,
    microbatch_records,
    microbatches,
    open_training,
    open_validation,
)
from model.data.dataset import Dataset, Microbatch
from model.network.huggingface import (
    is_of_other_ranks,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
    transformer_of,
)
from model.network.transformer import Transformer
from model.planning.devices import peak_flops
from model.tokenizer.chat import ChatTokenizer
from model.training import optim
from model.training.loss_spikes import BadStep, SkippedBatches, step_problem
from model.training.metrics import Metrics, MetricsLog, clocked
from model.training.objectives import Objective, make_objective, measures, num_learned
from model.training.samples import add_samples

INTERRUPTED = 128 + signal.SIGTERM


def train(run: TrainRun, checkpoints: Path, stop: threading.Event) -> None:
    """Train to the end, or until `stop` is set on some rank (SystemExit). Every rank calls it.

    Raises ValueError where data, tokenizer, model and ranks do not fit together.
    """
    start_process_group(run.train.num_ranks)
    tokenizer = ChatTokenizer.load(run.tokenizer)
    dataset, validation = open_training(run, tokenizer), open_validation(run, tokenizer)
    left_out = SkippedBatches(checkpoints.parent / "left_out.jsonl")
    while True:
        engine = start_engine(run, dataset, tokenizer, checkpoints)
        try:
            run_steps(engine, run, tokenizer, dataset, validation, checkpoints, left_out, stop)
            return
        except BadStep as bad:
            roll_back(engine, run, dataset, left_out, bad)


def run_steps(
    engine: Any,
    run: TrainRun,
    tokenizer: ChatTokenizer,
    dataset: Dataset,
    validation: Dataset | None,
    checkpoints: Path,
    left_out: SkippedBatches,
    stop: threading.Event,
) -> None:
    """Train from the newest checkpoint to the end. Raises BadStep where a step goes wrong, SystemExit where `stop` is set."""
    config = run.train
    first_step = load_checkpoint(engine, checkpoints)
    log = MetricsLog(Path(run.output) / "metrics.jsonl")
    losses = [line["train/loss_nats"] for line in log.lines(first_step)]
    started = time.monotonic()
    seconds: Metrics = {}
    for step in range(first_step, config.num_steps):
        batch = left_out.batch_of(step)
        metrics = train_step(engine, run, dataset, step, batch) | seconds
        if trouble := step_problem(
            metrics["train/loss_nats"], metrics["train/gradient_norm"], losses, config.spike_nats
        ):
            raise BadStep(step, batch, trouble)
        losses.append(metrics["train/loss_nats"])
        done, is_last, seconds = step + 1, step + 1 == config.num_steps, {}
        if validation is not None and (is_last or is_due(done, config.eval_every_steps)):
            with clocked(seconds, "phase/validation_seconds"):
                metrics |= validate(engine, config, validation)
        if engine.global_rank == 0:
            log.append({"step": done, **metrics, "train/seconds": time.monotonic() - started})
        if is_due(done, config.sample_every_steps):
            with clocked(seconds, "phase/samples_seconds"):
                sample(engine, run, tokenizer, done)
        is_stopping = total(engine, float(stop.is_set())) > 0 and not is_last
        if is_last or is_stopping or is_due(done, config.checkpoint_every_steps):
            with clocked(seconds, "phase/checkpoint_seconds"):
                save_checkpoint(engine, checkpoints, done, config.keep_checkpoints)
        if is_stopping:
            raise SystemExit(INTERRUPTED)
    finish(engine, run, dataset, log)


def roll_back(engine: Any, run: TrainRun, dataset: Dataset, left_out: SkippedBatches, bad: BadStep) -> None:
    """Leave the batch of a bad step out from now on. Raises RuntimeError where that has been done often enough."""
    indices = batch_indices(dataset, run.train, bad.batch)
    told = f"step {bad.step + 1} went wrong ({bad}) on batch {bad.batch}, of {', '.join(dataset.files(indices))}"
    if len(left_out.batches) >= run.train.max_rollbacks:
        raise RuntimeError(
            f"{told}, after batches {left_out.batches} were left out already: look at these files, take a lower "
            "learning rate, or allow more max_rollbacks"
        )
    if engine.global_rank == 0:
        print(f"{told}: going back to the newest checkpoint without it", file=sys.stderr, flush=True)
    left_out.add(bad.batch, is_written=engine.global_rank == 0)
    engine.destroy()


def start_process_group(num_ranks: int) -> None:
    """Join the ranks that torchrun started, or be the only one."""
    if not dist.is_initialized():
        os.environ.setdefault("LOCAL_RANK", "0")
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if "RANK" in os.environ:
            dist.init_process_group()
        else:
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    if dist.get_world_size() != num_ranks:
        raise ValueError(f"num_ranks={num_ranks}, but {dist.get_world_size()} processes were started")
    # Else DeepSpeed compiles, with g++, a collective for CPUs that only its inference uses.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def start_engine(run: TrainRun, dataset: Dataset, tokenizer: ChatTokenizer, checkpoints: Path) -> Any:
    """The objective with its model, initial weights and optimizer, as a DeepSpeed engine."""
    objective = make_objective(run, tokenizer)
    if run.initial_weights is not None:
        load_weights(objective.model, Path(run.initial_weights))
    if run.train.is_compiled:
        objective.compile(dynamic=False)
    size = microbatch_records(run.train, dataset)
    settings = deepspeed_config(
        run.optim,
        run.train.dtype,
        run.train.zero_stage,
        microbatch=size,
        num_microbatches=batch_records(run.train, dataset) // run.train.num_ranks // size,
        is_offloaded=run.train.offload_optimizer,
    )
    return initialize(objective, run.optim, settings, checkpoints, run.train.num_ranks)


def initialize(
    model: torch.nn.Module, config: OptimConfig, settings: Metrics, checkpoints: Path, num_ranks: int
) -> Any:
    """An engine that can go on from the newest of `checkpoints`. Raises ValueError where DeepSpeed cannot reshard it."""
    is_universal = is_of_other_ranks(checkpoints, num_ranks)
    if is_universal and config.optimizer == "muon":
        raise ValueError(
            f"the checkpoint in {checkpoints} is of another number of ranks than num_ranks={num_ranks}, and DeepSpeed "
            "cannot put Muon's ZeRO shards together: go on with as many ranks, or train with zero_stage=0"
        )
    settings = settings | {"checkpoint": {"load_universal": is_universal}}
    engine, *_ = deepspeed.initialize(model=model, optimizer=optim.make_optimizer(model, config), config=settings)
    return engine


def deepspeed_config(
    config: OptimConfig, dtype: str, zero_stage: int, *, microbatch: int, num_microbatches: int, is_offloaded: bool
) -> Metrics:
    """What DeepSpeed is told. The optimizer is given to it, since its own Adam would be compiled on the spot.

    Two departures from the run's words: bfloat16 takes at least ZeRO 1, which is where the float32 masters are kept, and
    without ZeRO the gradient is clipped here, since DeepSpeed then does not tell its norm.
    """
    is_half = dtype == "bfloat16"
    stage = max(zero_stage, int(is_half))
    zero: Metrics = {"stage": stage, "reduce_scatter": config.optimizer != "muon"}
    if is_offloaded and stage:
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "train_micro_batch_size_per_gpu": microbatch,
        "gradient_accumulation_steps": num_microbatches,
        "gradient_clipping": max_grad_norm(config) if stage else 0.0,
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,
        "bf16": {"enabled": is_half},
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": None,
    }


def train_step(engine: Any, run: TrainRun, dataset: Dataset, step: int, batch_number: int) -> Metrics:
    """One optimizer step. The loss is divided by what the whole batch has to learn, however it is shared out."""
    started = time.monotonic()
    factor = optim.learning_rate_factor(run.optim, step, run.train.num_steps)
    optim.set_learning_rates(engine.optimizer, factor)
    seconds: Metrics = {}
    with clocked(seconds, "phase/data_seconds"):
        batch = list(microbatches(dataset, run.train, batch_number, engine.global_rank))
    num_all = total(engine, sum(map(num_learned, batch)))
    nats = torch.zeros((), device=engine.device)
    norm = 0.0
    for microbatch in batch:
        with clocked(seconds, "phase/forward_seconds"):
            loss, told = engine(*on_device(engine, microbatch))
            nats += told.detach()
        with clocked(seconds, "phase/backward_seconds"):
            # DeepSpeed takes the mean over ranks and microbatches, and what is wanted is the sum.
            engine.backward(loss * (run.train.num_ranks * len(batch) / num_all))
        with clocked(seconds, "phase/optimizer_seconds"):
            if engine.zero_optimization_stage() == 0 and engine.is_gradient_accumulation_boundary():
                norm = clip_gradient(engine, max_grad_norm(run.optim))
            engine.step()
    loss_nats = total(engine, float(nats)) / num_all
    rate = run.train.batch_tokens / (time.monotonic() - started)
    peak = peak_flops(str(engine.device), getattr(torch, run.train.dtype)) * run.train.num_ranks
    return {
        "train/loss_nats": loss_nats,
        "train/learning_rate": factor * run.optim.learning_rate,
        "train/gradient_norm": norm if engine.zero_optimization_stage() == 0 else float(engine.get_global_grad_norm()),
        "train/tokens_per_second": rate,
        "train/mfu_fraction": rate * flops_per_token(run.model, run.train.sequence_tokens) / peak,
        "train/memory_bytes": memory_bytes(engine),
        **seconds,
    }


def memory_bytes(engine: Any) -> int:
    """The most memory that the device, or on a CPU the process, has used."""
    if engine.device.type == "cuda":
        return torch.cuda.max_memory_allocated(engine.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def max_grad_norm(config: OptimConfig) -> float:
    """Muon's steps are as long whatever the gradient's norm, and with ZeRO DeepSpeed would clip these instead of the gradient."""
    return 0.0 if config.optimizer == "muon" else config.max_grad_norm


def clip_gradient(engine: Any, most: float) -> float:
    """Scale the gradient down to norm `most` (0: leave it) and give the norm that it had."""
    return float(torch.nn.utils.clip_grad_norm_(engine.module.parameters(), most or float("inf")))


def validate(engine: Any, config: TrainConfig, dataset: Dataset) -> Metrics:
    """The objective's report on the first validation records, shared out to the ranks; empty where they teach nothing."""
    objective: Objective = engine.module
    num_records = min(len(dataset), config.eval_sequences // dataset.record_sequences)
    if engine.zero_optimization_stage() == 3:  # every forward gathers weights from all ranks: each must do as many
        num_records -= num_records % config.num_ranks
    mine = np.arange(num_records)[engine.global_rank :: config.num_ranks]
    parts = measures(objective, dataset, mine, microbatch_records(config, dataset), engine.device)
    sums = sum(parts, start=np.zeros(3))
    nats_of_all, measure_of_all, learned_of_all = (total(engine, value) for value in sums)
    return objective.report(nats_of_all, measure_of_all, learned_of_all) if learned_of_all else {}


def sample(engine: Any, run: TrainRun, tokenizer: ChatTokenizer, step: int) -> None:
    """Let the model speak, on rank 0: a copy of it in float32, since its weights may be in parts and in half precision."""
    model = engine.module.model
    if not isinstance(model, Transformer):
        return
    weights = {name: full_precision(parameter) for name, parameter in model.named_parameters()}
    if engine.global_rank == 0:
        speaker = transformer_of(weights, model.config).to(engine.device)
        add_samples(Path(run.output) / "samples.jsonl", step, speaker, tokenizer, run)


def finish(engine: Any, run: TrainRun, dataset: Dataset, log: "MetricsLog") -> None:
    """Write the weights and, last, the summary."""
    model = engine.module.model
    weights = {name: full_precision(parameter) for name, parameter in model.named_parameters()}
    if engine.global_rank != 0:
        return
    output = Path(run.output)
    save_weights(output, model, weights, max_tokens(run))
    last = log.compact()[-1]
    summary = {
        "parameters": num_parameters(run.model),
        "steps": run.train.num_steps,
        "tokens": run.train.num_steps * run.train.batch_tokens,
        **dataset.counts(),
        **dataset.epochs(run.train.num_steps * batch_records(run.train, dataset)),
        **{
            name: value
            for name, value in last.items()
            if name.startswith(("train/loss", "train/seconds", "validation/"))
        },
    }
    (output / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")


def max_tokens(run: TrainRun) -> int:
    """The longest sequence that the model was trained on, here or before."""
    before = json.loads((Path(run.initial_weights) / "config.json").read_text()) if run.initial_weights else {}
    return max(run.train.sequence_tokens, int(before.get("max_position_embeddings", 0)))


def full_precision(parameter: torch.Tensor) -> torch.Tensor:
    """A parameter in float32, gathered from the ranks that hold a part of it; all ranks call it."""
    master = deepspeed.utils.safe_get_full_fp32_param(parameter)
    whole = parameter.detach() if master is None else master
    return whole.float().cpu().contiguous()


def is_due(done: int, every: int) -> bool:
    return every > 0 and done % every == 0


def total(engine: Any, value: float) -> float:
    """Sum over ranks; all of them call it."""
    summed = torch.tensor(value, dtype=torch.float64, device=engine.device)
    dist.all_reduce(summed)
    return float(summed)


def on_device(engine: Any, microbatch: Microbatch) -> Microbatch:
    return type(microbatch)(*(tensor.to(engine.device, non_blocking=True) for tensor in microbatch))


def leave() -> None:
    """End this rank, all of whose work is done. At once: while Python is taken down, gloo's threads may abort it."""
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def main() -> None:
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch.distributed")  # of DeepSpeed's calls
    run_file = Path(sys.argv[1])
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    train(TrainRun.model_validate_json(run_file.read_text()), run_file.parent / "checkpoints", stop)
    leave()


if __name__ == "__main__":
    main()
