"""What `crawl2chat compare` takes: recipes with and without seeds, artifacts, files; anything else is refused in a sentence."""

import json
from pathlib import Path

import pytest

from flows.cli.compare import compare, side
from model.errors import UserError
from tasks.artifacts.manifest import Report
from tasks.artifacts.store import Store
from tests.support.tiny_models import finish
from tests.tasks.evaluate.test_card_page import FULL


@pytest.fixture
def filled(store: Store, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with a run of `lab`, and three runs of `lab` with other seeds, the first of which is that run."""
    monkeypatch.setenv("CRAWL2CHAT_STORE", str(store.root))
    for name in ("evaluate/a", "evaluate/b", "evaluate/c", "evaluate/later"):
        folder = store.folder(name)
        folder.mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(FULL | {"mark": name}))
        finish(store, Report, name)
    inputs = {f"cards.{number}": f"evaluate/{letter}" for number, letter in enumerate("abc")}
    finish(store, Report, "seeds/s", inputs=inputs)
    for name in ("evaluate/a", "seeds/s"):
        store.set_latest("lab", store.open(name, Report).manifest)
    return store


def marks(source: str) -> list[str]:
    return [run["mark"] for run in side(source).runs]


def test_side_of_a_recipe_is_its_seeds_where_its_run_is_one_of_them(filled: Store) -> None:
    seeds = ["evaluate/a", "evaluate/b", "evaluate/c"]
    assert marks("lab") == seeds
    assert marks("seeds/s") == seeds
    assert marks("evaluate/b") == ["evaluate/b"]
    filled.set_latest("lab", filled.open("evaluate/later", Report).manifest)
    assert marks("lab") == ["evaluate/later"]


def test_side_of_a_file_needs_no_store(filled: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = filled.folder("evaluate/c")
    monkeypatch.setenv("CRAWL2CHAT_STORE", "/nowhere")
    assert marks(str(folder)) == ["evaluate/c"]
    assert marks(str(folder / "report.json")) == ["evaluate/c"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1]", "no report card"), ("{", "no JSON"), ("[" * 100_000, "no JSON"), ("\0", "no JSON"), ("{}", "no figures")],
)
def test_file_that_is_no_card_is_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        side(str(path))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("tiny", "left no artifact"),
        ("nosuch", "no recipe"),
        ("evaluate/x", "no report card"),
        ("/etc/passwd", "no report card"),
        ("../../x", "no report card"),
    ],
)
def test_unknown_name_is_refused(filled: Store, source: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        side(source)


def test_compare_prints_and_writes_a_page(filled: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    compare("lab", "evaluate/b", str(tmp_path / "c.html"))
    assert "Verdict" in capsys.readouterr().out
    assert "A is 3 runs, B is 1 run" in (tmp_path / "c.html").read_text()
