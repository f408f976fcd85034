"""Checkpoints: the newest complete ones are kept, and a run that lost its lease writes none."""

import json
from pathlib import Path

import pytest
import torch

from model import processes
from model.config import OptimConfig
from model.processes import LeaseFile, LeaseLost
from model.training.checkpoints import Checkpoints, complete_checkpoints
from model.training.engine import Engine, EngineConfig, join_ranks


@pytest.fixture
def engine() -> Engine:
    join_ranks(1)
    config = EngineConfig(OptimConfig(), "float32", zero_stage=0, num_ranks=1, microbatch=1, num_microbatches=1)
    return Engine(torch.nn.Linear(4, 4), config)


def test_checkpoints_keep_the_newest(engine: Engine, tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, num_kept=2)
    assert checkpoints.load({"": engine}) == 0
    for steps in (1, 2, 10):
        checkpoints.save({"": engine}, steps)
    assert [path.name for path in complete_checkpoints(tmp_path)] == ["step-00000002", "step-00000010"]
    assert checkpoints.load({"": engine}) == 10


@pytest.fixture
def lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of a lease that this process works under."""
    path = tmp_path / "lease"
    path.write_text(json.dumps({"token": "ours"}))
    monkeypatch.setattr(processes, "_lease", LeaseFile(path, "ours"))
    return path


def test_checkpoint_of_a_run_that_lost_its_lease_is_not_written(engine: Engine, tmp_path: Path, lease: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints", num_kept=2)
    checkpoints.save({"": engine}, 1)
    lease.write_text(json.dumps({"token": "another"}))
    with pytest.raises(LeaseLost):
        checkpoints.save({"": engine}, 2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_checkpoint_of_a_run_that_loses_its_lease_while_it_writes_does_not_count(
    engine: Engine, tmp_path: Path, lease: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Engine.save

    def slow(self: Engine, folder: Path, steps: int) -> None:
        save(self, folder, steps)
        lease.write_text(json.dumps({"token": "another"}))

    monkeypatch.setattr(Engine, "save", slow)
    with pytest.raises(LeaseLost):
        Checkpoints(tmp_path / "checkpoints", num_kept=2).save({"": engine}, 1)
    assert complete_checkpoints(tmp_path / "checkpoints") == []
