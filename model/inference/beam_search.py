"""Beam search: the likeliest completions instead of drawn ones; and for a tiny vocabulary all of them, as its reference.

Reads and writes nothing. The semantics are transformers': of all continuations of a prompt's beams the likeliest are taken,
enough that `num_beams` go on whatever ends; an ended one counts only if it is among the first `num_beams` (Graves 2012,
https://arxiv.org/abs/1211.3711, with Wu et al.'s length penalty reduced to a power). Constraints act on log-probabilities.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import BeamConfig
from model.inference.decoder import Decoder
from model.inference.logits import constraints, ending
from model.network.transformer import Transformer

MOST_SEQUENCES = 2**16  # that an exhaustive search goes through


class Beam(NamedTuple):
    """A completion, or the start of one."""

    tokens: list[int]
    logprobs: list[float]  # of each token under the model itself, in nats
    score: float  # summed logprobs, constraints included; once it has ended over tokens ** length_penalty


@dataclass
class Search:
    """The beams of one prompt, best first."""

    running: list[Beam] = field(default_factory=lambda: [Beam([], [], 0.0)])
    ended: list[Beam] = field(default_factory=list)


@torch.inference_mode()
def beam_search(
    decoder: Decoder, prompts: Sequence[Sequence[int]], config: BeamConfig, stop_token: int
) -> list[list[Beam]]:
    """At most num_beams completions of each prompt, best first; none of the prompts may be empty."""
    device = decoder.embedding.device
    stops = ((stop_token,), *config.stop_sequences)
    searches = [Search() for _ in prompts]
    limits = constraints(config, prompts, decoder.config.vocab_size, device)
    logits = decoder.read(prompts).float()
    going = searches
    while True:
        logprobs = logits.log_softmax(-1)
        allowed = logprobs if limits is None else limits.apply(logprobs)
        parents: list[int] = []
        start = 0
        for search in going:
            own = slice(start, start + len(search.running))
            parents += [start + parent for parent in _advance(search, allowed[own], logprobs[own], config, stops)]
            start = own.stop
        going = [search for search in going if search.running]
        if not going:
            return [search.ended for search in searches]
        rows = torch.tensor(parents, device=device)
        tokens = torch.tensor([beam.tokens[-1] for search in going for beam in search.running], device=device)
        decoder.select(rows)
        if limits is not None:
            limits = limits.select(rows)
            limits.mark_seen(tokens)
        logits = decoder.step(tokens).float()


def _advance(
    search: Search, allowed: Tensor, logprobs: Tensor, config: BeamConfig, stops: Sequence[tuple[int, ...]]
) -> list[int]:
    """Lengthen N beams by a token, given its logprobs [N, V] with and without constraints; which of the N each goes on from."""
    scores = allowed + torch.tensor([[beam.score] for beam in search.running], device=allowed.device)
    best = scores.flatten().topk(min(config.num_beams * (1 + len(stops)), scores.numel()))
    running: list[Beam] = []
    parents: list[int] = []
    for rank, (score, place) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        parent, token = divmod(place, scores.shape[-1])
        before = search.running[parent]
        beam = Beam([*before.tokens, token], [*before.logprobs, logprobs[parent, token].item()], score)
        if len(beam.tokens) == config.max_new_tokens or ending(beam.tokens, stops):
            if rank < config.num_beams and score > float("-inf"):
                search.ended.append(beam._replace(score=score / len(beam.tokens) ** config.length_penalty))
        elif len(running) < config.num_beams and score > float("-inf"):
            running.append(beam)
            parents.append(parent)
    search.ended = sorted(search.ended, key=lambda beam: -beam.score)[: config.num_beams]
    search.running = running
    if _may_improve(search, config):
        return parents
    search.running = []
    return []


def _may_improve(search: Search, config: BeamConfig) -> bool:
    """Whether a beam that goes on may become one of the best."""
    if not search.running or len(search.ended) < config.num_beams:
        return bool(search.running)
    if config.early_stopping is True:
        return False
    best = search.running[0]
    is_bound = config.early_stopping == "never" and config.length_penalty > 0
    num_tokens = float(config.max_new_tokens if is_bound else len(best.tokens))
    return best.score / math.pow(num_tokens, config.length_penalty) > search.ended[-1].score


@torch.inference_mode()
def exhaustive_search(model: Transformer, prompt: Sequence[int], config: BeamConfig, stop_token: int) -> list[Beam]:
    """The best num_beams of all completions of a prompt, each read anew without a cache.

    Raises ValueError where there are too many.
    """
    vocab_size = model.config.vocab_size
    if vocab_size**config.max_new_tokens > MOST_SEQUENCES:
        raise ValueError(
            f"a vocabulary of {vocab_size} tokens makes {vocab_size}^{config.max_new_tokens} completions, more than {MOST_SEQUENCES}: "
            "lower max_new_tokens or search with beams"
        )
    stops = ((stop_token,), *config.stop_sequences)
    running, ended = [Beam([], [], 0.0)], list[Beam]()
    for length in range(1, config.max_new_tokens + 1):
        read_so_far = [[*prompt, *beam.tokens] for beam in running]
        tokens = torch.tensor(read_so_far, device=next(model.parameters()).device)
        logprobs = model(tokens)[:, -1].float().log_softmax(-1)
        limits = constraints(config, read_so_far, vocab_size, tokens.device)
        allowed = logprobs if limits is None else limits.apply(logprobs)
        longer = [
            Beam([*beam.tokens, token], [*beam.logprobs, logprob], beam.score + score)
            for beam, row, scores in zip(running, logprobs.tolist(), allowed.tolist(), strict=True)
            for token, (logprob, score) in enumerate(zip(row, scores, strict=True))
            if score > float("-inf")
        ]
        is_last = length == config.max_new_tokens
        ended += [
            beam._replace(score=beam.score / length**config.length_penalty)
            for beam in longer
            if is_last or ending(beam.tokens, stops)
        ]
        running = [beam for beam in longer if not ending(beam.tokens, stops)]
    return sorted(ended, key=lambda beam: -beam.score)[: config.num_beams]
