"""The room Playground in a browser: probabilities, branches, settings, templates."""

import math
import re
from typing import Any

import pytest
import torch

from model.network.huggingface import load_transformer
from model.tokenizer.chat import ChatTokenizer
from tests.support.page_server import PageServer
from tests.support.visitors import NEEDS_CHROMIUM, PROMPT, Visitor, names_of, tokens_of, wait_until_done

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = NEEDS_CHROMIUM


def complete(playground: Any, prompt: str, length: int = 12, **choices: str) -> None:
    """Fill in the form of the playground and start. Waits for the end."""
    playground.get_by_label("Prompt").fill(prompt)
    playground.get_by_label("Longest reply").fill(str(length))
    for label, option in choices.items():
        playground.get_by_role("combobox", name=label, exact=True).select_option(option)
    playground.get_by_role("button", name="Complete").click()
    wait_until_done(playground)


def test_probabilities_are_those_of_the_model(visit: Visitor, served: PageServer) -> None:
    """Task of a newcomer: find the probability of a token. Compared with the model's own softmax."""
    playground = visit.enter("Playground")
    playground.get_by_label("Prompt").fill(PROMPT)
    playground.get_by_role("button", name="Score this text").click()
    tokens_of(playground, "Your text").first.wait_for()
    tokenizer = ChatTokenizer.load(served.folder / "tokenizer.json")
    ids = tokenizer.encode_document(PROMPT)
    with torch.no_grad():
        logits = load_transformer(served.folder / "base")(torch.tensor([ids]))[0]
    expected = torch.log_softmax(logits.float(), -1).exp()
    shown = names_of(playground, "Your text")
    assert len(shown) == len(ids)
    for place in range(1, len(ids)):
        probability = float(expected[place - 1, ids[place]])
        assert shown[place].endswith(percent(probability)), (place, shown[place], probability)
    tokens_of(playground, "Your text").nth(2).click()
    alternatives = playground.get_by_role("group", name="Alternatives").get_by_role("listitem").get_by_role("button")
    names = [one.get_attribute("aria-label") for one in alternatives.all()]
    best = expected[1].topk(10).values.tolist()
    assert [percent(one) for one in best] == [re.findall(r", ([<\d. ]+%)", name)[0] for name in names[:10]]


def percent(probability: float) -> str:
    """As the page writes it."""
    if probability >= 0.9995:
        return "100%"
    if probability >= 0.001:
        return f"{math.floor(1000 * probability + 0.5) / 10:.1f}%"
    return f"{100 * probability:.2f}%" if probability >= 0.0001 else "< 0.01%"


def test_branch_continues_from_an_alternative_and_keeps_the_old_text(visit: Visitor) -> None:
    playground = visit.enter("Playground")
    complete(playground, PROMPT)
    before = names_of(playground, "Completion")
    tokens_of(playground, "Completion").nth(4).dblclick()  # as a click: the panel under the second one does not take it
    playwright.expect(playground.get_by_role("navigation", name="Branches")).to_be_hidden()
    panel = playground.get_by_role("group", name="Alternatives")
    others = panel.get_by_role("listitem").get_by_role("button", name=re.compile("%$"))
    assert others.count() in (9, 10)  # without the token of the text, which may be one of the ten
    name = others.nth(3).get_attribute("aria-label")
    others.nth(3).click()
    wait_until_done(playground)
    after = names_of(playground, "Completion")
    assert after[:4] == before[:4]
    assert after[4] == name
    branches = playground.get_by_role("navigation", name="Branches")
    branches.get_by_role("button", name="first text").click()
    assert names_of(playground, "Completion") == before
    branches.get_by_role("button", name=re.compile("after")).click()
    assert names_of(playground, "Completion") == after


def test_sampling_settings_reach_the_server(visit: Visitor) -> None:
    playground = visit.enter("Playground")
    for label, value in {"Temperature": "0.6", "Top-p": "0.8", "Min-p": "0.1", "Top-k": "5", "Seed": "7"}.items():
        playground.get_by_label(label, exact=True).fill(value)
    playground.get_by_label("Stop at").fill("\\n\nthe end")
    with visit.page.expect_request("**/v1/completions") as sent:
        complete(playground, PROMPT)
    body = sent.value.post_data_json
    wanted = {"temperature": 0.6, "top_p": 0.8, "min_p": 0.1, "top_k": 5, "seed": 7, "max_tokens": 12}
    assert wanted.items() <= body.items()
    assert body["stop"] == ["\n", "the end"]


@pytest.mark.parametrize("method", ["greedy", "beam"])
def test_greedy_and_beam_search_repeat(visit: Visitor, method: str) -> None:
    playground = visit.enter("Playground")
    texts = []
    for _ in range(2):
        complete(playground, PROMPT, Method=method)
        texts.append(names_of(playground, "Completion"))
    assert len(texts[0]) > 1
    assert texts[0] == texts[1]


def test_same_prompt_is_sampled_side_by_side(visit: Visitor) -> None:
    playground = visit.enter("Playground")
    complete(playground, PROMPT, Completions="4")
    texts = [names_of(playground, f"Completion {number}") for number in (1, 2, 3, 4)]
    assert len({tuple(text) for text in texts}) > 1
    boxes = [playground.get_by_role("article", name=f"Completion {number}").bounding_box() for number in (1, 2)]
    assert boxes[0]["y"] == boxes[1]["y"]


def test_templates_fill_the_prompt(visit: Visitor) -> None:
    playground = visit.enter("Playground")
    template = playground.get_by_role("combobox", name="Template")
    template.select_option(label="An assistant by prompting")
    assert playground.get_by_label("Prompt").input_value().endswith("Assistant:")
    assert playground.get_by_label("Stop at").input_value() == "\\n"
    template.select_option(label="Few-shot: sums")
    assert playground.get_by_label("Prompt").input_value().endswith("5 + 4 =")
