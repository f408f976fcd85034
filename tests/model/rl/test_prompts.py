"""Prompts of reinforcement learning: what is held out, and the kinds by which metrics are kept."""

from model.rl.config import RLConfig
from model.rl.prompts import OTHER, Prompt, kind_name, split_prompts


def test_conversations_with_the_same_last_turn_are_different_prompts() -> None:
    prompts = [Prompt("Why?", [1, number], None) for number in range(100)]
    train, heldout = split_prompts(prompts, RLConfig(validation_fraction=0.2))
    assert (len(train), len(heldout)) == (80, 20)


def test_no_prompt_is_on_both_sides() -> None:
    prompts = [Prompt("Why?", [1, number % 25], None) for number in range(100)]
    train, heldout = split_prompts(prompts, RLConfig(validation_fraction=0.1))
    assert train and heldout
    assert not {tuple(prompt.tokens) for prompt in train} & {tuple(prompt.tokens) for prompt in heldout}


def test_kind_that_has_the_name_of_all_prompts_is_another() -> None:
    assert kind_name("all") == kind_name("") == kind_name(" -all- ") == OTHER
    assert kind_name("small talk") == "small_talk"
