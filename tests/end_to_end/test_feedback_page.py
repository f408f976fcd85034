"""The rooms Rank and Arena in a real browser: 20 prompts are ranked with the keyboard, and a reward model is trained on the rankings.

Elements are found by role and label. A request to another host fails the test that made it, and so does an error in the console. Skipped
where no Chromium is installed.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from model.config import OptimConfig, TrainConfig
from model.files import read_lines
from tasks.artifacts.manifest import RewardModel, SFTModel, Tokenizer
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.conversations.identity import content_hash
from tasks.conversations.sources import PreferencesConfig, preferences
from tasks.execution.runner import execute
from tasks.feedback.database import FeedbackFile
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.labels import Completion, Label, LabelBook
from tasks.posttrain.reward import RewardConfig, reward
from tests.support.commands import crawl2chat_here
from tests.support.page_server import PageServer, served_page
from tests.support.tiny_models import finish
from tests.support.visitors import NEEDS_CHROMIUM, PATIENCE_MS

playwright = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
pytestmark = NEEDS_CHROMIUM
PROMPTS = [f"what is {n} and the sky?" for n in range(20)]
WIDE = {"COLUMNS": "300"}
MODEL_NAMES = ("policy", "assistant")


@pytest.fixture
def served(tmp_path: Path) -> Iterator[PageServer]:
    """A server for each test: one that is tried again finds no prompts and rankings of its first try."""
    with served_page(tmp_path / "served") as server:
        yield server


@pytest.fixture
def page(browser: Any, served: PageServer) -> Iterator[Any]:
    """A new visitor."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, reduced_motion="reduce")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    faults: list[str] = []
    page.on("request", lambda sent: urlsplit(sent.url).hostname == "127.0.0.1" or faults.append(sent.url))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("response", lambda got: got.ok or faults.append(f"{got.status} {got.url} {got.text()}"))
    page.on("console", lambda line: line.type == "error" and faults.append(line.text))
    yield page
    context.close()
    assert faults == []


def enter(page: Any, served: PageServer, room: str, nickname: str) -> Any:
    """Open a room as a person of that nickname."""
    page.goto(f"{served.url}/#{room.lower()}")
    part = page.get_by_role("region", name=room, exact=True)
    part.get_by_label("Your nickname").fill(nickname)
    part.get_by_label("Your nickname").press("Enter")
    return part


def add_prompts(part: Any, prompts: list[str]) -> None:
    part.get_by_text("ranked by you").wait_for()
    part.get_by_text("How completions are made").click()
    # Of random models: short, and so varied that no two completions are equal.
    part.get_by_label("Tokens at most").fill("12")
    part.get_by_label("Temperature").fill("2")
    if not part.get_by_label("Prompts", exact=True).is_visible():  # it opens by itself where there are no prompts
        part.get_by_text("Add prompts").click()
    part.get_by_label("Prompts", exact=True).fill("\n".join(prompts))
    part.get_by_role("button", name="Add", exact=True).click()


def cards(part: Any) -> Any:
    return part.get_by_role("group", name="Completion ")


def wait_for_prompt(part: Any, prompt: str) -> None:
    part.get_by_text(prompt, exact=True).wait_for()
    cards(part).first.wait_for()


def book(served: PageServer) -> LabelBook:
    return LabelBook(FeedbackFile(served.folder / "feedback.db"))


def test_rankings_of_20_prompts_train_a_reward_model(page: Any, served: PageServer, tmp_path: Path) -> None:
    part = enter(page, served, "Rank", "ada")
    part.get_by_role("button", name="Begin with three examples").wait_for()
    add_prompts(part, PROMPTS)
    for number, prompt in enumerate(PROMPTS):
        wait_for_prompt(part, prompt)
        playwright.expect(cards(part).first).to_be_focused()  # else Enter presses what still has the focus
        count = cards(part).count()
        # The keyboard alone: a rank for each card in turn, a tie in every second prompt, then Enter.
        for rank in range(1, count + 1):
            page.keyboard.press(str(1 if number % 2 and rank == 2 else rank))
        page.keyboard.press("Enter")
    part.get_by_text("Nothing is left to rank").wait_for()
    part.get_by_text("20 of 20 prompts ranked by you").wait_for()
    labels = list(book(served).export())
    assert [label["messages"][0]["content"] for label in labels] == PROMPTS
    assert {label["guidelines"] for label in labels} == {Guidelines.read().version}
    assert {each["model"] for label in labels for each in label["completions"]} <= set(MODEL_NAMES)
    assert sum(len(set(label["ranks"])) < len(label["ranks"]) for label in labels) == 10

    exported = tmp_path / "rankings.jsonl"
    shown = crawl2chat_here(WIDE, "labels", "export", str(exported), "--labels", str(served.folder / "feedback.db"))
    assert "rankings: 20, people: 1, pairs: " in shown
    check_training(served, exported, Store(str(tmp_path / "store")))


