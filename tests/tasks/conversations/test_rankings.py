"""Rankings of completions as preferences: all pairs, ties left out, a weight of 1 for each ranking, and the counts of labels and people."""

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.data.conversations import PreferencePairs
from model.errors import UserError
from model.files import write_lines
from model.network.transformer import RewardModel, initialize
from model.training.objectives import RewardObjective, num_learned
from tasks.artifacts.store import Store
from tasks.conversations.formats.rankings import MAX_COMPLETIONS, ranking_preferences
from tasks.conversations.readers import read_files
from tasks.conversations.sources import PreferencesConfig, preferences
from tasks.execution.runner import execute
from tasks.records.conversations import Preference, Prompt, normal_form
from tests.support.tiny_models import tiny_config, write_tokenizer

ASKED = [{"role": "user", "content": "what colour is the sky?"}]


def ranking(ranks: list[Any], who: str = "ada", **fields: Any) -> dict[str, Any]:
    completions = [{"text": f"reply {n}", "model": "sft/1"} for n in range(len(ranks))]
    return {"messages": ASKED, "completions": completions, "ranks": ranks, "who": who} | fields


@settings(deadline=None)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=9))
def test_ranking_gives_every_ordered_pair_once_and_a_weight_of_one(ranks: list[int]) -> None:
    pairs = list(ranking_preferences(ranking(ranks)))
    found = {(pair["chosen"], pair["rejected"]) for pair in pairs}
    expected = set()
    for left, right in combinations(range(len(ranks)), 2):
        if ranks[left] != ranks[right]:
            better, worse = sorted((left, right), key=lambda n: ranks[n])
            expected.add((f"reply {better}", f"reply {worse}"))
    assert found == expected
    assert len(pairs) == len(expected)
    assert not pairs or sum(pair["weight"] for pair in pairs) == pytest.approx(1)


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (ranking([1, 2]) | {"ranks": [1]}, "2 completions and 1 ranks"),
        (ranking([1]), "1 completions and 1 ranks"),
        (ranking([1] * (MAX_COMPLETIONS + 1)), "give a rank for each of 2 to 64"),
        (ranking([1, "2"]), r'ranks\[1\] is "2"; write a number'),
        (ranking([1, True]), r"ranks\[1\] is true"),
        (ranking([1, 2], completions=["a", {"text": "b"}]), r'completions\[0\] is "a"'),
        (ranking([1, 2], completions=[{"text": 1}, {"text": "b"}]), "text is 1; write it as a string"),
        (ranking([1, 2], messages=[]), "messages holds no turn of the user"),
        (ranking([1, 2], messages=None), "messages is null"),
    ],
)
def test_bad_ranking_is_refused_with_its_line(tmp_path: Path, record: dict[str, Any], reason: str) -> None:
    write_lines(tmp_path / "r.jsonl", [ranking([2, 1]), record])
    with pytest.raises(UserError, match=rf"r\.jsonl:2: .*{reason}"):
        read_files(Preference, [tmp_path / "r.jsonl"])


def test_weight_survives_the_normal_form_and_the_default_is_not_written() -> None:
    record = {"messages": ASKED, "chosen": "a", "rejected": "b"}
    assert "weight" not in normal_form(Preference.model_validate(record))
    assert normal_form(Preference.model_validate(record | {"weight": 0.25}))["weight"] == 0.25


def test_artifact_of_rankings_names_labels_and_people(tmp_path: Path, store: Store) -> None:
    records = [ranking([1, 2, 2], "ada"), ranking([1, 1, 1], "ada"), ranking([3, 2, 1], "bo")]
    write_lines(tmp_path / "r.jsonl", records)
    config = PreferencesConfig(preferences=str(tmp_path / "r.jsonl"), validation_fraction=0.0)
    manifest = execute(preferences(config, 1), store)
    assert manifest.counts == {"train_records": 5, "validation_records": 0, "labels": 3, "people": 2}
    text = (store.folder(manifest.id) / "train.jsonl").read_text()
    assert "ada" not in text  # the names of people stay in the user's file
    assert [json.loads(line).get("weight", 1) for line in text.splitlines()] == [0.5, 0.5] + [1 / 3] * 3


def test_weighted_loss_is_the_mean_over_rankings(tmp_path: Path) -> None:
    """InstructGPT's loss: the mean over rankings of the mean over their pairs, and not the mean over all pairs."""
    tokenizer = write_tokenizer(tmp_path)
    rankings = [ranking([1, 2, 3, 4]), ranking([2, 1], completions=[{"text": "no"}, {"text": "it is blue"}])]
    groups = [[normal_form(Preference.model_validate(pair)) for pair in ranking_preferences(r)] for r in rankings]
    write_lines(tmp_path / "p.jsonl", [pair for group in groups for pair in group])
    assert [len(group) for group in groups] == [6, 1]
    batch = PreferencePairs([str(tmp_path / "p.jsonl")], 64, tokenizer).fetch(np.arange(7))
    model = RewardModel(tiny_config(tokenizer.vocab_size))
    initialize(model, seed=1)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        rewards = model(batch.tokens, batch.lengths)
        nats = -torch.nn.functional.logsigmoid(rewards[0::2] - rewards[1::2])
        total = RewardObjective(model)(*batch)[0]
    assert num_learned(batch) == pytest.approx(2)
    torch.testing.assert_close(total / num_learned(batch), (nats[:6].mean() + nats[6]) / 2, rtol=1e-5, atol=1e-6)


def test_blank_completion_is_never_the_better_one(tmp_path: Path) -> None:
    """A model may say nothing, and a person may prefer that: the record is used without those pairs."""
    texts = [{"text": " "}, {"text": "no"}, {"text": "wrong"}]
    write_lines(tmp_path / "r.jsonl", [ranking([1, 2, 3], completions=texts), ranking([3, 1, 2], completions=texts)])
    found = read_files(Preference, [tmp_path / "r.jsonl"])
    assert found.num_bad == 0
    assert [(pair.chosen, pair.rejected, pair.weight) for pair in found.records[:1]] == [("no", "wrong", 1.0)]
    assert len(found.records) == 4
    assert sum(pair.weight for pair in found.records) == pytest.approx(2)


def test_prompts_can_be_taken_from_rankings(tmp_path: Path) -> None:
    write_lines(tmp_path / "r.jsonl", [ranking([1, 2])])
    [found] = read_files(Prompt, [tmp_path / "r.jsonl"]).records
    assert found.messages[0].content == ASKED[0]["content"]
