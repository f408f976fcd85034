"""What the training stages share: start a process group on a run file, follow its metrics, collect what it made.

Reads a run's settings; the group writes `metrics.jsonl`, `summary.json`, `model.safetensors` and `config.json` into the stage's
folder and its checkpoints into the stage's state, so that a stage that was killed resumes from the newest.
"""

import json
import math
import time
from collections.abc import Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from model.config import ModelConfig
from model.errors import UserError
from model.files import read_lines
from model.nodes import this_node
from model.tokenizer.chat import ChatTokenizer
from tasks.artifacts.manifest import Artifact, Checkpoint, Tokenizer, Tokens
from tasks.artifacts.step import Outcome
from tasks.execution.context import StageContext
from tasks.execution.launcher import Metrics, launch
from tasks.execution.shared_checkpoints import newest_step, shared_checkpoints
from tasks.plots import picture

if TYPE_CHECKING:
    from model.network.transformer import Transformer

PLOT_SECONDS = 60.0  # between two plots of the loss: one takes a part of a second, and metrics come with every step
MAX_MARKERS = 30  # points of a curve that are marked one by one
# Points of a curve that are drawn: the plot is 500 points wide. Prefect keeps every version of an artifact, and one of 100,000 steps
# would take 0.4 MB a minute.
MAX_POINTS = 1000
MAX_SAMPLES = 300  # the newest rows of the table of samples, which is sent again as a whole each time
SHOWN = {"loss": "train/loss_nats", "tokens/s": "train/tokens_per_second"}


def train(
    ctx: StageContext,
    module: str,
    settings: BaseModel,
    *,
    num_steps: int,
    num_ranks: int,
    shown: dict[str, str] = SHOWN,
    follows: "type[Follower] | None" = None,
) -> Outcome:
    """Train by `python -m module`, started with `settings` as JSON. `shown`: what the progress display shows, name to metric.

    `follows`: what reports the metrics; None: Follower.
    """
    if num_steps < 1:
        raise UserError(f"num_steps={num_steps}: take at least one step")
    # In the state, which survives a kill: the restarted group reads the same file and finds its checkpoints next to it.
    run_file = ctx.state / "run.json"
    run_file.write_text(settings.model_dump_json(indent=1))
    follower = (follows or Follower)(ctx, num_steps, shown)
    if node := this_node():
        ctx.log(f"waiting up to {node.join_seconds} s for {node.num_nodes} nodes at {node.endpoint}")
    with shared_checkpoints(ctx):
        if steps := newest_step(ctx):
            ctx.log(f"resuming: {steps:,} of {num_steps:,} steps were done before")
        launch(
            module,
            run_file,
            num_ranks=num_ranks,
            metrics_file=ctx.folder / "metrics.jsonl",
            on_metrics=follower,
            lease=ctx.lease,
        )
    # Once more for the last minute, and for samples that were written after the last line of metrics.
    follower.plot()
    follower.report_samples()
    (ctx.folder / "run.json").write_text(without_store(run_file.read_text(), ctx))
    (ctx.folder / "run.log").write_bytes(run_file.with_suffix(".log").read_bytes())
    summary = json.loads((ctx.folder / "summary.json").read_text())
    # JSON keeps 3 and 3.0 apart: what the training process counted is an int, what it measured a float.
    counts = {name: value for name, value in summary.items() if isinstance(value, int)}
    return Outcome(counts, {name: value for name, value in summary.items() if isinstance(value, float)})


class Follower:
    """Reports each line of metrics as progress, and a plot of the loss every PLOT_SECONDS."""

    def __init__(self, ctx: StageContext, num_steps: int, shown: dict[str, str]) -> None:
        self.ctx, self.num_steps, self.shown = ctx, num_steps, shown
        self.last_plot = time.monotonic()
        self.samples = ctx.folder / "samples.jsonl"
        self.num_samples = 0

    def __call__(self, metrics: Metrics) -> None:
        """Report one line of metrics."""
        values = {name: metrics[metric] for name, metric in self.shown.items() if metric in metrics}
        self.ctx.progress(metrics["step"], self.num_steps, "steps", **values)
        if time.monotonic() - self.last_plot > PLOT_SECONDS:
            self.plot()
        if "phase/samples_seconds" in metrics:  # of the step before
            self.report_samples()

    def report_samples(self) -> None:
        """Report the completions that were sampled since the last call."""
        if not self.samples.exists():  # a reward model gives scores and no text
            return
        samples = read_lines(self.samples)
        for sample in samples[self.num_samples :]:
            self.ctx.log(f"step {sample['step']}: {sample['prompt']} → {' '.join(sample['completion'].split())}")
        if len(samples) > self.num_samples:
            self.ctx.table("samples", samples[-MAX_SAMPLES:], "completions of the model by step")
        self.num_samples = len(samples)

    def plot(self) -> None:
        """Report the curves of the first metric shown and of the validation loss, by step."""
        # The file is read again rather than kept: a resumed stage plots the steps of the run before as well.
        self.last_plot = time.monotonic()
        lines = read_metrics(self.ctx.folder / "metrics.jsonl")
        wanted = (next(iter(self.shown.values())), "validation/bits_per_byte")
        curves = [name for name in wanted if any(name in line for line in lines)]
        if lines:
            self.ctx.markdown("curve", curve(lines, curves), "by step")


