"""What the optimizer is told: which parameters decay, and the learning rate at a step. Reads and writes nothing.

AdamW (Loshchilov & Hutter 2019) is torch's, fused. The learning rate is a function of the step alone, so that a resumed
run needs no scheduler state.
"""

import math
from typing import Any

import torch
from torch import nn

from model.config import OptimConfig


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups: matrices, which decay, and embeddings and norms, which do not."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        is_matrix = parameter.dim() >= 2 and "embed_tokens" not in name
        (decayed if is_matrix else kept).append(parameter)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]


def adamw(model: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """torch's fused AdamW over the parameter groups of `model`."""
    groups = parameter_groups(model, config.weight_decay)
    return torch.optim.AdamW(
        groups, lr=config.learning_rate, betas=(config.beta1, config.beta2), eps=config.eps, fused=True
    )


def learning_rate(config: OptimConfig, step: int, num_steps: int) -> float:
    """The learning rate of step 0 <= step < num_steps: linear warm-up, then cosine or wsd down to the final fraction."""
    warmup_steps = round(config.warmup_fraction * num_steps)
    if step < warmup_steps:
        return config.learning_rate * (step + 1) / warmup_steps
    if config.schedule == "cosine":
        decay_steps = num_steps - warmup_steps
    else:
        decay_steps = min(round(config.decay_fraction * num_steps), num_steps - warmup_steps)
    remaining = min(1.0, (num_steps - step) / max(decay_steps, 1))  # 1 until the decay starts, then down to almost 0
    shape = remaining if config.schedule == "wsd" else (1 - math.cos(math.pi * remaining)) / 2
    floor = config.final_learning_rate_fraction
    return config.learning_rate * (floor + (1 - floor) * shape)
