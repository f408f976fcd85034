"""POST /v1/completions: the continuation of texts, with the probability of each token.

Reads and writes nothing. The shapes are OpenAI's legacy ones, which lm-eval's `local-completions` scores with; `token_ids`, `bytes` and `top` of
the log-probabilities are extensions.
"""

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import accumulate
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from model.config import BeamConfig
from model.serve.constraints import mask_of
from model.serve.errors import ApiError
from model.serve.events import EventStream
from model.serve.follow import aside, finish, follow, while_connected
from model.serve.jobs import Job, Sampling, ScoredToken
from model.serve.models import find_model
from model.serve.requests import CompletionBody, SamplingBody
from model.serve.served import ServedModel, draws_of
from model.serve.text import Written, stop_check
from model.tokenizer.chat import whole_characters

router = APIRouter()
MAX_COMPLETIONS = 256  # of one request
MAX_BEAMS = 16


@router.post("/v1/completions", response_model=None)
async def completions(body: CompletionBody, request: Request) -> Response:
    """Complete one text or several."""
    served = find_model(request, body.model)
    prompts = await encode_prompts(served, body)
    num_sampled = max(body.n, body.best_of)
    if len(prompts) * num_sampled > MAX_COMPLETIONS:
        raise ApiError(400, f"a request may have {MAX_COMPLETIONS} completions: send several", "n")
    if body.stream and body.best_of > body.n:
        raise ApiError(400, "the best of several completions is known at the end: stream without best_of", "best_of")
    if body.use_beam_search:
        found = await while_connected(request, _search(served, body, prompts))
        return JSONResponse(Answer(served, body, found).whole(found))
    jobs = [
        _job(served, body, prompt, number * num_sampled + place)
        for number, prompt in enumerate(prompts)
        for place in range(num_sampled)
    ]
    answer = Answer(served, body, jobs)
    if body.stream:
        return EventStream(request, answer.chunks())
    await while_connected(request, finish(served.engine, jobs))
    # As a response: FastAPI would walk through a dict first, value by value.
    return JSONResponse(answer.whole(best_of(jobs, num_sampled, body.n)))


async def encode_prompts(served: ServedModel, body: CompletionBody) -> list[list[int]]:
    """Tokens of each prompt: a text is a document, <|bos|> first, unless add_bos is off; tokens are as they are."""
    given: Sequence[Any] = body.prompt if isinstance(body.prompt, list) else [body.prompt]
    if given and isinstance(given[0], int):
        given = [given]
    if not given:
        raise ApiError(400, "the prompt is empty: give a text or tokens", "prompt")
    texts = [one for one in given if isinstance(one, str)]
    served.check_texts(texts, "prompt")
    encode = served.tokenizer.encode_document if body.add_bos else served.tokenizer.encode

    def encoded() -> list[list[int]]:
        return [encode(whole_characters(one)) if isinstance(one, str) else list(one) for one in given]

    return await aside(texts, encoded)


def sampling_of(served: ServedModel, body: SamplingBody, max_tokens: int, end: int) -> Sampling:
    """The engine's settings of a request. Raises ApiError for tokens outside the vocabulary."""
    named = [*body.logit_bias, *body.stop_token_ids]
    if bad := next((token for token in named if token >= served.vocab_size), None):
        raise ApiError(400, f"token {bad} is not in the vocabulary of {served.vocab_size} tokens", "logit_bias")
    stop_tokens = {*body.stop_token_ids} | (set() if body.ignore_eos else {end})
    return Sampling(
        max_tokens=max_tokens,
        temperature=body.temperature,
        top_k=max(body.top_k, 0),
        # OpenAI allows 0, which leaves the likeliest token.
        top_p=max(body.top_p, 1e-9),
        min_p=body.min_p,
        repetition_penalty=body.repetition_penalty,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logit_bias=body.logit_bias,
        stop_tokens=frozenset(stop_tokens),
    )


def _job(served: ServedModel, body: CompletionBody, prompt: list[int], index: int) -> Job:
    max_tokens = served.check_prompt(prompt, body.max_tokens)
    # A document of pretraining ends with the <|bos|> of the next; a chat model may end its turn as well.
    sampling = sampling_of(served, body, max_tokens, served.tokenizer.bos)
    if not body.ignore_eos and served.is_chat:
        sampling = sampling.stopping_at(served.tokenizer.turn_end)
    return Job(
        prompt,
        sampling,
        draws_of(body.seed, index),
        num_top=body.logprobs if body.best_of <= body.n else body.logprobs or 0,
        scores_prompt=body.echo and body.logprobs is not None,
        # An end token also where none stops: after the last token of a grammar something must be allowed.
        mask=mask_of(served, body, sorted(sampling.stop_tokens | {served.tokenizer.bos})),
        is_ended=stop_check(served.tokenizer, body.stops),
    )


