"""Text to tokens, and conversations to tokens: one renderer for training, inference, the reward model and export. No torch here.

Reads a tokenizer.json of Hugging Face `tokenizers`. A turn of a conversation is rendered as

    <|im_start|> <|ROLE|> <|im_sep|> text <|im_end|>

without the spaces, after one <|bos|>; model/tokenizer/README.md describes tool calls and their results. Special tokens are inserted by
id only: a text that spells their names is encoded as plain characters, so that a page, a user or a tool cannot forge a turn. Engines that
tokenize the rendered string of model/tokenizer/template.py would parse such a name; so in conversations it is broken by a space
after its first character ("< |bos|>"), here and there alike, and both give the same tokens.

The format is Phi-4's (Abdin et al. 2024, https://arxiv.org/abs/2412.08905). Departure: a role is one special token and not a word, which a small
vocabulary would cut into several tokens.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tokenizers

from model.errors import UserError

SURROGATE = re.compile("[\\ud800-\\udfff]")
BOS, PAD = "<|bos|>", "<|pad|>"
TURN_START, TURN_SEP, TURN_END = "<|im_start|>", "<|im_sep|>", "<|im_end|>"
TOOL_START, TOOL_END = "<|tool_start|>", "<|tool_end|>"
ROLES = ("system", "user", "assistant", "tool")
ROLE_TOKENS = {role: f"<|{role}|>" for role in ROLES}
SPECIAL_TOKENS = (BOS, PAD, TURN_START, TURN_SEP, TURN_END, TOOL_START, TOOL_END, *ROLE_TOKENS.values())

Messages = Sequence[Mapping[str, Any]]
"""Turns with a `role` of ROLES and a `content`. An assistant's turn may have `tool_calls`, each a `name` and `arguments` or, as OpenAI has it, a
`function` with them, and a `weight`: 0 where it is not to be learned."""


class Rendered(NamedTuple):
    """Tokens, and their loss mask, of one length: 1 on what the assistant has to write."""

    tokens: list[int]
    mask: list[int]


class ToolCall(NamedTuple):
    """A call that an assistant's turn makes. The tool decides what its arguments look like."""

    name: str
    arguments: str


class Reply(NamedTuple):
    """An assistant's turn as it was sampled. `problem`: why it is not a text with tool calls after it, or ""."""

    text: str
    tool_calls: tuple[ToolCall, ...] = ()
    problem: str = ""

    def message(self) -> dict[str, Any]:
        """The turn as a message: of a reply without a problem, `ChatTokenizer.render` makes the sampled text again."""
        plain: dict[str, Any] = {"role": "assistant", "content": self.text}
        calls = [call._asdict() for call in self.tool_calls]
        return {**plain, "tool_calls": calls} if calls else plain


