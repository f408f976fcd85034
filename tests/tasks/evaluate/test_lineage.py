"""What a card says of its origin: curves of bounded length, few samples a reason, settings without secrets and folders."""

import pytest

from tasks.artifacts.manifest import BaseModel, Documents
from tasks.artifacts.store import Store
from tasks.evaluate.lineage import MAX_POINTS, averaged, curves_figures, lineage_figures, samples_figures, shareable
from tests.support.tiny_models import finish, write_lines


@pytest.mark.parametrize("num", [0, 1, 149, 150, 151, 1300])
def test_averaged_keeps_the_course_in_few_points(num: int) -> None:
    points = [(step, 10.0 - step / 1300) for step in range(num)]
    found = averaged(points)
    assert len(found) <= MAX_POINTS
    assert [list(point) for point in points] == found or num > MAX_POINTS
    for step, value in found:
        assert value == pytest.approx(10.0 - step / 1300)


def test_curves_figures_has_the_metrics_of_a_training(store: Store) -> None:
    lines = [{"step": 1, "train/loss_nats": 3.0}, {"step": 1, "train/loss_nats": 2.0}, {"step": 2, "validation/loss_nats": 1.0}]  # fmt: skip
    write_lines(store.folder("pretrain/b") / "metrics.jsonl", lines)
    finish(store, BaseModel, "pretrain/b")
    assert curves_figures([store.open("pretrain/b", BaseModel)]) == [
        {
            "stage": "pretrain",
            "title": "Loss, nats per token",
            "series": {"train/loss_nats": [[1, 2.0]], "validation/loss_nats": [[2, 1.0]]},
        }
    ]


def test_samples_figures_has_three_of_each_reason(store: Store) -> None:
    lines = [{"reason": reason, "url": "u", "text": "a\nb " * 200} for reason in ("x/1", "x/2") for _ in range(5)]
    write_lines(store.folder("filter/f") / "dropped.jsonl", lines)
    finish(store, Documents, "filter/f", counts={"documents": 0, "text_bytes": 0})
    rows = samples_figures([store.open("filter/f", Documents)])
    assert [row["reason"] for row in rows] == ["x/1"] * 3 + ["x/2"] * 3
    assert rows[0]["text"] == ("a b " * 200)[:240]


def test_lineage_figures_names_inputs_and_settings(store: Store) -> None:
    finish(store, Documents, "filter/f", inputs={"documents": "ingest/i"}, counts={"documents": 0, "text_bytes": 0})
    (row,) = lineage_figures([store.open("filter/f", Documents)])
    assert (row["artifact"], row["inputs"]) == ("filter/f", {"documents": "ingest/i"})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("/home/ada/web/*.warc.gz", "…/*.warc.gz"),
        ("~/models/qwen", "…/qwen"),
        ("gsm8k:/home/ada/train.jsonl", "gsm8k:…/train.jsonl"),
        ("file:///home/ada/train.jsonl", "…/train.jsonl"),
        ("https://example.org/a/b.jsonl", "https://example.org/a/b.jsonl"),
        ("s3://bucket/a?X-Amz-Signature=abc", "s3://bucket/a"),
        ("data/a.jsonl", "data/a.jsonl"),
        ({"/home/ada/x.jsonl": [0.5, None, True, "/srv/y"]}, {"…/x.jsonl": [0.5, None, True, "…/y"]}),
    ],
)
def test_shareable_removes_folders_and_secrets(value: object, expected: object) -> None:
    assert shareable(value) == expected
