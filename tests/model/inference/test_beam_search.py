"""Beam search equals that of transformers, and with enough beams an exhaustive search."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch

from model.config import BeamConfig
from model.inference.beam_search import beam_search, exhaustive_search
from model.inference.cpu_kernels import make_decoder
from model.losses import token_logprobs
from model.network.huggingface import save_weights
from model.network.transformer import Transformer, initialize
from tests.support.tiny_models import tiny_config

STOP = 5
PROMPTS = [[17, 44], [60, 9, 31, 12, 70], [33], [21, 22, 23, 24, 25, 26, 27, 28], [50, 61, 13]]


def make_model(vocab_size: int, factor: float, num_pairs: int = 0) -> Transformer:
    """Initial weights times `factor`, trained for `num_pairs` steps on pairs of tokens that follow each other."""
    torch.manual_seed(0)
    model = Transformer(tiny_config(vocab_size).model_copy(update={"tie_embeddings": False}))
    initialize(model, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(factor if parameter.dim() == 2 else 1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    successors = torch.randint(vocab_size, (vocab_size, 4), generator=torch.Generator().manual_seed(1))
    successors[::3, 0] = STOP
    for _ in range(num_pairs):
        tokens = [torch.randint(vocab_size, (32,))]
        for _ in range(15):
            tokens.append(successors[tokens[-1], torch.randint(4, (32,))])
        batch = torch.stack(tokens, 1)
        loss = -token_logprobs(model(batch[:, :-1]), batch[:, 1:]).mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


@pytest.fixture(scope="module", params=["fresh", "sharp", "trained"])
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Transformer, Any]:
    transformers = pytest.importorskip("transformers")
    model = {"fresh": (96, 1.0), "sharp": (96, 5.0), "trained": (96, 1.0, 60)}[request.param]
    ours = make_model(*model)
    folder = tmp_path_factory.mktemp(request.param)
    save_weights(folder, ours, {name: p.detach() for name, p in ours.named_parameters()}, max_tokens=64)
    return ours, transformers.AutoModelForCausalLM.from_pretrained(folder)


def theirs(model: Any, prompts: list[list[int]], **settings: Any) -> list[list[tuple[list[int], float]]]:
    """Tokens and score of every beam in transformers, best first."""
    most = max(map(len, prompts))
    tokens = torch.tensor([[0] * (most - len(prompt)) + prompt for prompt in prompts])
    mask = torch.tensor([[0] * (most - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    found = model.generate(
        tokens, attention_mask=mask, do_sample=False, pad_token_id=0, eos_token_id=STOP,
        num_return_sequences=settings["num_beams"], output_scores=True, return_dict_in_generate=True, **settings,
    )  # fmt: skip
    rows = [row[most:].tolist() for row in found.sequences]
    whole = [row[: row.index(STOP) + 1] if STOP in row else row for row in rows]
    beams = list(zip(whole, found.sequences_scores.tolist(), strict=True))
    return [beams[start : start + settings["num_beams"]] for start in range(0, len(beams), settings["num_beams"])]


@pytest.mark.parametrize("early_stopping", [True, False, "never"])
@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.5, -1.0])
@pytest.mark.parametrize("num_beams", [2, 5])
def test_beams_equal_those_of_transformers(
    pair: tuple[Transformer, Any], num_beams: int, length_penalty: float, early_stopping: bool | str
) -> None:
    settings = {"num_beams": num_beams, "length_penalty": length_penalty, "early_stopping": early_stopping}
    ours = beam_search(make_decoder(pair[0]), PROMPTS, BeamConfig(max_new_tokens=12, **settings), STOP)
    for found, expected in zip(ours, theirs(pair[1], PROMPTS, max_new_tokens=12, **settings), strict=True):
        assert [beam.tokens for beam in found] == [tokens for tokens, _ in expected]
        assert [beam.score for beam in found] == pytest.approx([score for _, score in expected], rel=2e-6, abs=1e-4)


def test_trained_weights_end_some_completions_early() -> None:
    """Otherwise the comparison above would not test early stopping."""
    found = beam_search(
        make_decoder(make_model(96, 1.0, 60)), PROMPTS, BeamConfig(max_new_tokens=12, num_beams=5), STOP
    )
    lengths = {len(beam.tokens) for beams in found for beam in beams}
    assert len(lengths) > 4
    assert 12 in lengths or max(lengths) > 6


def test_constraints_equal_those_of_transformers(pair: tuple[Transformer, Any]) -> None:
    config = BeamConfig(max_new_tokens=10, num_beams=3, banned_tokens=(7, 50), repetition_penalty=1.4)
    expected = theirs(pair[1], PROMPTS, max_new_tokens=10, num_beams=3, suppress_tokens=[7, 50], repetition_penalty=1.4)
    for found, beams in zip(beam_search(make_decoder(pair[0]), PROMPTS, config, STOP), expected, strict=True):
        assert [beam.tokens for beam in found] == [tokens for tokens, _ in beams]


@pytest.mark.parametrize("length_penalty", [1.0, 0.0, 2.0, -0.5])
@pytest.mark.parametrize("changes", [{}, {"stop_sequences": ((3, 4),), "banned_tokens": (1,)}], ids=str)
def test_enough_beams_find_the_best_completions(length_penalty: float, changes: dict[str, Any]) -> None:
    model = make_model(16, 6.0)
    config = BeamConfig(
        max_new_tokens=3, num_beams=16**2 + 1, length_penalty=length_penalty, early_stopping="never", **changes
    )
    for prompt, found in zip(
        [[2, 11], [9]], beam_search(make_decoder(model), [[2, 11], [9]], config, STOP), strict=True
    ):
        everything = exhaustive_search(model, prompt, config, STOP)
        assert [beam.tokens for beam in found[:40]] == [beam.tokens for beam in everything[:40]]
        assert [beam.score for beam in found[:40]] == pytest.approx([beam.score for beam in everything[:40]], abs=3e-5)


def test_exhaustive_search_finds_all_completions() -> None:
    """The probabilities of all completions sum to 1, and no two are equal."""
    config = BeamConfig(max_new_tokens=3, num_beams=4096, length_penalty=0.0)
    beams = exhaustive_search(make_model(16, 6.0), [2, 11], config, STOP)
    assert len(beams) == len({tuple(beam.tokens) for beam in beams}) == 1 + 15 + 15 * 15 * 16
    assert sum(torch.tensor([beam.score for beam in beams]).exp()) == pytest.approx(1.0, abs=1e-4)
    assert all(first.score >= second.score for first, second in pairwise(beams))


def test_logprobs_equal_those_of_a_forward(pair: tuple[Transformer, Any], tmp_path: Path) -> None:
    config = BeamConfig(max_new_tokens=8, num_beams=3, length_penalty=0.0)
    for prompt, beams in zip(PROMPTS, beam_search(make_decoder(pair[0]), PROMPTS, config, STOP), strict=True):
        for beam in beams:
            tokens = torch.tensor([[*prompt, *beam.tokens]])
            with torch.no_grad():
                logprobs = token_logprobs(pair[0](tokens[:, :-1]), tokens[:, 1:])[0, len(prompt) - 1 :]
            assert beam.logprobs == pytest.approx(logprobs.tolist(), abs=1e-4)
            assert beam.score == pytest.approx(sum(beam.logprobs), abs=1e-3)


def test_exhaustive_search_of_too_many_raises_user_error() -> None:
    with pytest.raises(ValueError, match=r"96\^4 completions, more than 65536"):
        exhaustive_search(make_model(96, 1.0), [1], BeamConfig(max_new_tokens=4), STOP)
