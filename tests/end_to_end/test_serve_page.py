"""The page of `crawl2chat serve` in a real browser, with a real server and small models: every room as a person uses it.

Elements are found by role and label. A request to another host fails the test that made it, and so does an error in the console, among them
what the Content-Security-Policy refuses. Skipped where no Chromium is installed.
"""

import json
import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest
import torch

from model.network.huggingface import load_transformer
from model.tokenizer.chat import ChatTokenizer
from tests.support.page_server import PageServer, served_page

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed: apt-get install chromium"),
]
PATIENCE_MS = 30_000
LOOPBACK = {"127.0.0.1", "localhost", "[::1]"}
ROOMS = ["Chat", "Playground", "Tokens", "Rank", "Arena"]
HOSTILE = "<img src=x onerror=document.title='owned'> <script>document.title='owned'</script> \u202edlrow \u2066x"
PROMPT = "what colour is the sky?"
# The lowest contrast of text with what is behind it, over all that is visible: WCAG's AA asks for 4.5, for large text for 3.
CONTRAST = """() => {
  const channel = (value) => (value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
  const parse = (colour) => (colour.match(/[\\d.]+/g) ?? []).map(Number);
  const luminance = ([r, g, b]) => 0.2126 * channel(r / 255) + 0.7152 * channel(g / 255) + 0.0722 * channel(b / 255);
  const behind = (element) => {
    for (let one = element; one; one = one.parentElement) {
      const colour = parse(getComputedStyle(one).backgroundColor);
      if (colour.length === 3 || colour[3] === 1) return colour;
    }
    return [255, 255, 255];
  };
  const poor = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim());
    if (!text || !element.checkVisibility() || element.closest("[hidden], :disabled, dialog:not([open])")) continue;
    const style = getComputedStyle(element);
    const [one, other] = [luminance(parse(style.color)), luminance(behind(element))].sort((a, b) => b - a);
    const ratio = (one + 0.05) / (other + 0.05);
    if (ratio < (parseFloat(style.fontSize) >= 24 ? 3 : 4.5)) poor.push(`${ratio.toFixed(2)} ${element.tagName} ${element.textContent.slice(0, 40)}`);
  }
  return poor;
}"""
# Controls without a name that a screen reader could say.
NAMELESS = """() => [...document.querySelectorAll("button, input, select, textarea, a, [role=button]")]
  .filter((one) => one.checkVisibility() && !one.ariaLabel && !one.labels?.length && !one.textContent.trim())
  .map((one) => one.outerHTML.slice(0, 120))"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@dataclass
class Visitor:
    """A page in a browser, with what must not happen on it."""

    page: Any
    url: str
    faults: list[str] = field(default_factory=list)

    def enter(self, room: str) -> Any:
        """Open a room by its link. Returns its part of the page."""
        self.page.get_by_role("navigation", name="Rooms").get_by_role("link", name=room, exact=True).click()
        part = self.page.get_by_role("region", name=room, exact=True)
        part.get_by_role("heading", level=1).wait_for()
        return part


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    with served_page(tmp_path_factory.mktemp("served")) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        # Chromium's sandbox needs user namespaces, which root in a container has not. The pages are this project's.
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any, served: PageServer, request: pytest.FixtureRequest) -> Iterator[Visitor]:
    """A person's first visit. Parametrized indirectly with options of the browser's context, such as a dark colour scheme."""
    options = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"} | getattr(request, "param", {})
    context = browser.new_context(**options)
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    visitor = Visitor(page, served.url)
    page.on("request", lambda sent: note_foreign(visitor, sent.url))
    page.on("pageerror", lambda error: visitor.faults.append(f"exception: {error}"))
    page.on("console", lambda line: line.type == "error" and visitor.faults.append(f"console: {line.text}"))
    page.goto(served.url)
    yield visitor
    context.close()
    assert visitor.faults == []


def note_foreign(visitor: Visitor, url: str) -> None:
    if urlsplit(url).hostname not in {name.strip("[]") for name in LOOPBACK}:
        visitor.faults.append(f"request to {url}")


def say(chat: Any, text: str) -> None:
    chat.get_by_label("Message", exact=True).fill(text)
    chat.get_by_label("Message", exact=True).press("Enter")


def replies(chat: Any, model: str) -> Any:
    return chat.get_by_role("article", name=f"Reply of {model}")


def wait_for_reply(chat: Any, model: str, number: int = 0) -> str:
    """The text of a model's reply, when it is finished."""
    reply = replies(chat, model).nth(number)
    reply.get_by_role("button", name="Regenerate").wait_for()
    return str(reply.inner_text())


