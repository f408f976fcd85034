"""The room Chat in a browser: replies, edits, several models, tools, what breaks off."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from model.tools.calculator import calculate
from model.tools.registry import Tools
from tests.support.page_server import EXAMPLE, served_page
from tests.support.visitors import HOSTILE, NEEDS_CHROMIUM, PROMPT, Visitor, replies, say, visiting, wait_for_reply

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = NEEDS_CHROMIUM


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
    said = [reply.inner_text() for reply in replies(chat, "policy").all()]
    chat.get_by_label("Message", exact=True).fill("half a")
    visit.page.reload()  # loses nothing: neither what was said nor what is being written
    playwright.expect(replies(chat, "policy")).to_have_count(2)
    assert [reply.inner_text() for reply in replies(chat, "policy").all()] == said
    playwright.expect(chat.get_by_label("Message", exact=True)).to_have_value("half a")
    with visit.page.expect_request("**/v1/chat/completions") as third:
        chat.get_by_label("Message", exact=True).press("Enter")
    assert third.value.post_data_json["messages"][:4] == messages
    wait_for_reply(chat, "policy", 2)
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
    chat.get_by_role("button", name="Regenerate").click()
    playwright.expect(replies(chat, "policy")).to_contain_text("writing…")
    visit.page.reload()  # in the middle of the reply
    playwright.expect(replies(chat, "policy")).to_contain_text("stopped")
    playwright.expect(replies(chat, "policy")).to_contain_text("a beginning")


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


def test_model_calls_a_tool_that_the_server_runs(browser: Any, tmp_path: Path) -> None:
    """A model that has learned one conversation by heart, asked again, with the project's calculator."""
    with (
        served_page(tmp_path, taught=EXAMPLE, tools=Tools({"calculator": calculate})) as server,
        visiting(browser, server.url) as visit,
    ):
        chat = visit.enter("Chat")
        chat.get_by_role("combobox", name="Method").select_option("greedy")
        say(chat, EXAMPLE[1]["content"])
        text = wait_for_reply(chat, "policy")
        assert re.search(r"Let me see\.\s+Used the tool calculator\s+asked\s+12\*7\s+result\s+84\s+It is 84\.", text)
        with visit.page.expect_request("**/v1/chat/completions") as second:
            say(chat, "and now?")
        assert second.value.post_data_json["messages"] == [*EXAMPLE[1:], {"role": "user", "content": "and now?"}]


def test_steps_with_hostile_text_and_errors_are_shown(visit: Visitor) -> None:
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
    assert re.search(
        r"Let me see\.\s+Used the tool calculator\s+asked\s+12\*7\s+result\s+84\s+Tried the tool python", text
    )
    assert "It is 84." in text
    with visit.page.expect_request("**/v1/chat/completions") as second:
        say(chat, "and 13?")
    assert second.value.post_data_json["messages"][1:2] == turns


def test_tokens_of_a_reply_are_opened_from_the_chat(visit: Visitor) -> None:
    chat = visit.enter("Chat")
    say(chat, PROMPT)
    wait_for_reply(chat, "policy")
    replies(chat, "policy").get_by_role("link", name="Tokens").click()
    room = visit.page.get_by_role("region", name="Tokens", exact=True)
    playwright.expect(room.get_by_label("Text of turn 1", exact=True)).to_have_value(PROMPT)
    playwright.expect(room.get_by_role("article")).to_have_count(1)
