"""`crawl2chat serve`: the models of a recipe, and the vocabularies that it offers for comparison."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from flows.cli import serve
from flows.cli.serve import _vocabularies
from model.errors import UserError
from tasks.artifacts.store import Store
from tests.support.tiny_models import write_tokenizer


def test_vocabularies_of_two_folders_have_two_names(tmp_path: Path) -> None:
    for name in ("first", "second", "other/first"):
        (tmp_path / name).mkdir(parents=True)
        write_tokenizer(tmp_path / name)
    paths = [str(tmp_path / name / "tokenizer.json") for name in ("first", "second")]
    assert list(_vocabularies(paths)) == ["first", "second"]
    assert list(_vocabularies([str(tmp_path / "second")])) == ["second"]
    with pytest.raises(UserError, match="two vocabularies are called 'first'"):
        _vocabularies([paths[0], str(tmp_path / "other" / "first")])


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
