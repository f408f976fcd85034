"""The plan against runs that were published, and its bytes against what torch and DeepSpeed keep."""

import gc
import io
from typing import NamedTuple

import pytest
import torch
from rich.console import Console

from flows.cli.plan import plan_text
from flows.recipes import make_recipe
from model.config import ModelConfig, TrainConfig, num_parameters
from model.network.transformer import Transformer
from model.planning.plan import (
    DEFAULT_MFU,
    DEVICES,
    GIB,
    Fit,
    activation_bytes,
    best,
    cost,
    fit,
    fits,
    layer_bytes_per_token,
    parse_gpus,
    state_bytes,
)
from model.planning.presets import PRESETS, of_depth, preset
from model.training.engine import join_ranks

LLAMA3_8B = ModelConfig(
    vocab_size=128_256,
    num_layers=32,
    width=4096,
    num_heads=32,
    num_kv_heads=8,
    head_width=128,
    ff_width=14_336,
    rope_base=500_000.0,
    normalize_qk=False,
    tie_embeddings=False,
)


class Published(NamedTuple):
    """A run whose time its authors tell; `mfu` is what our count of its FLOPs implies."""

    model: ModelConfig
    sequence_tokens: int
    gpus: str
    tokens: float
    hours: float
    mfu: float


RUNS = {
    # llm.c, scripts/run_gpt2_*.sh and discussion 481: 90 min; 820 ms and 1.7 s a step of 2^19 tokens; 24 h
    "llm.c 124M": Published(PRESETS["gpt2"].model, 1024, "8xA100", 10e9, 1.5, 0.63),
    "llm.c 350M": Published(PRESETS["gpt2-medium"].model, 1024, "8xA100", 60_000 * 2**19, 60_000 * 0.82 / 3600, 0.62),
    "llm.c 774M": Published(PRESETS["gpt2-large"].model, 1024, "8xA100", 286_102 * 2**19, 286_102 * 1.7 / 3600, 0.65),
    "llm.c 1558M": Published(PRESETS["gpt2-xl"].model, 1024, "8xH100", 32_000 * 2**20, 24.0, 0.50),
    # modded-nanogpt's baseline, llm.c on its machine
    "modded-nanogpt 124M": Published(PRESETS["gpt2"].model, 1024, "8xH100", 10e9, 0.75, 0.40),
    # nanochat's leaderboard, first line: 16,704 steps, 4.33e19 FLOPs
    "nanochat d24": Published(of_depth(24).model, 2048, "8xH100", 16_704 * 2**19, 3.04, 0.53),
    # torchtitan, benchmarks/llama3_h100_202412: 5,762 and compiled 6,667 tokens/s a GPU, "33% to 39% MFU"
    "torchtitan 8B": Published(LLAMA3_8B, 8192, "8xH100", 1e9, 1e9 / (8 * 5762) / 3600, 0.34),
    "torchtitan 8B compiled": Published(LLAMA3_8B, 8192, "8xH100", 1e9, 1e9 / (8 * 6667) / 3600, 0.39),
}


def predicted_hours(run: Published, mfu: float) -> float:
    return cost(run.model, run.sequence_tokens, run.tokens, parse_gpus(run.gpus), mfu, 1.0).hours


@pytest.mark.parametrize("name", RUNS)
def test_cost_predicts_hours_of_published_runs(name: str) -> None:
    run = RUNS[name]
    assert predicted_hours(run, run.mfu) == pytest.approx(run.hours, rel=0.02)
    assert 1 / 1.7 < predicted_hours(run, DEFAULT_MFU) / run.hours < 1.7


@pytest.mark.parametrize("name", ["llm.c 124M", "llm.c 350M", "llm.c 774M"])
def test_cost_with_one_mfu_predicts_three_sizes(name: str) -> None:
    assert predicted_hours(RUNS[name], 0.63) == pytest.approx(RUNS[name].hours, rel=0.05)


