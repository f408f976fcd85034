"""Completions: tokens are drawn one at a time, for many prompts of different lengths at once.

Reads and writes nothing. Prompts are read together, equal ones once, which fills the cache of keys and values; each further
step reads one token a row. A row whose completion is finished leaves the batch. What is drawn depends on the configuration's
seed and on the prompts of the call together, not on earlier calls.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import GenerateConfig
from model.inference.decoder import Decoder
from model.inference.logits import constraints, ending, partial_stop_length, restrict
from model.losses import token_logprobs
from model.tokenizer.chat import ChatTokenizer

GREEDY_BELOW = 1e-6  # a temperature; logits over a smaller one are no numbers of float32 any more
KEPT_FRACTION = 0.75  # rows are moved together once fewer than this are going on: each move copies the cache


class Completion(NamedTuple):
    """What a model wrote after a prompt, with the stop token or sequence if it came to that."""

    tokens: list[int]
    logprobs: list[float]  # of each token under the model itself at temperature 1, in nats, where they are asked for
    ended_by: tuple[int, ...] = ()  # the stop token or sequence; empty where it was cut off


@torch.inference_mode()
def generate(
    decoder: Decoder, prompts: Sequence[Sequence[int]], config: GenerateConfig, stop_token: int
) -> list[list[int]]:
    """The tokens of a completion of each prompt; the last is `stop_token` unless a sequence ended it or it was cut off."""
    *_, completions = steps(decoder, prompts, config, ((stop_token,), *config.stop_sequences))
    return [completion.tokens for completion in completions]


@torch.inference_mode()
def draw(
    decoder: Decoder, prompts: Sequence[Sequence[int]], config: GenerateConfig, stop_token: int
) -> list[Completion]:
    """A completion of each prompt, none of which may be empty, with its logprobs."""
    stops = ((stop_token,), *config.stop_sequences)
    *_, completions = steps(decoder, prompts, config, stops, with_logprobs=True)
    return [completion._replace(ended_by=ending(completion.tokens, stops)) for completion in completions]


def steps(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    config: GenerateConfig,
    stops: Sequence[tuple[int, ...]],
    *,
    with_logprobs: bool = False,
) -> Iterator[list[Completion]]:
    """The completions after each step: those that go on are a token longer. To be taken in inference mode."""
    device = decoder.embedding.device
    generator = torch.Generator(device).manual_seed(config.seed)
    completions = [Completion([], []) for _ in prompts]
    rows = list(range(len(prompts)))  # the prompt that each row of the batch goes on from
    ended: set[int] = set()
    limits = constraints(config, prompts, decoder.config.vocab_size, device)
    last_tokens = {stop[-1] for stop in stops}
    logits = decoder.read(prompts).float()
    for number in range(config.max_new_tokens):
        tokens = pick(logits if limits is None else limits.apply(logits), config, generator)
        if with_logprobs:
            for row, logprob in zip(rows, token_logprobs(logits, tokens).tolist(), strict=True):
                if row not in ended:
                    completions[row].logprobs.append(logprob)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if row not in ended:
                completions[row].tokens.append(token)
                if token in last_tokens and ending(completions[row].tokens, stops):
                    ended.add(row)
        yield completions
        going = [place for place, row in enumerate(rows) if row not in ended]
        if not going or number + 1 == config.max_new_tokens:
            return
        if len(going) < KEPT_FRACTION * len(rows):
            kept = torch.tensor(going, device=device)
            decoder.select(kept)
            limits = limits and limits.select(kept)
            tokens = tokens[kept]
            rows = [rows[place] for place in going]
        if limits is not None:
            limits.mark_seen(tokens)
        logits = decoder.step(tokens).float()


class NonFiniteError(ValueError):
    """A model's weights or logits are NaN or infinite."""


def pick(logits: Tensor, config: GenerateConfig, generator: torch.Generator) -> Tensor:
    """Draw a token a row: logits [B, V] in float32 -> tokens [B]. Raises NonFiniteError where there is nothing to draw by."""
    if config.temperature < GREEDY_BELOW:
        return likeliest(logits)
    below = restrict(logits / config.temperature, config).softmax(-1).cumsum(-1, dtype=torch.float64)
    if below[:, -1].isnan().any():
        raise NonFiniteError("the model gives no probabilities but NaN: its weights are damaged, or learning diverged")
    dart = torch.rand(len(logits), 1, dtype=torch.float64, device=logits.device, generator=generator)
    return torch.searchsorted(below, dart * below[:, -1:], right=True).squeeze(-1)


def likeliest(logits: Tensor) -> Tensor:
    """The first token of the greatest logit: [B, V] -> [B]; on a CPU by numpy, which is ten times as fast there."""
    return torch.from_numpy(logits.numpy().argmax(-1)) if logits.device.type == "cpu" else logits.argmax(-1)


@torch.inference_mode()
def stream(
    decoder: Decoder, tokenizer: ChatTokenizer, prompt: Sequence[int], config: GenerateConfig, stop_token: int
) -> Iterator[str]:
    """The text of one completion in pieces, each given once no later token can change it, without what stops it."""
    stops = ((stop_token,), *config.stop_sequences)
    given = ""
    tokens: list[int] = []
    for [completion] in steps(decoder, [prompt], config, stops):
        tokens = completion.tokens
        text = tokenizer.decode(tokens[: len(tokens) - partial_stop_length(tokens, stops)])
        if not text.endswith("\N{REPLACEMENT CHARACTER}") and text.startswith(given):  # else within a character
            yield text[len(given) :]
            given = text
    whole = tokens[: len(tokens) - len(ending(tokens, stops))]
    yield tokenizer.decode(whole)[len(given) :]
