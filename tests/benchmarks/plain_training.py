"""Training as others write it: a loop of plain PyTorch around the project's own model, nanochat's or nanoGPT's.

    python plain_training.py SETTINGS.json      # a separate process, started by tests/benchmarks/training_speed.py

Reads train.bin, tokens as 16-bit numbers. Appends a line a step with train/seconds, as model.training.loop does, to a metrics.jsonl; trains
until it is ended. Sequences begin anywhere in the text, as in nanoGPT. Every peer has the optimizer and the clipping of its own
training script: nanochat's Muon and AdamW with none, nanoGPT's AdamW, which is fused on GPUs alone.
"""

import contextlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

Settings = dict[str, Any]
Peer = tuple[nn.Module, Callable[..., Tensor], torch.optim.Optimizer, float]
"""A model, the mean loss of what it gives, its optimizer and the norm that its gradient is clipped to, 0 for none."""


def transformer(settings: Settings) -> Peer:
    from model.config import ModelConfig
    from model.network.transformer import Transformer, initialize

    model = Transformer(ModelConfig.model_validate(settings["model"]))
    initialize(model, seed=0)
    model.to(settings["device"])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    return model, lambda net, x, y: F.cross_entropy(net(x).flatten(0, 1), y.flatten()), optimizer, 1.0


def nanochat(settings: Settings) -> Peer:
    from nanochat.gpt import GPT, GPTConfig

    shape = settings["model"]
    heads = {"n_head": shape["num_heads"], "n_kv_head": shape["num_kv_heads"], "window_pattern": "L"}
    sizes = {"n_layer": shape["num_layers"], "n_embd": shape["width"], "vocab_size": shape["vocab_size"]}
    with torch.device(settings["device"]):
        model = GPT(GPTConfig(sequence_len=settings["sequence_tokens"], **sizes, **heads))
        model.init_weights()
    return model, lambda net, x, y: net(x, y), model.setup_optimizer(), 0.0


def nano_gpt(settings: Settings) -> Peer:
    from model import GPT, GPTConfig  # type: ignore[attr-defined]  # model.py of nanoGPT, first on the path

    shape = settings["model"]
    sizes = {"n_layer": shape["num_layers"], "n_embd": shape["width"], "vocab_size": shape["vocab_size"]}
    config = GPTConfig(block_size=settings["sequence_tokens"], n_head=shape["num_heads"], bias=False, **sizes)
    with contextlib.redirect_stdout(sys.stderr):
        model = GPT(config).to(settings["device"])
        optimizer = model.configure_optimizers(0.1, 6e-4, (0.9, 0.95), settings["device"])
    return model, lambda net, x, y: net(x, y)[1], optimizer, 1.0


PEERS = {"transformer": transformer, "nanochat": nanochat, "nanoGPT": nano_gpt}


def draw(tokens: np.ndarray[Any, Any], settings: Settings) -> tuple[Tensor, Tensor]:
    """Inputs and targets [B, T] of a microbatch."""
    T = settings["sequence_tokens"]
    starts = np.random.randint(len(tokens) - T, size=settings["microbatch"])
    rows = torch.from_numpy(np.stack([tokens[start : start + T + 1].astype(np.int64) for start in starts]))
    rows = rows.to(settings["device"], non_blocking=True)
    return rows[:, :-1].contiguous(), rows[:, 1:].contiguous()


def train(settings: Settings) -> None:
    torch.set_float32_matmul_precision("high")
    model, loss_of, optimizer, clip = PEERS[settings["peer"]](settings)
    net = torch.compile(model, dynamic=False) if settings["is_compiled"] else model
    is_cast = settings["is_half"] and settings["peer"] != "nanochat"  # which casts by itself
    tokens = np.memmap(settings["tokens"], np.uint16, mode="r")
    started = time.monotonic()
    while True:
        nats = 0.0
        for _ in range(settings["num_microbatches"]):
            x, y = draw(tokens, settings)
            with torch.autocast(settings["device"], torch.bfloat16, enabled=is_cast):
                loss = loss_of(net, x, y) / settings["num_microbatches"]
            loss.backward()
            nats += loss.detach()
        if clip:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        model.zero_grad(set_to_none=True)
        printed = {"train/loss_nats": float(nats), "train/seconds": time.monotonic() - started}
        with Path(settings["metrics"]).open("a") as file:
            file.write(json.dumps(printed) + "\n")


if __name__ == "__main__":
    train(json.loads(Path(sys.argv[1]).read_text()))
