"""Training: a golden trajectory, the same one however it is shared out, and the same one after a kill."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from model.config import CopyingConfig, OptimConfig, Source, TrainConfig, TrainRun
from model.data.copying import WithCopying
from model.data.token_shards import TokenShards
from model.files import read_lines
from model.network.huggingface import load_reward_model, load_transformer
from model.network.transformer import Transformer
from model.tokenizer.chat import ChatTokenizer
from model.training.checkpoints import complete_checkpoints
from model.training.engine import make_optimizer
from model.training.loop import LossTrainer, train
from model.training.loss_spikes import WINDOW, SkippedBatches, step_problem
from model.training.metrics import MetricsLog
from model.training.optim import learning_rate_factor, parameter_groups
from model.training.trainer import INTERRUPTED
from tests.model.data.test_dataloader import write_shard
from tests.support.forker import Forker
from tests.support.ranks import Ranks
from tests.support.tiny_models import tiny_config, write_lines, write_tokenizer

ROOT = Path(__file__).parents[3]
V = 320
ADAMW = OptimConfig(learning_rate=1e-2)
MUON = OptimConfig(optimizer="muon", learning_rate=1e-2, muon_learning_rate=0.02)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


def write_data(folder: Path) -> Path:
    """A language in which every token says what comes next, but for one in eight that is drawn at random."""
    write_tokenizer(folder, vocab_size=V)
    generator = np.random.default_rng(0)
    draws = generator.integers(12, V, 6000)
    tokens = [12]
    for draw in draws.tolist():
        tokens.append(draw if draw % 8 == 0 else 12 + (tokens[-1] * 7) % (V - 12))
    for name, part in (("train", tokens[:5000]), ("validation", tokens[5000:])):
        write_shard(folder / f"{name}.arrow", [part[start : start + 50] for start in range(0, len(part), 50)])
    return folder


def make_run(data: Path, output: Path, optim: OptimConfig = ADAMW, **settings: Any) -> TrainRun:
    output.mkdir(parents=True)
    defaults = {
        "num_steps": 12,
        "batch_tokens": 256,
        "sequence_tokens": 32,
        "microbatch_sequences": 8,
        "eval_every_steps": 6,
        "checkpoint_every_steps": 4,
        "sample_every_steps": 5,
        "sample_prompts": ["the mayor"],
        "sample_tokens": 6,
    }
    return TrainRun(
        objective="pretrain",
        model=tiny_config(V),
        train=TrainConfig.model_validate(defaults | settings),
        optim=optim,
        tokenizer=str(data / "tokenizer.json"),
        train_paths=(str(data / "train.arrow"),),
        validation_paths=(str(data / "validation.arrow"),),
        output=str(output),
    )


def run_here(run: TrainRun) -> list[dict[str, Any]]:
    train(run, Path(run.output) / "checkpoints", threading.Event())
    return metrics(run)


def metrics(run: TrainRun) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(run.output) / "metrics.jsonl").read_text().splitlines()]


def losses(run: TrainRun) -> list[float]:
    return [line["train/loss_nats"] for line in metrics(run)]


def command(run: TrainRun) -> list[str]:
    """`python -m model.train` on the run's file, through torchrun where it has several ranks."""
    run_file = Path(run.output) / "run.json"
    run_file.write_text(run.model_dump_json())
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={run.train.num_ranks}"]
    return [sys.executable, *(torchrun if run.train.num_ranks > 1 else []), "-m", "model.training.loop", str(run_file)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)  # as in the processes that are started here


@pytest.fixture(scope="module")
def reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    run = make_run(data, tmp_path_factory.mktemp("reference") / "out")
    run_here(run)
    return run


def test_loss_trajectory_equals_golden(data: Path, tmp_path: Path) -> None:
    """Changes when the mathematics of model, loss, optimizer or order of data changes, and should then be changed here."""
    run = make_run(data, tmp_path / "out", num_steps=20)
    run_here(run)
    assert losses(run) == pytest.approx(GOLDEN, abs=2e-3)


