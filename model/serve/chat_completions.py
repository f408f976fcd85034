"""POST /v1/chat/completions: the assistant's next turn, in OpenAI's shape, whole or in pieces.

Reads and writes nothing. Tools come in two kinds: those that the client offers in `tools`, whose calls it gets as `tool_calls` and answers itself; and with the extension
`server_tools` the model's own, which the server runs, and whose calls and results it sends as steps.
"""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from model.inference.chat import FittedPrompt, fit_conversation
from model.inference.names import checked
from model.inference.tool_use import ToolConversation, ToolLimits
from model.serve.completions import describe, sampling_of, usage
from model.serve.constraints import functions, mask_of
from model.serve.errors import ApiError
from model.serve.events import EventStream
from model.serve.follow import aside, follow, while_connected
from model.serve.jobs import Job, ScoredToken
from model.serve.messages import conversation
from model.serve.models import find_model
from model.serve.requests import ChatBody
from model.serve.served import ServedModel, draws_of
from model.serve.text import Written, stop_check
from model.tokenizer.chat import TOOL_START, ToolCall
from model.tools.registry import CALCULATOR, PYTHON, SEARCH, Tools

router = APIRouter()
MAX_TOOL_RUNS = 4  # of all requests at once: a tool may start a process
TAUGHT = {CALCULATOR, PYTHON, SEARCH}  # tools that models here learn to use: a name says enough
MIN_TURN = 32  # tokens that a turn after a tool's result has room for
_tool_runs = asyncio.Semaphore(MAX_TOOL_RUNS)


@router.post("/v1/chat/completions", response_model=None)
async def chat_completions(body: ChatBody, request: Request) -> Response:
    """Answer a conversation."""
    answer = await ChatAnswer.begin(find_model(request, body.model), body)
    if body.stream:
        return EventStream(request, answer.chunks())
    return JSONResponse(await while_connected(request, answer.whole()))


@dataclass
class Event:
    """A piece of choice `index`: what is new in its message, the tokens of it, and at the end why it ended."""

    index: int
    delta: dict[str, Any]
    tokens: list[ScoredToken] = field(default_factory=list)
    reason: str | None = None