def complete(playground: Any, prompt: str, length: int = 12, **choices: str) -> None:
    """Fill in the form of the playground and start. Waits for the end."""
    playground.get_by_label("Prompt").fill(prompt)
    playground.get_by_label("Longest reply").fill(str(length))
    for label, option in choices.items():
        playground.get_by_role("combobox", name=label, exact=True).select_option(option)
    playground.get_by_role("button", name="Complete").click()
    wait_until_done(playground)


def wait_until_done(playground: Any) -> None:
    playground.get_by_role("status").filter(has_text=re.compile("longest length|ended")).first.wait_for()
    playwright.expect(playground.get_by_role("button", name=re.compile("^Stop (Completion|Your)"))).to_have_count(0)


def tokens_of(part: Any, name: str) -> Any:
    return part.get_by_role("group", name=f"Tokens of {name}").get_by_role("button")


def names_of(part: Any, name: str) -> list[str]:
    return [one.get_attribute("aria-label") for one in tokens_of(part, name).all()]


def test_chat_answers_remembers_and_starts_over(visit: Visitor) -> None:
    chat = visit.enter("Chat")
    with visit.page.expect_request("**/v1/chat/completions"):
        say(chat, PROMPT)
    wait_for_reply(chat, "policy")
    chat.get_by_label("System message").fill("Be brief.")
    with visit.page.expect_request("**/v1/chat/completions") as second:
        say(chat, "why?")
    messages = second.value.post_data_json["messages"]
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "user"]
    assert [messages[0]["content"], messages[-1]["content"]] == ["Be brief.", "why?"]
    wait_for_reply(chat, "policy", 1)
    chat.get_by_role("button", name="New conversation").click()
    playwright.expect(replies(chat, "policy")).to_have_count(0)


def test_message_is_edited_and_sent_again(visit: Visitor) -> None:
    chat = visit.enter("Chat")
    for number, text in enumerate(["first", "second"]):
        say(chat, text)
        wait_for_reply(chat, "policy", number)
    chat.get_by_role("button", name="Edit this message").first.click()
    chat.get_by_label("Edited message").fill("changed")
    with visit.page.expect_request("**/v1/chat/completions") as sent:
        chat.get_by_role("button", name="Send again").click()
    assert [message["content"] for message in sent.value.post_data_json["messages"]] == ["changed"]
    wait_for_reply(chat, "policy")
    playwright.expect(chat.get_by_role("region", name="Exchange")).to_have_count(1)


def test_reply_is_regenerated_with_another_seed(visit: Visitor) -> None:
    chat = visit.enter("Chat")
    with visit.page.expect_request("**/v1/chat/completions") as first:
        say(chat, PROMPT)
    wait_for_reply(chat, "policy")
    with visit.page.expect_request("**/v1/chat/completions") as again:
        chat.get_by_role("button", name="Regenerate").click()
    bodies = [one.value.post_data_json for one in (first, again)]
    assert bodies[0]["messages"] == bodies[1]["messages"]
    assert bodies[0]["seed"] != bodies[1]["seed"]
    wait_for_reply(chat, "policy")
    playwright.expect(replies(chat, "policy")).to_have_count(1)


def test_three_models_answer_side_by_side(visit: Visitor) -> None:
    chat = visit.enter("Chat")
    for model in ("assistant", "base"):
        chat.get_by_role("checkbox", name=model).check()
    say(chat, PROMPT)
    for model in ("policy", "assistant", "base"):
        wait_for_reply(chat, model)
    tops = {round(replies(chat, model).bounding_box()["y"]) for model in ("policy", "assistant", "base")}
    assert len(tops) == 1


def test_probabilities_of_a_reply_are_shown(visit: Visitor) -> None:
    """The tokens of the text, coloured; together they are the reply."""
    chat = visit.enter("Chat")
    chat.get_by_role("checkbox", name="base").check()
    chat.get_by_label("Colour tokens by probability").check()
    say(chat, PROMPT)
    for model in ("policy", "base"):
        wait_for_reply(chat, model)
        tokens = replies(chat, model).get_by_role("group", name="Tokens of").get_by_role("note")
        assert all(re.search(r", [<\d. ]+%$", one.get_attribute("aria-label")) for one in tokens.all())
        assert tokens.count() > 0


