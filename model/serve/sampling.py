"""The next token of each row of a batch, each by its own request's settings and random numbers.

Reads and writes nothing. The order is that of model/inference/logits.py, with the penalties of OpenAI's API
(https://platform.openai.com/docs/api-reference/completions) after the repetition penalty. Log-probabilities are taken before all of it.

Shapes: B rows, V vocabulary.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from model.config import GenerateConfig
from model.inference.generate import GREEDY_BELOW, likeliest
from model.inference.logits import NEVER, check_finite, restrict
from model.serve.jobs import Alternative, Job, ScoredToken


def next_tokens(logits: Tensor, jobs: Sequence[Job]) -> list[ScoredToken]:
    """One token per job: logits [B, V] in float32. Raises NonFiniteError if logits are NaN or infinite."""
    best = likeliest(logits)
    greatest = logits.gather(-1, best[:, None])
    # The greatest of a row with NaN is NaN. By Python where it is faster, and only then by the function that says what is wrong.
    if not all(map(math.isfinite, greatest.squeeze(-1).tolist())):
        check_finite(greatest)
    changed = logits
    for place, job in enumerate(jobs):
        if job.mask is not None or job.sampling.changes_logits:
            if changed is logits:
                changed = logits.clone()
            changed[place] = _constrained(changed[place], job)
    tokens = (best if changed is logits else likeliest(changed)).tolist()
    sampled = [place for place, job in enumerate(jobs) if job.sampling.temperature >= GREEDY_BELOW]
    for filters in {jobs[place].sampling.filters for place in sampled}:
        places = [place for place in sampled if jobs[place].sampling.filters == filters]
        for place, token in zip(places, _draw(changed, places, [jobs[place] for place in places]), strict=True):
            tokens[place] = token
    return _scored(logits, tokens, jobs)


def _constrained(logits: Tensor, job: Job) -> Tensor:
    """Logits [V] of a row with bias, penalties and mask."""
    sampling = job.sampling
    if sampling.logit_bias:
        logits[list(sampling.logit_bias)] += torch.tensor(list(sampling.logit_bias.values()), device=logits.device)
    if sampling.repetition_penalty != 1:
        seen = torch.tensor(list({*job.prompt, *job.ids}), device=logits.device)
        before = logits[seen]
        logits[seen] = torch.where(
            before < 0, before * sampling.repetition_penalty, before / sampling.repetition_penalty
        )
    if (sampling.presence_penalty or sampling.frequency_penalty) and job.ids:
        counts = Counter(job.ids)
        penalty = sampling.presence_penalty + sampling.frequency_penalty * torch.tensor(list(counts.values()))
        logits[list(counts)] -= penalty.to(logits)
    if job.mask is not None:
        logits = logits.masked_fill(~job.mask.allowed().to(logits.device), NEVER)
    return logits


def _draw(logits: Tensor, places: Sequence[int], jobs: Sequence[Job]) -> list[int]:
    """Sample rows with equal filters: as model.inference.generate.pick, with one random number from each job."""
    rows = logits if len(places) == len(logits) else logits[list(places)]
    temperatures = torch.tensor([[job.sampling.temperature] for job in jobs], device=logits.device)
    top_k, top_p, min_p = jobs[0].sampling.filters
    # model_construct: the settings were checked with the request, and this runs at every step.
    config = GenerateConfig.model_construct(top_k=top_k, top_p=top_p, min_p=min_p)
    below = restrict(rows / temperatures, config).softmax(-1).cumsum(-1, dtype=torch.float64)
    darts = torch.tensor([[job.draws.random()] for job in jobs], dtype=torch.float64, device=logits.device)
    drawn = torch.searchsorted(below, darts * below[:, -1:], right=True).squeeze(-1)
    # Past the last token where a row has no number: an index out of range would fail all rows.
    tokens: list[int] = drawn.clamp_(max=rows.shape[-1] - 1).tolist()
    return tokens


def _scored(logits: Tensor, tokens: Sequence[int], jobs: Sequence[Job]) -> list[ScoredToken]:
    places = [place for place, job in enumerate(jobs) if job.num_top is not None]
    scored = [ScoredToken(token) for token in tokens]
    if places:
        wanted = [tokens[place] for place in places]
        found = score(logits[places], wanted, [jobs[place].num_top or 0 for place in places])
        for place, token in zip(places, found, strict=True):
            scored[place] = token
    return scored


def score(logits: Tensor, tokens: Sequence[int], num_top: Sequence[int]) -> list[ScoredToken]:
    """Log-probabilities of tokens, and the `num_top` likeliest of each row: logits [B, V]."""
    logprobs = logits.log_softmax(-1)
    own = logprobs.gather(-1, torch.tensor(tokens, device=logits.device)[:, None]).squeeze(-1).tolist()
    best = logprobs.topk(min(max(num_top), logits.shape[-1]))
    tops = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [
        ScoredToken(token, logprob, tuple(map(Alternative, ids[:number], values[:number])))
        for token, logprob, (ids, values), number in zip(tokens, own, tops, num_top, strict=True)
    ]
