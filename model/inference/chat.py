"""A loaded model to talk to: a chat model replies to a conversation, a base model completes a text; both in pieces as they are generated.

Reads a folder with model.safetensors and config.json, and a tokenizer.json. Writes nothing.
"""

import json
from bisect import bisect_left
from collections.abc import Generator, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from model.config import GenerateConfig, explained
from model.errors import UserError
from model.inference.cpu_kernels import make_decoder
from model.inference.generate import stream
from model.inference.names import OTHER_NAME_REPLY, checked
from model.inference.tool_use import ToolLimits, ToolReply, ToolStep, stream_reply
from model.network.huggingface import default_device, load_transformer, max_tokens_of
from model.tokenizer.chat import ChatTokenizer, Messages
from model.tools.registry import Tools

MIN_MESSAGE_TOKENS = 8  # that must be left of a message that is cut, or a system turn leaves too little room


class FittedPrompt(NamedTuple):
    """The tokens of a prompt that fits the model, and what was left out of it: a sentence, or "" if nothing was."""

    tokens: list[int]
    notice: str


def fit_conversation(tokenizer: ChatTokenizer, messages: Messages, max_tokens: int) -> FittedPrompt:
    """The prompt of a conversation, at most max_tokens tokens long.

    The system turn at the beginning and <|bos|> always stay. The oldest exchanges (a user's turn with the replies to it) are dropped as
    a whole. If the last exchange alone is too long, the beginning of its first message is cut off.
    A user's turn of blanks alone is read as an empty one: no record of training is blank, and a small model takes blanks for anything.
    Raises UserError if the system turn, or the other messages of the last exchange, leave no room for that.
    """
    messages = [_without_blanks(message) for message in messages]
    tokens = tokenizer.render_prompt(messages)
    if len(tokens) <= max_tokens:
        return FittedPrompt(tokens, "")
    num_system = next((number for number, message in enumerate(messages) if message["role"] != "system"), len(messages))
    system, turns = list(messages[:num_system]), list(messages[num_system:])
    # Whole exchanges: a reply without its question would mislead the model.
    starts = [number for number, message in enumerate(turns) if number == 0 or message["role"] == "user"]

    def without_oldest(number: int) -> list[int]:
        return tokenizer.render_prompt([*system, *turns[starts[number] :]])

    # Each exchange that is dropped makes the prompt shorter, so the fewest that must go are found by bisection. To render once for every
    # exchange would be quadratic: about two minutes for a conversation of 2,000 exchanges, where bisection takes half a second.
    number = bisect_left(range(len(starts)), True, key=lambda number: len(without_oldest(number)) <= max_tokens)
    if number < len(starts):
        notice = f"the oldest {number} of {len(starts)} exchanges were left out: the model reads {max_tokens} tokens"
        return FittedPrompt(without_oldest(number), notice)
    return _cut_first_message(tokenizer, system, turns[starts[-1] :] if starts else [], max_tokens)


def _without_blanks(message: Mapping[str, Any]) -> Mapping[str, Any]:
    content = message.get("content")
    is_blank = message["role"] == "user" and isinstance(content, str) and not content.strip()
    return {**message, "content": ""} if is_blank else message


def _cut_first_message(tokenizer: ChatTokenizer, system: Messages, turns: Messages, max_tokens: int) -> FittedPrompt:
    """The prompt with the beginning of the first turn after the system turn cut off."""
    # The prompt with an empty message: the tokens that stay whatever is cut, such as the marks of the turns.
    emptied: list[dict[str, str]] = [{**turns[0], "content": ""}, *map(dict, turns[1:])] if turns else []
    frame = tokenizer.render_prompt([*system, *emptied])
    room = max_tokens - len(frame)
    if not turns or room < MIN_MESSAGE_TOKENS:
        raise UserError(
            f"the conversation does not fit: without the message that could be cut it has {len(frame)} tokens, and the model reads "
            f"{max_tokens}: shorten the {'system turn' if len(turns) < 2 else 'system turn or the last messages'}"
        )
    # The end is kept: the question usually stands there.
    content = tokenizer.encode_content(turns[0]["content"])
    # After <|bos|>, the system turn and the start of the message.
    place = len(tokenizer.render(system).tokens) + len(tokenizer.turn_start(turns[0]["role"]))
    # Cut in tokens, not in characters, so that exactly max_tokens remain.
    tokens = [*frame[:place], *content[-room:], *frame[place:]]
    return FittedPrompt(
        tokens,
        f"the first {len(content) - room} of {len(content)} tokens of the message were cut off: the model reads {max_tokens}",
    )