def test_base_model_drops_the_oldest_messages_that_do_not_fit(visit: Visitor) -> None:
    chat = visit.enter("Chat")
    chat.get_by_role("checkbox", name="base").check()
    chat.get_by_role("checkbox", name="policy").uncheck()
    chat.get_by_label("Longest reply").fill("1")
    for number in range(3):
        say(chat, "a b c d e f g h i j k l m n o p q r s t u v w x y z " * (number > 0) + "ok?")
        wait_for_reply(chat, "base", number)
    playwright.expect(replies(chat, "base").last).to_contain_text("left out")
    visit.faults.clear()  # the browser reports the status 400 in its console


def test_reply_can_be_stopped(visit: Visitor) -> None:
    """The beginning of the reply stays, and the next message finds it in the conversation."""
    chat = visit.enter("Chat")
    # A stream that does not end by itself.
    visit.page.evaluate(
        """() => {
          const real = window.fetch;
          window.fetch = (path, options) => path !== "/v1/chat/completions" ? real(path, options) : new Promise((resolve) => {
            const piece = `data: ${JSON.stringify({ choices: [{ delta: { content: "a beginning" } }] })}\\n\\n`;
            const body = new ReadableStream({ start(stream) {
              stream.enqueue(new TextEncoder().encode(piece));
              options.signal.addEventListener("abort", () => stream.error(options.signal.reason));
            } });
            resolve(new Response(body));
          });
        }"""
    )
    say(chat, PROMPT)
    chat.get_by_text("a beginning").wait_for()
    chat.get_by_role("button", name="Stop", exact=True).click()
    playwright.expect(replies(chat, "policy")).to_contain_text("stopped")
    playwright.expect(chat.get_by_role("button", name="Send", exact=True)).to_be_visible()


@pytest.mark.parametrize(
    ("end", "message"),
    [
        ("data: {broken", "The connection broke"),
        ('data: {"error": {"message": "the queue is full"}}', "the queue is full"),
    ],
)
def test_stream_that_fails_keeps_its_beginning(visit: Visitor, end: str, message: str) -> None:
    """And the next message can be sent."""
    beginning = json.dumps({"choices": [{"delta": {"content": "a beginning"}}]})
    body = f"data: {beginning}\n\n{end}\n\n"
    chat = visit.enter("Chat")
    visit.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    say(chat, PROMPT)
    playwright.expect(replies(chat, "policy")).to_contain_text(message)
    playwright.expect(replies(chat, "policy")).to_contain_text("a beginning")
    playwright.expect(chat.get_by_role("button", name="Send", exact=True)).to_be_visible()


