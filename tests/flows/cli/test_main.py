"""The command: what it prints on any terminal, and how it ends."""

import errno
import inspect
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.text import Text

from flows.cli import main as cli
from flows.cli.console import SafeConsole, encodable, recipe_name, visible
from flows.cli.run import say_next
from flows.cli.serve import serve
from flows.recipes import RECIPES
from model.errors import UserError
from tasks.artifacts.store import Store


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;owned\x07title", r"\x1b]0;owned\x07title"),
        ("\x9b31m", r"\x9b31m"),
        ("a\rb\x08c\x7f", r"a\rb\x08c\x7f"),
        ("txt\u202egnp.exe", r"txt\u202egnp.exe"),
        ("\ud800", r"\ud800"),
        ("naïve 日本語 ✓\tand\nlines", "naïve 日本語 ✓\tand\nlines"),
    ],
)
def test_visible_escapes_what_steers_a_terminal_and_no_text(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("wrap", [str, Text, Panel, lambda text: Panel(Text(text), title="x")])
def test_console_writes_no_escape_sequence_of_a_page(wrap) -> None:
    console = SafeConsole(file=(output := io.StringIO()), force_terminal=True, color_system=None, width=60)
    console.print(wrap("evil \x1b[2J\x1b]52;c;aGk=\x07 page"))
    assert "\x1b[2J" not in output.getvalue()
    assert r"\x1b[2J" in output.getvalue()


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252"])
def test_console_fits_the_encoding_of_its_output(encoding: str) -> None:
    raw = io.BytesIO()
    console = SafeConsole(file=io.TextIOWrapper(raw, encoding=encoding), width=60)
    console.print("[green]✓[/] done → 日本 naïve")
    console.print(Panel("box"))
    console.file.flush()
    printed = raw.getvalue().decode(encoding)
    assert printed.startswith("+ done > ?? na")
    assert "box" in printed
    assert encodable("✓ é", "utf-8") == "✓ é"


def run_main(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: BaseException
) -> tuple[int, str]:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "errors", SafeConsole(stderr=True))
    with pytest.raises(SystemExit) as end:
        cli.main([])
    return int(end.value.code or 0), capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("no stage [bold]'x'[/]: take one"), "error: no stage [bold]'x'[/]: take one\n"),
        (UserError("two\nlines"), "error: two lines\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), "error: .*Permission denied: '/root/x'\n"),
        (FileNotFoundError(errno.ENOENT, "No such file", "gone"), "error: .*'gone'\n"),
        (
            OSError(errno.ENOSPC, "No space left on device"),
            "error: .*No space left on device in .*: make room, or .*\n",
        ),
    ],
)
def test_mistake_of_a_user_is_one_line_and_status_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception, line: str
) -> None:
    status, printed = run_main(monkeypatch, capsys, error)
    assert status == 2
    assert printed.count("\n") == 1
    assert re.fullmatch(line, printed) or printed == line


@pytest.mark.parametrize(
    "error",
    [
        ValueError("operands could not be broadcast"),
        RuntimeError("rank 1 failed"),
        KeyError("split"),
        OSError(errno.EIO, "I/O error"),
    ],
)
def test_any_other_error_shows_its_traceback_and_where_to_report_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], error: Exception
) -> None:
    status, printed = run_main(monkeypatch, capsys, error)
    assert status == 1
    assert "Traceback (most recent call last)" in printed
    assert "in fail" in printed
    assert printed.splitlines()[-2].startswith("failed:")
    assert "please report it" in printed.splitlines()[-1]


def test_recipe_name_is_that_of_a_recipe_a_file_or_an_earlier_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CRAWL2CHAT_STORE", str(tmp_path / "store"))
    (tmp_path / "mine.yaml").write_text("world_seed: 2\n")
    (tmp_path / "store" / "recipes" / "earlier").mkdir(parents=True)
    assert [recipe_name(name) for name in RECIPES] == list(RECIPES)
    assert recipe_name(str(tmp_path / "mine.yaml")) == "mine"
    assert recipe_name("earlier") == "earlier"
    for wrong in ("huge", "..", "a b"):
        with pytest.raises(
            UserError,
            match=r"there is no recipe '.*': take one of tiny, tools, reasoning, gaming, lab, small, gpt2, study, or a file",
        ):
            recipe_name(wrong)
    assert not Store.default().has_recipe("../store")


@pytest.mark.parametrize("bounds", [[], ["--only", "ingest"]])
def test_node_that_only_runs_ranks_wants_one_training_stage(
    bounds: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    variables = {"NNODES": "2", "NODE_RANK": "1", "NPROC_PER_NODE": "1", "RDZV_ENDPOINT": "127.0.0.1:1"}
    for name, value in variables.items():
        monkeypatch.setenv(f"PET_{name}", value)
    monkeypatch.setenv("CRAWL2CHAT_STORE", str(tmp_path))
    with pytest.raises(SystemExit) as end:
        cli.main(["run", "tiny", *bounds])
    assert end.value.code == 2
    assert "PET_NODE_RANK=1: this node runs ranks alone" in capsys.readouterr().err


def crawl2chat(*arguments: str, **environment: str) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "flows.cli.main", *arguments],
        env={**os.environ, **environment},
        capture_output=True,
        check=False,
        timeout=200,
    )


def test_commands_work_where_the_output_is_ascii(tmp_path: Path) -> None:
    done = crawl2chat("recipe", "small", PYTHONIOENCODING="ascii", CRAWL2CHAT_STORE=str(tmp_path))
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"extends: tiny" in done.stdout
    (tmp_path / "my.yaml").write_bytes(done.stdout)
    listed = crawl2chat("stages", "tiny", LC_ALL="C", PYTHONIOENCODING="ascii", CRAWL2CHAT_STORE=str(tmp_path))
    assert listed.returncode == 0, listed.stderr
    assert b"missing" in listed.stdout


def test_run_ends_with_the_command_and_the_address_of_the_page(capsys: pytest.CaptureFixture[str]) -> None:
    say_next("tiny", "tiny", [], 0, [], "")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "crawl2chat serve" in line]
    assert line.split()[:3] == ["crawl2chat", "serve", "tiny"]
    assert line.endswith(f" http://127.0.0.1:{inspect.signature(serve).parameters['port'].default}")
