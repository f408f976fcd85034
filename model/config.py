"""Settings of a model, its training and its sampling: frozen values that form a run's identity. No torch here.

Reads and writes nothing. `TrainRun` is the JSON that a training process group is started with. The parameter and FLOP
counts follow Qwen3's layout (model/network/transformer.py) and PaLM's accounting (Chowdhery et al. 2022, appendix B).
"""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

Objective = Literal["pretrain", "sft", "reward", "dpo"]
Packing = Literal["concatenated", "whole_documents"]
FloatType = Literal["float32", "bfloat16", "float16"]  # of weights in safetensors files
GGUFType = Literal[
    "f32", "f16", "q8_0"
]  # of matrices in GGUF files; q8_0: 8 bits a weight and a float16 scale for each 32
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]


class Config(BaseModel):
    """A settings object: immutable. An unknown field, an infinite number and NaN are errors."""

    # NaN is unequal to itself and infinity is not JSON: settings with them could neither be compared nor fingerprinted.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def runtime(default: Any, **constraints: Any) -> Any:
    """A field that says where or how something runs and does not change its result: it is not part of the fingerprint."""
    return Field(default, json_schema_extra={"runtime": True}, **constraints)


class RopeScaling(Config):
    """Llama 3's RoPE for longer sequences (Grattafiori et al. 2024): channels that turn slowly are slowed further, fast ones are kept."""

    # Llama 3.1 has 8, 1, 4 and 8,192.
    factor: float = Field(gt=1.0, description="Slow channels turn slower by this factor.")
    slow_turns: float = Field(
        gt=0.0, description="A channel is slow with at most this many turns in the original length."
    )
    fast_turns: float = Field(
        gt=0.0, description="A channel is fast with at least this many turns; one in between is slowed in part."
    )
    original_tokens: int = Field(
        ge=2, le=2**20, description="The original length: tokens of the sequences that the model was first trained on."
    )

    @model_validator(mode="after")
    def _slow_is_below_fast(self) -> "RopeScaling":
        if self.slow_turns >= self.fast_turns:
            raise ValueError(f"slow_turns={self.slow_turns} is not below fast_turns={self.fast_turns}; make it smaller")
        return self


SLOW_RADIANS = 0.02  # a token: pairs of channels that RoPE turns slower than this compare tokens some 50 places apart


class ModelShape(Config):
    """The shape of a decoder-only transformer with Qwen3's layout, or with Llama's where queries and keys have no norms.

    The vocabulary is not part of it: its size is the tokenizer's, and `with_vocabulary` gives the whole configuration. The
    defaults are the model of the recipe `tiny`.
    """

    num_layers: int = Field(4, ge=1, le=256, description="L: transformer layers.")
    width: int = Field(128, ge=8, le=65536, description="D: width of the residual stream.")
    num_heads: int = Field(4, ge=1, le=512, description="H: query heads.")
    num_kv_heads: int = Field(4, ge=1, le=512, description="Key and value heads; must divide the query heads.")
    # Free of D / H, as in Qwen3: its 0.6 B has 16 heads of 128 at width 1,024.
    head_width: int = Field(32, ge=2, le=512, multiple_of=2, description="K: width of a head; even, for RoPE.")
    # 8/3 D rounded up to a multiple of 32, see `swiglu_width` in model/planning/presets.py.
    ff_width: int = Field(352, ge=8, le=262144, description="F: width of the SwiGLU feed-forward.")
    # 10,000 is the paper's (Su et al. 2021). Llama 3 has 500,000 and Qwen3 1,000,000, for longer sequences.
    rope_base: float = Field(10_000.0, gt=1.0, description="RoPE's base; larger for longer sequences.")
    rope_scaling: RopeScaling | None = Field(
        None, description="How an imported model extends RoPE to longer sequences; None: it does not."
    )
    normalize_qk: bool = Field(
        True, description="RMSNorm on queries and keys (QK-norm); without it the layout is Llama's."
    )
    tie_embeddings: bool = Field(True, description="The head shares the token embedding's matrix.")
    # Qwen3's; Llama's is 1e-5.
    norm_eps: float = Field(1e-6, gt=0.0, lt=1e-2, description="Added to the mean square in RMSNorm.")

    @model_validator(mode="after")
    def _heads_divide(self) -> Self:
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_kv_heads={self.num_kv_heads} does not divide num_heads={self.num_heads}; choose a divisor of it"
            )
        return self

    @property
    def slowest_radians(self) -> float:
        """By how much RoPE turns its slowest pair of channels from one token to the next."""
        return float(self.rope_base ** (2 / self.head_width - 1))

    def with_vocabulary(self, vocab_size: int) -> "ModelConfig":
        """The model of this shape for a vocabulary of `vocab_size` tokens."""
        # Validated, where model_copy would take any number.
        return ModelConfig.model_validate({**self.model_dump(), "vocab_size": vocab_size})


