"""What a model is, how it is trained and how it is sampled: frozen values that form a run's identity. No torch here.

Reads and writes nothing. `TrainRun` is the JSON that a training process group is started with. The parameter and FLOP
counts follow Qwen3's layout (model/transformer.py) and PaLM's accounting (Chowdhery et al. 2022, appendix B).
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, model_validator

Objective = Literal["pretrain", "sft", "reward"]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
RUNTIME: dict[str, JsonValue] = {
    "runtime": True
}  # marks a field that says where or how a run goes on, not what comes out


class Frozen(BaseModel):
    """A value object: immutable, and a field that it does not have is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelConfig(Frozen):
    """The shape of a decoder-only transformer with Qwen3's layout."""

    vocab_size: int = Field(4096, ge=16, le=2**20, description="V: entries of the token embedding and of the head.")
    num_layers: int = Field(4, ge=1, le=256, description="L: transformer layers.")
    width: int = Field(160, ge=8, le=65536, description="D: width of the residual stream.")
    num_heads: int = Field(5, ge=1, le=512, description="H: query heads.")
    num_kv_heads: int = Field(5, ge=1, le=512, description="Key and value heads; must divide the query heads.")
    head_width: int = Field(32, ge=2, le=512, multiple_of=2, description="K: width of a head; even, for RoPE.")
    ff_width: int = Field(448, ge=8, le=262144, description="F: width of the SwiGLU feed-forward.")
    rope_base: float = Field(10_000.0, gt=1.0, description="RoPE's base; larger for longer sequences.")
    tie_embeddings: bool = Field(True, description="The head shares the token embedding's matrix.")
    norm_eps: float = Field(1e-6, gt=0.0, lt=1e-2, description="Added to the mean square in RMSNorm.")

    @model_validator(mode="after")
    def _heads_divide(self) -> "ModelConfig":
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}; choose a divisor of it"
            )
        return self


class OptimConfig(Frozen):
    """AdamW and its learning rate over the run."""

    learning_rate: float = Field(3e-3, gt=0.0, le=1.0, description="The peak learning rate.")
    final_learning_rate_fraction: Fraction = Field(0.05, description="Learning rate at the end, of the peak.")
    warmup_fraction: Fraction = Field(0.05, description="Steps of linear warm-up, of all steps.")
    schedule: Literal["cosine", "wsd"] = Field(
        "wsd", description="cosine: decays from the warm-up on. wsd: stays at the peak, then decays linearly."
    )
    decay_fraction: Fraction = Field(0.5, description="Steps of wsd's final decay, of all steps; cosine ignores it.")
    beta1: float = Field(0.9, ge=0.0, lt=1.0, description="AdamW's decay of the gradient's mean.")
    beta2: float = Field(0.95, ge=0.0, lt=1.0, description="AdamW's decay of the gradient's mean square.")
    eps: float = Field(1e-8, gt=0.0, lt=1e-2, description="AdamW's denominator floor.")
    weight_decay: float = Field(0.1, ge=0.0, le=10.0, description="Decoupled decay, on matrices but not embeddings.")
    gradient_clip: float = Field(1.0, ge=0.0, description="Largest L2 norm of the whole gradient; 0 turns it off.")


