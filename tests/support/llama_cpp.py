"""llama.cpp with a GGUF file: its tokens, its log-probabilities, its greedy completions.

The server that `xllamacpp` has inside runs in a process that ends with the `with` block: within the test's own process it may wait
for ever when it is taken down.
"""

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

SERVE = """
import sys
import xllamacpp

params = xllamacpp.CommonParams()
params.model.path = sys.argv[1]
params.n_ctx, params.n_parallel, params.warmup, params.verbosity = 256, 1, False, 0
params.cpuparams.n_threads = 1
# Keys and values are float16 by default, which rounds more than the weights of a float32 file.
params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
sys.stdin.read()
"""


@contextmanager
def llama_cpp(path: Path) -> Iterator["LlamaCpp"]:
    """llama.cpp with a GGUF file, for prompts and completions of 256 tokens. Skips the test where it is not installed."""
    pytest.importorskip("xllamacpp", reason="there are no wheels of llama.cpp for this machine")
    process = subprocess.Popen(
        [sys.executable, "-c", SERVE, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        yield LlamaCpp(process.stdout.readline().strip())
    finally:
        process.kill()
        process.communicate()


class LlamaCpp:
    """A client of llama.cpp's server."""

    def __init__(self, address: str) -> None:
        assert address, "llama.cpp has not loaded the file"
        self._connection = HTTPConnection(urlsplit(address).netloc, timeout=300)

    def _post(self, path: str, **body: Any) -> Any:
        # The connection stays open: a new one for each of thousands of texts takes longer than the texts.
        self._connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = self._connection.getresponse()
        text = response.read()
        assert response.status == 200, text[:300]
        return json.loads(text)

    def encode(self, text: str, **settings: bool) -> list[int]:
        """Tokens of a text as plain characters."""
        plain = {"add_special": False, "parse_special": False} | settings
        return list(self._post("/tokenize", content=text, **plain)["tokens"])

    def greedy(self, prompt: Sequence[int], num_tokens: int) -> list[int]:
        """The likeliest tokens after a prompt, the one that ends it left out."""
        found = self._post(
            "/completion",
            prompt=list(prompt),
            n_predict=num_tokens,
            temperature=0,
            return_tokens=True,
            cache_prompt=False,
        )
        return list(found["tokens"])

    def logprobs(self, prompt: Sequence[int], vocab_size: int) -> list[float]:
        """[V] log-probabilities of the next token, in nats."""
        body = {"prompt": list(prompt), "n_predict": 1, "n_probs": vocab_size, "temperature": 1, "cache_prompt": False}
        # Where it draws the token that ends a reply, it gives no probabilities.
        drawn = (self._post("/completion", seed=seed, **body) for seed in range(100))
        found = next(answer for answer in drawn if "completion_probabilities" in answer)
        by_token = {entry["id"]: entry["logprob"] for entry in found["completion_probabilities"][0]["top_logprobs"]}
        return [by_token[token] for token in range(vocab_size)]

    def chat(self, messages: Sequence[Any], num_tokens: int) -> Any:
        """The answer of /v1/chat/completions, greedy."""
        return self._post("/v1/chat/completions", messages=messages, max_tokens=num_tokens, temperature=0)

    def prompt_of(self, messages: Sequence[Any]) -> str:
        """The conversation as the chat template renders it."""
        return str(self._post("/apply-template", messages=messages)["prompt"])
