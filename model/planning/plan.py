"""Plan a training run before it is started: memory of each GPU, hours, cost. Reads and writes nothing.

Time is FLOPs (`flops_per_token`, PaLM's accounting) over the peak of the GPUs and the fraction of it that is used, the MFU. Published
runs with their implied MFU are in tests/model/planning/test_plan.py: 34% to 65%, so that DEFAULT_MFU is within a factor of 1.7 of all of them.

Memory is what DeepSpeed 0.19 holds for bfloat16 with float32 accumulation and AdamW (Rajbhandari et al. 2020, with larger gradients),
what the backward pass of model/network/transformer.py needs of the forward pass, run as written, and the logits. torch.compile keeps
less. A tenth of each GPU is left to CUDA, NCCL, DeepSpeed's buckets and the allocator.
"""

import re
from typing import NamedTuple

from model.config import ModelConfig, TrainConfig, flops_per_token, num_matrix_parameters, num_parameters
from model.errors import UserError
from model.planning.devices import PEAK_FLOPS
from model.planning.presets import COMPUTE_OPTIMAL

GPUS = re.compile(r"(\d{1,5})x(\S+)")
GIB = 2**30
USABLE_FRACTION = 0.9
# modded-nanogpt's first baseline and torchtitan's compiled Llama 3 8B reach it on H100s, llm.c half as much again on A100s.
DEFAULT_MFU = 0.4
OVERTRAINED = 10 * COMPUTE_OPTIMAL  # a smaller model costs less to use; Llama 3 8B saw a hundred times COMPUTE_OPTIMAL
MAX_LIVE_PARAMETERS = 10**9  # DeepSpeed's default: what ZeRO 3 keeps gathered at most


class Device(NamedTuple):
    """A GPU: dense bfloat16 FLOP/s, memory in bytes, and dollars an hour of a rented one."""

    flops: float
    memory_bytes: int
    dollars_per_hour: float


# Prices of the H100 and A100 are those of nanochat's report card; the others are roughly what was asked for in 2025.
DEVICES = {
    "A100": Device(PEAK_FLOPS["A100"], 80 * GIB, 1.79),
    "A100-40GB": Device(PEAK_FLOPS["A100"], 40 * GIB, 1.29),
    "H100": Device(PEAK_FLOPS["H100"], 80 * GIB, 3.00),
    "H200": Device(PEAK_FLOPS["H200"], 140 * GIB, 3.80),
    "B200": Device(PEAK_FLOPS["B200"], 179 * GIB, 5.50),
    "L40S": Device(PEAK_FLOPS["L40S"], 45 * GIB, 1.00),
    "L4": Device(PEAK_FLOPS["L4"], 22 * GIB, 0.70),
    "RTX4090": Device(PEAK_FLOPS["4090"], 24 * GIB, 0.50),
    "RTX3090": Device(PEAK_FLOPS["3090"], 24 * GIB, 0.30),
}


class Gpus(NamedTuple):
    """So many GPUs of a kind."""

    name: str
    device: Device
    num: int


class StateBytes(NamedTuple):
    """What one GPU holds between steps, in bytes."""

    weights: int
    gradients: int
    optimizer: int


class Fit(NamedTuple):
    """How a batch fits on the GPUs with one way to shard the model."""

    zero_stage: int
    activation_checkpointing: bool
    state: StateBytes
    sequence_bytes: int  # what one sequence more of a microbatch takes
    microbatch_sequences: int  # most that fit and divide the batch; 0: not even one
    accumulation_steps: int


class Cost(NamedTuple):
    """What a run takes."""

    tokens: float
    flops: float
    hours: float
    dollars: float


def parse_gpus(text: str) -> Gpus:
    """GPUs from "8xH100". Raises UserError with the known names."""
    # In any case: 8xh100 too.
    match = GPUS.fullmatch(text)
    names = {name.lower(): name for name in DEVICES}
    if not match or int(match[1]) == 0 or match[2].lower() not in names:
        raise UserError(f"gpus {text!r} are not of the form 8xH100: a number, and one of {', '.join(DEVICES)}")
    name = names[match[2].lower()]
    return Gpus(name, DEVICES[name], int(match[1]))


def state_bytes(model: ModelConfig, zero_stage: int, num_gpus: int) -> StateBytes:
    """Weights in bfloat16; gradients summed in float32; float32 masters and AdamW's two moments.

    ZeRO 1 shards the optimizer's state, 2 the gradients too, 3 the weights too, of which it gathers some at a time. Below 2
    DeepSpeed keeps a microbatch's gradients in bfloat16 next to their sum. Stage 0 is listed for comparison: the training loop does not run
    bfloat16 without ZeRO.
    """
    # Whole, that is 18 bytes a parameter, 20 below ZeRO 2: 160 GB for 8 B parameters, twice what a GPU of 80 GB holds.
    num = num_parameters(model)
    return StateBytes(
        # Two bytes: bfloat16. ZeRO 3 adds the parameters that it gathers for the layers at work.
        2 * num if zero_stage < 3 else 2 * num // num_gpus + 2 * min(num, MAX_LIVE_PARAMETERS),
        (2 + 4) * num if zero_stage < 2 else 4 * num // num_gpus,
        # Four bytes each for master weight, first and second moment.
        12 * num if zero_stage < 1 else 12 * num // num_gpus,
    )


