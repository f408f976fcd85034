"""Generation with the cache gives the tokens of generation without it, under every kind of constraint."""

import math
from collections import Counter
from copy import deepcopy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import BeamConfig, GenerateConfig
from model.inference.beam_search import beam_search
from model.inference.cpu_kernels import CPUDecoder, make_decoder
from model.inference.generate import draw, generate, pick, stream
from model.inference.logits import NonFiniteError, constraints, restrict
from model.losses import token_logprobs
from model.network.huggingface import save_weights
from model.network.transformer import Transformer, initialize
from model.tokenizer.chat import ChatTokenizer
from tests.support.tiny_models import tiny_config, write_tokenizer

STOP = 5
GREEDY = GenerateConfig(max_new_tokens=24, temperature=0.0)


@pytest.fixture(scope="module")
def model() -> Transformer:
    model = Transformer(tiny_config(320).model_copy(update={"tie_embeddings": False}))
    initialize(model, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(
                6 if parameter.dim() == 2 else 1
            )  # far from the initial weights, so that each prompt has another completion
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


def test_greedy_equals_generation_without_a_cache(model: Transformer, prompts: list[list[int]]) -> None:
    # A stop token that some rows come to early and others never: rows leave, and are moved together.
    free = [uncached(model, prompt, -1) for prompt in prompts]
    stop_token = Counter(token for row in free for token in set(row)).most_common(1)[0][0]
    expected = [uncached(model, prompt, stop_token) for prompt in prompts]
    assert len({len(row) for row in expected}) > 3
    assert sum(len(row) < 24 for row in expected) > 6
    assert generate(make_decoder(model), prompts, GREEDY, stop_token) == expected


def test_logprobs_equal_those_of_a_forward(model: Transformer, prompts: list[list[int]]) -> None:
    config = GenerateConfig(max_new_tokens=12, temperature=1.3, top_k=50, seed=4)
    for prompt, completion in zip(prompts, draw(make_decoder(model), prompts, config, STOP), strict=True):
        tokens = torch.tensor([[*prompt, *completion.tokens]])
        with torch.no_grad():
            logprobs = token_logprobs(model(tokens[:, :-1]), tokens[:, 1:])[0, len(prompt) - 1 :]
        assert completion.logprobs == pytest.approx(logprobs.tolist(), abs=1e-4)


def test_seed_decides_what_is_sampled(model: Transformer, prompts: list[list[int]]) -> None:
    first, again, other = (
        generate(make_decoder(model), prompts, GenerateConfig(max_new_tokens=8, seed=seed), STOP) for seed in (1, 1, 2)
    )
    assert first == again
    assert first != other


def test_decoder_forgets_earlier_calls(model: Transformer, prompts: list[list[int]]) -> None:
    decoder = make_decoder(model)
    first = generate(decoder, prompts, GREEDY, STOP)
    generate(decoder, prompts[5:9], GREEDY.model_copy(update={"max_new_tokens": 60}), -1)
    assert generate(decoder, prompts, GREEDY, STOP) == first


def test_completion_ends_with_the_stop_token_or_is_cut_off(model: Transformer, prompts: list[list[int]]) -> None:
    for tokens in generate(make_decoder(model), prompts * 4, GenerateConfig(max_new_tokens=40, temperature=2.0), STOP):
        assert STOP not in tokens[:-1]
        assert tokens[-1] == STOP or len(tokens) == 40


def test_greedy_equals_transformers(model: Transformer, prompts: list[list[int]], tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    save_weights(tmp_path, model, {name: p.detach() for name, p in model.named_parameters()}, max_tokens=64)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    config = GREEDY.model_copy(update={"repetition_penalty": 1.3, "banned_tokens": (40, 41), "logit_bias": {60: 2.5}})
    same = {"repetition_penalty": 1.3, "suppress_tokens": [40, 41], "sequence_bias": {(60,): 2.5}}
    for asked, options in ((GREEDY, {}), (config, same)):
        for prompt, tokens in zip(prompts[:12], generate(make_decoder(model), prompts[:12], asked, STOP), strict=True):
            found = theirs.generate(
                torch.tensor([prompt]),
                do_sample=False,
                max_new_tokens=24,
                eos_token_id=STOP,
                pad_token_id=0,
                **options,
            )
            assert tokens == found[0, len(prompt) :].tolist()


@pytest.mark.parametrize("changes", [{"normalize_qk": False}, {"num_kv_heads": 2}, {"tie_embeddings": True}], ids=str)
def test_every_model_shape_has_the_logprobs_of_a_forward(changes: dict[str, object], prompts: list[list[int]]) -> None:
    model = Transformer(tiny_config(320).model_copy(update=changes))
    initialize(model, seed=3)
    with torch.no_grad():
        for parameter in model.parameters():  # norms too, or a swapped one would not be seen
            parameter.copy_(parameter * 4 if parameter.dim() == 2 else torch.rand_like(parameter) + 0.5)
    config = GenerateConfig(max_new_tokens=12, seed=4)
    for prompt, completion in zip(prompts, draw(make_decoder(model), prompts, config, STOP), strict=True):
        tokens = torch.tensor([[*prompt, *completion.tokens]])
        with torch.no_grad():
            logprobs = token_logprobs(model(tokens[:, :-1]), tokens[:, 1:])[0, len(prompt) - 1 :]
        assert completion.logprobs == pytest.approx(logprobs.tolist(), abs=1e-4)


def test_equal_prompts_are_read_once_and_sampled_separately(
    model: Transformer, prompts: list[list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_read: list[int] = []
    read = CPUDecoder._read
    monkeypatch.setattr(CPUDecoder, "_read", lambda *given: num_read.append(len(given[1])) or read(*given))
    repeated = [prompt for prompt in prompts[:6] for _ in range(4)]
    greedy, drawn = (
        generate(make_decoder(model), repeated, GREEDY.model_copy(update={"temperature": temperature}), STOP)
        for temperature in (0.0, 1.0)
    )
    assert sum(num_read) == 2 * 6
    assert greedy == [tokens for tokens in generate(make_decoder(model), prompts[:6], GREEDY, STOP) for _ in range(4)]
    assert len({tuple(tokens) for tokens in drawn}) == 24


def simple_restrict(logits: list[float], top_k: int, top_p: float, min_p: float) -> set[int]:
    """The tokens that are left, one mask after the other, for logits that all differ."""
    kept = sorted(range(len(logits)), key=lambda token: -logits[token])[: top_k or None]
    whole = sum(math.exp(logits[token]) for token in kept)
    mass, few = 0.0, list[int]()
    for token in kept:
        if mass / whole >= top_p:
            break
        mass += math.exp(logits[token])
        few.append(token)
    return {token for token in few if math.exp(logits[token]) >= min_p * math.exp(logits[few[0]])}


@given(
    st.lists(st.integers(-600, 600), min_size=2, max_size=40, unique=True),
    st.integers(0, 45),
    st.sampled_from([0.013, 0.21, 0.5003, 0.87, 0.9901, 1.0]),
    st.sampled_from([0.0, 0.0307, 0.111, 0.7, 1.0]),
    st.sampled_from([1, 3, 64]),
)
def test_restrict_equals_a_simple_reference(
    values: list[int], top_k: int, top_p: float, min_p: float, first_nucleus: int
) -> None:
    logits = [value / 97 for value in values]
    config = GenerateConfig(top_k=top_k, top_p=top_p, min_p=min_p)
    other = [logits[::-1], logits]  # rows do not mix
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.inference.logits.FIRST_NUCLEUS", first_nucleus)
        kept = restrict(torch.tensor([logits, *other], dtype=torch.float64), config).isfinite()
    assert set(kept[0].nonzero().flatten().tolist()) == simple_restrict(logits, top_k, top_p, min_p)
    assert kept[1].flip(0).equal(kept[0])
    assert kept[2].equal(kept[0])


@given(st.data())
@settings(max_examples=15, deadline=None)
def test_only_allowed_tokens_are_generated(model: Transformer, prompts: list[list[int]], data: st.DataObject) -> None:
    tokens = st.sets(st.integers(0, 319), max_size=30)
    allowed, banned = data.draw(tokens), data.draw(tokens)
    config = GenerateConfig(
        max_new_tokens=6,
        temperature=data.draw(st.sampled_from([0.0, 1.0, 5.0])),
        allowed_tokens=tuple(allowed),
        banned_tokens=tuple(banned),
        logit_bias=dict.fromkeys(banned, 30.0),
    )
    left = (allowed or set(range(320))) - banned
    if left:
        drawn = {
            token for completion in generate(make_decoder(model), prompts[:8], config, STOP) for token in completion
        }
        assert drawn <= left
    else:
        with pytest.raises(ValueError, match="leave no token"):
            generate(make_decoder(model), prompts, config, STOP)


def test_token_outside_the_vocabulary_raises_user_error(model: Transformer) -> None:
    with pytest.raises(ValueError, match=r"tokens \[-1, 320\] .* 0 to 319"):
        generate(make_decoder(model), [[1]], GenerateConfig(banned_tokens=(320, 4), logit_bias={-1: 1.0}), STOP)


def test_bias_changes_the_odds_but_not_the_logprobs(model: Transformer) -> None:
    config = GenerateConfig(max_new_tokens=1, logit_bias={77: 4.0})
    with torch.no_grad():
        logprobs = model(torch.tensor([[50]]))[0, -1].log_softmax(-1)
    drawn = draw(make_decoder(model), [[50]] * 4000, config, STOP)
    odds = math.exp(logprobs[77] + 4.0)
    expected = odds / (odds + 1 - math.exp(logprobs[77]))
    assert sum(completion.tokens == [77] for completion in drawn) / 4000 == pytest.approx(expected, abs=0.03)
    assert all(
        completion.logprobs == pytest.approx([logprobs[completion.tokens[0]].item()], abs=1e-4) for completion in drawn
    )


@given(
    st.lists(st.floats(-20, 20, width=32), min_size=40, max_size=40),
    st.lists(st.integers(0, 19), min_size=3, max_size=3),
    st.sampled_from([0.5, 1.2, 3.0]),
)
@settings(deadline=None)  # the first example imports transformers
def test_repetition_penalty_equals_transformers(values: list[float], prompt: list[int], penalty: float) -> None:
    transformers = pytest.importorskip("transformers")
    logits = torch.tensor(values).view(2, 20)
    limits = constraints(GenerateConfig(repetition_penalty=penalty), [prompt[:1], prompt], 20, torch.device("cpu"))
    limits.mark_seen(torch.tensor([3, 4]))
    seen = torch.tensor([[prompt[0]] * 3 + [3], [*prompt, 4]])
    theirs = transformers.RepetitionPenaltyLogitsProcessor(penalty)(seen, logits.clone())
    assert torch.equal(limits.apply(logits), theirs)
    rows = torch.tensor([1, 0, 1])
    assert torch.equal(limits.select(rows).apply(logits[rows]), theirs[rows])


def test_stop_sequence_ends_a_completion_and_is_returned(model: Transformer, prompts: list[list[int]]) -> None:
    free = generate(make_decoder(model), prompts, GREEDY, -1)
    sequences = (tuple(free[3][4:7]), tuple(free[8][9:11]))
    config = GREEDY.model_copy(update={"stop_sequences": sequences})
    drawn = draw(make_decoder(model), prompts, config, STOP)
    assert {completion.ended_by for completion in drawn} >= {*sequences, ()}
    for tokens, completion in zip(free, drawn, strict=True):
        ends = [
            (end, stop)
            for end in range(1, 25)
            for stop in ((STOP,), *sequences)
            if tuple(tokens[max(end - len(stop), 0) : end]) == stop
        ]
        end, stop = ends[0] if ends else (24, ())
        assert completion.tokens == tokens[:end]
        assert completion.ended_by == stop
        assert len(completion.logprobs) == end


def test_samples_follow_the_probabilities() -> None:
    logits = torch.log(torch.tensor([0.1, 0.4, 0.3, 0.2])).expand(20_000, 4)
    drawn = pick(logits, GenerateConfig(temperature=0.5), torch.Generator().manual_seed(0))
    fractions = torch.bincount(drawn, minlength=4) / len(drawn)
    expected = torch.tensor([0.01, 0.16, 0.09, 0.04]) / 0.3  # squared and scaled
    assert (fractions - expected).abs().max() < 0.015


def test_stream_yields_whole_characters(model: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer: ChatTokenizer = write_tokenizer(tmp_path)
    text = "Zürich 🙂, ok é"
    written = iter([*tokenizer.encode(text), tokenizer.turn_end])
    monkeypatch.setattr("model.inference.generate.pick", lambda *_: torch.tensor([next(written)]))
    config = GenerateConfig(max_new_tokens=200)
    pieces = list(stream(make_decoder(model), tokenizer, [tokenizer.bos], config, tokenizer.turn_end))
    assert "".join(pieces) == text
    assert "🙂" in pieces  # four tokens, one piece
    assert len(pieces) > 8


def test_stream_holds_back_the_start_of_a_stop_sequence(
    model: Transformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer: ChatTokenizer = write_tokenizer(tmp_path)
    a, b, c = (tokenizer.encode(letter)[0] for letter in "abc")
    config = GenerateConfig(max_new_tokens=7, stop_sequences=((a, b, c), (b, b)))
    for tokens, expected in (([a, b, a, c, a, b, c], "abac"), ([a, b, b], "a"), ([c, a, c, a, c, a, b], "cacacab")):
        written = iter(tokens)
        monkeypatch.setattr("model.inference.generate.pick", lambda *_, written=written: torch.tensor([next(written)]))
        pieces = list(stream(make_decoder(model), tokenizer, [tokenizer.bos], config, tokenizer.turn_end))
        assert "".join(pieces) == expected


@pytest.mark.parametrize("changes", [{"temperature": 1e-40}, {"top_p": 1e-300}, {"min_p": 1.0}, {"top_k": 1}], ids=str)
def test_strictest_settings_leave_the_likeliest_token(changes: dict[str, float]) -> None:
    logits = torch.randn(64, 50, generator=torch.Generator().manual_seed(1)) * 20
    drawn = pick(logits, GenerateConfig(**changes), torch.Generator().manual_seed(0))
    assert torch.equal(drawn, logits.argmax(-1))


@pytest.mark.parametrize(("value", "word"), [(math.nan, "NaN"), (math.inf, "infinite")])
@pytest.mark.parametrize("changes", [{"temperature": 0.0}, {}, {"top_p": 0.9}, {"top_k": 5}, {"min_p": 0.1}], ids=str)
def test_nan_or_infinite_logits_raise_nonfinite_error(changes: dict[str, float], value: float, word: str) -> None:
    logits = torch.zeros(3, 50)
    logits[1, 7] = value
    with pytest.raises(NonFiniteError, match=f"^logits are {word}: corrupted weights or diverged training$"):
        pick(logits, GenerateConfig(**changes), torch.Generator())


def test_corrupted_weights_raise_nonfinite_error(model: Transformer) -> None:
    broken = deepcopy(model)
    torch.nn.init.constant_(broken.model.norm.weight, math.nan)
    for temperature in (0.0, 1.0):
        with pytest.raises(NonFiniteError, match="logits are NaN"):
            generate(make_decoder(broken), [[1, 2]], GenerateConfig(temperature=temperature), STOP)
    with pytest.raises(NonFiniteError, match="logits are NaN"):
        beam_search(make_decoder(broken), [[1, 2]], BeamConfig(), STOP)


def test_nucleus_of_exactly_top_p_is_enough() -> None:
    probabilities = torch.tensor([[0.3, 0.1, 0.1, 0.5], [0.15, 0.3, 0.3, 0.25]])
    kept = restrict(probabilities.log(), GenerateConfig(top_p=0.8)).isfinite()
    assert kept.tolist() == [[True, False, False, True], [False, True, True, True]]


def test_ties_with_the_last_of_the_top_k_are_kept() -> None:
    logits = torch.tensor([[0.4, 0.2, 0.2, 0.2]]).log()
    assert restrict(logits, GenerateConfig(top_k=2)).isfinite().all()
    # Without the ties the first alone would hold half of 0.6.
    assert restrict(logits, GenerateConfig(top_k=2, top_p=0.5)).isfinite().all()
    assert restrict(logits, GenerateConfig(top_k=1, top_p=0.5)).isfinite().tolist() == [[True, False, False, False]]


def test_greedy_takes_the_first_of_equal_logits() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0, 2.0], [-1.0, -1.0, -math.inf, -1.0]])
    assert pick(logits, GREEDY, torch.Generator()).tolist() == [1, 0]


@pytest.mark.parametrize("bias", [math.inf, math.nan])
def test_bias_must_be_finite(bias: float) -> None:
    with pytest.raises(ValueError, match="finite number"):
        GenerateConfig(logit_bias={3: bias})


def test_excluded_tokens_are_never_sampled() -> None:
    """The first, the last and a middle token are excluded: a dart on a border must not give one."""
    logits = torch.zeros(50_000, 5)
    logits[:, [0, 2, 4]] = float("-inf")
    drawn = pick(logits, GenerateConfig(), torch.Generator().manual_seed(0))
    assert set(drawn.tolist()) == {1, 3}