def check_training(served: PageServer, rankings: Path, store: Store) -> None:
    """Train with the pipeline's stages. The lineage of the reward model names the file, the labels and the people."""
    pairs = preferences(PreferencesConfig(preferences=str(rankings), validation_fraction=0.2), 1)
    sizes = TrainConfig(num_steps=6, batch_tokens=1024, sequence_tokens=128, num_ranks=1, checkpoint_every_steps=3)
    config = RewardConfig(train=sizes, optim=OptimConfig(learning_rate=1e-3))
    manifest = execute(reward(*models(served, store), pairs, config), store)
    assert manifest.counts["labels"] == 20
    assert manifest.counts["people"] == 1
    made_of = store.find(manifest.inputs["preferences"])
    assert made_of is not None
    assert made_of.config["sources"][0]["sha256"] == [content_hash(rankings)]
    assert (made_of.counts["labels"], made_of.counts["people"]) == (20, 1)
    shown = crawl2chat_here(WIDE | {"CRAWL2CHAT_STORE": store.url}, "show", manifest.id, "--num", "0")
    assert "rankings: 20, people: 1" in shown
    assert f"rankings.jsonl sha256 {content_hash(rankings)[:12]}" in shown
    steps = read_lines(store.open(manifest.id, RewardModel).folder / "metrics.jsonl")
    assert len(steps) == 6
    # The models are random, and five times the log-probability of a reply is a part of its score.
    assert all(0 < step["train/loss_nats"] < 20 for step in steps)


def models(served: PageServer, store: Store) -> tuple[Step[SFTModel], Step[Tokenizer]]:
    """The server's model and tokenizer as artifacts."""
    tokenizer, assistant = store.folder("tokenizer/1"), store.folder("sft/1")
    tokenizer.mkdir(parents=True)
    shutil.copy(served.folder / "tokenizer.json", tokenizer)
    shutil.copytree(served.folder / "assistant", assistant)
    made = finish(store, Tokenizer, "tokenizer/1")
    return finish(store, SFTModel, "sft/1", inputs={"tokenizer": "tokenizer/1"}), made


def test_ranking_is_corrected_and_agreement_appears(page: Any, served: PageServer) -> None:
    part = enter(page, served, "Rank", "bo")
    add_prompts(part, ["who comes twice?", "and then?"])
    part.get_by_text("who comes twice?").or_(part.get_by_text(PROMPTS[0], exact=True)).first.wait_for()
    first = part.locator(".rank-prompt .text").inner_text()
    cards(part).first.wait_for()
    playwright.expect(part.get_by_label("Prompts", exact=True)).to_have_value("")
    playwright.expect(cards(part).first).to_be_focused()
    page.keyboard.press("b")  # all bad alone is a ranking
    page.keyboard.press("Enter")
    playwright.expect(part.locator(".rank-prompt .text")).not_to_have_text(first)
    cards(part).first.wait_for()
    page.keyboard.press("p")
    part.get_by_text("You have ranked this prompt").wait_for()
    for rank in range(cards(part).count(), 0, -1):
        page.keyboard.press(str(rank))
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    playwright.expect(part.locator(".rank-prompt .text")).not_to_have_text(first)
    mine = [label for label in book(served).export() if label["who"] == "bo"]
    assert len(mine) == 1
    assert mine[0]["messages"][0]["content"] == first
    rows = book(served).file.rows("SELECT all_bad FROM labels WHERE who = 'bo' ORDER BY id")
    assert rows[0]["all_bad"] == 1
    assert len(rows) == 2


def test_card_is_dragged_to_a_rank(page: Any, served: PageServer) -> None:
    part = enter(page, served, "Rank", "cy")
    add_prompts(part, ["what is dragged?"])
    cards(part).first.wait_for()
    part.get_by_role("group", name="Completion A, not ranked").drag_to(part.locator("[data-rank='2']"))
    part.get_by_role("group", name="Completion A, rank 2").wait_for()
    part.get_by_role("button", name="Rank B 2").click()
    part.get_by_text("tie").first.wait_for()
    assert part.get_by_role("button", name="Save and next").is_disabled() == (cards(part).count() > 2)


