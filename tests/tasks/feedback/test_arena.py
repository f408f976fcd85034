"""The arena: random sides, one vote for a battle, and limits for each person."""

import random
import sqlite3
from collections import Counter
from contextlib import closing
from pathlib import Path

import pytest

from tasks.feedback import arena as arena_module
from tasks.feedback.arena import Arena, Battle, VoteError
from tasks.feedback.database import FeedbackFile
from tasks.feedback.ratings import Vote, rate

MODELS = ["base/1", "sft/2", "rlhf/3"]


@pytest.fixture
def arena(tmp_path: Path) -> Arena:
    return Arena(FeedbackFile(tmp_path / "feedback.sqlite"), random.Random(0))


def start(arena: Arena, who: str = "ada", prompt: str = "hello?", models: list[str] = MODELS) -> Battle:
    return arena.start(who, [{"role": "user", "content": prompt}], models, {"temperature": 1.0})


def finished(arena: Arena, **fields: str) -> Battle:
    battle = start(arena, **fields)
    for side in ("left", "right"):
        arena.finish(battle.id, side, f"the {side} answer")
    return battle


def test_vote_returns_the_names_and_is_counted(arena: Arena) -> None:
    battle = finished(arena)
    found = arena.vote(battle.id, "ada", "left")
    assert found.models == battle.models
    assert found.texts == {"left": "the left answer", "right": "the right answer"}
    assert arena.votes() == [Vote(battle.models["left"], battle.models["right"], "left")]
    assert rate(arena.votes())[0].model == battle.models["left"]


def test_sides_and_pairs_are_random(arena: Arena) -> None:
    pairs = Counter(tuple(start(arena, prompt=f"{n}").models.values()) for n in range(90))
    assert len(pairs) == 6
    assert min(pairs.values()) > 4  # of 15


@pytest.mark.parametrize("winner", ["left", "right", "tie", "both_bad"])
def test_battle_has_one_vote(arena: Arena, winner: str) -> None:
    battle = finished(arena)
    arena.vote(battle.id, "ada", "tie")
    with pytest.raises(VoteError, match="has its vote already"):
        arena.vote(battle.id, "ada", winner)
    assert len(arena.votes()) == 1


def test_battle_of_another_person_cannot_be_voted_on(arena: Arena) -> None:
    battle = finished(arena)
    for number, who in ((battle.id, "bo"), (battle.id + 1, "ada"), (0, "ada")):
        with pytest.raises(VoteError, match="there is no battle"):
            arena.vote(number, who, "left")
    assert arena.votes() == []


def test_vote_before_both_have_finished_is_refused(arena: Arena) -> None:
    battle = start(arena)
    arena.finish(battle.id, "left", "done")
    with pytest.raises(VoteError, match="still answering"):
        arena.vote(battle.id, "ada", "left")


def test_first_finished_answer_stays(arena: Arena) -> None:
    battle = start(arena)
    arena.finish(battle.id, "left", "first")
    arena.finish(battle.id, "left", "second")
    found = arena.find(battle.id)
    assert found is not None
    assert found.texts == {"left": "first", "right": None}


def test_person_votes_once_on_a_prompt_and_a_pair(arena: Arena) -> None:
    """Three models have three pairs; the same person cannot repeat a vote, another person can."""
    pairs = set()
    for _ in range(3):
        battle = finished(arena)
        pairs.add(frozenset(battle.models.values()))
        arena.vote(battle.id, "ada", "left")
    assert len(pairs) == 3
    with pytest.raises(VoteError, match="give another prompt"):
        start(arena)
    start(arena, who="bo")
    start(arena, prompt="another?")


def test_battles_of_a_person_are_limited_for_a_day(arena: Arena, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arena_module, "MAX_BATTLES_PER_DAY", 5)
    for number in range(5):
        start(arena, prompt=f"{number}")
    with pytest.raises(VoteError, match="5 battles in the last 24 hours"):
        start(arena, prompt="one more")
    start(arena, who="bo")
    with arena.file.writing() as database:
        database.execute("DROP TRIGGER battles_no_UPDATE")  # which keeps anybody from doing this
        database.execute("UPDATE battles SET at = '2020-01-01T00:00:00.000+00:00'")
    start(arena, prompt="the next day")


@pytest.mark.parametrize(
    "query",
    [
        "UPDATE battles SET left_model = right_model, right_model = left_model",
        "UPDATE battles SET rowid = 7",
        "UPDATE battles SET who = 'bo'",
        "UPDATE battles SET left_text = 'another'",
        "UPDATE battles SET right_text = NULL",
        "REPLACE INTO battles SELECT id, who, at, messages, right_model, left_model, sampling, left_text, right_text FROM battles",
        "DELETE FROM battles",
        "REPLACE INTO votes VALUES (1, 1, '', 'right')",
        "REPLACE INTO votes (battle, at, winner) VALUES (1, '', 'right')",
        "UPDATE OR REPLACE votes SET winner = 'right'",
    ],
)
def test_battles_and_votes_cannot_be_changed_by_any_program(arena: Arena, query: str) -> None:
    arena.vote(finished(arena).id, "ada", "left")
    before = [*map(tuple, arena.file.rows("SELECT * FROM battles JOIN votes ON battle = battles.id"))]
    with closing(sqlite3.connect(arena.file.path)) as other, pytest.raises(sqlite3.IntegrityError, match="only added"):
        other.execute(query)
    assert [*map(tuple, arena.file.rows("SELECT * FROM battles JOIN votes ON battle = battles.id"))] == before


@pytest.mark.parametrize("models", [[], ["sft/2"]])
def test_battle_needs_two_models(arena: Arena, models: list[str]) -> None:
    with pytest.raises(VoteError, match="a battle needs two"):
        start(arena, models=models)