def without_store(run: str, ctx: StageContext) -> str:
    """The JSON of a run with its paths relative to the store: where that lies on this machine is nobody's business who gets the model."""
    store = json.dumps(f"{ctx.folder.parents[1]}/", ensure_ascii=False)[1:-1]
    return run.replace(f'"{store}', '"')


def read_metrics(path: Path) -> list[Metrics]:
    """One dict a step; of a step that was done again after a kill, the later line."""
    return list({line["step"]: line for line in read_lines(path)}.values())


def curve(lines: Sequence[Metrics], names: Sequence[str]) -> str:
    """Metrics by step as a picture in Markdown. A metric of few steps, such as a validation, has a marker at each."""
    # Not pyplot, which keeps every figure in a global list: a long run draws hundreds.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    for name in names:
        points = thinned([(line["step"], line[name]) for line in lines if name in line])
        marker = "o" if len(points) <= MAX_MARKERS else ""  # a line through one point shows nothing
        axes.plot(*zip(*points, strict=True), label=name, linewidth=1.2, marker=marker, markersize=4)
    axes.set_xlabel("step")
    axes.grid(alpha=0.3)
    axes.legend()
    return picture(figure, ", ".join(names))


def thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    """At most MAX_POINTS points (step, value): of each group of neighbours the lowest and the highest, so that no spike is lost."""
    size = math.ceil(2 * len(points) / MAX_POINTS)
    if size <= 2:
        return points
    groups = (points[start : start + size] for start in range(0, len(points), size))
    value = itemgetter(1)
    return [point for group in groups for point in sorted({min(group, key=value), max(group, key=value)})]


def tokenizer_file(tokenizer: Tokenizer) -> str:
    """The path of the tokenizer, as a run file names it."""
    return str(tokenizer.folder / "tokenizer.json")


def vocab_size(tokenizer: Tokenizer) -> int:
    """The number of tokens, special ones included."""
    return ChatTokenizer.load(tokenizer_file(tokenizer)).vocab_size


def model_config(checkpoint: Checkpoint) -> ModelConfig:
    """The shape of a trained model, as its run file has it."""
    return ModelConfig.model_validate(json.loads((checkpoint.folder / "run.json").read_text())["model"])


def load_language_model(checkpoint: Checkpoint) -> "Transformer":
    """The model of a checkpoint, to ask it: on a GPU if there is one."""
    # Here, so that a stage can be named and checked without torch, which takes seconds to import.
    from model.network.huggingface import default_device, load_transformer

    return load_transformer(checkpoint.folder).to(default_device())


def check_vocabulary(checkpoint: Checkpoint, tokenizer: Tokenizer) -> None:
    """Raises UserError where a tokenizer cannot be the one that a model was trained with."""
    # Sizes only: a model's artifact does not hold the digest of its tokenizer. Another vocabulary of the same size is not noticed.
    if model_config(checkpoint).vocab_size != vocab_size(tokenizer):
        raise UserError(
            f"artifact {checkpoint.manifest.id} has a vocabulary of {model_config(checkpoint).vocab_size} tokens and "
            f"{tokenizer.manifest.id} one of {vocab_size(tokenizer)}: give the tokenizer that the model was trained with"
        )


def check_tokens(found: Sequence[Tokens], tokenizer: Tokenizer) -> None:
    """Raises UserError where tokens were made with another vocabulary. Several artifacts may hold the same one."""
    for tokens in found:
        # By digest and not by fingerprint: two artifacts may hold one vocabulary, and a forced run may give one name other tokens.
        if tokens.manifest.input_digests["tokenizer"] != tokenizer.manifest.digest:
            raise UserError(
                f"artifact {tokens.manifest.id} was made with {tokens.manifest.inputs['tokenizer']}, which is not the vocabulary of "
                f"{tokenizer.manifest.id}: give the tokenizer that it was made with, or tokenize the documents again"
            )


def paths(artifact: Artifact, pattern: str) -> tuple[str, ...]:
    """The files of an artifact that match a glob pattern, as a run file names them."""
    return tuple(str(path) for path in artifact.files(pattern))