class ModelConfig(ModelShape):
    """A model: its shape and the size of its vocabulary."""

    vocab_size: int = Field(4096, ge=16, le=2**20, description="V: entries of the token embedding and of the head.")

    @property
    def shape(self) -> ModelShape:
        """The shape without the vocabulary."""
        return ModelShape.model_validate(self.model_dump(exclude={"vocab_size"}))


class OptimConfig(Config):
    """The optimizer and its learning rate over the run."""

    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", description="muon: matrices between embedding and head by Muon, all else by AdamW."
    )
    # For the 1.2 M parameters of the recipe `tiny`; larger models need less, see model/planning/presets.py.
    learning_rate: float = Field(3e-3, gt=0.0, le=1.0, description="AdamW's peak learning rate.")
    # Rate and momentum are those of Jordan et al. 2024. The rate is not comparable with AdamW's.
    muon_learning_rate: float = Field(0.02, gt=0.0, le=1.0, description="Muon's peak learning rate.")
    muon_momentum: float = Field(0.95, ge=0.0, lt=1.0, description="Muon's decay of the gradient's mean.")
    final_learning_rate_fraction: Fraction = Field(0.05, description="Learning rate at the end, of the peak.")
    warmup_fraction: Fraction = Field(0.05, description="Steps of linear warm-up, of all steps.")
    schedule: Literal["cosine", "wsd"] = Field(
        "wsd", description="cosine: decays from the warm-up on. wsd: stays at the peak, then decays linearly."
    )
    decay_fraction: Fraction = Field(0.5, description="Steps of wsd's final decay, of all steps; cosine ignores it.")
    beta1: float = Field(0.9, ge=0.0, lt=1.0, description="AdamW's decay of the gradient's mean.")
    # 0.95 as in GPT-3 and Llama; torch's default of 0.999 averages over more steps than a short run has.
    beta2: float = Field(0.95, ge=0.0, lt=1.0, description="AdamW's decay of the gradient's mean square.")
    # Floor, decay and largest norm are those of GPT-3 (Brown et al. 2020, appendix B).
    eps: float = Field(1e-8, gt=0.0, lt=1e-2, description="AdamW's denominator floor.")
    weight_decay: float = Field(0.1, ge=0.0, le=10.0, description="Decoupled decay, on matrices but not embeddings.")
    max_grad_norm: float = Field(1.0, ge=0.0, description="Largest L2 norm of the whole gradient; 0 turns it off.")
    z_loss: float = Field(
        0.0, ge=0.0, le=1.0, description="Weight of the squared log of softmax's denominator; PaLM took 1e-4."
    )


