"""Completions: tokens are drawn one at a time, for many prompts of different lengths at once.

Reads and writes nothing. Prompts are padded on the right and read in one forward, which fills the cache of keys and values;
each further step reads one token a row. A row whose completion is finished leaves the batch. What is drawn depends on the
configuration's seed and on the prompts of the call together, not on earlier calls.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import GenerateConfig
from model.losses import token_logprobs
from model.tokenizer import Tokenizer
from model.transformer import KVCache, Transformer

KEPT_FRACTION = 0.75  # rows are moved together once fewer than this are going on: each move copies the cache


class Completion(NamedTuple):
    """What a model wrote after a prompt, with the stop token if it came to that."""

    tokens: list[int]
    logprobs: list[float]  # of each token under the model itself at temperature 1, in nats


def generate(
    model: Transformer, prompts: Sequence[Sequence[int]], config: GenerateConfig, stop_token: int
) -> list[list[int]]:
    """The tokens of a completion of each prompt; the last is `stop_token` unless it was cut off."""
    return [completion.tokens for completion in draw(model, prompts, config, stop_token)]


@torch.inference_mode()
def draw(
    model: Transformer, prompts: Sequence[Sequence[int]], config: GenerateConfig, stop_token: int
) -> list[Completion]:
    """A completion of each prompt, none of which may be empty."""
    completions = [Completion([], []) for _ in prompts]
    device = next(model.parameters()).device
    generator = torch.Generator(device).manual_seed(config.seed)
    lengths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    cache, logits = _read(model, prompts, lengths, config.max_new_tokens)
    rows = list(range(len(prompts)))  # the prompt that each row of the batch goes on from
    for number in range(config.max_new_tokens):
        tokens = pick(logits, config, generator)
        logprobs = token_logprobs(logits, tokens)
        for row, token, logprob in zip(rows, tokens.tolist(), logprobs.tolist(), strict=True):
            if completions[row].tokens[-1:] != [stop_token]:
                completions[row].tokens.append(token)
                completions[row].logprobs.append(logprob)
        going = [place for place, row in enumerate(rows) if completions[row].tokens[-1] != stop_token]
        if not going or number + 1 == config.max_new_tokens:
            break
        if len(going) < KEPT_FRACTION * len(rows):
            kept = torch.tensor(going, device=device)
            cache.select(kept)
            tokens, lengths = tokens[kept], lengths[kept]
            rows = [rows[place] for place in going]
        logits = model(tokens[:, None], cache, lengths[:, None])[:, 0]
        lengths = lengths + 1
    return completions


def _read(
    model: Transformer, prompts: Sequence[Sequence[int]], lengths: Tensor, max_new_tokens: int
) -> tuple[KVCache, Tensor]:
    """Read prompts of lengths [B] into a cache with room for their completions; the logits [B, V] of what comes next."""
    most = int(lengths.max())
    tokens = torch.zeros(len(prompts), most, dtype=torch.int64)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    weight = model.model.embed_tokens.weight
    cache = KVCache(model.config, len(prompts), most + max_new_tokens, weight.dtype, weight.device)
    positions = torch.arange(most, device=weight.device).expand(len(prompts), -1)
    hidden = model.model(tokens.to(weight.device), cache, positions)
    last: Tensor = hidden[torch.arange(len(prompts), device=weight.device), lengths - 1]
    return cache, model.head(last)


def pick(logits: Tensor, config: GenerateConfig, generator: torch.Generator) -> Tensor:
    """Draw a token a row: logits [B, V] -> tokens [B]."""
    if config.temperature == 0:
        return logits.argmax(-1)
    kept = restrict(logits.float() / config.temperature, config.top_k, config.top_p)
    return torch.multinomial(kept.softmax(-1), 1, generator=generator).squeeze(-1)


def restrict(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """Set to -inf all but the top_k likeliest, then all but the fewest that hold top_p (Holtzman et al. 2020): [B, V]."""
    if 0 < top_k < logits.shape[-1]:
        least = logits.topk(top_k).values[:, -1:]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if top_p < 1:
        probabilities, order = logits.softmax(-1).sort(descending=True)
        is_cut = probabilities.cumsum(-1) - probabilities >= top_p  # enough mass comes before it
        logits = logits.masked_fill(is_cut.scatter(-1, order, is_cut), float("-inf"))
    return logits


@torch.inference_mode()
def stream(
    model: Transformer, tokenizer: Tokenizer, prompt: Sequence[int], config: GenerateConfig, stop_token: int
) -> Iterator[str]:
    """The text of one completion in pieces, each given once no later token can change it."""
    generator = torch.Generator(next(model.parameters()).device).manual_seed(config.seed)
    lengths = torch.tensor([len(prompt)], device=next(model.parameters()).device)
    cache, logits = _read(model, [prompt], lengths, config.max_new_tokens)
    tokens: list[int] = []
    given = ""
    for _ in range(config.max_new_tokens):
        token = pick(logits, config, generator)
        if int(token) == stop_token:
            break
        tokens.append(int(token))
        text = tokenizer.decode(tokens)
        if not text.endswith("\N{REPLACEMENT CHARACTER}") and text.startswith(given):  # else within a character
            yield text[len(given) :]
            given = text
        logits = model(token[:, None], cache, lengths[:, None])[:, 0]
        lengths = lengths + 1
    yield tokenizer.decode(tokens)[len(given) :]
