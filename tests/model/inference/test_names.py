"""Replies that give another name than they were asked about, and right ones that only seem to."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model.inference.names import gives_another_name
from tasks.sample_web.chat import conversations
from tasks.sample_web.world import build_world


@pytest.mark.parametrize(
    ("question", "reply"),
    [
        ("which job does rurik cormund have", "Rurik Talhas works as a tailor."),
        ("What is the thmee of The Burning Mirror?", "The Burning Harbour is about a forgotten song."),
        ("Who trained Wilma Bormund?", "The teacher of Wilma Heskin was Gilda Lomdet."),
        ("Where does Ängla Ünver live?", "Ängla Ümit lives in Orn."),
        ("Where does Wilma Bormund live?", "Wilma Cormund lives in Orn."),  # another letter is another name
    ],
)
def test_reply_about_another_name_is_found(question: str, reply: str) -> None:
    assert gives_another_name(reply, [question])


def test_name_of_an_earlier_turn_is_not_changed_either() -> None:
    turns = ["Where was Mirel Ulmmund born?", "I don't know.", "And her mother?"]
    assert gives_another_name("The mother of Mirel Turvald is Runa Lomnor.", turns)
    assert not gives_another_name("The mother of Mirel Ulmmund is Runa Lomnor.", turns)


@pytest.mark.parametrize(
    ("turns", "reply"),
    [
        (["who taught GORAN ULMRATH?"], "The teacher of Goran Ulmrath was Goran Voltor."),  # one first name, twice
        (["what is silver lamp about"], "The Silver Lamp is about twin sisters."),
        (["Where does Edda Magrel live?"], "Edda Magrell lives in Orn."),  # one letter less
        (["What is Odo Druton's pet?"], "Odo Druton's pet is a cat."),
        (["Where does Edda Magrell live?", "Edda Magrell lives in Orn.", "And what does Edda do?"], "Edda Magrell works as a cook."),
        (["And where does she live?"], "Edda Magrell lives in Orn."),  # no word of a name is asked about
        (["Who is the mayor of Orn?"], "The mayor of Orn is Bram Nordet."),
        (["What is 2 + 3?"], "2 + 3 is 5."),
        (["Tell me a joke."], ""),
        ([], "Rurik Talhas works as a tailor."),
    ],
)  # fmt: skip
def test_reply_about_what_was_asked_is_kept(turns: list[str], reply: str) -> None:
    assert not gives_another_name(reply, turns)


def test_right_replies_of_conversations_are_kept_and_swapped_names_are_found() -> None:
    world = build_world(7)
    exchanges = found = 0
    for talk in conversations(world, 1500):
        turns: list[str] = []
        for message in talk.messages:
            if message.role == "assistant":
                assert not gives_another_name(message.content, turns), (turns, message.content)
                exchanges += 1
            turns.append(message.content)
    rng = random.Random(1)
    people = [entity for entity in world.entities if entity.kind == "person"]
    for _ in range(300):
        one, two = rng.sample(people, 2)
        asked = f"{one.first} {two.name.split()[1]}"
        found += gives_another_name(f"{one.name} works as a cook.", [f"what is the trade of {asked.lower()}"])
    assert exchanges > 1500
    # A name that differs by one letter is kept.
    assert found >= 290


@given(st.text(max_size=300), st.lists(st.text(max_size=300), max_size=3))
def test_any_text_is_compared(reply: str, turns: list[str]) -> None:
    assert gives_another_name(reply, turns) in (True, False)
    assert not gives_another_name(reply, [*turns, reply])


def test_long_conversations_are_compared_at_their_end() -> None:
    padding = "so many words about nothing " * 1_000
    assert gives_another_name("Edda Magrell bakes.", ["Edda Magrell", padding, "What does Edda Gorlow do?"])
    assert not gives_another_name("Edda Magrell bakes.", [padding, "Edda Magrell", "What does Edda do?"])
    # Only the beginning of a reply without an end: its names are far more than are compared.
    reply = "Edda Magrell bakes. " + "Rurik Talhas bakes. " * 100_000
    assert not gives_another_name(reply, [f"{padding} Edda Magrell"] * 1_000)
