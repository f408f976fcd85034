"""Resources: which files of a folder are copied, and what is refused."""

from pathlib import Path

import pytest

from model.errors import UserError
from tasks.artifacts.store import Store
from tasks.execution.runner import execute
from tasks.resources import resource

NAMES = ("domains", "urls")


def test_resource_copies_only_files_of_the_given_names(tmp_path: Path, store: Store) -> None:
    (tmp_path / "lists" / "adult").mkdir(parents=True)
    (tmp_path / "lists" / "adult" / "domains").write_text("bad.com\n")
    (tmp_path / "lists" / "adult" / "README").write_text("no list")
    step = resource("blocklist", str(tmp_path / "lists"), NAMES)
    assert execute(step, store).counts == {"files": 1, "bytes": 8}
    assert (store.folder(step.id) / "files" / "adult" / "domains").read_text() == "bad.com\n"


def test_resource_without_a_file_of_the_given_names_raises_user_error(tmp_path: Path, store: Store) -> None:
    """Not an empty block list, which would block nothing without a word."""
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "blocked.txt").write_text("bad.com\n")
    with pytest.raises(UserError, match=r"none of the 1 files in .* has the name of a blocklist \(domains, urls\)"):
        execute(resource("blocklist", str(tmp_path / "lists"), NAMES), store)
    named = resource("blocklist", str(tmp_path / "lists" / "blocked.txt"), NAMES)
    assert execute(named, store).counts["files"] == 1