def whole_characters(text: str) -> str:
    """`text` with U+FFFD for every lone surrogate. JSON and a command line can hold one, UTF-8 and so the tokenizer cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def broken(name: str) -> str:
    """The name of a special token with a space after its first character, so that no parser takes it for the token."""
    return f"{name[0]} {name[1:]}"


def _encodable(text: str) -> str:
    return whole_characters(text) if SURROGATE.search(text) else text


class ChatTokenizer:
    """Byte-level BPE with the conversation format's special tokens."""

    def __init__(self, encoder: tokenizers.Tokenizer) -> None:
        """Raises UserError if the encoder lacks a special token, or parses one in a text."""
        vocab: dict[str, int] = encoder.get_vocab()
        # A foreign tokenizer.json may lack them or treat them as text: both are found here and not in a wrong training run.
        missing = [name for name in SPECIAL_TOKENS if name not in vocab]
        if missing:
            raise UserError(
                f"tokenizer has no special tokens {missing}; train it with model.tokenizer.chat.SPECIAL_TOKENS"
            )
        encoder.encode_special_tokens = True  # the names of special tokens in a text are plain characters
        if forged := [
            name for name in SPECIAL_TOKENS if vocab[name] in encoder.encode(name, add_special_tokens=False).ids
        ]:
            raise UserError(
                f"tokenizer makes special tokens of text that says {forged}: call them special in its added_tokens, and cut "
                "words from marks before the merges"
            )
        self._encoder = encoder
        added = encoder.get_added_tokens_decoder()
        self.special_names = tuple(sorted({token.content for token in added.values() if token.special}))
        # One regular expression finds whether any name is there; the replacements are rare.
        self._any_special = re.compile("|".join(map(re.escape, self.special_names)))
        self.vocab_size = max(vocab.values()) + 1  # V, special tokens included; a foreign vocabulary may have gaps
        self.special: dict[str, int] = {name: vocab[name] for name in SPECIAL_TOKENS}
        self.bos = self.special[BOS]
        self.pad = self.special[PAD]
        self.turn_end = self.special[TURN_END]  # ends a completion
        self.assistant_start = self.turn_start("assistant")  # follows every prompt

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "ChatTokenizer":
        """Read a tokenizer.json."""
        return cls(tokenizers.Tokenizer.from_file(str(path)))

    @property
    def encoder(self) -> tokenizers.Tokenizer:
        """The encoder of the tokenizers library."""
        return self._encoder

    def encode(self, text: str) -> list[int]:
        """Tokens of a text, never special ones. A lone surrogate becomes U+FFFD."""
        return list(self._encoder.encode(_encodable(text), add_special_tokens=False).ids)

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of each text, as `encode` gives them, by several threads of the encoder."""
        whole = [_encodable(text) for text in texts]
        return [encoding.ids for encoding in self._encoder.encode_batch_fast(whole, add_special_tokens=False)]

    def encode_document(self, text: str) -> list[int]:
        """Tokens of a document as in pretraining: <|bos|>, then the text."""
        return [self.bos, *self.encode(text)]

    def decode(self, tokens: Iterable[int]) -> str:
        """The text of tokens, without the special ones; bytes that form no character become U+FFFD."""
        return str(self._encoder.decode(list(tokens), skip_special_tokens=True))

    @cached_property
    def token_bytes(self) -> npt.NDArray[np.int32]:
        """[V] bytes of text that each token stands for; 0 for special tokens. Bits per byte divides by these."""
        # Ids without a token, in a vocabulary with gaps, keep 0.
        num_bytes = np.zeros(self.vocab_size, np.int32)
        added = self._encoder.get_added_tokens_decoder()
        for name, token in self._encoder.get_vocab().items():
            if token not in added:
                num_bytes[token] = len(name)  # a byte-level alphabet writes every byte as one character
            elif not added[token].special:
                num_bytes[token] = len(name.encode())
        return num_bytes

    def render(self, messages: Messages) -> Rendered:
        """Tokens of a conversation and their loss mask. Raises UserError where a message is not of the form of `Messages`.

        The mask is 1 on what the assistant has to produce: text, tool calls and end token of its turns. A turn of weight 0, as OpenAI's
        fine-tuning files have it, is context only.
        """
        rendered = Rendered([self.bos], [0])
        for message in messages:
            tokens, mask = self.render_turn(message)
            rendered.tokens.extend(tokens)
            rendered.mask.extend(mask)
        return rendered

    def render_training(self, messages: Messages) -> Rendered:
        """The same, as an example to learn. Raises UserError where the mask is empty or full: both train something else."""
        rendered = self.render(messages)
        check_mask(rendered.mask)
        return rendered

    def render_prompt(self, messages: Messages) -> list[int]:
        """Tokens of a conversation up to and with the start of the assistant's turn."""
        return [*self.render(messages).tokens, *self.assistant_start]

    def render_turn(self, message: Mapping[str, Any]) -> Rendered:
        """One turn of a conversation, without <|bos|>: what generation appends for the result of a tool."""
        role = message["role"]
        start = self.turn_start(role)
        # Only what the assistant writes; the start of its turn is given by the prompt, the end token it must learn to write.
        is_learned = int(role == "assistant" and message.get("weight", 1) != 0)
        content = [*self.encode_content(_text(message)), *self._calls(message), self.turn_end]
        return Rendered([*start, *content], [0] * len(start) + [is_learned] * len(content))

    def turn_start(self, role: str) -> list[int]:
        """The tokens before the text of a turn. Raises UserError if the role is unknown."""
        if role not in ROLES:
            raise UserError(f"message role {role!r} is unknown; use one of {', '.join(ROLES)}")
        return [self.special[name] for name in (TURN_START, ROLE_TOKENS[role], TURN_SEP)]

    def encode_content(self, text: str) -> list[int]:
        """Tokens of a text in a conversation: as `encode`, with the names of special tokens broken."""
        return self.encode(self.without_special_names(text))

    def _calls(self, message: Mapping[str, Any]) -> list[int]:
        start, sep, end = (self.special[name] for name in (TOOL_START, TURN_SEP, TOOL_END))
        return [
            token
            for call in tool_calls(message)
            for token in (start, *self.encode_content(call.name), sep, *self.encode_content(call.arguments), end)
        ]

    def parse_reply(self, tokens: Iterable[int]) -> Reply:
        """The text and the tool calls of a sampled turn: what follows `render_prompt`, with or without its end token."""
        names = {token: name for name, token in self.special.items()}
        pieces, marks = [[]], []  # type: ignore[var-annotated]
        for token in tokens:
            if token == self.turn_end:
                break
            if token in names:
                marks.append(names[token])
                pieces.append([])
            else:
                pieces[-1].append(token)
        texts = [self.decode(piece) for piece in pieces]
        # A call is three tokens and three pieces: name, arguments, and what follows, which must be nothing.
        num_calls, rest = divmod(len(marks), 3)
        if rest or marks != [TOOL_START, TURN_SEP, TOOL_END] * num_calls:
            return Reply(texts[0], problem=f"has special tokens that form no tool call: {' '.join(marks[:8])}")
        calls = tuple(ToolCall(*texts[place : place + 2]) for place in range(1, len(texts), 3))
        if any(pieces[place] for place in range(3, len(pieces), 3)):
            return Reply(texts[0], calls, "has text after a tool call")
        if any(not call.name for call in calls):
            return Reply(texts[0], calls, "calls a tool without a name")
        return Reply(texts[0], calls)

    def without_special_names(self, text: str) -> str:
        """A text in which the name of a special token is broken by a space after its first character, as the chat template does it."""
        # The rule of the Jinja template, so that engines which tokenize the rendered string get the same tokens.
        if self._any_special.search(text):
            for name in self.special_names:
                text = text.replace(name, broken(name))
        return text

    @property
    def token_ids(self) -> dict[str, int]:
        """The fields of a config.json that name special tokens."""
        return {"bos_token_id": self.bos, "eos_token_id": self.turn_end, "pad_token_id": self.pad}


