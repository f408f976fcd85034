"""POST /v1/chat/completions: the assistant's next turn, in OpenAI's shape.

Reads and writes nothing.
"""

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response

from model.inference.chat import fit_conversation
from model.serve.completions import describe, sampling_of, usage
from model.serve.events import EventStream
from model.serve.follow import finish, follow, while_connected
from model.serve.jobs import Job, ScoredToken
from model.serve.messages import conversation
from model.serve.models import find_model
from model.serve.requests import ChatBody
from model.serve.served import ServedModel, draws_of
from model.serve.text import Written, stop_check

router = APIRouter()


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(body: ChatBody, request: Request) -> Response | dict[str, Any]:
    """Answer a conversation."""
    served = find_model(request, body.model)
    answer = ChatAnswer(served, body)
    if body.stream:
        return EventStream(request, answer.chunks())
    return await while_connected(request, answer.whole())


class ChatAnswer:
    """The answer to a request, as a whole or in chunks."""

    def __init__(self, served: ServedModel, body: ChatBody) -> None:
        self.served, self.body = served, body
        self.notice = ""
        self.jobs = self._make_jobs()
        self.written = [Written(served.tokenizer, job, body.stops) for job in self.jobs]
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def _make_jobs(self) -> list[Job]:
        body, served = self.body, self.served
        messages = conversation(body.messages)
        max_tokens = body.max_completion_tokens or body.max_tokens
        if body.truncate:
            fitted = fit_conversation(
                served.tokenizer, messages, served.max_tokens - min(max_tokens, served.max_tokens // 2)
            )
            prompt, self.notice = fitted.tokens, fitted.notice
        else:
            prompt = served.tokenizer.render_prompt(messages)
        room = served.check_prompt(prompt, max_tokens)
        sampling = sampling_of(served, body, room, served.tokenizer.turn_end)
        return [
            Job(
                prompt,
                sampling,
                draws_of(body.seed, index),
                num_top=body.top_logprobs if body.logprobs else None,
                is_ended=stop_check(served.tokenizer, body.stops),
            )
            for index in range(body.n)
        ]

    async def whole(self) -> dict[str, Any]:
        """The answer when all is done."""
        await finish(self.served.engine, self.jobs)
        choices = []
        for index, written in enumerate(self.written):
            text, tokens = written.take() or ("", [])
            choices.append(
                {
                    "index": index,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "logprobs": self._logprobs(tokens),
                    "finish_reason": written.job.finish_reason,
                }
            )
        return self._head("chat.completion") | {"choices": choices, "usage": usage(self.jobs)} | self._notice()

    async def chunks(self) -> AsyncGenerator[dict[str, Any]]:
        """The answer in pieces as they come."""
        head = self._head("chat.completion.chunk")
        is_first = [True] * len(self.jobs)
        async with aclosing(follow(self.served.engine, self.jobs, is_streamed=True)) as steps:
            async for _ in steps:
                for index, written in enumerate(self.written):
                    taken = written.take()
                    if taken is None:
                        continue
                    text, tokens = taken
                    delta = ({"role": "assistant"} if is_first[index] else {}) | {"content": text}
                    choice = {"index": index, "delta": delta, "logprobs": self._logprobs(tokens)}
                    reason = written.job.finish_reason if written.is_finished else None
                    yield {**head, "choices": [choice | {"finish_reason": reason}]} | (
                        self._notice() if is_first[index] else {}
                    )
                    is_first[index] = False
        if self.body.stream_options.include_usage:
            yield {**head, "choices": [], "usage": usage(self.jobs)}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.served.id}

    def _notice(self) -> dict[str, str]:
        return {"notice": self.notice} if self.notice else {}

    def _logprobs(self, tokens: Sequence[ScoredToken]) -> dict[str, Any] | None:
        if not self.body.logprobs:
            return None
        return {
            "content": [
                describe(self.served, token.token, token.logprob)
                | {"top_logprobs": [describe(self.served, other.token, other.logprob) for other in token.top]}
                for token in tokens
            ],
            "refusal": None,
        }