class TrainConfig(Config):
    """One training run: steps, batches, precision, and what it keeps."""

    num_steps: int = Field(400, ge=0, description="Optimizer steps; 0 trains nothing.")
    batch_tokens: int = Field(8192, ge=2, description="Tokens per optimizer step, over all ranks and microbatches.")
    sequence_tokens: int = Field(256, ge=2, le=2**20, description="T: tokens of a sequence.")
    microbatch_sequences: int = Field(
        4, ge=1, description="At most this many sequences per forward on one rank; on a CPU as many as its cache holds."
    )
    dtype: Literal["float32", "bfloat16"] = Field(
        "float32",
        description="Precision of weights and activations; with bfloat16 the optimizer keeps float32 master weights.",
    )
    is_compiled: bool = Field(False, description="torch.compile the objective; on a CPU this needs g++.")
    zero_stage: int = Field(0, ge=0, le=3, description="DeepSpeed ZeRO: 1 shards optimizer, 2 gradients, 3 weights.")
    # Where a number is stored, and whether it is computed twice, changes its rounding at most.
    offload_optimizer: bool = runtime(False, description="With ZeRO: keep the optimizer's state in the host's memory.")
    activation_checkpointing: bool = runtime(
        False, description="Recompute activations in the backward pass: a third more work for far less memory."
    )
    packing: Packing = Field(
        "concatenated",
        description="concatenated: documents are cut into sequences wherever these end. whole_documents: a sequence begins with a "
        "document, and holds whole ones where they fit. Conversations are always whole.",
    )
    mask_across_documents: bool = Field(
        False,
        description="Attention does not cross from one document into the next. Conversations are always kept apart.",
    )
    spike_nats: float = Field(
        2.0, ge=0.0, description="A loss this far above the median of the last steps is a spike; 0: only NaN is bad."
    )
    max_rollbacks: int = Field(
        3, ge=0, description="How often the run returns to a checkpoint and skips a bad batch before it stops."
    )
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of the initial weights and of the order of the data.")
    eval_every_steps: int = Field(100, ge=0, description="Steps between validations; 0: only after the last step.")
    eval_sequences: int = Field(64, ge=0, description="At most this many validation sequences.")
    patience: int = Field(
        0,
        ge=0,
        description="Early stopping: the result has the weights of the validation with the lowest loss, and the run ends after so many "
        "validations in a row without a lower one. 0: the run takes all its steps, and the last weights are the result.",
    )
    sample_every_steps: int = runtime(
        100, ge=0, description="Steps between sample completions of sample_prompts; 0: none."
    )
    sample_prompts: tuple[str, ...] = runtime(
        ("The", "In the beginning", "Who are you?"),
        description="A base model continues them, an assistant answers them.",
    )
    sample_tokens: int = runtime(32, ge=1, le=2**20, description="Tokens of a sample completion at most.")
    checkpoint_every_steps: int = runtime(
        100, ge=0, description="Steps between checkpoints; 0: only after the last step."
    )
    keep_checkpoints: int = runtime(2, ge=1, description="How many of the newest checkpoints are kept.")
    # Ranks split one batch: another number of them changes the order of sums alone, and a run may resume with it.
    num_ranks: int = runtime(
        1, ge=1, description="Processes that train together; must divide the sequences of a batch."
    )

    @model_validator(mode="after")
    def _batch_holds_a_sequence(self) -> "TrainConfig":
        # Whole sequences: a part of one would be a microbatch of another shape, which DeepSpeed and torch.compile do not take.
        if self.batch_tokens % self.sequence_tokens:
            raise ValueError(
                f"batch_tokens={self.batch_tokens} is no multiple of sequence_tokens={self.sequence_tokens}; "
                f"the next lower one is {self.batch_tokens // self.sequence_tokens * self.sequence_tokens}"
            )
        return self


class LoRAConfig(Config):
    """LoRA: adapters of low rank are trained instead of the whole model, in a fraction of the memory."""

    rank: int = Field(0, ge=0, le=1024, description="Rank of the adapters; 0: the whole model is trained.")
    alpha: int = Field(16, ge=1, le=4096, description="The adapters are scaled by alpha / rank.")