def tool_calls(message: Mapping[str, Any]) -> list[ToolCall]:
    """The tool calls of a message. Raises UserError where one is malformed, or the message is not the assistant's."""
    calls = message.get("tool_calls") or []
    if calls and message["role"] != "assistant":
        raise UserError(f"a message of role {message['role']!r} has tool_calls: only the assistant calls tools")
    return [_tool_call(call) for call in calls]


def _tool_call(call: Any) -> ToolCall:
    function = call.get("function", call) if isinstance(call, Mapping) else {}
    fields = function if isinstance(function, Mapping) else {}
    name, arguments = fields.get("name"), fields.get("arguments")
    if not (isinstance(name, str) and name) or arguments is None:
        raise UserError(f"tool call {str(call)[:80]!r} has no name and arguments: give both")
    # transformers has them as an object, OpenAI as a string.
    return ToolCall(name, arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False))


def _text(message: Mapping[str, Any]) -> str:
    content = message.get("content")
    if content is None and message.get("tool_calls"):
        return ""
    if not isinstance(content, str):
        raise UserError(f"the content of a message of role {message['role']!r} is no text: give a string")
    return content


def check_mask(mask: Sequence[int]) -> None:
    """Raises UserError where a loss mask is empty or full."""
    if not any(mask):
        raise UserError("nothing of the conversation is learned: give an assistant's turn whose weight is not 0")
    if all(mask):
        raise UserError(
            "every token of the conversation is learned, also those of the user: the mask was not built by turns"
        )