class TrainConfig(Frozen):
    """One training run: how long, in which batches, in which numbers, and what it keeps."""

    num_steps: int = Field(400, ge=1, description="Optimizer steps.")
    batch_tokens: int = Field(8192, ge=2, description="Tokens per optimizer step, over all ranks and microbatches.")
    sequence_tokens: int = Field(256, ge=2, le=2**20, description="T: tokens of a sequence.")
    microbatch_sequences: int = Field(
        4, ge=1, description="At most so many sequences per forward on one rank; on a CPU what its cache holds."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="Of weights and activations; with bfloat16 the optimizer keeps float32 masters."
    )
    is_compiled: bool = Field(False, description="torch.compile the objective; on a CPU this needs g++.")
    zero_stage: int = Field(0, ge=0, le=3, description="DeepSpeed ZeRO: 1 shards optimizer, 2 gradients, 3 weights.")
    seed: int = Field(0, ge=0, lt=2**32, description="Of initial weights and of the order of the data.")
    eval_every_steps: int = Field(100, ge=0, description="Steps between validations; 0: only after the last step.")
    eval_sequences: int = Field(64, ge=0, description="At most so many validation sequences.")
    checkpoint_every_steps: int = Field(
        100, ge=0, description="Steps between checkpoints; 0 keeps none on the way.", json_schema_extra=RUNTIME
    )
    keep_checkpoints: int = Field(
        2, ge=1, description="Newest checkpoints that are kept for resuming.", json_schema_extra=RUNTIME
    )
    num_ranks: int = Field(
        1,
        ge=1,
        description="Processes that train together; must divide the sequences of a batch.",
        json_schema_extra=RUNTIME,
    )

    @model_validator(mode="after")
    def _batch_holds_a_sequence(self) -> "TrainConfig":
        if self.batch_tokens % self.sequence_tokens:
            raise ValueError(
                f"batch_tokens={self.batch_tokens} is no multiple of sequence_tokens={self.sequence_tokens}; "
                f"the next lower one is {self.batch_tokens // self.sequence_tokens * self.sequence_tokens}"
            )
        return self


class TrainRun(Frozen):
    """All that a training process group is told, as JSON: `python -m model.train RUN.json`."""

    objective: Objective = Field(description="pretrain: Arrow token shards; sft, reward: JSONL files.")
    model: ModelConfig
    train: TrainConfig
    optim: OptimConfig
    tokenizer: str = Field(description="Path of tokenizer.json.")
    train_paths: tuple[str, ...] = Field(min_length=1, description="Files to train on, in order.")
    validation_paths: tuple[str, ...] = Field((), description="Files to validate on; empty: no validation.")
    initial_weights: str | None = Field(None, description="Folder with model.safetensors to start from, or None.")
    output: str = Field(description="Folder for model.safetensors, config.json, metrics.jsonl and summary.json.")


class GenerateConfig(Frozen):
    """How completions are drawn from a model."""

    max_new_tokens: int = Field(64, ge=1, le=2**20, description="A completion is cut off after so many tokens.")
    temperature: float = Field(1.0, ge=0.0, le=10.0, description="Divides the logits; 0 takes the likeliest token.")
    top_k: int = Field(0, ge=0, description="Draw among the k likeliest tokens only; 0 turns it off.")
    top_p: float = Field(1.0, gt=0.0, le=1.0, description="Draw among the likeliest tokens that hold this mass.")
    seed: int = Field(0, ge=0, lt=2**63, description="Of the draws of one call.")


def num_matrix_parameters(config: ModelConfig) -> int:
    """Weights that every token is multiplied with: projections, feed-forwards and the head, whether tied or not."""
    attention = 2 * config.width * config.head_width * (config.num_heads + config.num_kv_heads)
    feed_forward = 3 * config.width * config.ff_width
    return config.num_layers * (attention + feed_forward) + config.vocab_size * config.width


def num_parameters(config: ModelConfig) -> int:
    """All weights of the model; a tied head is counted once."""
    norms = config.num_layers * (2 * config.width + 2 * config.head_width) + config.width
    embedding = 0 if config.tie_embeddings else config.vocab_size * config.width
    return num_matrix_parameters(config) + norms + embedding


def flops_per_token(config: ModelConfig, sequence_tokens: int) -> int:
    """FLOPs of forward and backward for one token of a sequence of T tokens.

    6 per matrix weight, and 12 L H K T for attention, which like PaLM's count does not halve for the causal mask.
    """
    attention = 12 * config.num_layers * config.num_heads * config.head_width * sequence_tokens
    return 6 * num_matrix_parameters(config) + attention
