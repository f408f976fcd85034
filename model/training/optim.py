"""Parameter groups of the optimizers, and learning-rate schedules. Reads and writes nothing.

AdamW (Loshchilov & Hutter 2019) is torch's, fused. Muon (Jordan et al. 2024, https://kellerjordan.github.io/posts/muon/) is DeepSpeed's, which
orthogonalizes whole matrices also where ZeRO shards them; it moves the matrices between embedding and head, AdamW moves all
else. model/training/engine.py makes both.

A schedule is a function of the step alone, so that a resumed run needs no scheduler state. wsd (warm-up, stable, decay) is Hu et al.
2024 (MiniCPM); that a linear decay over the last part does as well as a cosine is Hägele et al. 2024.
"""

import math
from typing import Any

import torch
from torch import nn

from model.config import OptimConfig


def is_hidden_matrix(name: str, parameter: nn.Parameter) -> bool:
    """Whether a parameter is a matrix between the embedding and the head: what Muon is for."""
    # Embedding and head are matrices too, but their rows are tokens: Jordan et al. leave them to AdamW.
    return parameter.dim() >= 2 and not any(part in name for part in ("embed_tokens", "lm_head", "score"))


def parameter_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices decay; embeddings and norms do not, as in GPT-2's and Llama's training."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:  # of a model with adapters
            continue
        # A tied head is the embedding's matrix, and does not decay either.
        # Norm gains are vectors. Decay would pull them to 0, where a gain
        # of 1 is neutral. A reward head, [1, D], decays as a matrix.
        is_matrix = parameter.dim() >= 2 and "embed_tokens" not in name
        (decayed if is_matrix else kept).append(parameter)
    # peak_lr is not an option of the optimizer: it keeps the rate that the schedule multiplies.
    rates = {"lr": config.learning_rate, "peak_lr": config.learning_rate}
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": config.weight_decay, **rates},
        {"params": kept, "weight_decay": 0.0, **rates},
    ]
    # Where the matrices are frozen, no parameter decays, and DeepSpeed takes no empty group.
    return [group for group in groups if group["params"]]


def muon_groups(model: nn.Module, config: OptimConfig) -> list[dict[str, Any]]:
    """Hidden matrices for Muon, and AdamW's two groups without them."""
    named = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    hidden = [parameter for name, parameter in named if is_hidden_matrix(name, parameter)]
    # By identity: == of tensors compares their elements.
    chosen = set(map(id, hidden))
    # In units of the spectral norm: DeepSpeed 0.19.8 orthogonalizes the momentum and scales it by sqrt(max(1, rows / columns)).
    # So the rate needs no factor for the width, unlike that of AdamW (model/planning/presets.py).
    rate = config.muon_learning_rate
    groups: list[dict[str, Any]] = [
        {"params": hidden, "lr": rate, "peak_lr": rate, "momentum": config.muon_momentum, "use_muon": True}
        | {"weight_decay": config.weight_decay}
    ]
    for group in parameter_groups(model, config):
        rest = [parameter for parameter in group["params"] if id(parameter) not in chosen]
        # Without a separate head or a reward head no decayed parameter is left over.
        if rest:
            groups.append(
                {**group, "params": rest, "use_muon": False, "betas": (config.beta1, config.beta2), "eps": config.eps}
            )
    return groups


def set_learning_rates(optimizer: torch.optim.Optimizer, factor: float) -> None:
    """Give every group `factor` of its peak learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = factor * group["peak_lr"]


def learning_rate_factor(config: OptimConfig, step: int, num_steps: int) -> float:
    """The fraction of the peak learning rates at step 0 <= step < num_steps: linear warm-up, then cosine or wsd to the final one."""
    warmup_steps = round(config.warmup_fraction * num_steps)
    if step < warmup_steps:
        # step + 1, so that the first step moves the weights and the last one of the warm-up has the peak.
        return (step + 1) / warmup_steps
    if config.schedule == "cosine":
        decay_steps = num_steps - warmup_steps
    else:
        # A warm-up and a decay that overlap: the decay begins when the warm-up ends.
        decay_steps = min(round(config.decay_fraction * num_steps), num_steps - warmup_steps)
    # At the last step 1 / decay_steps and not 0: a step at rate 0 would compute a gradient for nothing.
    remaining = min(1.0, (num_steps - step) / max(decay_steps, 1))  # 1 until the decay starts, then down to almost 0
    # wsd: linear. cosine: half a period, from 1 to 0.
    shape = remaining if config.schedule == "wsd" else (1 - math.cos(math.pi * remaining)) / 2
    floor = config.final_learning_rate_fraction
    return floor + (1 - floor) * shape
