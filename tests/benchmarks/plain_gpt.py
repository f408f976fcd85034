"""GPT-2's transformer and its training as a plain PyTorch loop: what model.training.loop is compared with by tests/benchmarks/learning.py.

    python -m tests.benchmarks.plain_gpt RUN.json

Reads a `TrainRun` and the token shards it names: data, batches, steps, validation and AdamW's numbers are the run's. Writes
metrics.jsonl of the steps that are validated, and summary.json, as model.training.loop does. The model has the run's layers, width and heads,
learned positions up to T, LayerNorm, GELU of 4 D, a tied head and no biases. All matrices decay, embeddings too.

Weights start as GPT-2's, but for the deviation: its 0.02 is too small for the narrow models compared here (2.94 bits per byte after
0.66 M tokens, with 0.04 it is 2.80), so it follows the width as in model/network/transformer.py.
"""

import json
import math
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ModelConfig, OptimConfig, TrainRun
from model.data.dataloader import microbatches
from model.data.token_shards import TokenShards
from model.losses import bits_per_byte
from model.tokenizer.chat import ChatTokenizer
from model.training.optim import learning_rate_factor

EVAL_SEQUENCES = 8  # of a forward


class Attention(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.into = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        B, T, D = x.shape
        heads = self.into(x).view(B, T, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)  # [3, B, H, T, K]
        y = F.scaled_dot_product_attention(*heads, is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, D))


class Layer(nn.Module):
    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(width, bias=False)
        self.attention = Attention(width, num_heads)
        self.feed_forward_norm = nn.LayerNorm(width, bias=False)
        self.up = nn.Linear(width, 4 * width, bias=False)
        self.out = nn.Linear(4 * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """x [B, T, D] -> [B, T, D]."""
        x = x + self.attention(self.attention_norm(x))
        return x + self.out(F.gelu(self.up(self.feed_forward_norm(x))))


class PlainGPT(nn.Module):
    def __init__(self, config: ModelConfig, sequence_tokens: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.vocab_size, config.width)
        self.positions = nn.Embedding(sequence_tokens, config.width)
        self.layers = nn.Sequential(*(Layer(config.width, config.num_heads) for _ in range(config.num_layers)))
        self.norm = nn.LayerNorm(config.width, bias=False)
        deviation = 0.02 * math.sqrt(512 / config.width)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                scale = math.sqrt(2 * config.num_layers) if name.endswith("out.weight") else 1.0
                nn.init.normal_(parameter, std=deviation / scale)

    def forward(self, tokens: Tensor) -> Tensor:
        """tokens [B, T] -> logits [B, T, V]."""
        x = self.tokens(tokens) + self.positions.weight[: tokens.shape[1]]
        return F.linear(self.norm(self.layers(x)), self.tokens.weight)


def make_optimizer(model: PlainGPT, config: OptimConfig) -> torch.optim.Optimizer:
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    norms = [parameter for parameter in model.parameters() if parameter.dim() == 1]
    groups = [
        {"params": matrices, "weight_decay": config.weight_decay},
        {"params": norms, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)


def nats(model: PlainGPT, tokens: Tensor) -> Tensor:
    """Summed loss of tokens [B, T + 1]."""
    return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten(), reduction="sum")


@torch.no_grad()
def validate(model: PlainGPT, dataset: TokenShards, num_sequences: int, token_bytes: Tensor) -> float:
    """Bits per byte of the first sequences."""
    parts = torch.arange(min(len(dataset), num_sequences)).split(EVAL_SEQUENCES)
    batches = [dataset.fetch(part.numpy()).tokens for part in parts]
    num_bytes = sum(float(token_bytes[tokens[:, 1:]].sum()) for tokens in batches)
    return bits_per_byte(sum(float(nats(model, tokens)) for tokens in batches), num_bytes)


def train(run: TrainRun) -> None:
    config = run.train
    train_set, validation_set = (
        TokenShards(paths, config.sequence_tokens, run.model.vocab_size)
        for paths in (run.train_paths, run.validation_paths)
    )
    token_bytes = torch.from_numpy(ChatTokenizer.load(run.tokenizer).token_bytes)
    torch.manual_seed(config.seed)
    model = PlainGPT(run.model, config.sequence_tokens)
    optimizer = make_optimizer(model, run.optim)
    for step in range(config.num_steps):
        for group in optimizer.param_groups:
            group["lr"] = run.optim.learning_rate * learning_rate_factor(run.optim, step, config.num_steps)
        for microbatch in microbatches(train_set, config, step, rank=0):
            (nats(model, microbatch.tokens) / config.batch_tokens).backward()
        nn.utils.clip_grad_norm_(model.parameters(), run.optim.max_grad_norm)
        optimizer.step()
        optimizer.zero_grad()
        if (step + 1) % config.eval_every_steps == 0:
            printed = {
                "step": step + 1,
                "validation/bits_per_byte": validate(model, validation_set, config.eval_sequences, token_bytes),
            }
            with (Path(run.output) / "metrics.jsonl").open("a") as metrics:
                metrics.write(json.dumps(printed) + "\n")
    summary = {"parameters": sum(parameter.numel() for parameter in model.parameters())}
    (Path(run.output) / "summary.json").write_text(json.dumps(summary))


if __name__ == "__main__":
    train(TrainRun.model_validate_json(Path(sys.argv[1]).read_text()))
