"""What a run of reinforcement learning shows: the plot of its panels, the newest diagnosis, and the warning about prompts that nothing can rank."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.posttrain.watching import (
    PANELS,
    RLFollower,
    draw,
    newest_diagnosis,
    rewarded_alone,
    unranked_prompts,
    unranked_warning,
)
from tasks.records.conversations import Message, Prompt

LINES = [
    {
        "step": step,
        "reward/mean": step / 10,
        "kind/sum/completion_tokens_mean": 10.0 + step,
        "kind/fact/completion_tokens_mean": 9.0,
        **({"before/gold_mean": 0.3, "kind/sum/before_gold_mean": 0.2} if step == 1 else {}),
        **({"validation/gold_mean": 0.5, "kind/sum/validation_gold_mean": 0.4} if step % 5 == 0 else {}),
    }
    for step in range(1, 21)
]


def prompt(kind: str, answer: str | None) -> Prompt:
    return Prompt(messages=(Message(role="user", content="?"),), answer=answer, kind=kind)


def test_plot_has_a_panel_for_each_title_and_a_curve_for_each_kind() -> None:
    figure = draw(LINES, {"is_over": True, "best_step": 5})
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert list(panels) == list(PANELS)
    lengths = panels["completion length (tokens)"]
    assert [text.get_text() for text in lengths.get_legend().get_texts()] == ["sum", "fact"]
    gold = panels["held-out gold score"]
    # Step 0 is the SFT model.
    assert [list(line.get_xdata()) for line in gold.lines[:2]] == [[0, 5, 10, 15, 20]] * 2
    assert [list(line.get_ydata())[:2] for line in gold.lines[:2]] == [[0.3, 0.5], [0.2, 0.4]]


def test_plot_of_a_run_without_held_out_prompts_has_empty_panels() -> None:
    figure = draw([{"step": 1, "reward/mean": 0.5}], {})
    assert len(figure.axes) == len(PANELS)


class Recorder:
    """The parts of a stage's context that a follower uses."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.logged, self.shown = folder, list[str](), dict[str, Any]()

    def log(self, line: str) -> None:
        self.logged.append(line)

    def progress(self, *_: object, **__: object) -> None:
        pass

    def markdown(self, name: str, text: str, _: str) -> None:
        self.shown[name] = text

    def table(self, name: str, rows: list[Any], _: str) -> None:
        self.shown[name] = rows


def test_follower_logs_each_diagnosis_once_and_keeps_prompts_out_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (tmp_path / "samples.jsonl").write_text(json.dumps({"step": 5, "prompt": "my secret", "completion": "x"}) + "\n")
    recorder: Any = Recorder(tmp_path)
    follower = RLFollower(recorder, 20, {})
    for step, sentence in ((5, "reward rises"), (10, "reward rises"), (15, "gold falls")):
        with (tmp_path / "diagnosis.jsonl").open("a") as file:
            file.write(json.dumps({"step": step, "sentence": sentence, "best_step": 5, "is_over": False}) + "\n")
        follower({"step": step, "phase/samples_seconds": 0.1})
    follower.plot()
    assert recorder.logged == ["after 5 steps: reward rises", "after 15 steps: gold falls"]
    assert recorder.shown["samples"][0]["prompt"] == "my secret"
    assert recorder.shown["curve"].startswith("![gold falls](data:image/svg+xml;base64,")
    assert (tmp_path / "training.svg").read_text().startswith("<?xml")
    assert newest_diagnosis(tmp_path)["step"] == 15


def test_run_without_a_diagnosis_has_none(tmp_path: Path) -> None:
    assert newest_diagnosis(tmp_path) == {}


@pytest.mark.parametrize(
    ("weight", "expected"),
    [(3.0, {"joke": 0.6, "joke/rude": 0.5}), (0.0, {"joke": 0.6, "joke/rude": 0.5, "fact/wrong": 0.52})],
)
def test_warning_names_kinds_that_the_reward_model_alone_rewards_and_cannot_rank(
    weight: float, expected: dict[str, float]
) -> None:
    alone = rewarded_alone([prompt("fact", "Ada"), prompt("joke", None)], weight)
    found = unranked_prompts(alone, {"all": 0.7, "fact/wrong": 0.52, "joke": 0.6, "joke/rude": 0.5, "*/wrong": 0.5})
    assert found == expected
    # A prompt that names no kind is of all of them.
    nameless = rewarded_alone([prompt("", None)], weight)
    assert unranked_prompts(nameless, {"all": 0.7, "joke": 0.6, "joke/rude": 0.5}) == {"all": 0.7}
    assert "joke (60% of held-out pairs), joke/rude (50% of held-out pairs)" in unranked_warning(found)
