"""Tokens per second generated for a batch of 32 prompts, compared with transformers' `generate` on the same exported weights.

    python -m tests.benchmarks.generation_speed

Two models with initial weights: the laptop recipe's and one of 10 M parameters. Prompts have 8 to 62 tokens. Without a stop both generate
NUM_TOKENS tokens per row, which is equal work; loading and packing the weights is not timed. The last setting is that of rollouts: 8
prompts are completed 4 times each with temperature 1, packing the weights is timed, and a bias makes the stop token so likely that a
row has about 23 tokens. transformers continues all rows until the last has ended; tokens after the end of a row are not counted. Runs
alternate, on all cores; medians are compared.
"""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"

import torch
from transformers import AutoModelForCausalLM
from transformers.utils import logging

from model.config import GenerateConfig, ModelConfig, num_parameters
from model.inference.cpu_kernels import make_decoder
from model.inference.decoder import Decoder
from model.inference.generate import generate
from model.network.huggingface import save_weights
from model.network.transformer import Transformer, initialize
from tasks.pretrain.stage import PretrainConfig
from tests.benchmarks.harness import machine, print_table, say

NUM_ROWS, NUM_TOKENS, NUM_RUNS = 32, 64, 15
STOP = 5
MODELS = {
    "tiny": PretrainConfig().model.with_vocabulary(4096),
    "10 M": ModelConfig(
        vocab_size=8192, num_layers=6, width=320, num_heads=5, num_kv_heads=5, head_width=64, ff_width=896
    ),
}


class Setting(NamedTuple):
    name: str
    temperature: float
    num_completions: int = 1  # of each prompt
    stop_odds: float = 0.0  # of the stop token, which otherwise never comes
    top_k: int = 0
    top_p: float = 1.0


SETTINGS = [
    Setting("greedy, no stop", 0.0),
    Setting("sampled, no stop", 1.0),
    Setting("sampled with top-k 50 and top-p 0.9, no stop", 1.0, top_k=50, top_p=0.9),
    Setting("sampled, with stops, 4 completions a prompt", 1.0, num_completions=4, stop_odds=0.04),
]


def export(config: ModelConfig, folder: Path) -> tuple[Transformer, Any]:
    """The same weights for both."""
    model = Transformer(config).eval()
    initialize(model, seed=0)
    save_weights(folder, model, {name: p.detach() for name, p in model.named_parameters()}, max_tokens=512)
    return model, AutoModelForCausalLM.from_pretrained(folder)


def make_prompts(vocab_size: int, num_completions: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    num_prompts = NUM_ROWS // num_completions
    lengths = [8 + 54 * number // max(num_prompts - 1, 1) for number in range(num_prompts)]
    prompts = [torch.randint(vocab_size, (length,), generator=generator).tolist() for length in lengths]
    return [prompt for prompt in prompts for _ in range(num_completions)]


def stop_bias(setting: Setting, vocab_size: int) -> float:
    """What gives the stop token its odds where all tokens are about equally likely, as under fresh weights."""
    return math.log(setting.stop_odds * vocab_size) if setting.stop_odds else -1e9


def ours(decoder: Decoder, prompts: list[list[int]], setting: Setting) -> list[list[int]]:
    bias = stop_bias(setting, decoder.config.vocab_size)
    config = GenerateConfig(
        max_new_tokens=NUM_TOKENS,
        temperature=setting.temperature,
        top_k=setting.top_k,
        top_p=setting.top_p,
        logit_bias={STOP: bias},
    )
    return generate(decoder, prompts, config, STOP)


def theirs(model: Any, prompts: list[list[int]], setting: Setting) -> list[list[int]]:
    most = max(map(len, prompts))
    tokens = torch.tensor([[0] * (most - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (most - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    sampling = {"do_sample": True, "temperature": setting.temperature, "top_k": setting.top_k, "top_p": setting.top_p}
    bias = {(STOP,): stop_bias(setting, model.config.vocab_size)}
    written = model.generate(
        tokens,
        attention_mask=mask,
        max_new_tokens=NUM_TOKENS,
        pad_token_id=0,
        eos_token_id=STOP,
        sequence_bias=bias,
        **(sampling if setting.temperature else {}),
    )
    return [until_stop(row) for row in written[:, most:].tolist()]


def until_stop(tokens: list[int]) -> list[int]:
    return tokens[: tokens.index(STOP) + 1] if STOP in tokens else tokens


def measure(writers: Sequence[Callable[[], list[list[int]]]]) -> list[float]:
    """Tokens a second of each writer, runs alternating."""
    speeds: list[list[float]] = [[] for _ in writers]
    for run in range(NUM_RUNS + 1):
        for writer, measured in zip(writers, speeds, strict=True):
            start = time.monotonic()
            num_tokens = sum(map(len, writer()))
            if run:  # the first warms up
                measured.append(num_tokens / (time.monotonic() - start))
    return [statistics.median(measured) for measured in speeds]


def main() -> None:
    logging.set_verbosity_error()
    rows: list[tuple[object, ...]] = []
    for name, config in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            model, peer = export(config, Path(folder))
        for setting in SETTINGS:
            say(f"{name}: {setting.name}")
            prompts, decoder = make_prompts(config.vocab_size, setting.num_completions), make_decoder(model)
            is_rollout = setting.num_completions > 1
            mine, other = measure(
                [
                    lambda: ours(make_decoder(model) if is_rollout else decoder, prompts, setting),
                    lambda: theirs(peer, prompts, setting),
                ]
            )
            if setting.temperature == 0:
                assert ours(decoder, prompts, setting) == theirs(peer, prompts, setting)
            model_name = f"{name}, {num_parameters(config) / 1e6:.1f} M parameters"
            rows.append((f"{model_name}: {setting.name}", f"{mine:,.0f}", f"{other:,.0f}", f"{mine / other:.2f}"))
    print_table(
        f"Generation: tokens a second, {NUM_ROWS} prompts of 8 to 62 tokens, at most {NUM_TOKENS} new tokens each",
        ["Model and setting", "crawl2chat", "transformers generate", "Ratio"],
        rows,
        f"{machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads, float32.",
    )


if __name__ == "__main__":
    main()
