"""A model whose scores are known without running it: bigram counts of a text, written as the weights of a transformer.

Both blocks of its one layer add zero, each token's embedding is one channel, and the head has the log-probabilities of what follows. So the
logits after a token are a row of the matrix, and every score is a sum of its entries.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from model.config import ModelConfig
from model.network.huggingface import save_weights
from model.network.transformer import Transformer, initialize
from model.tokenizer.chat import ChatTokenizer

Logprobs = npt.NDArray[np.float64]
SMOOTHING = 0.1  # added to every count
EMBEDDING_SCALE = 1e3  # the norm then divides by so much that its epsilon does not count


def bigram_logprobs(tokenizer: ChatTokenizer, text: str) -> Logprobs:
    """The log-probability of each token after each other one, in nats: [V, V], by the lines of a text."""
    counts = np.full((tokenizer.vocab_size, tokenizer.vocab_size), SMOOTHING)
    for line in text.splitlines():
        tokens = [tokenizer.bos, *tokenizer.encode(line)]
        np.add.at(counts, (tokens[:-1], tokens[1:]), 1)
    return np.log(counts / counts.sum(1, keepdims=True))


def write_bigram_model(folder: Path, logprobs: Logprobs) -> None:
    """Write the model as weights and config.json of transformers, and run.json."""
    size = len(logprobs)
    config = ModelConfig(
        vocab_size=size, num_layers=1, width=size, num_heads=1, num_kv_heads=1, head_width=16, ff_width=16, tie_embeddings=False
    )  # fmt: skip
    model = Transformer(config)
    initialize(model, seed=1)
    with torch.no_grad():
        model.model.embed_tokens.weight.copy_(EMBEDDING_SCALE * torch.eye(size))
        layers: Any = model.model.layers  # typed as modules alone
        for layer in layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # The norm makes a one of one channel into the square root of the width.
        model.lm_head.weight.copy_(torch.from_numpy(logprobs.T / size**0.5))
    save_weights(folder, model, {name: value.detach() for name, value in model.named_parameters()}, max_tokens=2048)
    (folder / "run.json").write_text(json.dumps({"model": config.model_dump()}))


def pair_nats(tokenizer: ChatTokenizer, logprobs: Logprobs, context: str, continuation: str) -> float:
    """The log-probability of a continuation: a sum over pairs of neighbouring tokens."""
    tokens = [tokenizer.bos, *tokenizer.encode(context + continuation)]
    first = 1 + len(tokenizer.encode(context.rstrip()))
    return float(logprobs[tokens[first - 1 : -1], tokens[first:]].sum())


def bits_per_byte(tokenizer: ChatTokenizer, logprobs: Logprobs, texts: list[str], *, counts_bos: bool = False) -> float:
    """Bits of all texts, each after <|bos|>, for each of their bytes.

    `counts_bos`: as the lm-evaluation-harness has it with `add_bos_token=True`, where a text begins with <|bos|>, which is predicted after another.
    """
    nats = sum(pair_nats(tokenizer, logprobs, "", text) for text in texts)
    if counts_bos:
        nats += len(texts) * logprobs[tokenizer.bos, tokenizer.bos]
    return -nats / np.log(2) / sum(len(text.encode()) for text in texts)
