"""Completions of many prompts of different lengths at once, sampled or greedy, one token per row and step.

Reads and writes nothing. The prompts are read first, equal ones once, which fills the KV cache; each further step reads one token per
row. A row whose completion has ended leaves the batch. The sampled tokens depend on the configuration's seed and on all prompts of the
call together, not on earlier calls.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import GenerateConfig
from model.inference.decoder import Decoder
from model.inference.logits import check_finite, constraints, ending, partial_stop_length, restrict
from model.losses import token_logprobs
from model.tokenizer.chat import ChatTokenizer

GREEDY_BELOW = 1e-6  # a temperature; logits divided by a smaller one overflow float32
# Finished rows are removed once fewer than this fraction is unfinished: each removal copies the cache.
KEPT_FRACTION = 0.75


class Completion(NamedTuple):
    """The tokens that follow a prompt, including the stop token or sequence that ended them."""

    tokens: list[int]
    logprobs: list[float]  # of each token under the model, in nats; empty unless requested
    ended_by: tuple[int, ...] = ()  # the stop token or sequence; () if the completion was cut off at max_new_tokens


@torch.inference_mode()
def generate(
    decoder: Decoder, prompts: Sequence[Sequence[int]], config: GenerateConfig, stop_token: int
) -> list[list[int]]:
    """The tokens of a completion of each prompt. The last is `stop_token`, unless a stop sequence or max_new_tokens ended it.

    No prompt may be empty. Raises NonFiniteError if the logits are NaN or infinite, UserError for tokens outside the vocabulary.
    """
    *_, completions = steps(decoder, prompts, config, ((stop_token,), *config.stop_sequences))
    return [completion.tokens for completion in completions]


@torch.inference_mode()
def draw(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    config: GenerateConfig,
    stop_token: int,
    logprobs_at: float = 1.0,
) -> list[Completion]:
    """A completion of each prompt with its log-probabilities at temperature `logprobs_at`, and what ended it. Raises what `generate` raises."""
    stops = ((stop_token,), *config.stop_sequences)
    *_, completions = steps(decoder, prompts, config, stops, logprobs_at=logprobs_at)
    return [completion._replace(ended_by=ending(completion.tokens, stops)) for completion in completions]


def steps(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    config: GenerateConfig,
    stops: Sequence[tuple[int, ...]],
    *,
    logprobs_at: float | None = None,
) -> Iterator[list[Completion]]:
    """Yields the completions after each step: the unfinished ones are a token longer. To be run in inference mode.

    `logprobs_at`: the temperature of the log-probabilities; None: they are not computed.
    """
    device = decoder.embedding.device
    # Own generator: the global one would make the samples depend on earlier calls.
    generator = torch.Generator(device).manual_seed(config.seed)
    completions = [Completion([], []) for _ in prompts]
    rows = list(range(len(prompts)))  # the prompt of each row of the batch
    ended: set[int] = set()
    limits = constraints(config, prompts, decoder.config.vocab_size, device)
    # A set of last tokens rules out most rows before the sequences are compared.
    last_tokens = {stop[-1] for stop in stops}
    logits = decoder.read(prompts).float()
    for number in range(config.max_new_tokens):
        tokens = pick(logits if limits is None else limits.apply(logits), config, generator)
        # From the logits before constraints: the probabilities are the model's.
        if logprobs_at is not None:
            for row, logprob in zip(rows, token_logprobs(logits, tokens, logprobs_at).tolist(), strict=True):
                if row not in ended:
                    completions[row].logprobs.append(logprob)
        for row, token in zip(rows, tokens.tolist(), strict=True):
            if row not in ended:
                completions[row].tokens.append(token)
                if token in last_tokens and ending(completions[row].tokens, stops):
                    ended.add(row)
        # The same list each time, and its token lists grow: a caller that keeps a step's completions must copy them.
        yield completions
        unfinished = [place for place, row in enumerate(rows) if row not in ended]
        if not unfinished or number + 1 == config.max_new_tokens:
            return
        # Until then finished rows are computed on, and their tokens ignored. They also use up random numbers, which is one reason why
        # the sample of a prompt depends on the other prompts of the call.
        if len(unfinished) < KEPT_FRACTION * len(rows):
            kept = torch.tensor(unfinished, device=device)
            decoder.select(kept)
            limits = None if limits is None else limits.select(kept)
            tokens = tokens[kept]
            rows = [rows[place] for place in unfinished]
        if limits is not None:
            limits.mark_seen(tokens)
        logits = decoder.step(tokens).float()


def pick(logits: Tensor, config: GenerateConfig, generator: torch.Generator) -> Tensor:
    """One token per row: logits [B, V] in float32 -> tokens [B]. Raises NonFiniteError if logits are NaN or infinite.

    Sampling inverts the cumulative distribution in float64: torch.multinomial allows no more than 2^24 tokens and is slower.
    """
    if config.temperature < GREEDY_BELOW:
        tokens = likeliest(logits)
        check_finite(logits.gather(-1, tokens[:, None]))  # the greatest of a row with NaN is NaN
        return tokens
    below = restrict(logits / config.temperature, config).softmax(-1).cumsum(-1, dtype=torch.float64)
    if below[:, -1].isnan().any():  # softmax makes NaN of an infinite logit
        check_finite(logits.amax(-1))
    # Scaled by the last sum, which rounding leaves a little off 1. right=True never picks a token of probability 0.
    dart = torch.rand(len(logits), 1, dtype=torch.float64, device=logits.device, generator=generator)
    return torch.searchsorted(below, dart * below[:, -1:], right=True).squeeze(-1)


def likeliest(logits: Tensor) -> Tensor:
    """The first token with the greatest logit: [B, V] -> [B]. On a CPU by numpy, which was ten times as fast there."""
    return torch.from_numpy(logits.numpy().argmax(-1)) if logits.device.type == "cpu" else logits.argmax(-1)


@torch.inference_mode()
def stream(
    decoder: Decoder,
    tokenizer: ChatTokenizer,
    prompt: Sequence[int],
    config: GenerateConfig,
    stop_token: int,
    hidden_from: int | None = None,
) -> Generator[str, None, list[int]]:
    """The text of one completion in pieces, without what stops it. A piece is yielded once no later token can change it.

    `hidden_from`: a token from which on no text is yielded. Returns the tokens, those that stop it and hidden ones among them.
    """
    # torch's decorator leaves inference mode at each yield, so that the caller's code between two pieces does not run in it.
    stops = ((stop_token,), *config.stop_sequences)
    shown = ""
    tokens: list[int] = []
    for [completion] in steps(decoder, [prompt], config, stops):
        tokens = completion.tokens
        # Decoded from the start each time, since the bytes of one character may lie in several tokens. That is quadratic in the number
        # of tokens, but decoding 4,000 of them takes about a millisecond, no longer than a step of a small model.
        text = tokenizer.decode(_before(tokens[: len(tokens) - partial_stop_length(tokens, stops)], hidden_from))
        is_whole = not text.endswith("\N{REPLACEMENT CHARACTER}")  # otherwise the last tokens are a part of a character
        # A tokenizer may change earlier text with a later token; then the piece waits.
        if is_whole and text.startswith(shown):
            yield text[len(shown) :]
            shown = text
    whole = tokens[: len(tokens) - len(ending(tokens, stops))]
    yield tokenizer.decode(_before(whole, hidden_from))[len(shown) :]
    return tokens


def _before(tokens: list[int], end: int | None) -> list[int]:
    """The tokens before the first `end`."""
    return tokens[: tokens.index(end)] if end in tokens else tokens
