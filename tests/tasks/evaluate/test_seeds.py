"""Means and spreads of report cards, and what is left out of them."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from flows.pipeline import dag
from flows.recipes import make_recipe
from flows.seeds import study, with_seed
from model.errors import UserError
from tasks.evaluate.seeds import SeedsConfig, cell, chat_measures, compare, render


def share(value: float) -> dict[str, Any]:
    return {"share": value, "num": 50, "low": 0.0, "high": 1.0}


def card(accuracy: float, bits: float = 0.3, **chat: Any) -> dict[str, Any]:
    """The figures of a report card that seeds are compared by."""
    return {
        "language": {"base/validation/bits_per_byte": bits},
        "facts": [
            {
                "facts": "held out",
                "mentions": "1",
                "accuracy": {"base, few-shot": share(0.1), "policy": share(accuracy)},
            }
        ],
        "chat": {"policy": {"heldout_fact_accuracy": accuracy, "finished_fraction": 1.0}, **chat},
        "honesty": {"kinds": {"policy": {"stranger: lower": share(0.5)}}, "calibration_error": {"policy": 0.2}},
        "sums": {"policy": {"at once": share(0.0), "worked": share(accuracy)}},
    }


def test_mean_and_spread_are_over_the_runs() -> None:
    figures = compare([card(0.5, 0.30), card(0.7, 0.32), card(0.9, 0.37)])
    assert figures["chat"]["Held-out facts, all forms"] == {"policy": [0.5, 0.7, 0.9]}
    assert figures["chat"]["Facts held out, 1 mention"] == {"policy": [0.5, 0.7, 0.9]}
    assert figures["chat"]["Stranger: lower"] == {"policy": [0.5, 0.5, 0.5]}
    assert figures["base"]["Facts held out, 1 mention, few-shot"] == {"base": [0.1, 0.1, 0.1]}
    # By hand: the mean of 0.5, 0.7 and 0.9, and the root of (0.04 + 0 + 0.04) / 2.
    assert cell([0.5, 0.7, 0.9]) == "70.0% ± 20.0 (50.0 to 90.0)"
    assert cell([0.30, 0.32, 0.37], is_share=False) == "0.330 ± 0.036 (0.300 to 0.370)"
    page = render({"seeds": [0, 1, 2], **figures})
    assert "| Sums of two digits, worked | – | 70.0% ± 20.0 (50.0 to 90.0) |" in page
    assert "| Bits per byte of held-out text | 0.330 ± 0.036 (0.300 to 0.370) |" in page


def test_measure_that_a_run_lacks_is_left_out_instead_of_averaged_over_fewer() -> None:
    """As where early stopping or a recipe left one card without a model."""
    more = card(0.6, assistant={"heldout_fact_accuracy": 0.4})
    assert set(chat_measures(more)["Held-out facts, all forms"]) == {"assistant", "policy"}
    assert compare([more, card(0.8)])["chat"]["Held-out facts, all forms"] == {"policy": [0.6, 0.8]}
    without = card(0.8)
    del without["sums"]
    assert not compare([card(0.6), without])["chat"]["Sums of two digits, worked"]
    assert "worked" not in render({"seeds": [0, 1], **compare([card(0.6), without])})


def test_one_seed_or_a_seed_twice_is_refused() -> None:
    recipe = make_recipe("lab")
    with pytest.raises(UserError, match=re.escape("the seeds 1, 2, 1 are not all different")):
        study(recipe, [1, 2, 1])
    with pytest.raises(ValidationError, match="at least 2 items"):
        SeedsConfig(seeds=(1,))


def test_only_the_trainings_of_the_runs_differ() -> None:
    """Seed 0 is the recipe's own: a finished run of it is not trained again."""
    plan = study(make_recipe("lab"), [0, 1])
    own = dag(make_recipe("lab")).by_stage()
    zero, one = (run.by_stage() for run in plan.runs)
    assert {name: step.id for name, step in zero.items()} == {name: step.id for name, step in own.items()}
    data = ("ingest", "filter", "dedup", "index", "tokenizer", "tokenize")
    assert all((zero[name].id == one[name].id) == (name in data) for name in zero)
    for stage in ("pretrain", "sft", "reward", "rlhf"):
        assert one[stage].config.train.seed == 1
    assert [recipe.name for recipe in plan.recipes] == ["lab-seed-0", "lab-seed-1"]
    # A name may have 64 characters.
    assert with_seed(plan.recipes[0].model_copy(update={"name": "n" * 64}), 7).name == "n" * 50 + "-seed-7"
