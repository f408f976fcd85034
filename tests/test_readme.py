"""The README says what is so: its commands exist, its links lead somewhere, its copy of the DAG is the DAG."""

import inspect
import re
import shlex
from pathlib import Path

import pytest
import typer

from flows.cli.main import app
from flows.pipeline import dag

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"^\$ (crawl2chat .*?)(?: +#.*)?$", README, re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_readme_exists_with_its_options(command: str) -> None:
    _, name, *arguments = shlex.split(command)
    commands = typer.main.get_command(app)
    commands.commands[name].make_context(name, arguments)  # raises where an option does not exist


def test_the_readme_has_commands() -> None:
    assert len(COMMANDS) > 8


def test_every_make_target_of_the_readme_exists() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"(?:`|\$ )make ([a-z]+)", README))
    assert {"demo", "test", "card"} <= targets
    assert all(f"\n{target}:" in makefile for target in targets)


def test_every_link_of_the_readme_leads_to_a_file() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if "://" not in link and not link.startswith("#")]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_the_readmes_dag_is_the_dag() -> None:
    shown = re.search(r"```python\n(.*?)```", README, re.DOTALL)
    assert shown is not None
    body = [line for line in shown[1].splitlines() if line.startswith("    ")]
    assert "\n".join(body) in inspect.getsource(dag)
