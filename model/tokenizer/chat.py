"""Text to tokens, and conversations to tokens: one renderer for training, inference and the reward model. No torch here.

Reads a tokenizer.json of Hugging Face `tokenizers`. A conversation is rendered as

    <|bos|> <|user_start|>text<|user_end|> <|assistant_start|>text<|assistant_end|> ...

without the spaces. Special tokens are inserted by id only: a text that spells their names is encoded as plain characters, so that a page or
a user cannot forge a turn. `chat_template` is the same rendering in Jinja, for other engines. These tokenize the rendered string, in which
a name would be parsed as the token; so in conversations a name in a text is broken by a space after its first character
("< |bos|>"), here and in the template alike, and both give the same tokens.
"""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from os import PathLike
from typing import Any

import numpy as np
import numpy.typing as npt
import tokenizers

from model.errors import UserError

SURROGATE = re.compile("[\\ud800-\\udfff]")
BOS, PAD = "<|bos|>", "<|pad|>"
ASSISTANT_START, ASSISTANT_END = "<|assistant_start|>", "<|assistant_end|>"
SPECIAL_TOKENS = (
    BOS,
    PAD,
    "<|system_start|>",
    "<|system_end|>",
    "<|user_start|>",
    "<|user_end|>",
    ASSISTANT_START,
    ASSISTANT_END,
    "<|python_start|>",  # reserved for a tool call
    "<|python_end|>",
    "<|output_start|>",  # reserved for the tool's output
    "<|output_end|>",
)

ROLES = ("system", "user", "assistant")
TEMPLATE = (  # on one line: the engines' Jinja would render line breaks between the tags
    "{{ '<|bos|>' }}"
    "{% for message in messages %}"
    "{% if message['role'] not in ROLES %}"
    "{{ raise_exception('message role ' ~ message['role'] ~ ' is unknown; use system, user or assistant') }}"
    "{% endif %}"
    "{% if message['content'] is not string %}{{ raise_exception('the content of a message must be a string') }}{% endif %}"
    "{% set text = namespace(content=message['content']) %}"
    "{% for pair in NAMES %}{% set text.content = text.content | replace(pair[0], pair[1]) %}{% endfor %}"
    "{{ '<|' + message['role'] + '_start|>' + text.content + '<|' + message['role'] + '_end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant_start|>' }}{% endif %}"
)

Messages = Sequence[Mapping[str, Any]]
"""Turns with a `role` (system, user or assistant), a `content` and, optionally, a `weight`: 0 where it is not to be learned."""


def whole_characters(text: str) -> str:
    """`text` with U+FFFD for every lone surrogate. JSON and a command line can hold one, UTF-8 and so the tokenizer cannot."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _broken(name: str) -> str:
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
        self.assistant_start = self.special[ASSISTANT_START]
        self.assistant_end = self.special[ASSISTANT_END]

    @classmethod
    def load(cls, path: str | PathLike[str]) -> "ChatTokenizer":
        """Read a tokenizer.json."""
        return cls(tokenizers.Tokenizer.from_file(str(path)))

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

    def render(self, messages: Messages) -> tuple[list[int], list[int]]:
        """Tokens of a conversation and their loss mask, of one length.

        The mask is 1 on what the assistant has to produce: the content of its turns and their end token. A turn of weight 0, as
        OpenAI's fine-tuning files have it, is context only.
        """
        tokens, mask = [self.bos], [0]
        for message in messages:
            start, end = self._turn(message)
            content = self.encode(self.without_special_names(message["content"]))
            # Only the assistant's own words; the start token is given by the prompt, the end token it must learn to write.
            is_learned = int(message["role"] == "assistant" and message.get("weight", 1) != 0)
            tokens += [start, *content, end]
            mask += [0, *[is_learned] * (len(content) + 1)]
        return tokens, mask

    def render_prompt(self, messages: Messages) -> list[int]:
        """Tokens of a conversation up to and with the start of the assistant's turn."""
        return [*self.render(messages)[0], self.assistant_start]

    def without_special_names(self, text: str) -> str:
        """A text in which the name of a special token is broken by a space after its first character, as `chat_template` does it."""
        # The rule of the Jinja template, so that engines which tokenize the rendered string get the same tokens.
        if self._any_special.search(text):
            for name in self.special_names:
                text = text.replace(name, _broken(name))
        return text

    def chat_template(self) -> str:
        """The conversation format as a Jinja template, for `apply_chat_template` of transformers and other engines."""
        pairs = [(name, _broken(name)) for name in self.special_names]
        names = json.dumps(pairs)  # a list in JSON is one in Jinja
        return TEMPLATE.replace("NAMES", names).replace("ROLES", json.dumps(ROLES))

    @property
    def token_ids(self) -> dict[str, int]:
        """The fields of a config.json that name special tokens."""
        return {"bos_token_id": self.bos, "eos_token_id": self.assistant_end, "pad_token_id": self.pad}

    def _turn(self, message: Mapping[str, Any]) -> tuple[int, int]:
        role = message["role"]
        if role not in ROLES:
            raise UserError(f"message role {role!r} is unknown; use system, user or assistant")
        return self.special[f"<|{role}_start|>"], self.special[f"<|{role}_end|>"]
