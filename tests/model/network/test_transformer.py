"""The model is Qwen3: the same logits as transformers', and the same number of weights."""

import json
from pathlib import Path

import pytest
import torch

from model.config import ModelConfig, flops_per_token, num_matrix_parameters, num_parameters
from model.errors import UserError
from model.network.huggingface import load_reward_model, load_transformer, load_weights, save_weights, to_hugging_face
from model.network.transformer import RewardModel, Transformer, frequencies, initialize


def shape(**changes: object) -> ModelConfig:
    sizes = {"vocab_size": 300, "num_layers": 3, "width": 48, "num_heads": 4, "num_kv_heads": 2, "head_width": 16}
    return ModelConfig.model_validate(sizes | {"ff_width": 80} | changes)


def randomized(model: torch.nn.Module) -> None:
    """Weights far from their start: norms too, or a swapped one would not be seen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.2 + (parameter.dim() == 1))


def write(folder: Path, model: Transformer | RewardModel) -> None:
    save_weights(folder, model, {name: p.detach() for name, p in model.named_parameters()}, max_tokens=64)


SCALING = {"factor": 4.0, "slow_turns": 1.0, "fast_turns": 4.0, "original_tokens": 16}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"tie_embeddings": False},
        {"num_kv_heads": 4},
        {"rope_base": 1e6},
        {"normalize_qk": False},
        {"normalize_qk": False, "rope_base": 100.0, "rope_scaling": SCALING},
        {"rope_base": 100.0, "rope_scaling": SCALING},
    ],
    ids=str,
)
def test_transformers_loads_saved_model_with_same_logits(tmp_path: Path, changes: dict[str, object]) -> None:
    transformers = pytest.importorskip("transformers")
    model = Transformer(shape(**changes))
    randomized(model)
    write(tmp_path, model)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    tokens = torch.randint(0, 300, (3, 40))
    with torch.no_grad():
        assert (model(tokens) - theirs(tokens).logits).abs().max() <= 1e-4
        assert torch.equal(load_transformer(tmp_path)(tokens), model(tokens))


@pytest.mark.parametrize("head_width", [32, 64, 80, 128])
@pytest.mark.parametrize("base", [1e4, 5e5, 1e6])
@pytest.mark.parametrize("factor", [None, 8.0, 32.0])
def test_rotary_at_far_position_equals_transformers(head_width: int, base: float, factor: float | None) -> None:
    """To the last bit: what is rounded otherwise is multiplied by the position."""
    transformers = pytest.importorskip("transformers")
    scaling = SCALING | {"factor": factor, "original_tokens": 8192} if factor else None
    config = shape(head_width=head_width, rope_base=base, rope_scaling=scaling)
    theirs = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**to_hugging_face(config, max_tokens=131_072))
    )
    assert torch.equal(frequencies(config, torch.device("cpu")), theirs.model.rotary_emb.inv_freq)


@pytest.mark.parametrize("normalize_qk", [True, False])
def test_transformers_loads_saved_reward_model(tmp_path: Path, normalize_qk: bool) -> None:
    transformers = pytest.importorskip("transformers")
    model = RewardModel(shape(normalize_qk=normalize_qk))
    randomized(model)
    weights = {name: parameter.detach() for name, parameter in model.named_parameters()}
    save_weights(tmp_path, model, weights, max_tokens=64, token_ids={"pad_token_id": 0})
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    tokens, lengths = torch.randint(1, 300, (3, 40)), torch.tensor([40, 7, 23])
    tokens[torch.arange(40) >= lengths[:, None]] = 0
    with torch.no_grad():
        difference = model(tokens, lengths) - theirs(tokens).logits.squeeze(-1)
    assert difference.abs().max() <= 1e-4


def test_saved_reward_model_keeps_the_weight_of_the_likelihood(tmp_path: Path) -> None:
    """The term is the weight times the mean log-probability of the completion's tokens under the language model of its layers."""
    model, language_model = RewardModel(shape(), likelihood_weight=2.0), Transformer(shape())
    randomized(model)
    language_model.model.load_state_dict(model.model.state_dict())
    save_weights(tmp_path, model, {name: one.detach() for name, one in model.named_parameters()}, max_tokens=64)
    loaded = load_reward_model(tmp_path)
    tokens = torch.randint(0, 300, (1, 20))
    length, start = torch.tensor([15]), torch.tensor([9])
    with torch.no_grad():
        found = loaded(tokens, length, start)
        model.likelihood_weight = 0.0
        head = model(tokens, length, start)
        logprobs = language_model(tokens)[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)
    # Place t of the log-probabilities is of token t + 1.
    torch.testing.assert_close(found - head, 2 * logprobs[:, 8:14].mean(-1), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("weight", ["5", -1.0, float("nan")])
def test_damaged_weight_of_the_likelihood_is_refused(tmp_path: Path, weight: object) -> None:
    model = RewardModel(shape())
    save_weights(tmp_path, model, {name: one.detach() for name, one in model.named_parameters()}, max_tokens=64)
    fields = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(fields | {"likelihood_weight": weight}))
    with pytest.raises(UserError, match="likelihood_weight"):
        load_reward_model(tmp_path)


