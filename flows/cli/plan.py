"""`crawl2chat plan`: time, memory and cost of training a preset, as tables. Reads and writes nothing; model/planning/plan.py computes."""

from typing import Annotated

import typer
from rich.console import Group, RenderableType
from rich.table import Table

from flows.cli.console import console
from flows.recipes import RECIPES
from flows.resources import Resources, load_resources
from model.config import flops_per_token, kv_bytes_per_token, num_matrix_parameters, num_parameters
from model.errors import UserError
from model.planning.plan import DEFAULT_MFU, GIB, USABLE_FRACTION, Fit, Gpus, best, cost, fits, horizons, parse_gpus
from model.planning.presets import Preset
from model.planning.presets import preset as find_preset


def plan(
    preset: Annotated[
        str, typer.Argument(help="tiny, gpt2, gpt2-medium, gpt2-large, gpt2-xl, or d and a depth: d24.")
    ] = "gpt2",
    gpus: Annotated[str, typer.Option(help="Number and kind: 8xH100.")] = "8xH100",
    mfu: Annotated[
        float, typer.Option(help="Model FLOPs utilisation: share of the GPUs' peak that training reaches.")
    ] = 0.4,
    price: Annotated[
        float, typer.Option(min=0.0, help="Dollars per GPU hour; 0 takes a usual price of the GPU.")
    ] = 0.0,
    vocab_size: Annotated[int, typer.Option(min=0, help="V; 0 takes the preset's.")] = 0,
) -> None:
    """Estimate a model's training: parameters, FLOPs, tokens, memory by ZeRO stage, hours and cost."""
    console.print(plan_text(preset, gpus, mfu, price, vocab_size or None), highlight=False, soft_wrap=True)


def plan_text(
    name: str,
    gpus: str = "8xH100",
    mfu: float = DEFAULT_MFU,
    dollars_per_hour: float = 0.0,
    vocab_size: int | None = None,
) -> RenderableType:
    """The plan of a preset. `dollars_per_hour`: of one GPU; 0 takes the device's own. Raises UserError."""
    if not 0.0 < mfu <= 1.0:
        raise UserError(f"an MFU of {mfu} is not in 0..1: published runs have 0.34 to 0.65")
    chosen, hardware = find_preset(name, vocab_size), parse_gpus(gpus)
    ways = fits(chosen.model, chosen.train, hardware)
    way = best(ways)
    return Group(
        model_table(name, chosen),
        "",
        cost_table(chosen, hardware, mfu, dollars_per_hour or hardware.device.dollars_per_hour),
        "",
        memory_table(ways, hardware),
        "",
        advice(way, hardware),
        *([commands(name, way, hardware, load_resources())] if way else []),
    )


def model_table(name: str, chosen: Preset) -> Table:
    """The shape of a model, its parameters, and the costs of a token and a batch."""
    model, train = chosen.model, chosen.train
    table = Table(title=name, title_justify="left", box=None, show_header=False)
    table.add_row(
        "shape", f"{model.num_layers} layers, width {model.width}, {model.num_heads} heads, V {model.vocab_size:,}"
    )
    table.add_row("parameters", f"{num_parameters(model):,}, of these {num_matrix_parameters(model):,} in matrices")
    table.add_row(
        "a token",
        f"{flops_per_token(model, train.sequence_tokens):.3g} FLOPs to train on, {kv_bytes_per_token(model):,} bytes cached",
    )
    table.add_row("a batch", f"{train.batch_tokens:,} tokens in sequences of {train.sequence_tokens:,}")
    table.add_row("learning rate", f"{chosen.optim.learning_rate:.2g}, weight decay {chosen.optim.weight_decay:.2g}")
    return table


