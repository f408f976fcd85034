"""Induction heads that are set by hand: they copy tokens that no training has seen, at any distance, and leave all other weights alone."""

import pytest
import torch

from model.config import CopyingConfig, ModelConfig
from model.network.induction import add_induction_heads
from model.network.transformer import Transformer, initialize
from tasks.pretrain.stage import PretrainConfig

TINY = PretrainConfig().model.model_copy(update={"rope_base": 1e6}).with_vocabulary(3072)


def made(config: ModelConfig = TINY, num_heads: int = 2) -> Transformer:
    model = Transformer(config)
    initialize(model, seed=3)
    add_induction_heads(model, CopyingConfig(num_heads=num_heads), seed=3)
    return model


def share_copied(model: Transformer, span: int, gap: int) -> float:
    """Of the tokens of a span that comes a second time after a gap, those that the model ranks first after the token itself."""
    tokens = torch.randint(300, model.config.vocab_size, (24, span + gap), generator=torch.Generator().manual_seed(1))
    # As after the <|bos|> of a document: the first token of all has none before it, and looks at itself.
    tokens = torch.cat((torch.zeros(24, 1, dtype=torch.int64), tokens, tokens[:, :span]), 1)
    with torch.no_grad():
        # A tied head of a new model ranks the current token first.
        logits = model(tokens[:, :-1]).scatter(2, tokens[:, :-1, None], -torch.inf)
    is_right = logits.argmax(-1) == tokens[:, 1:]
    return float(is_right[:, 1 + span + gap :].float().mean())


@pytest.mark.parametrize(("span", "gap"), [(2, 0), (12, 0), (6, 30), (12, 100)])
def test_new_model_copies_tokens_of_any_distance(span: int, gap: int) -> None:
    assert share_copied(made(), span, gap) > 0.3
    plain = Transformer(TINY)
    initialize(plain, seed=3)
    assert share_copied(plain, span, gap) < 0.1


def test_each_head_adds_to_what_is_copied() -> None:
    assert share_copied(made(num_heads=1), 12, 20) < share_copied(made(num_heads=2), 12, 20)


def test_other_heads_and_layers_stay_as_they_were_drawn() -> None:
    model, plain = made(), Transformer(TINY)
    initialize(plain, seed=3)
    before, after = plain.state_dict(), model.state_dict()
    changed = {name for name, weight in before.items() if not torch.equal(weight, after[name])}
    heads = {
        f"model.layers.{layer}.self_attn.{part}"
        for layer in (0, 1)
        for part in ("q_proj", "k_proj", "v_proj", "o_proj")
    }
    norms = {f"model.layers.{layer}.self_attn.{part}_norm" for layer in (0, 1) for part in "qk"}
    assert changed == {f"{name}.weight" for name in heads | norms | {"model.embed_tokens"}}
    name = "model.layers.1.self_attn.v_proj.weight"
    assert torch.equal(before[name][2 * 32 :], after[name][2 * 32 :])
    assert torch.equal(before["model.embed_tokens.weight"][:, 1:-32], after["model.embed_tokens.weight"][:, 1:-32])


def test_grouped_heads_copy_too() -> None:
    """Two query heads share a key head: the copying ones are those of different groups."""
    grouped = TINY.model_copy(update={"num_kv_heads": 2})
    assert share_copied(made(grouped), 12, 20) > 0.3


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"num_layers": 1}, "num_layers under 2"),
        ({"num_kv_heads": 1}, "num_kv_heads under 2"),
        ({"width": 96}, "a width under 97"),
        ({"normalize_qk": False}, "no QK-norm"),
        ({"tie_embeddings": False}, "an untied head"),
        ({"rope_base": 50.0}, "a rope_base under 65"),
    ],
)
def test_shape_without_place_for_the_heads_is_refused_before_anything_runs(
    changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem):
        PretrainConfig.model_validate({"copying": {"num_heads": 2}, "model": changes})
    PretrainConfig.model_validate({"copying": {"num_heads": 0}, "model": changes})
