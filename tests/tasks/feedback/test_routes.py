"""The routes of Rank and Arena behind the server's own checks: what they answer, and what hostile requests get."""

import asyncio
import json
import random
import sqlite3
import threading
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from model.serve.app import create_app
from model.serve.errors import ApiError
from tasks.feedback import arena_routes
from tasks.feedback.arena import Arena
from tasks.feedback.database import FeedbackFile
from tasks.feedback.guidelines import Guidelines
from tasks.feedback.labels import LabelBook
from tasks.feedback.routes import feedback_router

RULES = Guidelines("v1", "Be fair.")
PERSON = {"who": "ada"}


class FakeModel:
    """A model that answers with its name, the prompt and the seed."""

    def __init__(self, name: str, is_chat: bool = True, lineage: str = "") -> None:
        self.id, self.is_chat, self.lineage = name, is_chat, lineage or f"{name}/1"
        self.num_running = 0
        self.fails_after: int | None = None
        self.is_constant = False

    def close(self) -> None:
        pass

    async def reply(self, messages: Sequence[Any], *, seed: int | None = None, **sampling: Any) -> str:
        self.num_running += 1
        try:
            await asyncio.sleep(0)
            if self.fails_after is not None:
                raise ApiError(429, "the queue is full")
            return (
                "constant" if self.is_constant else f"{messages[-1]['content'][:20]} {seed} {sampling['temperature']}"
            )
        finally:
            self.num_running -= 1

    async def stream_reply(self, messages: Sequence[Any], **sampling: Any) -> AsyncGenerator[str]:
        self.num_running += 1
        try:
            for number, piece in enumerate(("I ", "am ", "an answer.")):
                if number == self.fails_after:
                    raise ApiError(429, "the queue is full")
                yield piece
        finally:
            self.num_running -= 1


class FakeDrafter:
    name = "reward/1"

    def score(self, messages: Sequence[Any], completions: Sequence[str]) -> list[float]:
        return [float(len(completion)) for completion in completions]


@pytest.fixture
def models() -> list[FakeModel]:
    return [FakeModel("policy"), FakeModel("assistant"), FakeModel("base", is_chat=False)]


