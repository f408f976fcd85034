"""Settings of a model and of its training: what forms a run's identity, and what is refused."""

import pytest
from pydantic import ValidationError

from model.config import ModelConfig, ModelShape
from model.planning.presets import PRESETS


def test_model_shape_with_vocabulary_keeps_the_shape() -> None:
    shape = ModelShape(num_layers=6, width=96, num_heads=6, num_kv_heads=3, head_width=16, ff_width=256)
    model = shape.with_vocabulary(1000)
    assert (model.vocab_size, model.num_kv_heads, model.shape) == (1000, 3, shape)
    assert "vocab_size" not in shape.model_dump()


def test_model_shape_default_is_the_model_of_tiny() -> None:
    assert ModelShape() == ModelConfig().shape == PRESETS["tiny"].model.shape


@pytest.mark.parametrize(("heads", "kv_heads"), [(4, 3), (6, 4)])
def test_model_shape_with_indivisible_heads_raises_error(heads: int, kv_heads: int) -> None:
    with pytest.raises(ValidationError, match="choose a divisor of it"):
        ModelShape(num_heads=heads, num_kv_heads=kv_heads)


def test_model_shape_with_vocab_size_raises_error() -> None:
    with pytest.raises(ValidationError, match="vocab_size"):
        ModelShape.model_validate({"vocab_size": 4096})
