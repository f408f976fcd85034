"""LoRA: only the adapters, embedding and head learn, and the result is an ordinary model."""

import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model.config import LoRAConfig, OptimConfig, TrainRun
from model.errors import UserError
from model.inference.scoring import continuation_logprobs
from model.network.huggingface import load_transformer
from model.network.transformer import Transformer, initialize
from model.training.lora import MATRICES, add_adapters, merged
from model.training.trainer import INTERRUPTED
from tests.model.training.test_early_stopping import make_sft, run_in, weights
from tests.model.training.test_loop import data, metrics, one_thread
from tests.support.tiny_models import tiny_config

__all__ = ["data", "one_thread"]  # fixtures
LORA = LoRAConfig(rank=4, alpha=8)
# Not imported here: that takes two seconds, in each worker that collects this file.
pytestmark = pytest.mark.skipif(find_spec("peft") is None, reason="the extra lora is not installed")


def with_lora(data: Path, folder: Path, **settings: Any) -> TrainRun:
    run = make_sft(data, folder, **settings)
    return run.model_copy(update={"lora": LORA, "optim": OptimConfig(learning_rate=1e-2)})


def test_merged_weights_compute_what_the_adapters_compute() -> None:
    model = Transformer(tiny_config(64))
    initialize(model, 1)
    before = {name: weight.clone() for name, weight in model.state_dict().items()}
    add_adapters(model, LORA, seed=3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first
                parameter.normal_(0.0, 0.1, generator=torch.Generator().manual_seed(4))
    whole = merged({name: parameter.detach() for name, parameter in model.named_parameters()}, LORA)
    assert whole.keys() == before.keys()
    plain = Transformer(tiny_config(64))
    plain.load_state_dict(whole)
    rows = [([1, 2, 3], [4, 5, 6])]
    torch.testing.assert_close(
        continuation_logprobs(plain, rows), continuation_logprobs(model, rows), atol=1e-4, rtol=0
    )
    assert all(any(part in name for part in MATRICES) for name in whole if not torch.equal(whole[name], before[name]))


def test_only_adapters_and_embeddings_learn(data: Path, tmp_path: Path) -> None:
    run = with_lora(data, tmp_path, num_steps=10)
    run_in(run)
    lines = metrics(run)
    assert lines[-1]["train/loss_nats"] < lines[0]["train/loss_nats"]
    before, after = load_file(tmp_path / "base" / "model.safetensors"), weights(run)
    changes = {name: after[name] - before[name] for name in before}
    assert before.keys() == after.keys()
    for name, change in changes.items():
        if "norm" in name:
            assert not change.any()
        elif any(part in name for part in MATRICES):
            assert 0 < int(torch.linalg.matrix_rank(change, rtol=1e-4)) <= LORA.rank
    assert changes["model.embed_tokens.weight"].any()
    assert load_transformer(Path(run.output)).config == run.model


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_stopped_run_resumes_exactly(data: Path, tmp_path: Path, zero_stage: int) -> None:
    settings = {"num_steps": 6, "eval_every_steps": 2, "patience": 3, "zero_stage": zero_stage}
    undisturbed, run = (with_lora(data, tmp_path / name, **settings) for name in ("undisturbed", "stopped"))
    run_in(undisturbed)
    stop = threading.Event()
    stop.set()
    for _ in range(2):
        with pytest.raises(SystemExit) as ended:
            run_in(run, stop)
        assert ended.value.code == INTERRUPTED
    run_in(run)
    assert [line["train/loss_nats"] for line in metrics(run)] == [
        line["train/loss_nats"] for line in metrics(undisturbed)
    ]
    assert all(torch.equal(weight, weights(undisturbed)[name]) for name, weight in weights(run).items())


def test_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(UserError, match=r"LoRA needs the package peft: install crawl2chat\[lora\]"):
        add_adapters(Transformer(tiny_config(64)), LORA, 0)
