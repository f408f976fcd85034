"""`crawl2chat serve`: the models of a recipe, its report card, and the vocabularies that it offers for comparison."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from flows.cli import serve
from flows.cli.serve import _report, _vocabularies
from model.errors import UserError
from tasks.artifacts.manifest import Bundle, Policy, Report
from tasks.artifacts.store import Store
from tests.support.tiny_models import finish, write_tokenizer


def test_vocabularies_of_two_folders_have_two_names(tmp_path: Path) -> None:
    for name in ("first", "second", "other/first"):
        (tmp_path / name).mkdir(parents=True)
        write_tokenizer(tmp_path / name)
    paths = [str(tmp_path / name / "tokenizer.json") for name in ("first", "second")]
    assert list(_vocabularies(paths)) == ["first", "second"]
    assert list(_vocabularies([str(tmp_path / "second")])) == ["second"]
    with pytest.raises(UserError, match="two vocabularies are called 'first'"):
        _vocabularies([paths[0], str(tmp_path / "other" / "first")])


def test_report_card_is_that_of_the_first_model(store: Store) -> None:
    for name in ("old", "new"):
        finish(store, Policy, f"rlhf/{name}")
        finish(store, Report, f"evaluate/{name}", inputs={"policy": f"rlhf/{name}"})
    assert _report(store, "tiny", "rlhf/new") is None  # the recipe has no report yet
    latest = store.find("evaluate/new")
    assert latest
    store.set_latest("tiny", latest)
    finish(store, Bundle, "export/b", inputs={"policy": "rlhf/old", "report": "evaluate/old"})
    found = {name: _report(store, "tiny", name) for name in ("rlhf/new", "rlhf/old", "export/b", "some-folder")}
    assert {name: one and one.manifest.id for name, one in found.items()} == {
        "rlhf/new": "evaluate/new",
        "rlhf/old": None,
        "export/b": "evaluate/old",
        "some-folder": None,
    }


def test_chat_models_reply_as_the_bundle_of_their_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "generation_config.json").write_text('{"other_name_reply": "No idea."}')
    finished = {"pretrain", "sft", "rlhf", "export"}
    store = SimpleNamespace(latest=lambda _, stage: stage, open=lambda *_: SimpleNamespace(folder=tmp_path))
    monkeypatch.setattr(serve, "_has", lambda _, recipe, stage: stage in finished)
    monkeypatch.setattr(serve, "_checkpoint", lambda _, stage, *__: SimpleNamespace(is_chat=stage != "pretrain"))

    def said() -> list[str]:
        return [model.other_name_reply for model in serve._models(cast(Store, store), "tiny", None, {})]

    assert said() == ["No idea.", "No idea.", ""]  # policy, assistant, base
    finished.remove("export")
    assert said() == ["", "", ""]