def test_reward_does_not_depend_on_padding() -> None:
    model = RewardModel(shape())
    randomized(model)
    tokens = torch.randint(0, 300, (1, 30))
    with torch.no_grad():
        assert torch.allclose(model(tokens, torch.tensor([12])), model(tokens[:, :12], torch.tensor([12])), atol=1e-5)


@pytest.mark.parametrize("activation_checkpointing", [False, True])
def test_kept_places_have_the_logits_and_gradients_of_a_whole_forward(activation_checkpointing: bool) -> None:
    model = Transformer(shape()).double()
    model.model.activation_checkpointing = activation_checkpointing
    tokens = torch.randint(0, 50, (3, 9), generator=torch.Generator().manual_seed(1))
    kept = torch.rand(3, 9, generator=torch.Generator().manual_seed(2)) < 0.5
    found = []
    for logits in (model(tokens)[kept], model(tokens, kept=kept)):
        model.zero_grad()
        logits.square().sum().backward()
        found.append((logits, *(parameter.grad.clone() for parameter in model.parameters())))
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(part, whole)


def test_attention_is_causal() -> None:
    model = Transformer(shape())
    randomized(model)
    tokens = torch.randint(0, 300, (2, 30))
    changed = tokens.clone()
    changed[:, 17] += 1
    with torch.no_grad():
        is_changed = (model(tokens) != model(changed % 300)).any(-1).any(0)
    assert is_changed.tolist() == [False] * 17 + [True] * 13


@pytest.mark.parametrize("normalize_qk", [True, False])
@pytest.mark.parametrize("is_tied", [True, False])
def test_parameter_and_flop_counts_equal_manual_counts(is_tied: bool, normalize_qk: bool) -> None:
    config = shape(tie_embeddings=is_tied, normalize_qk=normalize_qk)
    assert num_parameters(config) == sum(parameter.numel() for parameter in Transformer(config).parameters())
    # By hand: per layer 48*16*(4+2)*2 for attention, 3*48*80 for the feed-forward; then the head.
    assert num_matrix_parameters(config) == 3 * (9216 + 11520) + 300 * 48
    assert flops_per_token(config, 10) == 6 * num_matrix_parameters(config) + 12 * 3 * 4 * 16 * 10


def test_initialize_gives_uniform_predictions_and_follows_seed() -> None:
    model, again, other = (Transformer(shape()) for _ in range(3))
    for fresh, seed in ((model, 1), (again, 1), (other, 2)):
        initialize(fresh, seed)
    tokens = torch.randint(0, 300, (4, 32))
    with torch.no_grad():
        logprobs = model(tokens).log_softmax(-1)
        assert torch.equal(model(tokens), again(tokens))
        assert not torch.equal(model(tokens), other(tokens))
    assert logprobs.mean().item() == pytest.approx(-torch.log(torch.tensor(300.0)).item(), abs=0.3)


def test_reward_model_loads_language_model_of_same_shape_only(tmp_path: Path) -> None:
    base, reward_model = Transformer(shape(tie_embeddings=False)), RewardModel(shape(tie_embeddings=False))
    randomized(base)
    initialize(reward_model, 0)
    write(tmp_path, base)
    load_weights(reward_model, tmp_path)
    assert torch.equal(reward_model.model.norm.weight, base.model.norm.weight)
    assert reward_model.score.weight.abs().max() == 0
    with pytest.raises(ValueError, match="give the settings it was made with"):
        load_weights(Transformer(shape(width=64)), tmp_path)


def test_model_config_with_indivisible_heads_raises_error() -> None:
    with pytest.raises(ValueError, match="num_kv_heads=3 does not divide num_heads=4"):
        shape(num_kv_heads=3)
