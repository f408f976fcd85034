"""Tokens a second of training, next to a plain PyTorch loop of the same model, nanochat and nanoGPT: one shape, data and precision.

    python -m tests.benchmarks.training_speed [--compiled] [--bfloat16]      # two small models
    python -m tests.benchmarks.training_speed --device cuda      # GPT-2 of 124 M parameters, compiled, in bfloat16 with ZeRO 1

`model.train` is started as the stage starts it; the others are tests/benchmarks/plain_training.py, with the defaults of the shell; the same
model also in the environment of the stage.
Every process takes its first steps, then they take turns: one trains while the others are suspended. A step's seconds are those from
one line of metrics to the next, so data, logging and DeepSpeed are in them; the median of all steps is reported. The step in which a
process was suspended does not count.

nanochat and nanoGPT run with this project's torch, from the checkouts that CRAWL2CHAT_NANOCHAT and CRAWL2CHAT_NANOGPT name, or from
clones of GitHub's.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from model.config import ModelConfig, TrainConfig, TrainRun, flops_per_token, num_parameters
from model.planning.devices import peak_flops
from model.planning.presets import PRESETS
from tasks.execution import launcher
from tests.benchmarks.harness import ROOT, machine, print_table, say
from tests.benchmarks.token_data import write_tokens

WARMUP_STEPS, TURN_STEPS, NUM_TURNS = 3, 2, 4
NUM_CORES = len(os.sched_getaffinity(0))
PLAIN_TRAINING = Path(__file__).with_name("plain_training.py")
CHECKOUTS = {
    "nanochat": ("CRAWL2CHAT_NANOCHAT", "karpathy/nanochat", "92d63d4e8bb4df75c3b71618f31ddde2378b2bcd"),
    "nanoGPT": ("CRAWL2CHAT_NANOGPT", "karpathy/nanoGPT", "3adf61e154c3fe3fca428ad6bc3818b27a3b8291"),
}


class Shape(NamedTuple):
    name: str
    model: ModelConfig
    train: TrainConfig


class Contender(NamedTuple):
    name: str
    peer: str  # of plain_training.py; empty: model.training.loop
    num_ranks: int = 1
    num_threads: int = NUM_CORES  # of a rank
    is_tuned: bool = False  # in the stage's environment, whose allocation of memory is faster than the shell's


OURS, PLAIN = Contender("**model.train, 1 rank**", ""), Contender("plain PyTorch, the same model", "transformer")
PEERS = [Contender("nanochat", "nanochat"), Contender("nanoGPT", "nanoGPT")]
TUNED = PLAIN._replace(name="plain PyTorch in the stage's environment", is_tuned=True)
RANKS = Contender(f"**model.train, {NUM_CORES} ranks**", "", NUM_CORES, 1)
ALONE = [Contender("**model.train, 1 thread**", "", 1, 1), Contender("plain PyTorch, 1 thread", "transformer", 1, 1)]


def shapes(device: str, **settings: object) -> list[Shape]:
    if device == "cuda":
        return [Shape("gpt2", PRESETS["gpt2"].model, PRESETS["gpt2"].train)]
    heads = {"num_heads": 6, "num_kv_heads": 6, "head_width": 64}
    wide = ModelConfig(vocab_size=8192, num_layers=6, width=384, ff_width=1024, **heads)
    train = TrainConfig.model_validate({"batch_tokens": 4096, "sequence_tokens": 256, **settings})
    return [Shape("tiny", PRESETS["tiny"].model, train), Shape("wide", wide, train)]


class Training:
    """A process that trains until it is ended, and is suspended but in its turns."""

    def __init__(self, contender: Contender, shape: Shape, data: Path, device: str, folder: Path) -> None:
        self.contender, self.seconds = contender, list[float]()
        self.metrics, self.log, run_file = folder / "metrics.jsonl", folder / "log", folder / "state" / "run.json"
        run_file.parent.mkdir(parents=True)
        self.metrics.touch()
        if contender.peer:
            run_file.write_text(json.dumps(peer_settings(contender, shape, data, device, self.metrics)))
            command = [sys.executable, str(PLAIN_TRAINING), str(run_file)]
        else:
            run_file.write_text(own_run(contender, shape, data, folder).model_dump_json())
            command = launcher._command("model.training.loop", run_file, contender.num_ranks, None, None)
        with self.log.open("wb") as log:
            variables = environment(contender, device, shape.train.dtype)
            self.process = psutil.Popen(command, env=variables, stdout=log, stderr=log, cwd=folder)

    def progress(self) -> list[float]:
        """Seconds since the beginning, by step."""
        if self.process.poll() is not None:
            sys.exit(f"{self.contender.name} ended: {launcher.last_lines(self.log)}")
        whole = self.metrics.read_text().rpartition("\n")[0]
        return [json.loads(line)["train/seconds"] for line in whole.splitlines()]

    def take_turn(self, num_steps: int) -> None:
        """Train for so many steps after the one in which it was suspended."""
        before = len(self.progress())
        self.each("resume")
        while len(progress := self.progress()) < before + num_steps + 1:
            time.sleep(0.05)
        self.each("suspend")
        self.seconds += [end - start for start, end in pairwise(progress[before : before + num_steps + 1])]

    def each(self, action: str) -> None:
        """Do `action` to the process and to all that it started."""
        for process in [self.process, *self.process.children(recursive=True)]:
            getattr(process, action)()

    def end(self) -> None:
        if self.process.poll() is None:
            self.each("kill")
            self.process.wait()


def own_run(contender: Contender, shape: Shape, data: Path, folder: Path) -> TrainRun:
    unending = {"num_steps": 10**6, "eval_every_steps": 0, "sample_every_steps": 0, "checkpoint_every_steps": 0}
    return TrainRun(
        objective="pretrain",
        model=shape.model,
        train=shape.train.model_copy(update={**unending, "num_ranks": contender.num_ranks}),
        optim=PRESETS["gpt2"].optim,
        tokenizer=str(data / "tokenizer.json"),
        train_paths=(str(data / "train.arrow"),),
        output=str(folder),
    )


def peer_settings(contender: Contender, shape: Shape, data: Path, device: str, metrics: Path) -> dict[str, object]:
    train = shape.train
    return {
        "peer": contender.peer,
        "model": shape.model.model_dump(),
        "sequence_tokens": train.sequence_tokens,
        "microbatch": train.microbatch_sequences,
        "num_microbatches": train.batch_tokens // train.sequence_tokens // train.microbatch_sequences,
        "is_half": train.dtype == "bfloat16",
        "is_compiled": train.is_compiled,
        "device": device,
        "tokens": str(data / "train.bin"),
        "metrics": str(metrics),
    }


def environment(contender: Contender, device: str, dtype: str) -> dict[str, str]:
    """The stage's for model.train, the shell's for a peer. For the CPU a GPU is hidden, which everyone would take."""
    folder = checkout(contender.peer) if contender.peer in CHECKOUTS else ROOT
    printed = {"PYTHONPATH": str(folder), "NANOCHAT_DTYPE": dtype}
    if device == "cpu":
        printed |= {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": str(contender.num_threads)}
    is_plain = contender.peer and not contender.is_tuned
    return {**(os.environ if is_plain else launcher._environment(contender.num_ranks)), **printed}


def checkout(peer: str) -> Path:
    """The folder of a peer's code."""
    variable, repository, commit = CHECKOUTS[peer]
    if named := os.environ.get(variable):
        return Path(named).resolve()
    cache = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "crawl2chat" / "peers"
    folder = cache / f"{peer}-{commit[:12]}"
    if not folder.exists():
        say(f"cloning {repository} into {folder}")
        with tempfile.TemporaryDirectory() as name:
            subprocess.run(["git", "clone", "--quiet", f"https://github.com/{repository}", name], check=True)
            subprocess.run(["git", "-C", name, "checkout", "--quiet", commit], check=True)
            shutil.copytree(name, folder)
    return folder


