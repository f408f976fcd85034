"""Presets: shapes and settings that go together. GPT-2's sizes by name, and one parameter, depth, from which all else follows.

Reads and writes nothing, and imports no torch. `preset("gpt2")` or `preset("d24")` gives a model, its training and its optimizer.

GPT-2's sizes (Radford et al. 2019) have its layers, width and heads in Qwen3's layout. Learning rates and batches are those of GPT-3's
sizes of that width (Brown et al. 2020, table 2.1). The smallest is trained on the 10 B tokens with which llm.c reproduced it,
the others on 20 tokens a parameter (Hoffmann et al. 2022).

The depth rule is nanochat's, for AdamW: width, horizon and batch are its rules, the learning rate and weight decay follow from
width and batch as derived in `of_depth`.
"""

import math
import re

from model.config import Config, ModelConfig, OptimConfig, TrainConfig, num_matrix_parameters
from model.errors import UserError

# Three digits, so that a depth out of range gets `of_depth`'s error and not that of an unknown name.
DEPTH = re.compile(r"d(\d{1,3})")
GPT2_VOCAB_SIZE = 50_257
COMPUTE_OPTIMAL = 20.0  # tokens per matrix parameter
REFERENCE_DEPTH = 12  # for which the reference batch, rates and decay were tuned
REFERENCE_BATCH_TOKENS = 2**19


class Preset(Config):
    """A model and how it is pretrained."""

    model: ModelConfig
    train: TrainConfig
    optim: OptimConfig


def preset(name: str, vocab_size: int | None = None) -> Preset:
    """The preset of a name: tiny, gpt2, gpt2-medium, gpt2-large, gpt2-xl, or d and a depth. Raises UserError.

    `vocab_size`: V instead of the preset's. A depth's horizon, batch and rates follow from it too.
    """
    if match := DEPTH.fullmatch(name):
        return of_depth(int(match[1]), vocab_size or 32_768)
    if name not in PRESETS:
        raise UserError(f"there is no preset {name!r}: take one of {', '.join(PRESETS)}, or d and a depth, such as d12")
    # The training settings of a named size stay, whatever its vocabulary.
    found = PRESETS[name]
    # Through `with_vocabulary`, which validates: model_copy below does not.
    model = found.model.shape.with_vocabulary(vocab_size or found.model.vocab_size)
    return found.model_copy(update={"model": model})


def swiglu_width(width: int) -> int:
    """F = 8/3 D, so that SwiGLU's three matrices weigh what two of 4 D would (Shazeer 2020), rounded to 128 for tensor cores."""
    # 128 at least: a narrow model would otherwise round to no feed-forward.
    return max(128, round(width * 8 / 3 / 128) * 128)


def gpt2_size(
    num_layers: int, width: int, learning_rate: float, batch_tokens: int, microbatch: int, num_steps: int | None = None
) -> Preset:
    """GPT-2 of that size: heads of width 64, a tied head, 1,024 tokens. By default `num_steps` is compute-optimal.

    The model has no learned positions and biases, and F is rounded: its parameters are within 1.3% of GPT-2's.
    """
    model = ModelConfig(
        vocab_size=GPT2_VOCAB_SIZE,
        num_layers=num_layers,
        width=width,
        num_heads=width // 64,
        num_kv_heads=width // 64,
        head_width=64,
        ff_width=swiglu_width(width),
    )
    train = TrainConfig(
        # Rounded up: at least as many tokens as the horizon says.
        num_steps=num_steps or math.ceil(COMPUTE_OPTIMAL * num_matrix_parameters(model) / batch_tokens),
        batch_tokens=batch_tokens,
        sequence_tokens=1024,
        # A bound: the training loop takes the largest divisor of a rank's share below it. It fits on GPUs of 80 GB.
        microbatch_sequences=microbatch,
        dtype="bfloat16",
        is_compiled=True,
        # bfloat16 needs the float32 master weights of ZeRO 1.
        zero_stage=1,
        eval_every_steps=250,
        checkpoint_every_steps=1000,
    )
    return Preset(model=model, train=train, optim=OptimConfig(learning_rate=learning_rate))