class CopyingConfig(Config):
    """A model that copies from its context: induction heads to begin with, and sequences that train them."""

    # model/network/induction.py and model/data/copying.py say what these are, and why a small model needs them.
    num_heads: int = Field(0, ge=0, le=64, description="Induction heads of weights that begin at random; 0: none.")
    falling_steps: int = Field(
        0, ge=0, description="Steps over which the share of sequences that train copying falls from all to `fraction`."
    )
    fraction: float = Field(0.0, ge=0.0, le=0.5, description="Share of the later sequences that train copying.")

    def check(self, shape: ModelShape) -> None:
        """Raises ValueError where a shape has no place for the heads."""
        D, K = shape.width, shape.head_width
        problems = {
            "num_layers under 2": shape.num_layers < 2,
            f"num_kv_heads under {self.num_heads}": shape.num_kv_heads < self.num_heads,
            f"a width under {(self.num_heads + 1) * K + 1}": (self.num_heads + 1) * K >= D,
            f"a rope_base under {SLOW_RADIANS ** (-K / (K - 2)):,.0f}": shape.slowest_radians > SLOW_RADIANS,
            "no QK-norm": not shape.normalize_qk,
            "an untied head": not shape.tie_embeddings,
        }
        if self.num_heads and any(problems.values()):
            found = ", ".join(problem for problem, is_one in problems.items() if is_one)
            raise ValueError(
                f"copying.num_heads={self.num_heads} has no place in a model with {found}: change that, or take fewer heads, or 0"
            )


class Source(Config):
    """Files that are mixed into the training data."""

    paths: tuple[str, ...] = Field(min_length=1, description="Files, in order.")
    objective: Objective | None = Field(
        None,
        description="What the files hold, by the objective that reads such files; None: what the training data holds.",
    )
    # Relative to the run's own files, so that a further source leaves the weights of the others as they are.
    weight: float = Field(gt=0.0, description="Records of these files for each record of the training data.")


class TrainRun(Config):
    """The settings of a training run, as JSON: `python -m model.training.loop RUN.json`."""

    objective: Objective = Field(
        description="pretrain: Arrow token shards; sft: JSONL files of conversations; reward, dpo: of pairs."
    )
    model: ModelConfig
    train: TrainConfig
    optim: OptimConfig
    tokenizer: str = Field(description="Path of tokenizer.json.")
    train_paths: tuple[str, ...] = Field(min_length=1, description="Files to train on, in order.")
    mixture: tuple[Source, ...] = Field((), description="More files to train on.")
    validation_paths: tuple[str, ...] = Field((), description="Files to validate on; empty: no validation.")
    initial_weights: str | None = Field(None, description="Folder with model.safetensors to start from, or None.")
    lora: LoRAConfig = Field(LoRAConfig())
    likelihood_weight: float = Field(0.0, ge=0.0, description="Of a reward model, see `RewardModel`.")
    copying: CopyingConfig = Field(CopyingConfig())
    copied_rows: dict[int, int] = Field(
        {}, description="Tokens whose embedding and output rows begin as those of another token of the initial weights."
    )
    output: str = Field(description="Folder for model.safetensors, config.json, metrics.jsonl and summary.json.")


class GenerateConfig(Config):
    """How completions are sampled from a model."""

    max_new_tokens: int = Field(64, ge=1, le=2**20, description="A completion is cut off after this many tokens.")
    temperature: float = Field(1.0, ge=0.0, le=10.0, description="Divides the logits; 0 is greedy.")
    # Sources: top_k Fan et al. 2018, top_p Holtzman et al. 2020, min_p Nguyen et al. 2024, the penalty Keskar et al. 2019.
    top_k: int = Field(0, ge=0, description="Sample from the k likeliest tokens only; 0 turns it off.")
    top_p: float = Field(
        1.0,
        gt=0.0,
        le=1.0,
        description="Sample from the likeliest tokens that together have this probability (nucleus sampling).",
    )
    min_p: Fraction = Field(
        0.0,
        description="Sample from tokens with at least this fraction of the likeliest one's probability; 0 turns it off.",
    )
    # The sign decides, as in transformers: division alone would make a token with a negative logit likelier.
    repetition_penalty: float = Field(
        1.0,
        gt=0.0,
        le=10.0,
        description="Divides the logits above 0 of tokens that came before, multiplies those below.",
    )
    logit_bias: dict[int, FiniteFloat] = Field({}, description="Added to the logits of tokens, by token.")
    banned_tokens: tuple[int, ...] = Field((), description="Tokens that are never sampled.")
    allowed_tokens: tuple[int, ...] = Field(
        (), description="Only these are sampled, a stop token only if listed; empty: all."
    )
    stop_sequences: tuple[Annotated[tuple[int, ...], Field(min_length=1)], ...] = Field(
        (), description="Sequences of tokens that end a completion, besides the stop token."
    )
    seed: int = Field(0, ge=0, lt=2**63, description="Seed of the samples of one call.")


