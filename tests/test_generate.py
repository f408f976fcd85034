"""Generation through the cache gives what reading everything anew would give."""

from collections import Counter
from pathlib import Path

import pytest
import torch
from tiny import tiny_config, write_tokenizer

from model.config import GenerateConfig
from model.generate import draw, generate, pick, restrict, stream
from model.losses import token_logprobs
from model.tokenizer import Tokenizer
from model.transformer import Transformer, initialize

STOP = 5
GREEDY = GenerateConfig(max_new_tokens=24, temperature=0.0)


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = Transformer(tiny_config(320).model_copy(update={"tie_embeddings": False}))
    initialize(model, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(6 if parameter.dim() == 2 else 1)  # far from fresh: each prompt goes its own way
    return model.eval()


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(12, 320, (1 + 3 * (n % 9),), generator=generator).tolist() for n in range(24)]


def uncached(model: Transformer, prompt: list[int], stop_token: int) -> list[int]:
    tokens = list(prompt)
    while len(tokens) < len(prompt) + GREEDY.max_new_tokens and (
        len(tokens) == len(prompt) or tokens[-1] != stop_token
    ):
        with torch.no_grad():
            tokens.append(int(model(torch.tensor([tokens]))[0, -1].argmax()))
    return tokens[len(prompt) :]


def test_greedy_gives_the_tokens_of_an_uncached_forward(model: Transformer, prompts: list[list[int]]) -> None:
    # A stop token that some rows come to early and others never: rows leave, and are moved together.
    free = [uncached(model, prompt, -1) for prompt in prompts]
    stop_token = Counter(token for row in free for token in set(row)).most_common(1)[0][0]
    expected = [uncached(model, prompt, stop_token) for prompt in prompts]
    assert len({len(row) for row in expected}) > 3
    assert sum(len(row) < 24 for row in expected) > 6
    assert generate(model, prompts, GREEDY, stop_token) == expected


def test_logprobs_are_those_of_a_forward(model: Transformer, prompts: list[list[int]]) -> None:
    config = GenerateConfig(max_new_tokens=12, temperature=1.3, top_k=50, seed=4)
    for prompt, completion in zip(prompts, draw(model, prompts, config, STOP), strict=True):
        tokens = torch.tensor([[*prompt, *completion.tokens]])
        with torch.no_grad():
            logprobs = token_logprobs(model(tokens[:, :-1]), tokens[:, 1:])[0, len(prompt) - 1 :]
        assert completion.logprobs == pytest.approx(logprobs.tolist(), abs=1e-4)


def test_the_seed_decides(model: Transformer, prompts: list[list[int]]) -> None:
    first, again, other = (
        generate(model, prompts, GenerateConfig(max_new_tokens=8, seed=seed), STOP) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_a_completion_ends_with_the_stop_token_or_is_cut_off(model: Transformer, prompts: list[list[int]]) -> None:
    for tokens in generate(model, prompts * 4, GenerateConfig(max_new_tokens=40, temperature=2.0), STOP):
        assert STOP not in tokens[:-1]
        assert tokens[-1] == STOP or len(tokens) == 40


def test_restrict() -> None:
    logits = torch.log(torch.tensor([[0.1, 0.4, 0.3, 0.2]]))
    assert restrict(logits, top_k=2, top_p=1.0).isfinite().tolist() == [[False, True, True, False]]
    assert restrict(logits, top_k=0, top_p=0.6).isfinite().tolist() == [[False, True, True, False]]
    assert restrict(logits, top_k=0, top_p=0.01).isfinite().tolist() == [[False, True, False, False]]
    assert torch.equal(restrict(logits, top_k=0, top_p=1.0), logits)


def test_draws_follow_the_probabilities() -> None:
    logits = torch.log(torch.tensor([0.1, 0.4, 0.3, 0.2])).expand(20_000, 4)
    drawn = pick(logits, GenerateConfig(temperature=0.5), torch.Generator().manual_seed(0))
    fractions = torch.bincount(drawn, minlength=4) / len(drawn)
    expected = torch.tensor([0.01, 0.16, 0.09, 0.04]) / 0.3  # squared and scaled
    assert (fractions - expected).abs().max() < 0.015


def test_a_stream_adds_up_and_never_cuts_a_character(
    model: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer: Tokenizer = write_tokenizer(tmp_path)
    text = "Zürich 🙂, ok é"
    told = iter([*tokenizer.encode(text), tokenizer.assistant_end])
    monkeypatch.setattr("model.generate.pick", lambda *_: torch.tensor([next(told)]))
    config = GenerateConfig(max_new_tokens=200)
    pieces = list(stream(model, tokenizer, [tokenizer.bos], config, tokenizer.assistant_end))
    assert "".join(pieces) == text
    assert "🙂" in pieces  # four tokens, one piece
    assert len(pieces) > 8
