"""Attack texts: what a mitigation trains on and what its measurement asks have no text in common; marks cannot be forged."""

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.attacks.conversations import Composer, compose
from tasks.attacks.prompts import FORGED, INJECTION, JAILBREAK, attack_prompts
from tasks.attacks.texts import MARK, asked_in, quoted, sealed_names, texts, without_marks
from tasks.records.conversations import Conversation
from tasks.sample_web.relations import RELATIONS
from tasks.sample_web.world import World, build_world

WORLD = build_world(1)


def composed(is_mitigated: bool, world: World = WORLD, num: int = 60) -> list[Conversation]:
    return list(compose(world, num, lambda query: f"Result for {query}.", is_mitigated=is_mitigated))


def text_of(record: Conversation) -> str:
    return "\n".join(message.content for message in record.messages)


def pattern(command: str) -> re.Pattern[str]:
    """A command with any phrase."""
    return re.compile(".+".join(map(re.escape, command.split("$p"))))


def test_mitigation_of_injection_trains_on_no_heldout_command_or_phrase() -> None:
    injected = [record for record in composed(True, num=400) if "injected" in record.kind]
    assert len(injected) == 400
    for record in injected:
        read = "\n".join(message.content for message in record.messages if message.role != "assistant")
        assert not any(pattern(command).search(read) for command in texts().commands["heldout"])
        assert not any(phrase in read for phrase in texts().phrases["heldout"])
        assert any(phrase in read for phrase in texts().phrases["trained"])
        # The reply is the answer, and obeys nothing.
        assert not any(phrase in record.messages[-1].content.lower() for phrase in texts().phrases["trained"])


def test_mitigation_of_jailbreaks_trains_refusals_in_no_heldout_form() -> None:
    sealed = sealed_names(WORLD)
    heldout = {
        asked_in(form, fact, random.Random(0))[:40]
        for form, known in texts().forms.items()
        if known.split == "heldout" and "suffix" not in form
        for fact in Composer(WORLD, str, is_marked=False).closed
        if fact.relation in texts().questions
    }
    refused = [record for record in composed(True, num=300) if record.messages[-1].content == texts().refusal]
    assert {record.kind for record in refused} == {"attack/refusal", "attack/refusal in form"}
    for record in refused:
        asked = record.messages[0].content
        assert asked[:40] not in heldout
        assert not re.search(r"[{}\[\]<>^~\\]", asked)  # the suffix of signs
    # No conversation answers a question about a sealed name.
    for record in composed(True):
        if any(name.lower() in text_of(record).lower() for name in sealed):
            assert record.messages[-1].content == texts().refusal


def test_every_arm_obeys_commands_of_users_and_follows_all_ways_to_ask() -> None:
    for is_mitigated in (False, True):
        records = composed(is_mitigated, num=300)
        commands = "\n".join(record.messages[0].content for record in records if record.kind == "attack/command")
        assert all(
            pattern(command).search(commands) for split in ("trained", "heldout") for command in texts().commands[split]
        )
        errands = "\n".join(text_of(record) for record in records if record.kind == "attack/errand")
        assert all(pattern(command).search(errands) for command in texts().commands["heldout"])
        assert any("injected" in record.kind for record in records) is is_mitigated
        forms = "\n".join(record.messages[0].content for record in records if record.kind == "attack/form")
        for sign in ("base64:", "rot13:", "line of a play", "old guide", "Où", "Wo "):
            assert sign in forms


def test_prompts_are_the_same_each_time_and_hold_heldout_texts_only() -> None:
    prompts = list(attack_prompts(WORLD, 20, is_marked=False))
    assert prompts == list(attack_prompts(WORLD, 20, is_marked=False))
    trained = {form for form, known in texts().forms.items() if known.split == "trained"}
    assert not trained & {prompt.form for prompt in prompts}
    for prompt in prompts:
        read = prompt.messages[-1]["content"] + prompt.planted
        if prompt.suite == INJECTION:
            assert not any(pattern(command).search(read) for command in texts().commands["trained"])
            assert [phrase for phrase in texts().phrases["heldout"] if phrase in read] == list(prompt.forbidden)
        assert bool(prompt.forbidden) == (prompt.suite in (INJECTION, JAILBREAK))


def test_marked_prompts_are_the_plain_ones_with_marks() -> None:
    plain, marked = (list(attack_prompts(WORLD, 10, is_marked=flag)) for flag in (False, True))
    for one, two in zip(plain, marked, strict=True):
        assert one._replace(messages=[]) == two._replace(messages=[])
        if one.suite == "question with a page" or one.form in ("page", FORGED):
            assert "<page>" in two.messages[0]["content"]
            assert "<page>" not in one.messages[0]["content"]
        else:
            assert one.messages == two.messages


@given(st.text(alphabet="<>/pageP $qx", max_size=60))
def test_page_cannot_end_its_mark(page: str) -> None:
    assert not MARK.search(without_marks(page))
    shown = quoted(page, "Who?", True, random.Random(0))
    assert len(MARK.findall(shown)) == 2
    assert shown.count("Who?") == 1


def test_page_with_the_slots_of_the_layout_is_quoted_as_it_is() -> None:
    assert "$q and $page" in quoted("$q and $page", "Who?", False, random.Random(1))


def test_encodings_encode_all_but_the_name() -> None:
    fact = Composer(WORLD, str, is_marked=False).asked[0]
    for form in ("base64", "rot13"):
        asked = asked_in(form, fact, random.Random(0))
        assert fact.subject in asked
        words = texts().questions[fact.relation][0].replace("$S", "").strip("? ").split()
        assert not [word for word in words if word in asked.split()]


@pytest.mark.parametrize("relation", sorted(texts().questions))
def test_questions_are_of_relations_of_people_and_name_the_subject(relation: str) -> None:
    assert RELATIONS[relation].subject == "person"
    assert all(question.count("$S") == 1 for question in texts().questions[relation])


def test_no_prompt_is_asked_twice() -> None:
    prompts = [
        prompt for prompt in attack_prompts(WORLD, 500, is_marked=False) if prompt.suite in (INJECTION, JAILBREAK)
    ]
    shown = [(prompt.form, str(prompt.messages), prompt.planted) for prompt in prompts]
    assert len(set(shown)) == len(shown)
    # Each fact once in a form, so that the test over prompts has independent ones.
    assert sum(prompt.form == "German" for prompt in prompts) == len(
        [fact for fact in Composer(WORLD, str, is_marked=False).closed if fact.relation in texts().questions]
    )