GOLDEN = [
    5.9026,
    4.9676,
    4.2783,
    3.7895,
    3.4554,
    3.1269,
    2.9591,
    2.3940,
    2.2682,
    1.8103,
    1.5875,
    1.5455,
    1.4599,
    1.3702,
    1.1563,
    1.2211,
    0.9360,
    1.1389,
    1.1076,
    0.8822,
]


def test_run_writes_metrics_summary_and_weights(reference: TrainRun) -> None:
    lines, output = metrics(reference), Path(reference.output)
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert [line["step"] for line in lines if "validation/bits_per_byte" in line] == [6, 12]
    summary = json.loads((output / "summary.json").read_text())
    assert summary["tokens"] == 12 * 256
    assert summary["validation/loss_nats"] == lines[-1]["validation/loss_nats"] < 5.0 < lines[0]["train/loss_nats"]
    assert [path.name for path in complete_checkpoints(output / "checkpoints")] == ["step-00000008", "step-00000012"]


def test_run_writes_samples_when_due(reference: TrainRun, data: Path, tmp_path: Path) -> None:
    """However the weights are shared out, it is the same model that speaks."""
    samples = read_lines(Path(reference.output) / "samples.jsonl")
    assert [(line["step"], line["prompt"]) for line in samples] == [(5, "the mayor"), (10, "the mayor")]
    assert all(line["completion"] for line in samples)
    sharded = make_run(data, tmp_path / "out", zero_stage=3, num_steps=12)
    run_here(sharded)
    assert read_lines(tmp_path / "out" / "samples.jsonl") == samples


def test_mixture_of_whole_documents_trains_and_resumes(data: Path, tmp_path: Path) -> None:
    more = write_shard(tmp_path / "more.arrow", [[0, *range(12 + n, 52 + n)] for n in range(40)])
    runs = []
    for name in ("whole", "stopped"):
        run = make_run(data, tmp_path / name, packing="whole_documents", num_steps=8)
        runs.append(run.model_copy(update={"mixture": (Source(paths=(more,), weight=0.5),)}))
    whole, stopped = runs
    run_here(whole)
    stop = threading.Event()
    stop.set()
    with pytest.raises(SystemExit):
        train(stopped, Path(stopped.output) / "checkpoints", stop)
    run_here(stopped)
    assert losses(stopped) == losses(whole)
    summary = json.loads((Path(whole.output) / "summary.json").read_text())
    assert summary["cuts_in_documents"] == 140 and summary["padded_tokens"] > 0
    assert summary["mixture/1/epochs"] == pytest.approx(0.33, abs=0.1)


def test_saved_weights_have_the_reported_validation_loss(reference: TrainRun, data: Path) -> None:
    from model import losses
    from model.data.token_shards import TokenShards

    shards = TokenShards([str(data / "validation.arrow")], 32, V)
    tokens, mask = shards.fetch(np.arange(len(shards)))
    model = load_transformer(Path(reference.output))
    with torch.no_grad():
        nats, count = losses.cross_entropy(model(tokens[:, :-1]), tokens[:, 1:], mask)
    assert float(nats / count) == pytest.approx(metrics(reference)[-1]["validation/loss_nats"], abs=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"microbatch_sequences": 2},
        {"zero_stage": 1},
        {"zero_stage": 2, "microbatch_sequences": 4},
        {"zero_stage": 3},
        {"activation_checkpointing": True},
        {"zero_stage": 1, "offload_optimizer": True},
    ],
    ids=str,
)
def test_losses_do_not_depend_on_microbatches_and_zero_stage(
    reference: TrainRun, data: Path, tmp_path: Path, settings: dict[str, Any]
) -> None:
    lines = run_here(make_run(data, tmp_path / "out", **settings))
    for name in ("train/loss_nats", "train/gradient_norm"):
        expected = [line[name] for line in metrics(reference)]
        assert [line[name] for line in lines] == pytest.approx(expected, rel=1e-3)
    assert load_transformer(tmp_path / "out").config == reference.model


def test_two_ranks_have_losses_of_one(reference: TrainRun, data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path / "out", num_ranks=2, zero_stage=1)
    subprocess.run(command(run), env=environment(), check=True, capture_output=True)
    assert losses(run) == pytest.approx(losses(reference), rel=1e-3)


