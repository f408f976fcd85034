"""What people type that asks for no fact: every kind is taught and asked, and what is asked is in no conversation."""

import random
from collections import Counter

import pytest

from tasks.evaluate.typed_messages import typed_section
from tasks.sample_web import chat
from tasks.sample_web.typed import KINDS, heldout_typed, write_typed
from tasks.sample_web.world import build_world


def test_held_out_messages_are_in_no_conversation() -> None:
    asked = list(heldout_typed(1, 60))
    taught = {write_typed(random.Random(number)).text.lower() for number in range(6000)}
    assert not {typed.text.lower() for typed in asked} & taught
    assert min(Counter(typed.kind for typed in asked).values()) >= 10
    assert len({typed.text for typed in asked}) == len(asked)


@pytest.mark.parametrize("kind", KINDS)
def test_replies_are_fitting_ones(kind: str) -> None:
    made = [typed for typed in map(write_typed, map(random.Random, range(400))) if typed.kind == kind]
    assert made
    for typed in made:
        assert typed.text.strip()
        assert any(words in typed.reply for words in typed.fitting)
        assert typed.target in typed.reply


def test_conversations_have_what_people_type_and_names_of_other_syllables() -> None:
    world = build_world(1)
    talks = list(chat.conversations(world, 3000))
    counts = Counter(talk.kind for talk in talks)
    assert all(counts[kind] > 5 for kind in (*KINDS, "about"))
    refused = [talk.messages[0].content.lower() for talk in talks if talk.kind == "unknown"]
    known = [name.lower() for name in world.by_name]
    assert sum(not any(name in text for name in known) for text in refused) > 30


def test_story_has_the_beast_that_is_asked_for() -> None:
    for number in range(300):
        typed = write_typed(random.Random(number))
        if typed.kind == "story" and "robot" in typed.text:
            assert "robot" in typed.reply
            return
    pytest.fail("no story about a robot among 300 messages")


def test_section_shows_each_kind() -> None:
    one = {"share": 0.5, "low": 0.2, "high": 0.8, "num": 4}
    section = typed_section({"typed": {"assistant": dict.fromkeys(KINDS, one)}})
    assert section.count("50.0%") == len(KINDS)
    assert typed_section({}) == typed_section({"typed": {}}) == ""