def layer_bytes_per_token(model: ModelConfig) -> int:
    """Bytes that the backward pass needs of one token in one layer, in bfloat16.

    The norms keep their inputs and the projections their inputs, 4 D; attention keeps queries and keys, before
    their norm too, values and its result, 3 (H + J) K; the feed-forward keeps gate, its SiLU, up and their product, 4 F.
    """
    heads, kv_heads = model.num_heads * model.head_width, model.num_kv_heads * model.head_width
    # Without QK-norm the copies before the norm are absent.
    attention = 2 * (heads + kv_heads) + kv_heads + heads if model.normalize_qk else 2 * heads + 2 * kv_heads
    # The scores [T, T] are not kept: torch's fused kernels compute them again in the backward pass (Dao et al. 2022).
    return 2 * (4 * model.width + attention + 4 * model.ff_width)


def activation_bytes(model: ModelConfig, sequence_tokens: int, activation_checkpointing: bool) -> int:
    """Bytes of one sequence at the peak: when the loss goes back through the logits, 12 V a token.

    Those are the log-probabilities and two gradients of them, in float32. Recomputed, a layer keeps its input alone, 2 D, and
    one layer at a time keeps all.
    """
    # For GPT-2's smallest size and 1,024 tokens, 390 MB in the layers and 618 MB around the logits: a vocabulary of 50,257
    # outweighs twelve layers, and recomputing them saves a third of the whole.
    layer = layer_bytes_per_token(model)
    layers = model.num_layers * 2 * model.width + layer if activation_checkpointing else model.num_layers * layer
    return sequence_tokens * (layers + 12 * model.vocab_size)


def fit(model: ModelConfig, train: TrainConfig, gpus: Gpus, zero_stage: int, activation_checkpointing: bool) -> Fit:
    """The largest microbatch that fits and divides the batch. Raises UserError where the GPUs cannot share the batch."""
    sequences, rest = divmod(train.batch_tokens // train.sequence_tokens, gpus.num)
    if rest or not sequences:
        raise UserError(
            f"{gpus.num} GPUs cannot share a batch of {train.batch_tokens // train.sequence_tokens} sequences evenly: "
            "take a number of GPUs that divides it"
        )
    state = state_bytes(model, zero_stage, gpus.num)
    each = activation_bytes(model, train.sequence_tokens, activation_checkpointing)
    # A divisor of the rank's share, as the training loop needs it (`microbatch_records` in model/data/dataloader.py).
    # What the state leaves, in sequences; negative where the state alone is too large.
    most = (USABLE_FRACTION * gpus.device.memory_bytes - sum(state)) // each
    microbatch = max((size for size in range(1, sequences + 1) if sequences % size == 0 and size <= most), default=0)
    return Fit(
        zero_stage, activation_checkpointing, state, each, microbatch, sequences // microbatch if microbatch else 0
    )


def fits(model: ModelConfig, train: TrainConfig, gpus: Gpus) -> list[Fit]:
    """Every way to shard the model: the ZeRO stages in order, first with all activations kept."""
    return [
        fit(model, train, gpus, stage, activation_checkpointing)
        # Recomputing costs a third more work, sharding only communication: it is tried last.
        for activation_checkpointing in (False, True)
        for stage in range(4)
    ]


def best(found: list[Fit]) -> Fit | None:
    """The first way that fits and that the training loop runs, or None: it sends the least between GPUs and recomputes the least."""
    # ZeRO 0 is passed over: see `state_bytes`.
    return next((way for way in found if way.zero_stage and way.microbatch_sequences), None)


def cost(
    model: ModelConfig, sequence_tokens: int, tokens: float, gpus: Gpus, mfu: float, dollars_per_hour: float
) -> Cost:
    """FLOPs, hours and dollars of training on `tokens` tokens at that MFU, without validation, checkpoints and restarts."""
    # Communication has no term: it lowers the MFU, and a published MFU includes it.
    flops = tokens * flops_per_token(model, sequence_tokens)
    # Recomputed activations are not counted as FLOPs: they show as a lower MFU.
    hours = flops / (gpus.num * gpus.device.flops * mfu) / 3600
    return Cost(tokens, flops, hours, hours * gpus.num * dollars_per_hour)


def horizons(model: ModelConfig, train: TrainConfig) -> dict[str, float]:
    """Tokens of a run: as the preset has it, compute-optimal, and over-trained."""
    # Matrices, as in the scaling law: embeddings are read by row and cost next to no compute.
    parameters = num_matrix_parameters(model)
    return {
        "preset": float(train.num_steps * train.batch_tokens),
        "compute-optimal": COMPUTE_OPTIMAL * parameters,
        "over-trained": OVERTRAINED * parameters,
    }
