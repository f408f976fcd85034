"""infra/resources.yaml: what is in it is complete, and a mistake in a copy of it is one line with the file and the line number."""

from pathlib import Path

import pytest

from flows.recipes import STAGE_NAMES
from flows.resources import DEPLOYMENT_NAMES, RESOURCES_FILE, STARTERS, load_resources, num_bytes
from model.errors import UserError

TEXT = RESOURCES_FILE.read_text(encoding="utf-8")
RESOURCES = load_resources()


def line_of(text: str) -> int:
    """The number of the line in which a text begins."""
    return TEXT[: TEXT.index(text)].count("\n") + 1


def test_every_deployment_has_resources() -> None:
    assert set(RESOURCES.stages) == set(DEPLOYMENT_NAMES) == {*STAGE_NAMES, *STARTERS}
    assert [name for name, stage in RESOURCES.stages.items() if stage.gpus and stage.pool == "data"] == []


def test_a_stage_takes_image_and_placement_of_its_pool() -> None:
    assert RESOURCES.image("filter") == RESOURCES.images["data"]
    assert RESOURCES.image("export") == RESOURCES.images["train"]
    assert [taint.manifest() for taint in RESOURCES.placement("pretrain").tolerations] == [
        {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
    ]


@pytest.mark.parametrize(("amount", "expected"), [("1Mi", 2**20), ("48Gi", 48 * 2**30), ("2Ti", 2**41)])
def test_amounts_are_converted_to_bytes(amount: str, expected: int) -> None:
    assert num_bytes(amount) == expected


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("cpu: 16, memory: 48Gi", "cpus: 16, memory: 48Gi", "stages.ingest.cpus: unknown field; did you mean cpu?"),
        ("dedup:   ", "dedupe:   ", "stages.dedupe: Input should be 'pipeline', 'ingest'"),
        ("memory: 64Gi, gpus: 1", "memory: 64GB, gpus: 1", "stages.probe.memory: String should match"),
        ("pool: evaluation, cpu: 4", "pool: eval, cpu: 4", "stages.export.pool: Input should be 'data', 'training' or"),
        ("[{key: nvidia.com/gpu}]", "[{key: gpu, efect: x}]", "pools.training.tolerations.0.efect: unknown field"),
        ("crawl2chat-serve:latest", '"x; rm -rf /"', "images.serve: String should match pattern"),
        ("runs_at_once: 8", "runs_at_once: 0", "pools.data.runs_at_once: Input should be greater"),
        ("images:\n", "imags:\n", "imags: unknown field; did you mean images?"),
        ("node_selector: {}", "node_selector: {a: [1]}", "pools.training.node_selector.a: Input should be a valid"),
    ],
)
def test_mistake_is_one_line_with_file_and_line_number(tmp_path: Path, right: str, wrong: str, message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(TEXT.replace(right, wrong, 1))
    with pytest.raises(UserError) as error:
        load_resources(path)
    assert str(error.value).startswith(f"{path}:{line_of(right)}: {message}")
    assert "\n" not in str(error.value)


def test_missing_stage_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("".join(line for line in TEXT.splitlines(keepends=True) if not line.startswith("  export:")))
    with pytest.raises(UserError, match=r"mine.yaml:1: stages has no export: add it"):
        load_resources(path)
