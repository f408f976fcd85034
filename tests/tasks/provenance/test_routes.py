"""The route /why-said: as the command explains a reply, for the model that said it, and what to do where there is no index."""

import json
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from model.serve.app import create_app
from tasks.artifacts.manifest import BaseModel
from tasks.artifacts.store import Store
from tasks.provenance import routes
from tasks.provenance.explanation import explain
from tasks.provenance.lineage import Run, find_run, open_training_data
from tasks.provenance.routes import why_said_router
from tasks.provenance.served import Explainer, NoIndexError
from tests.support.tiny_models import finish
from tests.support.training_runs import PAGES, make_run

REPLY = "Ada Brell is the mayor of Orn. Zorbax!"


@pytest.fixture
def run(store: Store) -> Run:
    made = make_run(store, PAGES)
    inputs = {role: made.model.input(role) for role in ("tokenizer", "tokens")}
    finish(store, BaseModel, "pretrain/b", inputs=inputs)
    return made


@pytest.fixture
def client(store: Store, run: Run) -> Iterator[TestClient]:
    lineages = {"policy": run.model.id, "base": "pretrain/b", "bundle": "some-folder"}
    served: list[Any] = [
        SimpleNamespace(id=name, lineage=lineage, close=lambda: None) for name, lineage in lineages.items()
    ]
    router = why_said_router(Explainer(store, "tiny"))
    with TestClient(create_app(served, routers=[router], hosts=None)) as client:
        yield client


def ask(client: TestClient, **fields: Any) -> httpx.Response:
    # Not `json=`, which cannot send a lone surrogate.
    body = json.dumps({"reply": REPLY} | fields)
    return client.post("/why-said", content=body, headers={"content-type": "application/json"})


def test_answer_is_that_of_the_command(client: TestClient, store: Store, run: Run) -> None:
    data = open_training_data(store, run)
    assert ask(client, num=3, num_places=1).json() == {
        "model": run.model.id,
        **explain(REPLY, data, None, 3, 1).as_json(),
    }


def test_base_model_is_explained_by_pages_alone(client: TestClient, store: Store, run: Run) -> None:
    """By the index of the policy, which has more than the base model was trained on."""
    open_training_data(store, run)
    [span, *_] = ask(client, model="policy").json()["spans"]
    assert span["counts"] == {"pretraining": 1, "SFT": 1}
    [span, *_] = ask(client, model="base").json()["spans"]
    assert span["counts"] == {"pretraining": 1}
    assert [place["host"] for place in span["occurrences"]] == ["a.example"]
    assert ask(client, model="base", reply="Say soup").json()["nowhere"][0]["text"] == "Say"


def test_index_that_is_missing_is_named_and_found_when_it_is_there(client: TestClient, store: Store, run: Run) -> None:
    answer = ask(client)
    assert (answer.status_code, answer.json()["error"]["code"]) == (404, "no_index")
    assert "crawl2chat why-said tiny" in answer.json()["error"]["message"]
    open_training_data(store, run)
    assert ask(client).status_code == 200


def test_model_of_an_older_run_has_an_index_made_by_its_name(client: TestClient, store: Store, run: Run) -> None:
    make_run(store, {"a": ["Another page."]}, "other")
    open_training_data(store, find_run(store, "other"))
    recipe, models = Explainer(store, "other"), {"rlhf/tiny": REPLY, "rlhf/other": "Another page."}
    with pytest.raises(NoIndexError, match="why-said rlhf/tiny TEXT"):
        recipe.explain("rlhf/tiny", REPLY, 5, 2)
    open_training_data(store, find_run(store, "rlhf/tiny"))
    assert [recipe.explain(name, text, 5, 2)["spans"][0]["counts"]["pretraining"] for name, text in models.items()] == [
        1,
        1,
    ]


def test_bundle_from_elsewhere_has_no_training_data(client: TestClient) -> None:
    answer = ask(client, model="bundle")
    assert answer.json()["error"]["code"] == "no_index"
    assert "some-folder is no artifact" in answer.json()["error"]["message"]


def test_wrong_fields_are_refused(client: TestClient) -> None:
    for fields in (
        {"reply": ""},
        {"reply": "\ud800"},
        {"reply": 3},
        {"num": 0},
        {"num": 101},
        {"num_places": 41},
        {"places": 1},
    ):
        assert ask(client, **fields).status_code == 400, fields


def test_hostile_reply_gets_a_bounded_answer(client: TestClient, store: Store, run: Run) -> None:
    open_training_data(store, run)
    for reply in ("\x00\u202e" * 9, "a" * 100_000, "Ada " * 20_000, "猫" * 30_000, " "):
        answer = ask(client, reply=reply)
        assert answer.status_code == 200, reply[:9]
        assert len(answer.content) < 100_000


def test_requests_beyond_those_that_may_wait_are_refused(
    client: TestClient, store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "MAX_WAITING", 0)
    assert ask(client).status_code == 429