async def _search(served: ServedModel, body: CompletionBody, prompts: Sequence[list[int]]) -> list[Job]:
    """The n best completions of each prompt as jobs that are done."""
    num_beams = max(body.n, body.best_of)
    unused = {
        "stream": body.stream,
        "echo": body.echo,
        "stop": body.stops,
        "guided_choice": body.guided_choice,
        "guided_json": body.guided_json is not None,
        "response_format": body.response_format.type != "text",
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "max_tokens 0": not body.max_tokens,
    }
    if refused := [name for name, is_set in unused.items() if is_set]:
        raise ApiError(400, f"use_beam_search goes without {', '.join(refused)}", "use_beam_search")
    if num_beams > MAX_BEAMS:
        raise ApiError(400, f"use_beam_search has at most {MAX_BEAMS} beams (best_of)", "use_beam_search")
    jobs: list[Job] = []
    for prompt in prompts:
        job = _job(served, body, prompt, 0)
        config = BeamConfig(
            num_beams=num_beams,
            max_new_tokens=job.sampling.max_tokens,
            length_penalty=body.length_penalty,
            logit_bias=dict(body.logit_bias),
            repetition_penalty=body.repetition_penalty,
            stop_sequences=tuple((token,) for token in job.sampling.stop_tokens),
        )
        end = served.tokenizer.turn_end if served.is_chat else served.tokenizer.bos
        for beam in (await served.beams.search(prompt, config, end))[: body.n]:
            tokens = [ScoredToken(*pair) for pair in zip(beam.tokens, beam.logprobs, strict=True)]
            is_stopped = beam.tokens[-1] in job.sampling.stop_tokens
            jobs.append(replace(job, tokens=tokens, ids=beam.tokens, finish_reason="stop" if is_stopped else "length"))
    return jobs


def best_of(jobs: Sequence[Job], num_sampled: int, n: int) -> list[Job]:
    """The n completions of each prompt with the highest mean log-probability of a token; all where so many were sampled."""
    if num_sampled == n:
        return list(jobs)
    groups = [jobs[start : start + num_sampled] for start in range(0, len(jobs), num_sampled)]
    return [job for group in groups for job in sorted(group, key=_mean_logprob, reverse=True)[:n]]


def _mean_logprob(job: Job) -> float:
    return sum(token.logprob or 0.0 for token in job.tokens) / max(1, len(job.tokens))


class Answer:
    """The answer to a request in OpenAI's shape, as a whole or in chunks."""

    def __init__(self, served: ServedModel, body: CompletionBody, jobs: Sequence[Job]) -> None:
        self.served, self.body, self.jobs = served, body, jobs
        self.head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.id,
        }

    def whole(self, jobs: Sequence[Job]) -> dict[str, Any]:
        """The answer when all jobs are done."""
        choices = [
            self._choice(index, Written(self.served.tokenizer, job, self.body.stops)) for index, job in enumerate(jobs)
        ]
        return {**self.head, "choices": [choice for choice in choices if choice], "usage": usage(self.jobs)}

    async def chunks(self) -> AsyncGenerator[dict[str, Any]]:
        """The answer in pieces as they come."""
        written = [Written(self.served.tokenizer, job, self.body.stops) for job in self.jobs]
        async with aclosing(follow(self.served.engine, self.jobs, is_streamed=True)) as steps:
            async for _ in steps:
                for index, one in enumerate(written):
                    if choice := self._choice(index, one):
                        yield {**self.head, "choices": [choice]}
        if self.body.stream_options.include_usage:
            yield {**self.head, "choices": [], "usage": usage(self.jobs)}

    def _choice(self, index: int, written: Written) -> dict[str, Any] | None:
        job, is_first, offset = written.job, written.num_seen == 0, len(written.text)
        taken = written.take()
        if taken is None:
            return None
        text, tokens = taken
        if self.body.echo:
            shown = self.served.tokenizer.decode(job.prompt)
            text, tokens = (shown + text, [*job.prompt_scores, *tokens]) if is_first else (text, tokens)
            offset = 0 if is_first else offset + len(shown)
        ids = [*(job.prompt if self.body.echo and is_first else ()), *(token.token for token in tokens)]
        return {
            "index": index,
            "text": text,
            "logprobs": None if self.body.logprobs is None else self._logprobs(tokens, offset),
            "finish_reason": job.finish_reason if written.is_finished else None,
            "stop_reason": written.stop_reason if written.is_finished else None,
        } | ({"token_ids": ids} if self.body.return_token_ids else {})

    def _logprobs(self, tokens: Sequence[ScoredToken], offset: int) -> dict[str, Any]:
        pieces = self.served.pieces
        names = [pieces[token.token].name for token in tokens]
        # The names of special tokens are no part of the text.
        sizes = [0 if pieces[token.token].is_special else len(name) for token, name in zip(tokens, names, strict=True)]
        return {
            "tokens": names,
            "token_logprobs": [token.logprob for token in tokens],
            "top_logprobs": [
                # Two tokens may be shown alike, as parts of a character are: the likelier one stays.
                None
                if token.logprob is None
                else {pieces[other.token].name: other.logprob for other in reversed(token.top)}
                for token in tokens
            ],
            "text_offset": list(accumulate(sizes, initial=offset))[: len(tokens)],
            "token_ids": [token.token for token in tokens],
            "bytes": [list(pieces[token.token].content) for token in tokens],
            "top": [None if token.logprob is None else self._top(token) for token in tokens],
        }

    def _top(self, token: ScoredToken) -> list[dict[str, Any]]:
        return [describe(self.served, other.token, other.logprob) for other in token.top]


def describe(served: ServedModel, token: int, logprob: float | None) -> dict[str, Any]:
    """A token in OpenAI's shape for chats, with its id."""
    piece = served.pieces[token]
    return {"token": piece.name, "bytes": list(piece.content), "logprob": logprob, "id": token}


def usage(jobs: Sequence[Job]) -> dict[str, Any]:
    """How many tokens were read and written; a prompt that several completions share counts once."""
    prompts = {tuple(job.prompt): job.num_cached for job in reversed(jobs)}
    num_read, num_written = sum(map(len, prompts)), sum(len(job.ids) for job in jobs)
    return {
        "prompt_tokens": num_read,
        "completion_tokens": num_written,
        "total_tokens": num_read + num_written,
        "prompt_tokens_details": {"cached_tokens": sum(prompts.values())},
    }
