"""LoRA (Hu et al. 2021, https://arxiv.org/abs/2106.09685): small matrices are trained next to those of the model, which stay as they are.

Reads and writes nothing. The adapters are those of the package `peft`, which the extra `lora` installs. Embedding and head are trained
whole: the tokens of the conversation format are new rows of an imported model. The result of a run has the adapters added to the
matrices, so that every later stage and the export read an ordinary model.
"""

import torch
from torch import Tensor, nn

from model.config import LoRAConfig
from model.errors import UserError

MATRICES = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TRAINED = ("lora_", "embed_tokens", "lm_head")  # in the names of what is trained
BASE, DOWN, UP = ".base_layer.weight", ".lora_A.default.weight", ".lora_B.default.weight"


def add_adapters(model: nn.Module, config: LoRAConfig, seed: int) -> None:
    """Put an adapter next to every matrix of the layers, and train only these, embedding and head.

    Raises UserError where `peft` is not installed.
    """
    try:
        import peft
    except ImportError:
        raise UserError("LoRA needs the package peft: install crawl2chat[lora], or set sft.lora.rank=0") from None
    settings = peft.LoraConfig(r=config.rank, lora_alpha=config.alpha, target_modules=MATRICES)
    # peft draws the first matrices from torch's generator, and every rank and every resumed run must draw the same.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(settings, model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(part in name for part in TRAINED))


def merged(weights: dict[str, Tensor], config: LoRAConfig) -> dict[str, Tensor]:
    """The weights of the model without adapters: each adapter is added to its matrix, W + (alpha / rank) B A."""
    scale = config.alpha / config.rank
    made = {}
    for name, weight in weights.items():
        if name.endswith(BASE):
            layer = name.removesuffix(BASE)
            made[f"{layer}.weight"] = weight + scale * (weights[layer + UP] @ weights[layer + DOWN])
        elif not name.endswith((DOWN, UP)):
            made[name] = weight
    return made
