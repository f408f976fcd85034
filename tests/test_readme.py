"""Every README states only what is true: its commands parse, its links lead somewhere, its DAG is the DAG, its numbers are in a table."""

import importlib.util
import inspect
import re
import shlex
from pathlib import Path

import pytest
import typer

from flows import picture
from flows.cli.main import app
from flows.pipeline import dag
from flows.resources import POOL_NAMES
from tests.benchmarks.cluster_readme import BY_HAND, COMMAND, PROCESSES, RAY, blocks
from tests.benchmarks.summary import anchor_of, summary_rows

ROOT = Path(__file__).parents[1]
READMES = [
    path
    for path in sorted(ROOT.rglob("*.md"))
    if not {".venv", ".git", "artifacts", "node_modules"} & set(path.relative_to(ROOT).parts)
]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# These set up a machine: nothing to parse.
ENVIRONMENT_ONLY = {"source", "export", "git", "hf", "cd", "pip", "printf", "sudo"}


def commands_of(path: Path) -> list[str]:
    """The lines that begin with $, without their comment; `a; b` and `a | b` are two commands."""
    lines = COMMAND.findall(path.read_text(encoding="utf-8"))
    return [part.strip(" &") for line in lines for part in re.split(r"\s*(?:;|\|\||&&|\|)\s+", line)]


COMMANDS = [(path.relative_to(ROOT), command) for path in READMES for command in commands_of(path)]


def names_rendered(template: str) -> list[str]:
    """The files that a template of infra/ makes."""
    return [template.replace("POOL", pool) for pool in POOL_NAMES]


def parse(command: str) -> None:
    """Raises where a command, an option or a file of it does not exist."""
    words = shlex.split(command.partition(" > ")[0])
    while words and "=" in words[0]:  # VARIABLE=value before the command
        words.pop(0)
    program, *arguments = words
    match program:
        case "crawl2chat":
            commands = typer.main.get_command(app).commands
            commands[arguments[0]].make_context(arguments[0], arguments[1:])
        case "make":
            targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
            assert {word for word in arguments if "=" not in word} <= targets
        case "python" | "python3":
            assert arguments[0] == "-m"
            assert importlib.util.find_spec(arguments[1])
        case "prefect":
            from prefect.cli import _app

            _app._app.parse_args(arguments, exit_on_error=False, print_error=False)
        case "docker":
            assert arguments[0] in ("compose", "build", "buildx")
            files = [word for word in arguments if word.startswith("docker/")]
            assert all((ROOT / file).exists() for file in files)
        case "kubectl" | "helm":  # the files are written by `crawl2chat infra render --output cluster`
            templates = {name for file in (ROOT / "infra").glob("*/*.j2") for name in names_rendered(file.stem)}
            assert {word.removeprefix("cluster/") for word in arguments if word.startswith("cluster/")} <= templates
        case "ray":  # of the extra `cluster`, not of the tests' environment
            assert arguments[0] in ("start", "status", "stop", "get-auth-token")
        case _:
            assert program in ENVIRONMENT_ONLY, f"no rule to check the command {program!r}"


@pytest.mark.parametrize(("path", "command"), COMMANDS, ids=str)
def test_readme_command_parses(path: Path, command: str) -> None:
    parse(command)


@pytest.mark.parametrize(
    "command", ["crawl2chat run --no-such-option", "make nosuch", "python -m tests.nosuch", "wget x"]
)
def test_parse_refuses_commands_that_do_not_exist(command: str) -> None:
    with pytest.raises((AssertionError, typer.Exit, SystemExit, Exception)):
        parse(command)


def test_root_readme_has_commands_and_at_most_180_lines() -> None:
    assert len(commands_of(ROOT / "README.md")) >= 8
    assert len(README.splitlines()) <= 180


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_readme_links_lead_to_files_and_headings(path: Path) -> None:
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in link or link.startswith("data:"):
            continue
        file, _, anchor = link.partition("#")
        target = (path.parent / file).resolve() if file else path
        if not target.exists() or (anchor and anchor not in anchors_of(target)):
            broken.append(link)
    assert broken == []


def anchors_of(path: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a Markdown file."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return set(map(anchor_of, headings))


def test_root_readme_shows_the_dag_function_in_full() -> None:
    shown = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    assert shown[1].strip() == inspect.getsource(dag).strip()


def test_root_readme_shows_the_generated_picture() -> None:
    assert picture.mermaid() in README


def test_summary_rows_are_figures_of_the_benchmark_tables() -> None:
    rows = summary_rows((ROOT / "tests/benchmarks/README.md").read_text(encoding="utf-8"))
    assert len(rows) == 8
    assert all(row in README for row in rows)


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert set(re.findall(r"^([a-z]+):.*  ## ", makefile, re.MULTILINE)) == set(phony[1].split())


def test_cluster_sections_have_the_blocks_that_the_benchmark_runs() -> None:
    found = {section: blocks(section) for section in (PROCESSES, RAY, BY_HAND)}
    assert {section: len(commands) for section, commands in found.items()} == {PROCESSES: 6, RAY: 4, BY_HAND: 1}
    assert [commands[0].split()[0] for commands in found[PROCESSES]] == [
        "git",
        "sudo",
        "export",
        "prefect",
        "crawl2chat",
        "prefect",
    ]
    assert [command.split()[0] for command in found[BY_HAND][0][-5:]] == [
        "export",
        "ray",
        "ray",
        "ray",
        "CRAWL2CHAT_EXECUTOR=ray:auto",
    ]