class ChatAnswer:
    """The answer to a request."""

    def __init__(self, served: ServedModel, body: ChatBody, tools: Tools | None, prompt: FittedPrompt) -> None:
        """Raises ApiError for a request that cannot be answered."""
        self.served, self.body, self.tools = served, body, tools
        self.prompt, self.notice = prompt
        self.max_tokens = served.check_prompt(self.prompt, body.max_completion_tokens or body.max_tokens)
        self.hidden_from = served.tokenizer.special[TOOL_START] if body.tools or tools else None
        self.jobs = [self._job(self.prompt, index) for index in range(body.n)]
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    @classmethod
    async def begin(cls, served: ServedModel, body: ChatBody) -> "ChatAnswer":
        """The answer to a request whose conversation is tokenized first. Raises ApiError."""
        tools = _server_tools(served, body)
        messages = _with_tools(conversation(body.messages), body, tools)
        texts = [str(value) for message in messages for value in message.values()]
        served.check_texts(texts, "messages")
        return cls(served, body, tools, await aside(texts, _fit, served, body, messages))

    def _job(self, prompt: list[int], index: int) -> Job:
        body, served = self.body, self.served
        sampling = sampling_of(served, body, self.max_tokens, served.tokenizer.turn_end)
        return Job(
            prompt,
            sampling,
            draws_of(body.seed, index),
            num_top=body.top_logprobs if body.logprobs else None,
            # An end token also where none stops: after the last token of a grammar something must be allowed.
            mask=mask_of(served, body, sorted(sampling.stop_tokens | {served.tokenizer.turn_end})),
            is_ended=stop_check(served.tokenizer, body.stops),
        )

    async def whole(self) -> dict[str, Any]:
        """The answer when all is done."""
        choices = [_Choice() for _ in self.jobs]
        events = self._events(is_streamed=False)
        async with aclosing(events):
            async for event in events:
                choices[event.index].take(event)
        shown = [
            {
                "index": index,
                "message": {
                    "role": "assistant",
                    "content": choice.text or None if choice.message else choice.text,
                    "refusal": None,
                }
                | choice.message,
                "logprobs": self._logprobs(choice.tokens),
                "finish_reason": choice.reason,
            }
            for index, choice in enumerate(choices)
        ]
        return self._head("chat.completion") | self._notice() | {"choices": shown, "usage": usage(self.jobs)}

    async def chunks(self) -> AsyncGenerator[dict[str, Any]]:
        """The answer in pieces as they come."""
        head, notice = self._head("chat.completion.chunk"), self._notice()
        begun: set[int] = set()
        events = self._events(is_streamed=True)
        async with aclosing(events):
            async for event in events:
                role = {} if event.index in begun else {"role": "assistant"}
                begun.add(event.index)
                choice = {"index": event.index, "delta": role | event.delta, "finish_reason": event.reason}
                yield head | notice | {"choices": [choice | {"logprobs": self._logprobs(event.tokens)}]}
                notice = {}  # once: it is a sentence to show
        if self.body.stream_options.include_usage:
            yield head | {"choices": [], "usage": usage(self.jobs)}

    async def _events(self, *, is_streamed: bool) -> AsyncGenerator[Event]:
        events = self._turns(self.tools, is_streamed) if self.tools else self._completions(is_streamed)
        # With tools a reply may name what a search has found, and a text of a grammar must stay one.
        if self.served.other_name_reply and not (self.hidden_from or self.jobs[0].mask):
            events = self._checked(events)
        async with aclosing(events):
            async for event in events:
                yield event

    async def _completions(self, is_streamed: bool) -> AsyncGenerator[Event]:
        """One turn for each choice."""
        all_written = [Written(self.served.tokenizer, job, self.body.stops, self.hidden_from) for job in self.jobs]
        async with aclosing(follow(self.served.engine, self.jobs, is_streamed=is_streamed)) as steps:
            async for _ in steps:
                for index, written in enumerate(all_written):
                    if taken := written.take():
                        text, tokens = taken
                        # A tool call in the making has no text.
                        if text or self.body.logprobs or written.is_finished:
                            yield Event(index, {"content": text}, tokens)
                        if written.is_finished:
                            yield self._end(index, written.job)

    async def _checked(self, events: AsyncGenerator[Event]) -> AsyncGenerator[Event]:
        """Each reply as one piece when it has ended, or what is said instead of one about another name."""
        held = [Event(index, {"content": ""}) for index in range(self.body.n)]
        messages = conversation(self.body.messages)
        async with aclosing(events):
            async for event in events:
                reply = held[event.index]
                reply.delta["content"] += event.delta.get("content", "")
                reply.tokens += event.tokens
                if event.reason is not None:
                    text = checked(reply.delta["content"], messages, self.served.other_name_reply)
                    if text != reply.delta["content"]:  # what is said instead has no tokens
                        reply = Event(event.index, {"content": text})
                    yield reply
                    yield event

    def _end(self, index: int, job: Job) -> Event:
        """The last event of a turn: its tool calls, and why it ended."""
        reply = self.served.tokenizer.parse_reply(job.ids) if self.body.tools else None
        if reply is None or not reply.tool_calls or reply.problem or job.finish_reason != "stop":
            return Event(index, {}, reason=job.finish_reason)
        calls = [_tool_call(number, call) for number, call in enumerate(reply.tool_calls)]
        return Event(index, {"tool_calls": calls}, reason="tool_calls")

    async def _turns(self, tools: Tools, is_streamed: bool) -> AsyncGenerator[Event]:
        """Turns with the server's tools: a call, its result, and so on until a turn calls none."""
        tokenizer, limits = self.served.tokenizer, ToolLimits(max_tokens=self.served.max_tokens)
        talk = ToolConversation(tokenizer, self.prompt, tools, limits, min(self.max_tokens, MIN_TURN))
        while not talk.is_done:
            self.max_tokens = self.served.check_prompt(talk.tokens, self.max_tokens)
            # Another number for each turn: with the same random numbers a turn would repeat the last one.
            job = self._job(list(talk.tokens), len(talk.reply.turns)) if talk.reply.turns else self.jobs[0]
            written = Written(tokenizer, job, self.body.stops, self.hidden_from)
            async with aclosing(follow(self.served.engine, [job], is_streamed=is_streamed)) as steps:
                async for _ in steps:
                    if taken := written.take():
                        yield Event(0, {"content": taken[0]}, taken[1])
            if job is not self.jobs[0]:
                self.jobs.append(job)
            num_steps = len(talk.reply.steps)
            async with _tool_runs:
                await asyncio.to_thread(lambda ids: list(talk.take(ids)), job.ids)
            for call, result in talk.reply.steps[num_steps:]:
                step = {
                    "name": call.name,
                    "arguments": call.arguments,
                    "result": result.text,
                    "is_error": result.is_error,
                }
                yield Event(0, {"content": "", "tool_step": step})
        reason = "length" if talk.reply.ended in ("cut", "context") else "stop"
        yield Event(0, {"messages": talk.reply.messages}, reason=reason)

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


