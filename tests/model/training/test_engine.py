"""The engine: what it does with DeepSpeed leaves the rest of the process as it was."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.config import OptimConfig
from model.network.transformer import Transformer
from model.training.engine import make_optimizer, weights_only
from tests.support.tiny_models import tiny_config

ADAMW = OptimConfig()
MUON = OptimConfig(optimizer="muon")


def test_muon_leaves_torch_compile_on() -> None:
    """A function compiled after Muon was chosen reaches its backend."""
    make_optimizer(Transformer(tiny_config(320)), MUON)
    graphs = []

    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> object:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(lambda x: x * 2 + 1, backend=backend)
    assert torch.equal(compiled(torch.ones(3)), torch.full((3,), 3.0))
    assert len(graphs) == 1
    assert "TORCH_COMPILE_DISABLE" not in os.environ


@pytest.mark.skipif(torch.cuda.is_available(), reason="with a GPU Muon is compiled")
def test_muon_without_gpu_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step of Muon on a CPU compiles nothing: torch.compile's frames stay uncounted."""
    torch._dynamo.utils.counters.clear()
    model = Transformer(tiny_config(320))
    optimizer = make_optimizer(model, MUON)
    model(torch.arange(64)[None]).logsumexp(-1).sum().backward()
    optimizer.step()
    assert torch._dynamo.utils.counters["frames"]["total"] == 0


def test_adamw_with_zero_does_not_import_torchs_compiler() -> None:
    """ZeRO imports Muon to compare it with any optimizer."""
    code = """if True:
        import sys
        from model.training.engine import make_optimizer
        from tests.model.training.test_engine import ADAMW, Transformer, tiny_config
        make_optimizer(Transformer(tiny_config(320)), ADAMW)
        import deepspeed.runtime.zero.muon.muon_optimizer
        sys.exit("torch._dynamo" in sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize("before", [None, "0"])
def test_weights_only_restores_the_environment(monkeypatch: pytest.MonkeyPatch, before: str | None) -> None:
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    monkeypatch.delenv(name, raising=False)
    if before is not None:
        monkeypatch.setenv(name, before)
    with pytest.raises(KeyError), weights_only():
        assert os.environ[name] == "1"
        raise KeyError
    assert os.environ.get(name) == before
