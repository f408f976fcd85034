"""A model to talk to: a chat model replies to a conversation, a base model completes a text, both in pieces as they come.

Reads a folder with model.safetensors and config.json, and a tokenizer.json. Writes nothing.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import torch
from pydantic import ValidationError

from model.config import GenerateConfig, explained
from model.inference.decoder import Decoder
from model.inference.generate import stream
from model.network.huggingface import load_transformer
from model.tokenizer.chat import ChatTokenizer, Messages


class Chat:
    """A loaded model. Of a conversation that is too long for it, the oldest turns are forgotten."""

    def __init__(
        self, folder: Path, tokenizer: Path, *, temperature: float = 0.0, seed: int = 0, max_new_tokens: int = 256
    ) -> None:
        """Raises ValueError where the tokenizer is not the model's, or nothing can be drawn so."""
        self.tokenizer = ChatTokenizer.load(tokenizer)
        model = load_transformer(folder).to("cuda" if torch.cuda.is_available() else "cpu")
        self.max_tokens: int = json.loads((folder / "config.json").read_text())["max_position_embeddings"]
        most = min(max_new_tokens, self.max_tokens // 2)
        try:
            self.config = GenerateConfig(max_new_tokens=most, temperature=temperature, seed=seed)
        except ValidationError as error:
            raise ValueError(explained(error)) from None
        if model.config.vocab_size != self.tokenizer.vocab_size:
            raise ValueError(
                f"the model in {folder} has a vocabulary of {model.config.vocab_size} tokens, {tokenizer} one of "
                f"{self.tokenizer.vocab_size}: give the tokenizer that the model was trained with"
            )
        self.decoder = Decoder(model)

    def reply(self, messages: Messages) -> Iterator[str]:
        """What the assistant says next, up to the end of its turn."""
        prompt = self.tokenizer.render_prompt(messages)
        while len(prompt) > self.most_tokens and len(messages) > 1:
            messages = messages[1:]
            prompt = self.tokenizer.render_prompt(messages)
        return self._stream(prompt[-self.most_tokens :], self.tokenizer.assistant_end)

    def complete(self, text: str) -> Iterator[str]:
        """How a document that starts with `text` goes on."""
        return self._stream(self.tokenizer.encode_document(text)[-self.most_tokens :], self.tokenizer.bos)

    @property
    def most_tokens(self) -> int:
        """Of a prompt, so that the longest completion still fits."""
        return self.max_tokens - self.config.max_new_tokens

    def _stream(self, prompt: list[int], stop_token: int) -> Iterator[str]:
        return stream(self.decoder, self.tokenizer, prompt, self.config, stop_token)