def _fit(served: ServedModel, body: ChatBody, messages: list[dict[str, Any]]) -> FittedPrompt:
    """The prompt of a conversation."""
    if not body.truncate:
        return FittedPrompt(served.tokenizer.render_prompt(messages), "")
    # At least half of the positions are left to the prompt.
    room = min(body.max_completion_tokens or body.max_tokens, served.max_tokens // 2)
    return fit_conversation(served.tokenizer, messages, served.max_tokens - room)


class _Choice:
    """A choice that is put together from its events."""

    def __init__(self) -> None:
        self.text = ""
        self.tokens: list[ScoredToken] = []
        self.reason: str | None = None
        self.message: dict[str, Any] = {}

    def take(self, event: Event) -> None:
        self.text += event.delta.get("content", "")
        self.tokens += event.tokens
        self.reason = event.reason
        if "tool_calls" in event.delta:
            # A chunk's calls have a place, those of a whole message are in order.
            self.message["tool_calls"] = [
                {name: call[name] for name in call if name != "index"} for call in event.delta["tool_calls"]
            ]
        if "tool_step" in event.delta:
            self.message.setdefault("tool_steps", []).append(event.delta["tool_step"])
        if "messages" in event.delta:
            self.message["messages"] = event.delta["messages"]


def _tool_call(number: int, call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": call.arguments}
    return {"index": number, "id": f"call_{uuid.uuid4().hex[:24]}", "type": "function", "function": function}


def _server_tools(served: ServedModel, body: ChatBody) -> Tools | None:
    """The tools that the server runs for a request. Raises ApiError where it cannot."""
    if not body.server_tools:
        return None
    known = served.tools.tools if served.tools else {}
    names = list(known) if body.server_tools is True else list(body.server_tools)
    if unknown := [name for name in names if name not in known]:
        raise ApiError(
            400, f"there is no tool {unknown[0][:40]!r}; there are {', '.join(known) or 'none'}", "server_tools"
        )
    if not names:
        raise ApiError(400, f"the server runs no tools for {served.id}", "server_tools")
    if body.tools or body.n > 1:
        raise ApiError(400, "server_tools goes with neither tools nor n", "server_tools")
    assert served.tools
    return Tools({name: known[name] for name in names}, served.tools.max_characters)


def _with_tools(messages: list[dict[str, Any]], body: ChatBody, tools: Tools | None) -> list[dict[str, Any]]:
    """The messages with the system turn that offers tools, in the words in which models learned of them."""
    offered = functions(body) if body.tool_choice != "none" else []
    if tools is not None:
        line = tools.system_prompt()
    elif offered:
        line = f"Tools: {', '.join(sorted(function['name'] for function in offered))}."
        # What a model was not taught needs words.
        line += "".join(
            f"\n{function['name']}: {function['description']} {json.dumps(function['parameters'].get('properties', {}))}"
            for function in offered
            if function["name"] not in TAUGHT
        )
    else:
        return messages
    if messages[0]["role"] == "system":
        first = messages[0]
        # A client that sends the whole conversation again may have the line already.
        content = first["content"] if line in first["content"] else f"{first['content']}\n{line}"
        return [{**first, "content": content}, *messages[1:]]
    return [{"role": "system", "content": line}, *messages]