@pytest.fixture
def client(tmp_path: Path, models: list[FakeModel]) -> Iterator[TestClient]:
    router = feedback_router(tmp_path / "feedback.sqlite", RULES, FakeDrafter())
    app = create_app(models, routers=[router])  # type: ignore[arg-type] - as much of a model as these routes need
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, path: str, **body: Any) -> Any:
    answer = client.post(f"/feedback/{path}", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def made_item(client: TestClient, **settings: Any) -> Any:
    post(client, "rank/prompts", prompts=["what is it?"])
    return post(client, "rank/completions", who="ada", prompt=1, **settings)["item"]


def error_of(answer: Any) -> str:
    assert 400 <= answer.status_code < 500, (answer.status_code, answer.text)
    message: str = answer.json()["error"]["message"]
    assert message
    assert "\n" not in message
    return message


def events(text: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


def test_prompt_is_completed_ranked_and_exported(client: TestClient, tmp_path: Path) -> None:
    assert post(client, "rank/next", **PERSON) == {"item": None}
    item = made_item(client, num_completions=4, temperature=0.5)
    assert sorted(completion["place"] for completion in item["completions"]) == [0, 1, 2, 3]
    assert len({completion["text"] for completion in item["completions"]}) == 4
    answer = post(client, "rank/labels", who="ada", prompt=1, ranks=[4, 1, 2, 2], guidelines="v1")
    assert answer["progress"] == {"prompts": 1, "mine": 1, "labels": 1, "people": 1}
    [label] = LabelBook(FeedbackFile(tmp_path / "feedback.sqlite")).export()
    assert label["ranks"] == [3, 1, 2, 2]
    assert sorted(each["model"] for each in label["completions"]) == ["assistant/1"] * 2 + ["policy/1"] * 2
    assert {each["sampling"]["temperature"] for each in label["completions"]} == {0.5}
    texts = {completion["place"]: completion["text"] for completion in item["completions"]}
    assert [each["text"] for each in label["completions"]] == [texts[place] for place in range(4)]
    again = client.get("/feedback/rank/prompts/1", params=PERSON).json()["item"]
    assert again["label"] == {"ranks": [3, 1, 2, 2], "all_bad": False}


def test_answers_for_ranking_never_name_a_model(client: TestClient) -> None:
    post(client, "rank/prompts", prompts=["what is it?"])
    for path, body in (("next", PERSON), ("completions", {"who": "ada", "prompt": 1})):
        text = client.post(f"/feedback/rank/{path}", json=body).text
        assert not any(name in text for name in ("policy", "assistant", "base"))


def test_draft_ranks_by_the_reward_model(client: TestClient) -> None:
    item = made_item(client, num_completions=5)
    by_place = {completion["place"]: len(completion["text"]) for completion in item["completions"]}
    for place, rank in enumerate(item["draft"]):
        assert rank == 1 + sum(other > by_place[place] for other in by_place.values())


def test_named_models_write_the_completions(client: TestClient, tmp_path: Path) -> None:
    made_item(client, models=["base"], num_completions=2)
    rows = FeedbackFile(tmp_path / "feedback.sqlite").rows("SELECT model FROM completions")
    assert [row["model"] for row in rows] == ["base/1"] * 2


def test_equal_completions_are_refused_with_a_remedy(client: TestClient, models: list[FakeModel]) -> None:
    for model in models:
        model.is_constant = True
    post(client, "rank/prompts", prompts=["what is it?"])
    answer = client.post("/feedback/rank/completions", json={"who": "ada", "prompt": 1})
    assert "raise the temperature" in error_of(answer)


def test_full_queue_is_passed_on_and_nothing_keeps_running(client: TestClient, models: list[FakeModel]) -> None:
    models[1].fails_after = 0
    post(client, "rank/prompts", prompts=["what is it?"])
    answer = client.post("/feedback/rank/completions", json={"who": "ada", "prompt": 1})
    assert (answer.status_code, error_of(answer)) == (429, "the queue is full")
    assert [model.num_running for model in models] == [0, 0, 0]
    models[1].fails_after = None
    assert post(client, "rank/completions", who="ada", prompt=1)["item"]["completions"]


def test_label_under_old_guidelines_is_refused(client: TestClient) -> None:
    made_item(client)
    body = {"who": "ada", "prompt": 1, "ranks": [1, 2, 3, 4], "guidelines": "v0"}
    answer = client.post("/feedback/rank/labels", json=body)
    assert answer.status_code == 409
    assert "reload the page" in error_of(answer)


def test_battle_is_streamed_voted_on_and_rated(client: TestClient) -> None:
    battle = post(client, "arena/battles", who="ada", prompt="who?")["battle"]
    early = {"who": "ada", "battle": battle, "winner": "left"}
    assert client.post("/feedback/arena/votes", json=early).status_code == 409
    for side in ("left", "right"):
        answer = client.post(f"/feedback/arena/battles/{battle}/{side}", json=PERSON)
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "".join(event["text"] for event in events(answer.text)[:-1]) == "I am an answer."
        assert events(answer.text)[-1] == "[DONE]"
        assert "policy" not in answer.text
        assert "assistant" not in answer.text
    named = post(client, "arena/votes", who="ada", battle=battle, winner="left")
    assert {side["name"] for side in named.values()} == {"policy", "assistant"}
    table = client.get("/feedback/arena").json()
    assert table["ratings"][0]["model"] == named["left"]["artifact"]
    assert table["num_votes"] == 1
    assert len(table["elo"]) == 1


def test_side_that_fails_can_be_asked_again(client: TestClient, models: list[FakeModel]) -> None:
    battle = post(client, "arena/battles", who="ada", prompt="who?")["battle"]
    for model in models:
        model.fails_after = 1
    answer = client.post(f"/feedback/arena/battles/{battle}/left", json=PERSON)
    assert events(answer.text)[-1]["error"]["message"] == "the queue is full"
    for model in models:
        model.fails_after = None
    answer = client.post(f"/feedback/arena/battles/{battle}/left", json=PERSON)
    assert events(answer.text)[-1] == "[DONE]"
    again = client.post(f"/feedback/arena/battles/{battle}/left", json=PERSON)
    assert events(again.text) == [{"text": "I am an answer."}, "[DONE]"]


def test_reader_who_leaves_stops_the_model(tmp_path: Path, models: list[FakeModel]) -> None:
    arena = Arena(FeedbackFile(tmp_path / "feedback.sqlite"))
    battle = arena.start("ada", [{"role": "user", "content": "who?"}], ["policy/1", "assistant/1"], {})

    async def leave() -> None:
        answer = arena_routes._answer(arena, battle, "left", models[0])
        assert "I " in await anext(answer)
        assert models[0].num_running == 1
        await answer.aclose()
        assert models[0].num_running == 0

    asyncio.run(leave())
    found = arena.find(battle.id)
    assert found is not None
    assert found.texts["left"] is None


def test_models_of_one_artifact_do_not_meet(client: TestClient, models: list[FakeModel]) -> None:
    models[0].lineage = models[1].lineage
    answer = client.post("/feedback/arena/battles", json={"who": "ada", "prompt": "who?"})
    assert "a battle needs two" in error_of(answer)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("rank/prompts", {"prompts": []}),
        ("rank/prompts", {"prompts": [" "]}),
        ("rank/prompts", {"prompts": ["who?", "\x1b[2J"]}),
        ("rank/prompts", {"prompts": ["\u200b"]}),
        ("rank/prompts", {"prompts": ["x" * 20_001]}),
        ("rank/prompts", {"prompts": ["x"] * 1001}),
        ("rank/prompts", {"prompts": "x"}),
        ("rank/prompts", {"prompts": [1]}),
        ("rank/prompts", {"prompts": ["x"], "other": 1}),
        ("rank/next", {"who": ""}),
        ("rank/next", {"who": "a" * 33}),
        ("rank/next", {"who": "<script>"}),
        ("rank/next", {"who": "a\n"}),
        ("rank/next", {"who": "a\u0000"}),
        ("rank/next", {"who": ["ada"]}),
        ("rank/next", {"who": "ada", "after": -1}),
        ("rank/next", {"who": "ada", "after": 2**63}),
        ("rank/next", {"who": "ada", "after": 1.5}),
        ("rank/next", {"who": "ada", "after": "1"}),
        ("rank/completions", {"who": "ada", "prompt": 7}),
        ("rank/completions", {"who": "ada", "prompt": 1, "num_completions": 10}),
        ("rank/completions", {"who": "ada", "prompt": 1, "models": ["x"]}),
        ("rank/completions", {"who": "ada", "prompt": 1, "models": ["base"] * 33}),
        ("rank/completions", {"who": "ada", "prompt": 1, "temperature": 3}),
        ("rank/completions", {"who": "ada", "prompt": 1, "max_tokens": 10**9}),
        ("rank/labels", {"who": "ada", "prompt": 1, "ranks": [1], "guidelines": "v1"}),
        ("rank/labels", {"who": "ada", "prompt": 1, "ranks": [1, 2], "guidelines": "v1"}),
        ("rank/labels", {"who": "ada", "prompt": 1, "ranks": [0, 1, 2, 3], "guidelines": "v1"}),
        ("rank/labels", {"who": "ada", "prompt": 1, "ranks": [1, 2, 3, True], "guidelines": "v1"}),
        ("rank/labels", {"who": "ada", "prompt": 1, "ranks": [1, 2, 3, 4], "guidelines": "v1", "all_bad": 1}),
        ("rank/labels", {"who": "ada", "prompt": 9, "ranks": [1, 2, 3, 4], "guidelines": "v1"}),
        ("arena/battles", {"who": "ada", "prompt": "x" * 20_001}),
        ("arena/battles", {"who": "ada", "prompt": "who?", "top_p": 0}),
        ("arena/battles/1/left", PERSON),
        ("arena/battles/1/up", PERSON),
        ("arena/battles/0/left", PERSON),
        ("arena/battles/99999999999999999999/left", PERSON),
        ("arena/votes", {"who": "ada", "battle": 1, "winner": "left"}),
        ("arena/votes", {"who": "ada", "battle": 1, "winner": "me"}),
    ],
)
def test_wrong_request_gets_one_sentence_and_changes_nothing(
    client: TestClient, path: str, body: Any, tmp_path: Path
) -> None:
    made_item(client)
    file = FeedbackFile(tmp_path / "feedback.sqlite")
    before = [len(file.rows(f"SELECT * FROM {table}")) for table in ("prompts", "completions", "labels", "battles")]
    error_of(client.post(f"/feedback/{path}", json=body))
    assert before == [
        len(file.rows(f"SELECT * FROM {table}")) for table in ("prompts", "completions", "labels", "battles")
    ]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{", b'{"who": "\\ud800"}', b"\xff", b"[" * 5000, b'{"who": NaN}']
)
def test_body_that_is_no_request_is_refused(client: TestClient, content: bytes) -> None:
    for path in ("rank/next", "rank/prompts", "rank/labels", "arena/battles", "arena/votes"):
        error_of(client.post(f"/feedback/{path}", content=content, headers={"Content-Type": "application/json"}))


def test_mutated_requests_are_never_a_fault_of_the_server(client: TestClient) -> None:
    """Every field of every request is replaced by hostile values of all types."""
    made_item(client)
    good: dict[str, dict[str, Any]] = {
        "rank/prompts": {"prompts": ["a?"]},
        "rank/next": {"who": "ada", "after": 0},
        "rank/completions": {"who": "ada", "prompt": 1, "models": [], "num_completions": 2, "temperature": 1.0, "top_p": 1.0, "max_tokens": 9},
        "rank/labels": {"who": "ada", "prompt": 1, "ranks": [1, 2, 3, 4], "all_bad": False, "saw_draft": False, "guidelines": "v1"},
        "arena/battles": {"who": "ada", "prompt": "who?", "temperature": 1.0, "top_p": 1.0, "max_tokens": 9},
        "arena/votes": {"who": "ada", "battle": 1, "winner": "tie"},
    }  # fmt: skip
    hostile: list[Any] = [
        None, True, -1, 0, 2**31, 2**63, 2**64, 10**400, 1.5, -0.0, 1e308, "", "x" * 100_000, "'; DROP TABLE labels; --", "\u202e",
        "\u0000", [], [None], [[]] * 100, {}, {"a": {"b": []}}, ["x"] * 5000, [1e99] * 4, "ada\r\nX: y", [2**70] * 4,
    ]  # fmt: skip
    generator = random.Random(0)
    for path, body in good.items():
        for name in body:
            for value in hostile:
                answer = client.post(
                    f"/feedback/{path}",
                    content=json.dumps(body | {name: value}),
                    headers={"Content-Type": "application/json"},
                )
                assert answer.status_code < 500, (path, name, value, answer.text)
        for _ in range(20):
            changed = {name: generator.choice(hostile) for name in body if generator.random() < 0.8}
            assert (
                client.post(
                    f"/feedback/{path}", content=json.dumps(changed), headers={"Content-Type": "application/json"}
                ).status_code
                < 500
            )


def test_request_of_another_site_is_refused(client: TestClient) -> None:
    for path, body in (("rank/prompts", {"prompts": ["spam"]}), ("arena/battles", {"who": "ada", "prompt": "who?"})):
        answer = client.post(f"/feedback/{path}", json=body, headers={"Origin": "https://evil.example"})
        assert answer.status_code == 403
        # What a form of another site can send without the browser's asking first.
        plain = client.post(f"/feedback/{path}", content=json.dumps(body), headers={"Content-Type": "text/plain"})
        assert plain.status_code == 415
    assert client.get("/feedback/rank").json()["progress"]["prompts"] == 0


def test_key_protects_the_rooms(tmp_path: Path, models: list[FakeModel]) -> None:
    router = feedback_router(tmp_path / "feedback.sqlite", RULES)
    app = create_app(models, routers=[router], api_key="secret")  # type: ignore[arg-type]
    with TestClient(app, base_url="http://localhost") as client:
        assert client.get("/feedback/rank").status_code == 401
        assert client.post("/feedback/rank/prompts", json={"prompts": ["a?"]}).status_code == 401
        assert client.get("/feedback/rank", headers={"Authorization": "Bearer secret"}).status_code == 200


def test_locked_file_does_not_lose_a_request(client: TestClient, tmp_path: Path) -> None:
    """A writer of another process holds the lock for a while: the request waits."""
    with closing(sqlite3.connect(tmp_path / "feedback.sqlite", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        timer = threading.Timer(0.5, lambda: other.execute("COMMIT"))
        timer.start()
        assert post(client, "rank/prompts", prompts=["a?"]) == {"added": 1}
        timer.join()