def cost_table(chosen: Preset, gpus: Gpus, mfu: float, dollars_per_hour: float) -> Table:
    """Tokens, FLOPs, time and cost of each training horizon. `dollars_per_hour`: of one GPU."""
    title = f"Time on {gpus.num} {gpus.name}, MFU {mfu:.0%} of {gpus.device.flops / 1e12:.0f} TFLOP/s, ${dollars_per_hour:.2f} an hour each"
    table = Table("run", "tokens", "a parameter", "FLOPs", "time", "cost", title=title, title_justify="left", box=None)
    for column in table.columns[1:]:
        column.justify = "right"
    for name, tokens in horizons(chosen.model, chosen.train).items():
        run = cost(chosen.model, chosen.train.sequence_tokens, tokens, gpus, mfu, dollars_per_hour)
        # Of the parameters in matrices, which are what FLOPs and the scaling law count (model/planning/scaling_law.py).
        ratio = tokens / num_matrix_parameters(chosen.model)
        table.add_row(
            name,
            _count(tokens),
            f"{ratio:.1f}",
            f"{run.flops:.2e}",
            _duration(run.hours),
            f"${run.dollars:,.2f}" if run.dollars < 10 else f"${run.dollars:,.0f}",
        )
    return table


def memory_table(ways: list[Fit], gpus: Gpus) -> Table:
    """The memory of one GPU in GiB, a row for each ZeRO stage with and without recomputed activations."""
    title = f"GiB of each GPU, of {USABLE_FRACTION * gpus.device.memory_bytes / GIB:.0f} usable; bfloat16 with AdamW"
    names = ("ZeRO", "weights", "gradients", "optimizer", "activations", "sequence", "microbatch", "times")
    table = Table(*names, title=title, title_justify="left", box=None, pad_edge=False)
    for column in table.columns:
        column.justify = "right"
    for way in ways:
        state = [f"{part / GIB:.2f}" for part in way.state]
        kept = "recomputed" if way.activation_checkpointing else "kept"
        # A row that does not fit is shown all the same: its columns say which part of the memory is too large.
        counts = (
            (str(way.microbatch_sequences), str(way.accumulation_steps))
            if way.microbatch_sequences
            else ("none fits", "")
        )
        table.add_row(str(way.zero_stage), *state, kept, f"{way.sequence_bytes / GIB:.2f}", *counts)
    return table


def advice(way: Fit | None, gpus: Gpus) -> str:
    """The settings of the least costly way that fits."""
    if way is None:
        return (
            f"Nothing fits on {gpus.num} {gpus.name}: take more or larger GPUs, a shorter sequence or a smaller model."
        )
    # Forward, forward again, backward (twice a forward): 4 instead of 3.
    again = "; computing activations twice takes a third more time" if way.activation_checkpointing else ""
    from flows.infra import settings_of  # not at the top: it imports Prefect, which every command would wait for

    lines = " \\\n".join(f"    --set {setting}" for setting in settings_of(way, gpus.num))
    return f"What fits first is ZeRO {way.zero_stage} with microbatches of {way.microbatch_sequences}{again}:\n{lines}"


def commands(name: str, way: Fit, gpus: Gpus, resources: Resources) -> str:
    """What each node runs where the GPUs are those of several; empty for one node, or where nodes would have different numbers of them."""
    per_node = resources.stages["pretrain"].gpus
    if not per_node or gpus.num <= per_node or gpus.num % per_node:
        return ""
    from flows.infra import Training, node_command, settings_of

    training = Training(
        recipe=name if name in RECIPES else "RECIPE",
        num_nodes=gpus.num // per_node,
        gpus_per_node=per_node,
        settings=settings_of(way, gpus.num),
    )
    return "\n".join(
        [
            f"\nThat is {training.num_nodes} nodes of {per_node} GPUs. NODE0 is the first node's address; on each node run",
            *(f"\n    {node_command(training, rank)}" for rank in range(training.num_nodes)),
        ]
    )


def _count(tokens: float) -> str:
    return f"{tokens / 1e9:,.2f} B" if tokens >= 1e9 else f"{tokens / 1e6:,.2f} M"


def _duration(hours: float) -> str:
    return f"{hours:,.1f} h" if hours >= 1 else f"{hours * 60:,.1f} min"
