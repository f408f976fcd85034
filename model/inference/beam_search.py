"""Beam search for the likeliest completions; and, as its reference for a tiny vocabulary, a search through all completions.

Reads and writes nothing. The algorithm is transformers' (beam search after Graves 2012, https://arxiv.org/abs/1211.3711): in each step the
likeliest one-token continuations of all beams of a prompt are taken, enough of them that `num_beams` remain unfinished whatever ends.
A finished one counts only if it is among the first `num_beams`. Its score is its summed log-probability divided by its length to the power
length_penalty; GNMT (Wu et al. 2016, https://arxiv.org/abs/1609.08144, equation 14) divides by ((5 + length) / 6)^length_penalty. Constraints
act on log-probabilities.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from model.config import BeamConfig
from model.errors import UserError
from model.inference.decoder import Decoder
from model.inference.logits import check_finite, constraints, ending
from model.network.transformer import Transformer

MAX_SEQUENCES = 2**16  # of an exhaustive search


class Beam(NamedTuple):
    """A completion, finished or not."""

    tokens: list[int]
    logprobs: list[float]  # of each token under the model, without constraints, in nats
    # Summed logprobs with constraints; of a finished beam divided by its number of tokens ** length_penalty.
    score: float


@dataclass
class Search:
    """The unfinished and the finished beams of one prompt, best first."""

    running: list[Beam] = field(default_factory=lambda: [Beam([], [], 0.0)])
    ended: list[Beam] = field(default_factory=list)


@torch.inference_mode()
def beam_search(
    decoder: Decoder, prompts: Sequence[Sequence[int]], config: BeamConfig, stop_token: int
) -> list[list[Beam]]:
    """At most num_beams completions of each prompt, best first. No prompt may be empty.

    Raises NonFiniteError if the logits are NaN or infinite, UserError for tokens outside the vocabulary.
    """
    device = decoder.embedding.device
    stops = ((stop_token,), *config.stop_sequences)
    searches = [Search() for _ in prompts]
    limits = constraints(config, prompts, decoder.config.vocab_size, device)
    logits = decoder.read(prompts).float()
    unfinished = searches
    # It ends: `_advance` finishes every beam that has max_new_tokens tokens.
    while True:
        logprobs = logits.log_softmax(-1)
        # The greatest logit of a row is NaN or infinite wherever one of the row is: cheaper to check than all.
        check_finite(logits.amax(-1))
        # Constraints act after the softmax: a banned token's probability is not given to the others, as in transformers.
        allowed = logprobs if limits is None else limits.apply(logprobs)
        parents: list[int] = []
        start = 0
        for search in unfinished:
            # All prompts share one batch; these are the rows of this one.
            own = slice(start, start + len(search.running))
            parents += [start + parent for parent in _advance(search, allowed[own], logprobs[own], config, stops)]
            start = own.stop
        unfinished = [search for search in unfinished if search.running]
        if not unfinished:
            return [search.ended for search in searches]
        rows = torch.tensor(parents, device=device)
        tokens = torch.tensor([beam.tokens[-1] for search in unfinished for beam in search.running], device=device)
        # The cache rows follow their beams; rows of finished prompts are dropped.
        decoder.select(rows)
        if limits is not None:
            limits = limits.select(rows)
            limits.mark_seen(tokens)
        logits = decoder.step(tokens).float()


def _advance(
    search: Search, allowed: Tensor, logprobs: Tensor, config: BeamConfig, stops: Sequence[tuple[int, ...]]
) -> list[int]:
    """Lengthen the N unfinished beams of a search by a token: logprobs [N, V] with and without constraints.

    Returns for each new unfinished beam the number of the beam that it continues.
    """
    # [N, V]: the sum of each beam and of each continuation, compared over all beams of the prompt.
    scores = allowed + torch.tensor([[beam.score] for beam in search.running], device=allowed.device)
    # In the worst case every stop ends one continuation of each beam: so many candidates leave num_beams unfinished.
    # One stop token makes 2 num_beams candidates, as many as transformers takes.
    best = scores.flatten().topk(min(config.num_beams * (1 + len(stops)), scores.numel()))
    running: list[Beam] = []
    parents: list[int] = []
    for rank, (score, place) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
        parent, token = divmod(place, scores.shape[-1])
        before = search.running[parent]
        # The lists are copied, since a beam may have several continuations.
        beam = Beam([*before.tokens, token], [*before.logprobs, logprobs[parent, token].item()], score)
        if len(beam.tokens) == config.max_new_tokens or ending(beam.tokens, stops):
            # As in transformers: a finished candidate of a lower rank would not have been a beam.
            if rank < config.num_beams and score > float("-inf"):
                search.ended.append(beam._replace(score=score / len(beam.tokens) ** config.length_penalty))
        elif len(running) < config.num_beams and score > float("-inf"):
            running.append(beam)
            parents.append(parent)
    # Stable: of equal scores the beam that ended first stays ahead.
    search.ended = sorted(search.ended, key=lambda beam: -beam.score)[: config.num_beams]
    search.running = running
    if _may_improve(search, config):
        return parents
    search.running = []
    return []


def _may_improve(search: Search, config: BeamConfig) -> bool:
    """Whether an unfinished beam may still become one of the num_beams best, in the sense of `early_stopping`."""
    if not search.running or len(search.ended) < config.num_beams:
        return bool(search.running)
    if config.early_stopping is True:
        return False
    # Unfinished beams are compared by their sums: all have one length, so the first is the best under every length penalty.
    best = search.running[0]
    # Scores are negative: dividing by the largest length gives the best score that the beam can still reach. With a negative penalty
    # that is the current length, since each further token makes the score worse twice over. A large logit_bias can make scores
    # positive; then the search may stop before it has found the best.
    is_bound = config.early_stopping == "never" and config.length_penalty > 0
    num_tokens = float(config.max_new_tokens if is_bound else len(best.tokens))
    return best.score / math.pow(num_tokens, config.length_penalty) > search.ended[-1].score


@torch.inference_mode()
def exhaustive_search(model: Transformer, prompt: Sequence[int], config: BeamConfig, stop_token: int) -> list[Beam]:
    """The best num_beams of all completions of a prompt, each computed without a cache.

    Raises UserError if there are more than MAX_SEQUENCES.
    """
    vocab_size = model.config.vocab_size
    if vocab_size**config.max_new_tokens > MAX_SEQUENCES:
        raise UserError(
            f"a vocabulary of {vocab_size} tokens makes {vocab_size}^{config.max_new_tokens} completions, more than {MAX_SEQUENCES}: "
            "lower max_new_tokens or search with beams"
        )
    stops = ((stop_token,), *config.stop_sequences)
    running, ended = [Beam([], [], 0.0)], list[Beam]()
    for length in range(1, config.max_new_tokens + 1):
        sequences = [[*prompt, *beam.tokens] for beam in running]
        # All of one length, so no padding and no mask.
        tokens = torch.tensor(sequences, device=next(model.parameters()).device)
        logprobs = model(tokens)[:, -1].float().log_softmax(-1)
        # With the completions so far as prompts, so that the repetition penalty sees their tokens.
        limits = constraints(config, sequences, vocab_size, tokens.device)
        allowed = logprobs if limits is None else limits.apply(logprobs)
        longer = [
            Beam([*beam.tokens, token], [*beam.logprobs, logprob], beam.score + score)
            for beam, row, scores in zip(running, logprobs.tolist(), allowed.tolist(), strict=True)
            for token, (logprob, score) in enumerate(zip(row, scores, strict=True))
            if score > float("-inf")
        ]
        # At the last length every completion counts, finished or not, as in `beam_search`.
        is_last = length == config.max_new_tokens
        ended += [
            beam._replace(score=beam.score / length**config.length_penalty)
            for beam in longer
            if is_last or ending(beam.tokens, stops)
        ]
        running = [beam for beam in longer if not ending(beam.tokens, stops)]
    return sorted(ended, key=lambda beam: -beam.score)[: config.num_beams]
