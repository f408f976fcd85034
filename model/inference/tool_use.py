"""Replies that call tools: the model writes a call, the tool runs, its result enters the context, and the model writes on.

Reads a model, runs tools, writes nothing. The format is that of model/tokenizer/README.md: an assistant's turn that calls tools ends with
<|im_end|>, each call is answered by a turn of role tool, and the assistant has a new turn.

Tokens are appended and never made again from text, so that the context is what was sampled; a trainer takes `tokens` and learns where
`is_sampled` says so. (To render the text of a reply again would give other tokens wherever a model sampled an unusual split of a word.)
A result is data: the tokenizer makes no special token of it.
"""

from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from model.config import Config, GenerateConfig
from model.inference.decoder import Decoder
from model.inference.generate import generate, stream
from model.tokenizer.chat import TOOL_START, ChatTokenizer, Reply, ToolCall
from model.tools.registry import ToolResult, Tools

MIN_RESULT_TOKENS = 8  # of a result that is cut for lack of room; with less left the reply ends
# "": the last turn calls no tool. cut: it reached max_new_tokens. malformed: special tokens that form no call. calls, context: the limits.
Ending = Literal["", "cut", "malformed", "calls", "context"]


class ToolLimits(Config):
    """What one reply may do. `max_tokens`: the longest context, prompt and reply together."""

    max_calls: int = 4
    max_tokens: int = 2**20


class ToolStep(NamedTuple):
    """A call and its result."""

    call: ToolCall
    result: ToolResult


@dataclass
class ToolReply:
    """What follows a prompt: the assistant's turns, and between them the results of the tools that they call."""

    tokens: list[int] = field(default_factory=list)
    is_sampled: list[bool] = field(default_factory=list)  # of each token: written by the model
    turns: list[Reply] = field(default_factory=list)
    steps: list[ToolStep] = field(default_factory=list)
    messages: list[dict[str, Any]] = field(default_factory=list)
    ended: Ending = ""

    @property
    def text(self) -> str:
        """The text of the last turn, which is the answer."""
        return self.turns[-1].text.strip() if self.turns else ""


class ToolConversation:
    """A reply in the making. `tokens`: the context that the next turn follows."""

    def __init__(
        self, tokenizer: ChatTokenizer, prompt: Sequence[int], tools: Tools, limits: ToolLimits, num_new: int
    ) -> None:
        self.tokenizer, self.tools, self.limits = tokenizer, tools, limits
        self.num_new = num_new  # tokens that the next turn may take
        self.tokens = list(prompt)
        self.reply = ToolReply()
        self.is_done = False

    def take(self, completion: Sequence[int]) -> Iterable[ToolStep]:
        """Append a sampled turn, run its calls and append their results. Yields each step; afterwards `is_done` says whether it was the last."""
        reply, turn = self.reply, self.tokenizer.parse_reply(completion)
        self._append(completion, is_sampled=True)
        reply.turns.append(turn)
        reply.messages.append(turn.message())
        is_whole = bool(completion) and completion[-1] == self.tokenizer.turn_end
        if not is_whole:
            return self._end("cut")
        if turn.problem:
            return self._end("malformed")
        if not turn.tool_calls:
            return self._end("")
        if len(reply.steps) >= self.limits.max_calls:
            return self._end("calls")
        return self._run(turn.tool_calls)

    def _end(self, ending: Ending) -> tuple[ToolStep, ...]:
        self.reply.ended, self.is_done = ending, True
        return ()

    def _run(self, calls: Sequence[ToolCall]) -> Iterable[ToolStep]:
        for call in calls:
            # Every call gets a result, as the format wants it, but no turn runs more calls than are left.
            if len(self.reply.steps) < self.limits.max_calls:
                result = self.tools.run(call.name, call.arguments)
            else:
                result = ToolResult(f"error: more than {self.limits.max_calls} calls", is_error=True)
            fitted = self._fitted(result)
            if fitted is None:
                self._end("context")
                return
            step = ToolStep(call, fitted)
            message = {"role": "tool", "content": fitted.text}
            self.reply.steps.append(step)
            self.reply.messages.append(message)
            self._append(self.tokenizer.render_turn(message).tokens, is_sampled=False)
            yield step
        self._append(self.tokenizer.assistant_start, is_sampled=False)

    def _fitted(self, result: ToolResult) -> ToolResult | None:
        """The result, cut if the context has no room for it and another turn; None where not even its beginning fits."""
        room = self.limits.max_tokens - len(self.tokens) - self.num_new - len(self.tokenizer.assistant_start)
        text = result.text
        while len(self.tokenizer.render_turn({"role": "tool", "content": text}).tokens) > room:
            # In characters and not in tokens: the message renders to what the context holds.
            text = text[: 3 * len(text) // 4]
            if len(self.tokenizer.encode_content(text)) < MIN_RESULT_TOKENS:
                return None
        return result._replace(text=text)

    def _append(self, tokens: Sequence[int], *, is_sampled: bool) -> None:
        self.tokens += tokens
        self.reply.tokens += tokens
        self.reply.is_sampled += [is_sampled] * len(tokens)


def stream_reply(
    decoder: Decoder,
    tokenizer: ChatTokenizer,
    prompt: Sequence[int],
    config: GenerateConfig,
    tools: Tools,
    limits: ToolLimits,
) -> Generator[str | ToolStep, None, ToolReply]:
    """Yields the text of the assistant's turns in pieces, and each call with its result. Returns the whole reply."""
    talk = ToolConversation(tokenizer, prompt, tools, limits, config.max_new_tokens)
    while not talk.is_done:
        hidden = tokenizer.special[TOOL_START]  # what follows is a call, and shown as a step
        completion = yield from stream(
            decoder, tokenizer, talk.tokens, _of_turn(config, talk), tokenizer.turn_end, hidden
        )
        yield from talk.take(completion)
    return talk.reply


def replies_with_tools(
    decoder: Decoder,
    tokenizer: ChatTokenizer,
    prompts: Sequence[Sequence[int]],
    config: GenerateConfig,
    tools: Tools,
    limits: ToolLimits,
) -> list[ToolReply]:
    """A reply to each prompt. The turns of all unfinished replies are generated as one batch; the tools run one after the other."""

    def sample(contexts: Sequence[Sequence[int]], number: int) -> list[list[int]]:
        return generate(decoder, contexts, config.model_copy(update={"seed": config.seed + number}), tokenizer.turn_end)

    return converse(sample, tokenizer, prompts, config.max_new_tokens, tools, limits)


def converse(
    sample: Callable[[Sequence[Sequence[int]], int], list[list[int]]],
    tokenizer: ChatTokenizer,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    tools: Tools,
    limits: ToolLimits,
) -> list[ToolReply]:
    """The same with any sampler: `sample(contexts, round)` gives the next turn of each, at most `max_new_tokens` long."""
    talks = [ToolConversation(tokenizer, prompt, tools, limits, max_new_tokens) for prompt in prompts]
    number = 0
    while waiting := [talk for talk in talks if not talk.is_done]:
        completions = sample([talk.tokens for talk in waiting], number)
        for talk, completion in zip(waiting, completions, strict=True):
            # Run to the end: the steps are in the reply.
            list(talk.take(completion))
        number += 1
    return [talk.reply for talk in talks]


def _of_turn(config: GenerateConfig, talk: ToolConversation) -> GenerateConfig:
    """The settings of the next turn: with another seed, or every turn would be sampled with the same random numbers."""
    return config.model_copy(update={"seed": config.seed + len(talk.reply.turns)})