class BeamConfig(GenerateConfig):
    """Beam search for the likeliest completions. The settings of sampling (temperature, top_k ...) have no effect on it."""

    num_beams: int = Field(4, ge=1, le=4096, description="Beams: completions that are followed at once.")
    # Score and stopping are those of transformers. Wu et al. 2016 divide by ((5 + tokens) / 6) to a power instead.
    length_penalty: float = Field(
        1.0, ge=-10.0, le=10.0, description="A score is the summed logprobs over the number of tokens to this power."
    )
    early_stopping: bool | Literal["never"] = Field(
        False,
        description="When enough completions have ended: true: at once; false: when the best unfinished one would score lower if it "
        "ended now; never: when it cannot score higher at any length.",
    )


def explained(error: ValidationError) -> str:
    """A validation error in one line: where, what, and the given value."""

    def sentence(detail: Any) -> str:
        # The path to the setting, as --set and a recipe file name it: optim.learning_rate.
        where = ".".join(str(part) for part in detail["loc"])
        message = detail["msg"].removeprefix("Value error, ")
        # A dict is the whole settings object, which says nothing about the mistake.
        given = "" if isinstance(detail["input"], dict) else f" (given: {detail['input']!r})"
        return f"{where}: {message}{given}" if where else message

    return "; ".join(sentence(detail) for detail in error.errors())


def num_matrix_parameters(config: ModelConfig) -> int:
    """Weights that every token is multiplied with: projections, feed-forwards and the head, tied or not."""
    # The embedding is not among them: it is read by row. A tied matrix counts once, as the head.
    # Queries and output projection have H heads, keys and values H_kv.
    attention = 2 * config.width * config.head_width * (config.num_heads + config.num_kv_heads)
    feed_forward = 3 * config.width * config.ff_width
    return config.num_layers * (attention + feed_forward) + config.vocab_size * config.width


def num_parameters(config: ModelConfig) -> int:
    """All weights of the model; a tied head is counted once."""
    qk_norms = 2 * config.head_width if config.normalize_qk else 0
    norms = config.num_layers * (2 * config.width + qk_norms) + config.width
    embedding = 0 if config.tie_embeddings else config.vocab_size * config.width
    return num_matrix_parameters(config) + norms + embedding


def flops_per_token(config: ModelConfig, sequence_tokens: int) -> int:
    """FLOPs of forward and backward for one token of a sequence of T tokens.

    6 for each matrix weight (2 forward, 4 backward), and 12 L H K T for attention. Like PaLM's count (Chowdhery et al. 2022, appendix B)
    it does not halve attention for the causal mask, so that MFU can be compared with published figures.
    """
    # Softmax, norms, rotation and the embedding's rows are left out, as in PaLM's count.
    # 2 products (scores, weighted values) x 2 FLOPs x 3 (forward, and twice that backward).
    attention = 12 * config.num_layers * config.num_heads * config.head_width * sequence_tokens
    return 6 * num_matrix_parameters(config) + attention


def kv_bytes_per_token(config: ModelConfig, bytes_per_number: int = 2) -> int:
    """Bytes of one token in the KV cache: a key and a value for every layer and KV head, 2 bytes a number in bfloat16."""
    # Llama 3 8B: 2 x 32 x 8 x 128 x 2 are 128 KiB, 1 GiB for 8,192 tokens. One pair for each of its 32
    # query heads would take four times that.
    return 2 * config.num_layers * config.num_kv_heads * config.head_width * bytes_per_number
