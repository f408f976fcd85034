"""`crawl2chat serve`: the vocabularies that it offers for comparison."""

from pathlib import Path

import pytest

from flows.cli.serve import _vocabularies
from model.errors import UserError
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