def fit_document(tokenizer: ChatTokenizer, text: str, max_tokens: int) -> FittedPrompt:
    """The tokens of a document to be completed: <|bos|> and as much of its end as fits."""
    tokens = tokenizer.encode_document(text)
    # At least half of the model's positions are free for a prompt (see Chat), so that some text is always left after <|bos|>.
    num_cut = len(tokens) - max_tokens
    if num_cut <= 0:
        return FittedPrompt(tokens, "")
    return FittedPrompt(
        [tokenizer.bos, *tokens[num_cut + 1 :]],
        f"the first {num_cut} of {len(tokens) - 1} tokens of the text were cut off: the model reads {max_tokens}",
    )


def other_name_reply(folder: Path) -> str:
    """What the bundle in a folder says instead of a reply that gives another name; "" for nothing, as in folders that are no bundle."""
    file = folder / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    found = settings.get(OTHER_NAME_REPLY) if isinstance(settings, dict) else None
    return found if isinstance(found, str) else ""


class Chat:
    """A loaded model with its tokenizer and settings. `notice`: what was left out of the last prompt, or ""."""

    notice: str = ""

    def __init__(
        self, folder: Path, tokenizer: Path, *, temperature: float = 0.0, seed: int = 0, max_new_tokens: int = 256
    ) -> None:
        """Raises UserError if the tokenizer is not the model's, or a setting is out of range."""
        self.tokenizer = ChatTokenizer.load(tokenizer)
        model = load_transformer(folder).to(default_device())
        # Beyond the positions of its training a RoPE model gives poor text, without an error.
        self.max_tokens = max_tokens_of(folder)
        num_new = min(max_new_tokens, self.max_tokens // 2)  # at least half of the positions are left to the prompt
        try:
            self.config = GenerateConfig(max_new_tokens=num_new, temperature=temperature, seed=seed)
        except ValidationError as error:
            raise UserError(explained(error)) from None
        self.other_name_reply = other_name_reply(folder)
        # The numbers of tokens are compared, not the tokens: a folder holds no hash of its tokenizer. The wrong tokenizer of the right
        # size gives nonsense without an error.
        if model.config.vocab_size != self.tokenizer.vocab_size:
            raise UserError(
                f"the model in {folder} has a vocabulary of {model.config.vocab_size} tokens, {tokenizer} one of "
                f"{self.tokenizer.vocab_size}: give the tokenizer that the model was trained with"
            )
        self.decoder = make_decoder(model)

    def reply(self, messages: Messages) -> Iterator[str]:
        """The assistant's next turn; where the names of replies are checked, in one piece.

        Raises UserError if the conversation cannot be made to fit, see `fit_conversation`.
        """
        prompt = fit_conversation(self.tokenizer, messages, self.max_prompt_tokens)
        pieces = self._stream(prompt, self.tokenizer.turn_end)
        return self._checked(pieces, messages) if self.other_name_reply else pieces

    def complete(self, text: str) -> Iterator[str]:
        """The continuation of a document that starts with `text`."""
        return self._stream(fit_document(self.tokenizer, text, self.max_prompt_tokens), self.tokenizer.bos)

    def reply_with_tools(self, messages: Messages, tools: Tools) -> Generator[str | ToolStep, None, ToolReply]:
        """The same with tools: pieces of text, and each call with its result. The longest prompt leaves room for one turn, not for results."""
        prompt = fit_conversation(self.tokenizer, messages, self.max_prompt_tokens)
        self.notice = prompt.notice
        limits = ToolLimits(max_tokens=self.max_tokens)
        return stream_reply(self.decoder, self.tokenizer, prompt.tokens, self.config, tools, limits)

    @property
    def max_prompt_tokens(self) -> int:
        """The longest prompt after which the longest completion still fits."""
        return self.max_tokens - self.config.max_new_tokens

    def _checked(self, pieces: Iterator[str], messages: Messages) -> Iterator[str]:
        yield checked("".join(pieces), messages, self.other_name_reply)

    def _stream(self, prompt: FittedPrompt, stop_token: int) -> Iterator[str]:
        self.notice = prompt.notice
        return stream(self.decoder, self.tokenizer, prompt.tokens, self.config, stop_token)