@pytest.fixture(scope="module")
def muon_reference(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    run = make_run(data, tmp_path_factory.mktemp("muon") / "out", MUON)
    run_here(run)
    return run


def test_muon_lowers_the_loss(reference: TrainRun, muon_reference: TrainRun) -> None:
    assert losses(muon_reference)[0] == pytest.approx(losses(reference)[0])
    assert losses(muon_reference)[-1] < 2.5


@pytest.mark.parametrize(
    "settings", [{"zero_stage": 1}, {"zero_stage": 2}, {"zero_stage": 3}, {"num_ranks": 2, "zero_stage": 1}], ids=str
)
def test_muon_with_sharding_has_losses_of_one_rank(
    muon_reference: TrainRun, data: Path, tmp_path: Path, settings: dict[str, Any], forker: Forker
) -> None:
    run = make_run(data, tmp_path / "out", MUON, **settings)
    if run.train.num_ranks == 1:
        run_here(run)
    else:
        Ranks(forker, run).succeed()
    assert losses(run) == pytest.approx(losses(muon_reference), rel=3e-3)


def test_muon_update_is_orthogonal() -> None:
    model = Transformer(tiny_config(V))
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = make_optimizer(model, OptimConfig(optimizer="muon", weight_decay=0.0, muon_learning_rate=1.0))
    tokens = torch.randint(0, V, (16, 32), generator=torch.Generator().manual_seed(0))
    model(tokens).logsumexp(-1).sum().backward()
    optimizer.step()
    name = "model.layers.0.mlp.up_proj.weight"
    moved = torch.linalg.svdvals(model.get_parameter(name).detach() - before[name]) / (64 / 32) ** 0.5
    assert moved.min() > 0.6 and moved.max() < 1.3, "singular values are all near 1"


def test_bfloat16_losses_are_close_to_float32(reference: TrainRun, data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path / "out", dtype="bfloat16")
    run_here(run)
    assert losses(run) == pytest.approx(losses(reference), abs=0.1)
    assert load_transformer(tmp_path / "out").model.norm.weight.dtype == torch.float32


def test_killed_run_resumes_with_same_losses(data: Path, tmp_path: Path, forker: Forker) -> None:
    run = make_run(data, tmp_path / "out", num_steps=60)
    undisturbed = run.model_copy(update={"output": str(tmp_path / "undisturbed")})
    Path(undisturbed.output).mkdir()
    run_here(undisturbed)
    num_kills = 0
    for steps in (6, 23):
        rank = Ranks(forker, run)
        while rank.poll() is None and count_lines(run) < steps:
            time.sleep(0.002)
        rank.send(signal.SIGKILL)
        num_kills += rank.wait() == -signal.SIGKILL
    assert num_kills == 2
    (tmp_path / "out" / "checkpoints" / "partial-00000099").mkdir()  # one that was being written
    with (tmp_path / "out" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 59, "train/lo')
    subprocess.run(command(run), env=environment(), check=True, capture_output=True)
    assert losses(run) == losses(undisturbed)
    ours, theirs = (load_transformer(Path(each.output)).state_dict() for each in (run, undisturbed))
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def count_lines(run: TrainRun) -> int:
    path = Path(run.output) / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


@pytest.mark.parametrize(
    "settings",
    [
        *({"zero_stage": stage, "optim": optim} for stage in range(4) for optim in (ADAMW, MUON)),
        {"dtype": "bfloat16"},
    ],
    ids=lambda settings: (
        f"{settings.get('zero_stage', '')} {settings['optim'].optimizer if 'optim' in settings else 'bfloat16'}"
    ),
)
def test_stopped_run_saves_checkpoint_and_resumes_exactly(data: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    undisturbed = make_run(data, tmp_path / "undisturbed", num_steps=3, **settings)
    run = make_run(data, tmp_path / "out", num_steps=3, **settings)
    stop = threading.Event()
    stop.set()
    for steps in (1, 2):
        with pytest.raises(SystemExit) as ended:
            train(run, tmp_path / "checkpoints", stop)
        assert ended.value.code == INTERRUPTED == 143
        assert complete_checkpoints(tmp_path / "checkpoints")[-1].name == f"step-0000000{steps}"
    train(run, tmp_path / "checkpoints", threading.Event())
    run_here(undisturbed)
    assert losses(run) == losses(undisturbed)


def test_run_with_copying_resumes_exactly_and_copies_what_it_never_saw(data: Path, tmp_path: Path) -> None:
    def copying(name: str) -> TrainRun:
        run = make_run(
            data,
            tmp_path / name,
            OptimConfig(),
            num_steps=30,
            batch_tokens=1024,
            sequence_tokens=64,
            checkpoint_every_steps=10,
        )
        shape = run.model.model_copy(
            update={"width": 96, "num_heads": 4, "num_kv_heads": 4, "head_width": 16, "rope_base": 1e6}
        )
        settings = CopyingConfig(num_heads=2, falling_steps=30, fraction=0.5)
        return run.model_copy(update={"model": shape, "copying": settings})

    run, undisturbed = copying("out"), copying("undisturbed")
    stop = threading.Event()
    stop.set()
    with pytest.raises(SystemExit):
        train(run, tmp_path / "checkpoints", stop)
    train(run, tmp_path / "checkpoints", threading.Event())
    run_here(undisturbed)
    assert losses(run) == losses(undisturbed)
    model = load_transformer(Path(run.output))
    others = WithCopying(
        TokenShards(run.train_paths, 64, V),
        num_falling=1,
        fraction=0.5,
        sequence_tokens=64,
        tokens=np.arange(12, V),
        seed=9,
    )
    fetched = others.fetch(-1 - np.arange(32))
    with torch.no_grad():
        is_right = model(fetched.tokens[:, :-1]).argmax(-1) == fetched.tokens[:, 1:]
    assert is_right[fetched.mask.bool()].float().mean() > 0.6


@pytest.mark.parametrize(
    "settings",
    [{"optim": MUON}, {"zero_stage": 2}, {"zero_stage": 3}],
    ids=["without ZeRO", "ZeRO 2", "ZeRO 3"],
)
def test_run_resumes_with_another_number_of_ranks(
    data: Path, tmp_path: Path, settings: dict[str, Any], forker: Forker
) -> None:
    """Two ranks, then one, then two: the losses are those of one."""
    undisturbed = make_run(data, tmp_path / "undisturbed", checkpoint_every_steps=0, **settings)
    run_here(undisturbed)
    run = make_run(data, tmp_path / "out", **settings)
    for num_ranks, num_steps in ((2, 4), (1, 8), (2, 12)):
        with_ranks = run.model_copy(update={"train": run.train.model_copy(update={"num_ranks": num_ranks})})
        ranks = Ranks(forker, with_ranks)
        while ranks.poll() is None and count_lines(run) < num_steps + 1:
            time.sleep(0.01)
        if num_steps < 12:
            assert ranks.poll() is None, f"with {num_ranks} ranks it came to {count_lines(run)} steps"
            ranks.send(signal.SIGTERM)
            assert ranks.wait() in (0, INTERRUPTED)
    ranks.succeed()
    is_exact = (
        "dtype" not in settings and settings.get("zero_stage") != 3
    )  # DeepSpeed's universal ZeRO 3 is not quite the same
    assert losses(run) == pytest.approx(losses(undisturbed), rel=3e-3 if is_exact else 3e-2)


class Trap:
    """Unpickled, it does something."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (os.environ["TRAP"],)


def test_pickle_in_checkpoint_is_not_executed(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    run = make_run(data, tmp_path / "out", num_steps=2)
    run_here(run)
    for path in (tmp_path / "out" / "checkpoints").rglob("*.pt"):
        torch.save({**torch.load(path, weights_only=False), "trap": Trap()}, path)
    with pytest.raises(Exception, match="Weights only load failed"):
        run_here(run)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("part", [0.0, 0.5, 0.999])
def test_damaged_checkpoint_is_named_and_earlier_one_resumes(data: Path, tmp_path: Path, part: float) -> None:
    run = make_run(data, tmp_path / "out", num_steps=8)
    lines = run_here(run)
    newest = tmp_path / "out" / "checkpoints" / "step-00000008"
    [path] = newest.iterdir()
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(ValueError, match=f"^the checkpoint {newest} cannot be read .+ delete that folder .+ before$"):
        run_here(run)
    shutil.rmtree(newest)
    assert [line["train/loss_nats"] for line in run_here(run)] == [line["train/loss_nats"] for line in lines]


def test_sft_and_reward_model_train_in_turn(reference: TrainRun, data: Path, tmp_path: Path) -> None:
    colours = ["blue", "red", "green"]
    question = [{"role": "user", "content": "what colour is the sky?"}]
    chats = [{"messages": [*question, {"role": "assistant", "content": f"it is {c}."}]} for c in colours * 20]
    pairs = [{"messages": question, "chosen": f"it is {c}.", "rejected": f"no {c}"} for c in colours * 10]
    write_lines(tmp_path / "chats.jsonl", chats)
    write_lines(tmp_path / "pairs.jsonl", pairs)
    start = reference.output
    for objective, name in (("sft", "chats"), ("reward", "pairs")):
        paths = (str(tmp_path / f"{name}.jsonl"),)
        run = make_run(data, tmp_path / objective, sequence_tokens=64, batch_tokens=512)
        run = run.model_copy(
            update={"objective": objective, "train_paths": paths, "validation_paths": paths, "initial_weights": start}
        )
        lines = run_here(run)
        assert lines[-1]["train/loss_nats"] < lines[0]["train/loss_nats"] / 2
        start = run.output
    assert lines[0]["train/loss_nats"] == pytest.approx(np.log(2))  # a fresh reward head prefers nothing
    assert lines[-1]["validation/accuracy"] == 1.0
    assert load_reward_model(tmp_path / "reward").score.weight.abs().max() > 0
    pad = json.loads((tmp_path / "reward" / "config.json").read_text())["pad_token_id"]
    assert pad == ChatTokenizer.load(data / "tokenizer.json").pad


def test_wrong_number_of_ranks_raises_error(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="num_ranks=2, but 1 processes were started"):
        run_here(make_run(data, tmp_path / "out", num_ranks=2))


def test_metrics_log_keeps_last_line_of_repeated_step(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step, loss in ((1, 5.0), (2, 4.0), (3, 3.9), (2, 4.1), (3, 3.8)):
        log.append({"step": step, "train/loss_nats": loss})
    assert [line["train/loss_nats"] for line in log.compact()] == [5.0, 4.1, 3.8]
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_metrics_of_a_step_are_in_tensorboard_before_the_log_is_closed(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for step in (1, 2):
        log.append({"step": step, "train/loss_nats": 3.0 / step})
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert [(scalar.step, scalar.value) for scalar in events.Scalars("train/loss_nats")] == [(1, 3.0), (2, 1.5)]


def test_run_of_no_steps_writes_weights_and_summary(data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path / "out", num_steps=0)
    assert run_here(run) == []
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["steps"] == 0
    load_transformer(tmp_path / "out")


def test_learning_rate_factor_warms_up_and_decays() -> None:
    wsd = OptimConfig(warmup_fraction=0.1, decay_fraction=0.5, final_learning_rate_fraction=0.1)
    rates = [learning_rate_factor(wsd, step, 100) for step in range(100)]
    assert rates[:10] == pytest.approx([0.1 * (step + 1) for step in range(10)])
    assert rates[10:51] == [1.0] * 41
    assert rates[75] == pytest.approx(0.55)
    assert rates[99] == pytest.approx(0.1 + 0.9 / 50)
    cosine = wsd.model_copy(update={"schedule": "cosine"})
    assert learning_rate_factor(cosine, 55, 100) == pytest.approx(0.55)
    assert all(
        learning_rate_factor(cosine, step, 100) > learning_rate_factor(cosine, step + 1, 100) for step in range(10, 99)
    )


def test_parameter_groups_decay_matrices_only() -> None:
    model = Transformer(tiny_config(V))
    decayed, kept = parameter_groups(model, OptimConfig(weight_decay=0.1))
    assert {parameter.dim() for parameter in decayed["params"]} == {2}
    assert any(parameter is model.model.embed_tokens.weight for parameter in kept["params"])
    assert len(decayed["params"]) + len(kept["params"]) == len(list(model.parameters()))
    assert (decayed["weight_decay"], kept["weight_decay"]) == (0.1, 0.0)


def test_metrics_line_holds_documented_metrics(reference: TrainRun) -> None:
    for line in metrics(reference)[1:]:
        phases = [value for name, value in line.items() if name.startswith("phase/")]
        step_seconds = 256 / line["train/tokens_per_second"]
        assert (
            sum(line[f"phase/{name}_seconds"] for name in ("data", "forward", "backward", "optimizer")) <= step_seconds
        )
        assert all(value >= 0 for value in phases)
        assert 0 < line["train/mfu_fraction"] < 1
        assert line["train/memory_bytes"] > 50e6
    assert "phase/checkpoint_seconds" in metrics(reference)[4], "of the checkpoint after step 4"
    assert list(Path(reference.output, "tensorboard").glob("events*"))


def test_z_loss_is_minimised_but_not_reported(reference: TrainRun, data: Path, tmp_path: Path) -> None:
    run = make_run(data, tmp_path / "out", OptimConfig(learning_rate=1e-2, z_loss=0.1))
    run_here(run)
    assert losses(run)[0] == pytest.approx(losses(reference)[0])
    ours, theirs = (load_transformer(Path(each.output)) for each in (run, reference))
    tokens = torch.arange(12, 44)[None]
    with torch.no_grad():
        assert ours(tokens).logsumexp(-1).abs().mean() < theirs(tokens).logsumexp(-1).abs().mean()


def test_bad_batch_is_skipped(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes back, takes every other batch, and is the same after a kill."""
    taken: list[int] = []
    learn = LossTrainer.learn

    def poisoned(self: LossTrainer, step: int, batch: int) -> dict[str, Any]:
        taken.append(batch)
        return learn(self, step, batch) | ({"train/loss_nats": float("nan")} if batch in (5, 6) else {})

    monkeypatch.setattr(LossTrainer, "learn", poisoned)
    run = make_run(data, tmp_path / "out", num_steps=8)
    lines = run_here(run)
    assert taken == [0, 1, 2, 3, 4, 5, 4, 6, 4, 7, 8, 9], "each time from the checkpoint after step 4"
    assert [line["step"] for line in lines] == list(range(1, 9))
    assert all(np.isfinite(losses(run)))


def test_run_with_too_many_bad_batches_stops(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learn = LossTrainer.learn
    monkeypatch.setattr(LossTrainer, "learn", lambda *args: learn(*args) | {"train/gradient_norm": float("inf")})
    run = make_run(data, tmp_path / "out", num_steps=4, max_rollbacks=2)
    with pytest.raises(
        RuntimeError, match=r"step 1 went wrong .* on batch 2, of .*train.arrow, after batches \[0, 1\]"
    ):
        run_here(run)


def test_step_problem_finds_spikes() -> None:
    calm = [3.0] * WINDOW
    assert step_problem(4.9, 1.0, calm, 2.0) == ""
    assert "3 was usual" in step_problem(5.1, 1.0, calm, 2.0)
    assert step_problem(5.1, 1.0, calm[1:], 2.0) == "", "too early to know what is usual"
    assert step_problem(50.0, 1.0, calm, 0.0) == ""
    assert step_problem(float("inf"), 1.0, [], 0.0) != "" != step_problem(1.0, float("nan"), [], 0.0)


@given(st.sets(st.integers(0, 30), max_size=8))
def test_skipped_batches_take_all_other_batches_once(left_out: set[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        kept = SkippedBatches(Path(folder) / "left_out.jsonl")
        for number in left_out:
            kept.add(number, is_written=True)
        found = [SkippedBatches(kept.path).batch_of(step) for step in range(30)]
    assert found == [number for number in range(40) if number not in left_out][:30]
