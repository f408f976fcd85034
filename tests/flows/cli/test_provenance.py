"""The commands that explain a reply: what they print can neither steer a terminal nor fill it, and wrong use is one line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from flows.cli.without import Comparison, checked, rule_changes, without
from flows.recipes import make_recipe
from model.errors import UserError
from tasks.artifacts.manifest import Report
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.provenance.explanation import Explanation
from tests.support.commands import crawl2chat_here
from tests.support.tiny_models import finish
from tests.support.training_runs import make_run, pages


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    store = Store(str(tmp_path_factory.mktemp("provenance") / "store"))
    pages = {
        "a": ["Ada Brell is the mayor of Orn. \x1b]0;owned\x07\x1b[2J She \u202elikes [red]soup[/red]."],
        "b": ["The sea is blue."],
    }
    make_run(store, pages)
    return {"CRAWL2CHAT_STORE": store.url, "COLUMNS": "100"}


def test_why_said_shows_the_page_of_a_span(environment: dict[str, str]) -> None:
    printed = crawl2chat_here(environment, "why-said", "tiny", "I say that Ada Brell is the mayor of Orn.")
    assert "https://a.example/a0" in printed
    assert "a.warc.gz at byte 7" in printed
    assert "1 in pretraining, 1 in SFT" in printed


def test_why_said_cannot_be_steered_by_a_page_or_a_reply(environment: dict[str, str]) -> None:
    printed = crawl2chat_here(
        environment, "why-said", "tiny", "\x1b[31mAda Brell is the mayor of Orn. \x07 [bold]x[/bold] \ud800"
    )
    assert not {"\x1b", "\x07", "\u202e", "\ud800"} & set(printed)
    assert "[red]soup[/red]" in printed


def test_why_said_prints_json_for_scripts(environment: dict[str, str]) -> None:
    found = json.loads(crawl2chat_here(environment, "why-said", "tiny", "the mayor of Orn", "--json"))
    assert found["model"] == "rlhf/tiny"
    assert found["spans"][0]["counts"] == {"pretraining": 1, "SFT": 1, "preferences": 1}


@pytest.mark.parametrize("reply", ["a" * 100_000, "the mayor of Orn. " * 6_000, "\x00\x01" * 50_000, "猫" * 100_000])
def test_why_said_prints_little_of_a_long_reply(environment: dict[str, str], reply: str) -> None:
    assert len(crawl2chat_here(environment, "why-said", "tiny", reply)) < 30_000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("why-said", "tiny", " "), "the reply is empty"),
        (("why-said", "small", "x"), "has left no artifact"),
        (("why-said", "rlhf/0123456789abcdef", "x"), "there is no artifact rlhf/0123456789abcdef"),
        (("why-not", "tiny", "", "--answer", "x"), "the question is empty"),
        (("why-not", "tiny", "Who?", "--answer", " "), "the --answer is empty"),
        (("why-not", "tiny", "Who?", "--answer", "?!"), "no letter or digit"),
        (("why-not", "tiny", "a" * 3_000, "--answer", "x"), "at most 2,000"),
        (("why-not", "tiny", "Who is Ada Brell?", "--answer", "Orn"), "no full-text index"),
        (("why-not", "tiny", "Who?", "--answer", "x", "--teach", __file__), "exists already"),
        (("without", "tiny"), "nothing to leave out"),
        (("without", "tiny", "--host", "https://a.example/"), "--host 'https://a.example/' is not one"),
        (("without", "tiny", "--page", "a.example"), "--page 'a.example' is not one"),
        (("without", "tiny", "--reason", "no/such"), "no setting leaves out 'no/such'"),
    ],
)
def test_wrong_use_is_one_line(environment: dict[str, str], arguments: tuple[str, ...], message: str) -> None:
    printed = crawl2chat_here(environment, *arguments, status=2)
    assert message in printed
    assert len(printed.splitlines()) == 1


def test_what_is_left_out_is_a_setting_of_the_recipe() -> None:
    assert checked(["a.example"], ["https://b.example/x"], "") == ["a.example", "https://b.example/x"]
    recipe = make_recipe("tiny")
    assert rule_changes("quality/gopher_words", recipe) == [
        "filter.min_gopher_words=0",
        "filter.max_gopher_words=1000000000",
    ]
    with pytest.raises(UserError):
        rule_changes("", recipe)


@pytest.mark.parametrize(("reason", "num_runs"), [("", 1), ("quality/gopher_words", 2)])
def test_a_rule_is_left_out_also_where_nothing_of_a_host_was_kept(
    store: Store, monkeypatch: pytest.MonkeyPatch, reason: str, num_runs: int
) -> None:
    report = store.open(finish(store, Report, "evaluate/r", inputs={"unique": make_documents(store)}).id, Report)
    recipes = []
    monkeypatch.setattr("flows.cli.without.evaluated", lambda recipe, _: recipes.append(recipe) or report)
    monkeypatch.setattr("flows.cli.without.compared", lambda *_: Comparison("", "", [], [], [], None))
    monkeypatch.setenv("CRAWL2CHAT_STORE", store.url)
    without("tiny", ["none.example"], [], reason, [], 0, [], False)
    assert len(recipes) == num_runs
    assert recipes[-1].filter.min_gopher_words == (0 if reason else recipes[0].filter.min_gopher_words)


def make_documents(store: Store) -> str:
    return execute(pages({"a": ["The sea is blue."]}), store).id


def test_summary_says_what_is_explained() -> None:
    found = Explanation("Ada", False, True, 1, [], [], [])
    assert found.summary() == "The whole reply stands in the training data."
    assert replace(found, is_cut=True).summary() == "The explained part stands in the training data."
    assert replace(found, is_cut=True, is_whole=False).summary().startswith("The explained part stands nowhere in one")


def test_no_file_is_written_by_a_refused_question(environment: dict[str, str], tmp_path: Path) -> None:
    crawl2chat_here(
        environment, "why-not", "tiny", "?", "--answer", "x", "--teach", str(tmp_path / "t.jsonl"), status=2
    )
    assert not list(tmp_path.iterdir())