def test_flops_equal_those_of_nanochat() -> None:
    """Ours are 7% more: some of its layers attend to a window alone."""
    run = RUNS["nanochat d24"]
    flops = cost(run.model, run.sequence_tokens, run.tokens, parse_gpus(run.gpus), 0.5, 3.0).flops
    assert flops == pytest.approx(4.33e19, rel=0.1)
    planned = preset("d24").train  # 12 tokens a parameter there too
    assert planned.num_steps * planned.batch_tokens == pytest.approx(run.tokens, rel=0.01)


@pytest.mark.parametrize(
    ("model", "sequence_tokens", "zero_stage", "ran_with"),
    [
        (PRESETS["gpt2"].model, 1024, 1, 64),  # llm.c, -b 64 -z 1 on 80 GB
        (PRESETS["gpt2-xl"].model, 1024, 1, 16),  # llm.c, -b 16 -z 1 on 80 GB
        (of_depth(26).model, 2048, 1, 16),  # nanochat's speedrun, --device-batch-size=16 on 80 GB
    ],
)
def test_fit_predicts_microbatches_of_published_runs(
    model: ModelConfig, sequence_tokens: int, zero_stage: int, ran_with: int
) -> None:
    train = TrainConfig(batch_tokens=2**20, sequence_tokens=sequence_tokens)
    found = fit(model, train, parse_gpus("8xH100"), zero_stage, activation_checkpointing=False)
    assert ran_with / 2 <= found.microbatch_sequences <= ran_with
    assert found.microbatch_sequences * found.accumulation_steps * 8 * sequence_tokens == 2**20


def test_llama3_8b_memory_bounds_contain_torchtitan_measurement() -> None:
    """82.4 GiB with two sequences of 8,192 and some of the activations recomputed: between ours with none and with all."""
    state = sum(state_bytes(LLAMA3_8B, 3, 8))
    kept, recomputed = (state + 2 * activation_bytes(LLAMA3_8B, 8192, again) for again in (False, True))
    assert recomputed < 82.4 * GIB < kept
    train = TrainConfig(batch_tokens=16 * 8192, sequence_tokens=8192)
    assert [fit(LLAMA3_8B, train, parse_gpus("8xH100"), 3, again).microbatch_sequences for again in (False, True)] == [
        1,
        2,
    ]


@pytest.mark.parametrize(
    "changes", [{}, {"num_kv_heads": 1}, {"normalize_qk": False, "num_kv_heads": 2}, {"ff_width": 1024}], ids=str
)
def test_layer_bytes_per_token_equals_saved_tensors(changes: dict[str, object]) -> None:
    """On a CPU a norm keeps two float32 copies, where a GPU's kernel keeps its bfloat16 input: a quarter of that."""
    shape = {"vocab_size": 64, "num_layers": 6, "width": 256, "num_heads": 4, "num_kv_heads": 4, "head_width": 64}
    config = ModelConfig.model_validate(shape | {"ff_width": 640} | changes)
    model = Transformer(config).to(torch.bfloat16)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        model.model(torch.zeros((16, 32), dtype=torch.long))
    num_bytes = sum(
        tensor.untyped_storage().nbytes() / (1 if tensor.dtype == torch.bfloat16 else 4)
        for pointer, tensor in kept.items()
        if pointer not in weights
    )
    assert num_bytes / 512 / 6 == pytest.approx(layer_bytes_per_token(config), rel=0.03)


@pytest.mark.parametrize("zero_stage", [1, 2, 3])
def test_state_bytes_equals_deepspeed_memory(zero_stage: int) -> None:
    import deepspeed

    join_ranks(1)
    model = Transformer(ModelConfig(vocab_size=4096, num_layers=2))
    num = num_parameters(model.config)
    small = {"reduce_bucket_size": 100_000, "stage3_prefetch_bucket_size": 100_000, "stage3_max_live_parameters": 0}
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_accumulation_steps": 2,
        "zero_optimization": {"stage": zero_stage, "stage3_param_persistence_threshold": 0} | small,
        "bf16": {"enabled": True},
        "data_types": {"grad_accum_dtype": "fp32"},
        "steps_per_print": None,
    }
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    before = storages()
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=settings)
    for _ in range(3):  # after the third, a step was taken and another one is begun
        engine.backward(engine(torch.arange(64)[None]).float().square().mean())
        engine.step()
    held = sum(storage.nbytes() for pointer, storage in storages().items() if pointer not in before)
    gathered = 2 * num if zero_stage == 3 else 0
    assert held == pytest.approx(sum(state_bytes(model.config, zero_stage, 1)) - gathered, rel=0.05)