def depth_model(depth: int, vocab_size: int) -> ModelConfig:
    """The shape: D = 64 depth, in whole heads of K = 128; embedding and head are two matrices.

    nanochat's rule. A constant D / L makes models of all depths one family; GPT-2's own ratio is 64 at 12 layers.
    """
    # Rounded up to whole heads, so odd depths are a little wider than 64 a layer.
    num_heads = math.ceil(depth * 64 / 128)
    width = num_heads * 128
    return ModelConfig(
        vocab_size=vocab_size,
        num_layers=depth,
        width=width,
        num_heads=num_heads,
        num_kv_heads=num_heads,
        head_width=128,
        ff_width=swiglu_width(width),
        tie_embeddings=False,
    )


def depth_tokens(model: ModelConfig, tokens_per_parameter: float = 12.0) -> float:
    """The horizon: 12 tokens for every matrix parameter, head included and embedding not.

    nanochat's default; it found 10.5 compute-optimal for its own model and data, Hoffmann et al. 2022 about 20.
    """
    return tokens_per_parameter * num_matrix_parameters(model)


def of_depth(depth: int, vocab_size: int = 32_768, tokens_per_parameter: float = 12.0) -> Preset:
    """A model of `depth` layers, and the settings that follow. Raises UserError where the depth is not in 1..256.

    With b the batch, d the horizon and w the width, each relative to depth 12, whose batch is 2^19 tokens:

    - Batch: b = d^0.383 (Bergsma et al. 2025, the exponent that nanochat uses), rounded to a power of two.
    - Learning rate: 6e-4 sqrt(b) / w. GPT-3's at width 768; as the square root of the batch (Malladi et al. 2022), and
      against the width, as a matrix has under Adam to keep its updates' effect (Yang et al. 2022). Llama 2's 3e-4 at width
      4,096 and 4 M tokens lies on it. Muon's updates have one effect at all widths: its rate, nanochat's 0.02, follows
      the batch alone.
    - Weight decay: 0.1 w sqrt(b) / d. Rate x decay x steps, the decay over a whole run, is then one at all depths (Wang &
      Aitchison 2024): steps are proportional to d / b and the rate to sqrt(b) / w.
    """
    if not 1 <= depth <= 256:
        raise UserError(f"there is no preset d{depth}: a depth is 1 to 256 layers")
    # The reference has the same vocabulary, so its head does not distort the ratio.
    model, reference = depth_model(depth, vocab_size), depth_model(REFERENCE_DEPTH, vocab_size)
    tokens = depth_tokens(model, tokens_per_parameter)
    # Relative to depth 12 with the same vocabulary and tokens per parameter.
    horizon = tokens / depth_tokens(reference, tokens_per_parameter)
    width = model.width / reference.width
    # A power of two divides into microbatches and ranks of any power of two.
    batch_tokens = 2 ** round(math.log2(REFERENCE_BATCH_TOKENS * horizon**0.383))
    batch = batch_tokens / REFERENCE_BATCH_TOKENS
    train = TrainConfig(
        num_steps=math.ceil(tokens / batch_tokens),
        batch_tokens=batch_tokens,
        sequence_tokens=2048,
        dtype="bfloat16",
        is_compiled=True,
        zero_stage=1,
        eval_every_steps=250,
        checkpoint_every_steps=1000,
    )
    optim = OptimConfig(
        # d24, for example: a batch of 2^20 tokens and twice the width give 6e-4 x 1.41 / 2 = 4.2e-4.
        learning_rate=6e-4 * math.sqrt(batch) / width,
        muon_learning_rate=0.02 * math.sqrt(batch),
        weight_decay=0.1 * width * math.sqrt(batch) / horizon,
    )
    return Preset(model=model, train=train, optim=optim)


PRESETS = {
    # 2.7 M tokens for 1.2 M parameters, a ninth of compute-optimal. Muon learned the facts of the sample web in 2.3 M tokens as AdamW did in
    # 3.3 M, at 0.8 of its tokens/s: some ten minutes on two cores of 2 GHz.
    "tiny": Preset(
        model=ModelConfig(vocab_size=3072),
        train=TrainConfig(num_steps=1300, batch_tokens=2048, num_ranks=2),
        optim=OptimConfig(optimizer="muon"),
    ),
    # Layers, width, rate, batch in tokens and most sequences of a microbatch. 19,000 steps of 2^19 tokens are 10.0 B.
    "gpt2": gpt2_size(12, 768, 6e-4, 2**19, 16, num_steps=19_000),
    "gpt2-medium": gpt2_size(24, 1024, 3e-4, 2**19, 16),
    "gpt2-large": gpt2_size(36, 1280, 2.5e-4, 2**19, 8),
    "gpt2-xl": gpt2_size(48, 1600, 2e-4, 2**20, 8),
}