def test_hostile_texts_stay_text(page: Any, served: PageServer) -> None:
    hostile = "<img src=x onerror=document.title='owned'> **bold** \u202edlrow"
    labels = book(served)
    labels.add_prompts([[{"role": "user", "content": hostile}]])
    number = labels.file.rows("SELECT max(id) AS id FROM prompts")[0]["id"]
    labels.add_completions(number, [Completion(f"{hostile} {n}", "policy", {}) for n in range(2)])
    for other in range(1, number):  # so that it is the next one
        if item := labels.item(other):
            labels.add_completions(other, [Completion("a", "policy", {}), Completion("b", "policy", {})])
            count = len(item.completions) or 2
            labels.add_label(other, Label("dee", [1] * count, False, False), Guidelines.read())
    part = enter(page, served, "Rank", "dee")
    wait_for_prompt(part, hostile)
    assert hostile in cards(part).first.inner_text()
    assert "owned" not in page.title()
    assert part.locator(".rank-prompt img, .rank-card img").count() == 0


def test_arena_is_blind_until_the_vote(page: Any, served: PageServer) -> None:
    before = len(book(served).file.rows("SELECT * FROM votes"))
    part = enter(page, served, "Arena", "ada")
    answers: list[str] = []
    page.on("response", lambda got: "/battles" in got.url and answers.append(got.url))
    part.get_by_label("Prompt").fill("what colour is the sky?")
    part.get_by_label("Prompt").press("Control+Enter")
    part.get_by_text("Which answer is better?").wait_for(timeout=120_000)
    assert [part.get_by_role("heading", name=side, exact=True).count() for side in ("Left", "Right")] == [1, 1]
    assert not any(name in url for url in answers for name in MODEL_NAMES)
    page.keyboard.press("2")
    part.get_by_text("Your vote counts").wait_for()
    headings = {part.locator("article h2").nth(side).inner_text().split()[0] for side in (0, 1)}
    assert headings == set(MODEL_NAMES)
    votes = book(served).file.rows("SELECT winner FROM votes")
    assert len(votes) == before + 1
    assert votes[-1]["winner"] == "right"
    part.get_by_role("table").get_by_text("after 10 votes").first.wait_for()
    assert all(button.is_disabled() for button in part.get_by_role("button", name="better").all())


def test_arena_draws_elo_as_text_for_screen_readers(page: Any, served: PageServer) -> None:
    file = FeedbackFile(served.folder / "feedback.db")
    with file.writing() as database:
        for number in range(30):
            query = "INSERT INTO battles (who, at, messages, left_model, right_model, sampling) VALUES (?, '2020', ?, ?, ?, '{}')"
            row = database.execute(query, ("eve", json.dumps(number), "policy", "old/<b>model</b>"))
            database.execute("INSERT INTO votes (battle, at, winner) VALUES (?, '2020', 'left')", (row.lastrowid,))
    part = enter(page, served, "Arena", "ada")
    part.get_by_role("img", name="Elo ratings after").wait_for()
    row = part.get_by_role("row", name="policy").first.inner_text()
    assert " to " in row
    assert part.get_by_role("cell", name="old/<b>model</b>").count() == 1


@pytest.mark.parametrize("room", ["Rank", "Arena"])
def test_room_fits_a_narrow_screen(page: Any, served: PageServer, room: str) -> None:
    page.set_viewport_size({"width": 360, "height": 740})
    part = enter(page, served, room, "ada")
    part.get_by_text("ranked by you" if room == "Rank" else "Ratings").first.wait_for()
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 0


def test_ranking_that_could_not_be_saved_stays_on_the_page(page: Any, served: PageServer) -> None:
    part = enter(page, served, "Rank", "gil")
    add_prompts(part, ["who is saved late?"])
    part.get_by_text("1 prompt added.").wait_for()
    cards(part).first.wait_for()
    prompt = part.locator(".rank-prompt .text")
    first, count = prompt.inner_text(), cards(part).count()
    for rank in range(1, count + 1):
        page.keyboard.press(str(rank))
    # An error without a status of one, which the fixture would count as a fault.
    page.route("**/feedback/rank/labels", lambda route: route.fulfill(body="no JSON"))
    page.keyboard.press("Enter")
    page.get_by_text("is not JSON").wait_for()
    playwright.expect(prompt).to_have_text(first)
    page.unroute("**/feedback/rank/labels")
    part.get_by_role("button", name="Save and next").click()
    playwright.expect(part.get_by_text("1 of ").first).to_be_visible()
    [label] = [label for label in book(served).export() if label["who"] == "gil"]
    assert label["messages"][0]["content"] == first
    assert sorted(label["ranks"]) == list(range(1, count + 1))  # of cards in a random order
