"""SFT with rehearsal and early stopping: which weights are kept, when the run ends, and that a kill changes none of it."""

import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.config import OptimConfig, Source, TrainRun
from model.data.dataloader import microbatches, open_training
from model.errors import UserError
from model.network.huggingface import load_transformer
from model.tokenizer.chat import ChatTokenizer
from model.training.checkpoints import complete_checkpoints
from model.training.early_stopping import EarlyStopping
from model.training.loop import train
from tests.model.training.test_loop import count_lines, data, make_run, metrics, one_thread
from tests.support.forker import Forker
from tests.support.ranks import Ranks
from tests.support.tiny_models import write_lines, write_model

__all__ = ["data", "one_thread"]  # fixtures
MEASURE = "validation/loss_nats"


def make_sft(data: Path, folder: Path, **settings: Any) -> TrainRun:
    """Conversations that are soon learned by heart, so that the loss on other ones rises again; half of the batch is pretraining text."""
    folder.mkdir(parents=True, exist_ok=True)
    run = make_run(data, folder / "out", OptimConfig(learning_rate=2e-2), **{"sequence_tokens": 64, **settings})
    for name, colours in (("train", ("blue", "red")), ("validation", ("green", "yes"))):
        chats = [
            [
                {"role": "user", "content": f"what colour is {n}?"},
                {"role": "assistant", "content": f"it is {colour} {n}."},
            ]
            for n in range(12)
            for colour in colours
        ]
        write_lines(folder / f"{name}.jsonl", [{"messages": messages} for messages in chats])
    write_model(folder / "base", run.model.vocab_size)
    tokens = Source(paths=run.train_paths, objective="pretrain", weight=1.0)
    return run.model_copy(
        update={
            "objective": "sft",
            "train_paths": (str(folder / "train.jsonl"),),
            "validation_paths": (str(folder / "validation.jsonl"),),
            "mixture": (tokens,),
            "initial_weights": str(folder / "base"),
        }
    )


def run_in(run: TrainRun, stop: threading.Event | None = None) -> None:
    """Train with the state next to the output, as a stage does."""
    train(run, Path(run.output).parent / "state" / "checkpoints", stop or threading.Event())


def weights(run: TrainRun) -> dict[str, torch.Tensor]:
    return load_file(Path(run.output) / "model.safetensors")


def test_rehearsal_is_the_stated_share_of_the_batches(data: Path, tmp_path: Path) -> None:
    run = make_sft(data, tmp_path)
    tokenizer = ChatTokenizer.load(run.tokenizer)
    dataset = open_training(run, tokenizer)
    rows = [row for number in range(64) for part in microbatches(dataset, run.train, number, 0) for row in part.mask]
    # A row of text is learned whole, one of conversations in part.
    assert sum(bool(row.all()) for row in rows) == pytest.approx(len(rows) / 2, rel=0.2)
    assert len(rows) == 64 * 4


def test_run_ends_after_its_patience_with_the_weights_of_the_best_validation(data: Path, tmp_path: Path) -> None:
    run = make_sft(data, tmp_path, num_steps=60, eval_every_steps=2, checkpoint_every_steps=7, patience=3)
    run_in(run)
    lines = [line for line in metrics(run) if MEASURE in line]
    best = min(lines, key=lambda line: line[MEASURE])
    assert lines[-1]["step"] == best["step"] + 6 < 60
    summary = (Path(run.output) / "summary.json").read_text()
    assert f'"best_step": {best["step"]}' in summary and f'"steps": {lines[-1]["step"]}' in summary
    assert f'"{MEASURE}": {best[MEASURE]}' in summary
    # A run of exactly so many steps, at the same rates, has these weights.
    kept = EarlyStopping(tmp_path / "state" / "best", 3)
    found = load_file(kept.files.file(best["step"]))
    assert all(torch.equal(found[name], weight) for name, weight in weights(run).items())


@pytest.mark.parametrize("kills", [(3, 9), (6, 7, 12)])
def test_killed_run_keeps_the_same_weights(data: Path, tmp_path: Path, kills: tuple[int, ...], forker: Forker) -> None:
    settings = {"num_steps": 60, "eval_every_steps": 2, "checkpoint_every_steps": 5, "patience": 3}
    undisturbed, run = (make_sft(data, tmp_path / name, **settings) for name in ("undisturbed", "killed"))
    run_in(undisturbed)
    for steps in kills:
        rank = Ranks(forker, run)
        while rank.poll() is None and count_lines(run) < steps:
            time.sleep(0.002)
        rank.send(signal.SIGKILL)
        assert rank.wait() == -signal.SIGKILL
    Ranks(forker, run).succeed()
    ours, theirs = (
        [(line["train/loss_nats"], line.get(MEASURE)) for line in metrics(each)] for each in (run, undisturbed)
    )
    assert ours == theirs
    assert all(torch.equal(weight, weights(undisturbed)[name]) for name, weight in weights(run).items())


def test_files_of_steps_that_no_checkpoint_needs_are_deleted(data: Path, tmp_path: Path) -> None:
    run = make_sft(
        data, tmp_path, num_steps=12, eval_every_steps=1, checkpoint_every_steps=2, patience=20, keep_checkpoints=1
    )
    run_in(run)
    found = sorted(path.name for path in (tmp_path / "state" / "best").iterdir())
    last = complete_checkpoints(tmp_path / "state" / "checkpoints")[0].name
    assert len(found) <= 4 and last == "step-00000012"


def test_turn_tokens_begin_with_the_rows_of_letters(data: Path, tmp_path: Path) -> None:
    run = make_sft(data, tmp_path, num_steps=1).model_copy(
        update={"copied_rows": {3: 40, 4: 40, 5: 60}, "optim": OptimConfig(learning_rate=1e-9)}
    )
    before = load_transformer(tmp_path / "base").model.embed_tokens.weight.detach()
    run_in(run)
    after = weights(run)["model.embed_tokens.weight"]
    torch.testing.assert_close(after[[3, 4, 5]], before[[40, 40, 60]], atol=1e-6, rtol=0)
    torch.testing.assert_close(after[6:], before[6:], atol=1e-6, rtol=0)


def test_no_patience_keeps_the_last_weights() -> None:
    stopping = EarlyStopping(Path("nowhere"), 0)
    assert not any(stopping.is_better({"step": step, MEASURE: 1.0 + step}) for step in range(9))
    assert not stopping.is_over and not stopping.best


def test_losses_that_are_no_numbers_are_worse() -> None:
    stopping = EarlyStopping(Path("nowhere"), 2)
    stopping.resume([{"step": 1, MEASURE: 2.0}, {"step": 2}, {"step": 3, MEASURE: float("nan")}])
    assert (stopping.best["step"], stopping.num_worse, stopping.is_over) == (1, 1, False)
    assert not stopping.is_better({"step": 4, MEASURE: 2.0}) and stopping.is_over
    with pytest.raises(UserError, match=r"there is no .*step-00000001.safetensors, the weights of the best validation"):
        stopping.weights()