def test_tool_calls_are_steps_with_their_results(visit: Visitor) -> None:
    """The events are those of model/serve, which small random models do not produce."""
    steps = [
        {"name": "calculator", "arguments": "12*7", "result": "84", "is_error": False},
        {"name": "python", "arguments": HOSTILE, "result": "error: no", "is_error": True},
    ]
    deltas: list[dict[str, Any]] = [{"content": "Let me see."}, *({"content": "", "tool_step": step} for step in steps)]
    turns = [{"role": "assistant", "content": "It is 84."}]
    events = [{"choices": [{"delta": delta}]} for delta in [*deltas, {"content": "It is 84."}]]
    events.append({"choices": [{"delta": {"messages": turns}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    chat = visit.enter("Chat")
    visit.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    say(chat, "What is 12 times 7?")
    text = wait_for_reply(chat, "policy")
    assert re.search(r"Let me see\.\s+Used the tool calculator\s+asked\s+12\*7\s+result\s+84\s+Tried the tool python", text)
    assert "It is 84." in text
    with visit.page.expect_request("**/v1/chat/completions") as second:
        say(chat, "and 13?")
    assert second.value.post_data_json["messages"][1:2] == turns


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
    tokens_of(playground, "Completion").nth(4).click()
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


def test_text_is_shown_as_the_tokens_of_the_vocabulary(visit: Visitor, served: PageServer) -> None:
    text = "the mayor of Orn: naïve 東京"
    room = visit.enter("Tokens")
    room.get_by_label("Text", exact=True).fill(text)
    tokenizer = ChatTokenizer.load(served.folder / "tokenizer.json")
    ids = tokenizer.encode(text)
    card = room.get_by_role("article").first
    playwright.expect(card.get_by_role("button")).to_have_count(len(ids))
    shown = [one.get_attribute("aria-label") for one in card.get_by_role("button").all()]
    assert [int(re.findall(r"id (\d+), ", name)[0]) for name in shown] == ids
    shown_bytes = [bytes.fromhex(name.partition("bytes ")[2]) for name in shown]
    assert b"".join(shown_bytes).decode() == text
    assert f"{len(text.encode()) / len(ids):.2f}" in card.inner_text()
    card.get_by_text("As a table").click()
    playwright.expect(card.get_by_role("row")).to_have_count(len(ids) + 1)


def test_vocabularies_are_compared(visit: Visitor, served: PageServer) -> None:
    """Task of a newcomer."""
    other = ChatTokenizer.load(served.folder / "other/tokenizer.json")
    room = visit.enter("Tokens")
    compared = room.get_by_label("Compare with")
    text = "the mayor of Orn, naïve"
    room.get_by_label("Text", exact=True).fill(text)
    tokenizer = ChatTokenizer.load(served.folder / "tokenizer.json")
    for option, count in {"bytes": len(text.encode()), "other": len(other.encode(text))}.items():
        compared.select_option(label=compared.get_by_role("option").filter(has_text=option).first.inner_text())
        card = room.get_by_role("article", name=option)
        playwright.expect(card.get_by_role("group").get_by_role("button")).to_have_count(count)
        own = len(tokenizer.encode(text))
        few, many = min(own, count), max(own, count)
        expected = f"{math.floor(100 * (1 - few / many) + 0.5)}% fewer" if few < many else "same number"
        playwright.expect(room.get_by_role("status").first).to_contain_text(expected)


def test_mask_of_a_conversation_is_that_of_training(visit: Visitor, served: PageServer) -> None:
    room = visit.enter("Tokens")
    room.get_by_label("A conversation").check()
    room.get_by_label("What is learned").check()
    tokenizer = ChatTokenizer.load(served.folder / "tokenizer.json")
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Tools: calculator."},
        {"role": "user", "content": "What is 12 times 7?"},
        {"role": "assistant", "content": "Let me see.", "tool_calls": [{"name": "calculator", "arguments": "12*7"}]},
        {"role": "tool", "content": "84"},
        {"role": "assistant", "content": "It is 84."},
    ]
    for weight in (1, 0):
        messages[2]["weight"] = weight
        room.get_by_label("Learn turn 3").set_checked(bool(weight))
        rendered = tokenizer.render(messages)
        card = room.get_by_role("article").first
        playwright.expect(card).to_contain_text(re.compile(rf"learned\s*{sum(rendered.mask)}"))
        names = [one.get_attribute("aria-label") for one in card.get_by_role("group").get_by_role("button").all()]
        assert [int(name.endswith(", learned")) for name in names] == rendered.mask
        assert [int(re.findall(r"id (\d+), ", name)[0]) for name in names] == rendered.tokens


def test_tokens_of_a_reply_are_opened_from_the_chat(visit: Visitor) -> None:
    chat = visit.enter("Chat")
    say(chat, PROMPT)
    wait_for_reply(chat, "policy")
    replies(chat, "policy").get_by_role("link", name="Tokens").click()
    room = visit.page.get_by_role("region", name="Tokens", exact=True)
    playwright.expect(room.get_by_label("Text of turn 1", exact=True)).to_have_value(PROMPT)
    playwright.expect(room.get_by_role("article")).to_have_count(1)


@pytest.mark.parametrize("given", ["{", "[1]", '[{"role": "user"}]', '[{"role": "user", "content": "a", "tool_calls": 5}]'])
def test_link_with_a_broken_conversation_is_refused(visit: Visitor, given: str) -> None:
    visit.page.goto(f"{visit.url}/#tokens?{urlencode({'messages': given})}")
    playwright.expect(visit.page.get_by_role("alert")).to_contain_text("no conversation that can be read")


def test_text_of_a_link_is_opened(visit: Visitor) -> None:
    visit.page.goto(f"{visit.url}/#tokens?{urlencode({'text': HOSTILE})}")
    room = visit.page.get_by_role("region", name="Tokens", exact=True)
    playwright.expect(room.get_by_label("Text", exact=True)).to_have_value(HOSTILE)
    playwright.expect(room.get_by_role("article")).to_have_count(2)


def test_hostile_text_stays_text(visit: Visitor) -> None:
    """Markup and characters that turn the direction of text, in all that a model and a person write."""
    events = [{"choices": [{"delta": {"content": piece}}]} for piece in (HOSTILE, "x" * 100_000)]
    events.append({"choices": [{"delta": {}, "finish_reason": "stop"}]})
    body = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
    chat = visit.enter("Chat")
    visit.page.route("**/v1/chat/completions", lambda route: route.fulfill(body=body, content_type="text/event-stream"))
    say(chat, HOSTILE)
    text = wait_for_reply(chat, "policy")
    assert "<img src=x" in text
    assert "\\u202edlrow" in text
    assert len(text) > 100_000
    room = visit.enter("Tokens")
    room.get_by_label("Text", exact=True).fill(HOSTILE)
    playwright.expect(tokens_of(room, "policy (").last).to_contain_text("x")
    assert not set("\u202e\u2066") & set(room.get_by_role("article").first.inner_text())
    playground = visit.enter("Playground")
    playground.get_by_label("Prompt").fill(HOSTILE)
    playground.get_by_role("button", name="Score this text").click()
    tokens_of(playground, "Your text").first.wait_for()
    assert visit.page.locator("main img, main script").count() == 0
    assert "owned" not in visit.page.title()
    assert visit.page.evaluate(OVERFLOW) <= 0


def test_long_texts_do_not_freeze_the_page(visit: Visitor) -> None:
    room = visit.enter("Tokens")
    room.get_by_label("Text", exact=True).fill("word " * 20_000)
    card = room.get_by_role("article").first
    playwright.expect(card).to_contain_text("100,000")
    card.get_by_role("button", name="Show 2,000 more").click()
    playwright.expect(card.get_by_role("group").get_by_role("button")).to_have_count(4000)


def test_errors_are_shown_in_words(visit: Visitor) -> None:
    playground = visit.enter("Playground")
    playground.get_by_label("Prompt").fill("word " * 2000)
    playground.get_by_role("button", name="Complete").click()
    playwright.expect(playground.get_by_role("article", name="Completion")).to_contain_text("shorten it")
    visit.faults.clear()  # the browser reports the status 400 in its console


def test_keyboard_is_enough(visit: Visitor) -> None:
    """From the address bar to a branch, without a mouse."""
    page = visit.page
    page.keyboard.press("Tab")
    playwright.expect(page.get_by_role("link", name="Skip to the room")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    playwright.expect(page.get_by_role("link", name="Playground")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    playground = page.get_by_role("region", name="Playground", exact=True)
    prompt = playground.get_by_label("Prompt")
    for _ in range(10):
        if prompt.evaluate("one => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Control+A")
    page.keyboard.type(PROMPT)
    page.keyboard.press("Control+Enter")
    wait_until_done(playground)
    first = tokens_of(playground, "Completion").first
    for _ in range(10):
        if first.evaluate("one => one === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    panel = playground.get_by_role("group", name="Alternatives")
    playwright.expect(panel.get_by_role("listitem").first.get_by_role("button")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    playwright.expect(playground.get_by_role("navigation", name="Branches")).to_be_visible()
    wait_until_done(playground)


def test_key_is_asked_for_and_kept_in_the_tab(browser: Any, tmp_path: Path) -> None:
    with served_page(tmp_path, api_key="a-key-of-sixteen-characters") as server, browser.new_context() as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.goto(server.url)
        dialog = page.get_by_role("dialog", name="API key")
        dialog.get_by_label("Key").fill("a-key-of-sixteen-characters")
        dialog.get_by_role("button", name="Use this key").click()
        page.get_by_role("checkbox", name="policy").wait_for()
        page.reload()
        page.get_by_role("checkbox", name="policy").wait_for()
        assert page.evaluate("Object.keys(localStorage)") == []


def fill_rooms(visit: Visitor) -> Iterator[str]:
    """Every room, used. Yields the name of the one that is shown."""
    chat = visit.enter("Chat")
    say(chat, PROMPT)
    wait_for_reply(chat, "policy")
    yield "Chat"
    playground = visit.enter("Playground")
    playground.get_by_label("Prompt").fill(PROMPT)
    playground.get_by_role("button", name="Score this text").click()
    tokens_of(playground, "Your text").nth(3).click()
    yield "Playground"
    room = visit.enter("Tokens")
    room.get_by_role("article").first.wait_for()
    yield "Tokens"
    for name in ("Rank", "Arena"):
        visit.enter(name)
        visit.page.wait_for_load_state("networkidle")
        yield name


SCREENS = {
    "light": {"color_scheme": "light"},
    "dark": {"color_scheme": "dark"},
    "narrow": {"viewport": {"width": 360, "height": 740}},
}


@pytest.mark.parametrize("visit", SCREENS.values(), ids=SCREENS, indirect=True)
def test_rooms_are_legible_and_fit(visit: Visitor, tmp_path: Path) -> None:
    """Contrast of text, names of controls, and no scrolling to the side. The screenshots are in pytest's temporary folder."""
    for name in fill_rooms(visit):
        visit.page.screenshot(path=tmp_path / f"{name}.png")
        assert visit.page.evaluate(CONTRAST) == [], name
        assert visit.page.evaluate(NAMELESS) == [], name
        assert visit.page.evaluate(OVERFLOW) <= 0, name