@contextmanager
def started(contenders: Sequence[Contender], shape: Shape, data: Path, device: str) -> Iterator[list[Training]]:
    """All of them, past their first steps and suspended."""
    trainings: list[Training] = []
    with tempfile.TemporaryDirectory() as name:
        try:
            for contender in contenders:
                say(f"{shape.name}: {contender.name} starts")
                trainings.append(Training(contender, shape, data, device, Path(name) / str(len(trainings))))
                trainings[-1].take_turn(WARMUP_STEPS)
                trainings[-1].seconds.clear()
            yield trainings
        finally:
            for training in trainings:
                training.end()


def measure(contenders: Sequence[Contender], shape: Shape, device: str) -> dict[Contender, float]:
    """Tokens a second."""
    with tempfile.TemporaryDirectory() as name:
        write_tokens(Path(name), shape.model.vocab_size)
        with started(contenders, shape, Path(name), device) as trainings:
            for turn in range(NUM_TURNS):
                say(f"{shape.name}: turn {turn + 1} of {NUM_TURNS}")
                for training in trainings:
                    training.take_turn(TURN_STEPS)
    return {each.contender: shape.train.batch_tokens / statistics.median(each.seconds) for each in trainings}


def report(shape: Shape, rates: dict[Contender, float], device: str) -> None:
    """One table: each next to plain PyTorch on as many threads, and next to nanochat."""
    plain = {each.num_threads: rates[each] for each in rates if each.peer == "transformer" and not each.is_tuned}
    flops = flops_per_token(shape.model, shape.train.sequence_tokens)
    rows = []
    for each, rate in rates.items():
        num_threads = each.num_ranks * each.num_threads
        relative = f"{rate / rates[PEERS[0]]:.2f}" if num_threads == NUM_CORES else ""
        mfu = [f"{rate * flops / peak_flops('cuda', torch.bfloat16):.1%}"] if device == "cuda" else []
        rows.append((each.name, f"{rate:,.0f}", f"{rate / plain[num_threads]:.2f}", relative, *mfu))
    train, model = shape.train, shape.model
    print_table(
        f"Training {shape.name}: L {model.num_layers}, D {model.width}, V {model.vocab_size:,}, T {train.sequence_tokens:,}, "
        f"{num_parameters(model) / 1e6:.1f} M parameters",
        ["", "tokens/s", "times plain PyTorch", "times nanochat", *(["MFU"] if device == "cuda" else [])],
        rows,
        f"{train.batch_tokens:,} tokens a step in microbatches of {train.microbatch_sequences}; "
        f"{train.dtype}, {'compiled' if train.is_compiled else 'not compiled'}; median of "
        f"{NUM_TURNS * TURN_STEPS} steps, taken in turns. torch {torch.__version__}, "
        f"{torch.cuda.get_device_name() if device == 'cuda' else f'{NUM_CORES} threads'}. {machine()}.",
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--compiled", action="store_true", help="with torch.compile, as on a GPU in any case")
    parser.add_argument("--bfloat16", action="store_true", help="in bfloat16, as on a GPU in any case")
    printed = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # else what is suspended stays behind
    if printed.device == "cuda" and not torch.cuda.is_available():
        say("--device cuda needs an NVIDIA GPU with 40 GB of memory or more, and a torch that is built for CUDA")
        sys.exit(2)
    dtype = "bfloat16" if printed.bfloat16 else "float32"
    for shape in shapes(printed.device, is_compiled=printed.compiled, dtype=dtype):
        others = [] if printed.device == "cuda" else [TUNED, RANKS, *ALONE] if shape.name == "tiny" else [TUNED, RANKS]
        report(shape, measure([OURS, PLAIN, *PEERS, *others], shape, printed.device), printed.device)


if __name__ == "__main__":
    main()
