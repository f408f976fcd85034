"""The command `crawl2chat` in this process: what starts no server and no training saves the seconds that a new process takes to import it."""

import io
import os
from collections.abc import Mapping
from contextlib import redirect_stderr, redirect_stdout

import pytest

from flows.cli.console import console
from flows.cli.main import main


def crawl2chat_here(environment: Mapping[str, str], *arguments: str, status: int = 0, encoding: str = "utf-8") -> str:
    """What the command prints in lines of COLUMNS, to a terminal of that encoding. It has to end with `status`."""
    output, before = io.TextIOWrapper(raw := io.BytesIO(), encoding=encoding, write_through=True), dict(os.environ)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(output):
        patch.setattr(console, "_width", width := int(environment["COLUMNS"]))
        assert console.width == width
        os.environ.update(environment)
        try:
            with pytest.raises(SystemExit) as ended:
                main(arguments)
        finally:
            os.environ.clear()
            os.environ.update(before)
    printed = raw.getvalue().decode()
    assert ended.value.code == status, printed
    return printed