def storages() -> dict[int, torch.UntypedStorage]:
    """The memory that tensors of this process hold, by address."""
    gc.collect()
    tensors = [found for found in gc.get_objects() if type(found) in (torch.Tensor, torch.nn.Parameter)]
    return {tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors}


@pytest.mark.parametrize("name", ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl", "d4", "d12", "d26"])
def test_presets_fit_on_80_gb(name: str) -> None:
    chosen = preset(name)
    found = fit(
        chosen.model, chosen.train, parse_gpus("8xA100"), chosen.train.zero_stage, activation_checkpointing=False
    )
    assert found.microbatch_sequences >= chosen.train.microbatch_sequences


def test_fit_grows_with_zero_stage_and_checkpointing() -> None:
    chosen = preset("d32")
    for gpus in ("8xA100-40GB", "8xH100", "64xB200"):
        ways = fits(chosen.model, chosen.train, parse_gpus(gpus))
        sizes = {(way.zero_stage, way.activation_checkpointing): way.microbatch_sequences for way in ways}
        assert all(sizes[stage, True] >= sizes[stage, False] for stage in range(4))
        assert sizes[0, False] <= sizes[1, False] <= sizes[2, False]


def test_plan_reports_that_nothing_fits() -> None:
    chosen = preset("d64")
    assert best(fits(chosen.model, chosen.train, parse_gpus("1xL4"))) is None
    assert "Nothing fits on 1 L4" in shown("d64", "1xL4")


def shown(name: str, gpus: str) -> str:
    console = Console(width=140, file=io.StringIO())
    console.print(plan_text(name, gpus))
    return console.file.getvalue()


def test_plan_text_shows_settings_that_recipe_accepts() -> None:
    text = shown("gpt2", "8xH100")
    assert "123,552,768" in text
    assert "45" in text  # minutes, as modded-nanogpt's baseline
    settings = [word for word in text.split() if word.startswith("pretrain.train.")]
    train = make_recipe("gpt2", settings=settings).pretrain.train
    assert (train.num_ranks, train.zero_stage, train.microbatch_sequences) == (8, 1, 64)


@pytest.mark.parametrize("gpus", ["H100", "0xH100", "8xTPU", "8 x H100", "-1xH100"])
def test_parse_gpus_error_lists_known_gpus(gpus: str) -> None:
    with pytest.raises(ValueError, match=f"not of the form 8xH100: a number, and one of {', '.join(DEVICES)}"):
        parse_gpus(gpus)


def test_plan_of_several_nodes_prints_what_each_runs() -> None:
    text = " ".join(shown("gpt2", "16xH100").replace("\\\n", " ").split())
    for rank in (0, 1):
        variables = f"PET_NNODES=2 PET_NODE_RANK={rank} PET_NPROC_PER_NODE=8 PET_RDZV_ENDPOINT=NODE0:29500"
        assert f"{variables} crawl2chat run gpt2 --only pretrain --set pretrain.train.num_ranks=16" in text
    assert "PET_" not in shown("gpt2", "8xH100")


def test_plan_of_batch_that_gpus_cannot_share_raises_error() -> None:
    with pytest.raises(ValueError, match="7 GPUs cannot share a batch of 512 sequences evenly"):
        plan_text("gpt2", "7xH100")
    with pytest.raises(ValueError, match=r"an MFU of 40 is not in 0\.\.1"):
        plan_text("gpt2", "8xH100", mfu=40)


def test_fit_without_room_has_no_accumulation_steps() -> None:
    chosen = preset("d64")
    ways: list[Fit] = fits(chosen.model, chosen.train, parse_gpus("8xRTX4090"))
    assert {way.accumulation_steps for way in ways if not way.microbatch_sequences} == {0}
