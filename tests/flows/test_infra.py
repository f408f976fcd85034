"""What infra/ and docker/ promise: commands that exist, a port for this machine alone, versions that are pinned."""

import re
import shlex
import subprocess
import sys

import pytest
import yaml

from flows.resources import HOME
from tasks.web.http_client import REFUSE_PRIVATE

COMPOSE = yaml.safe_load((HOME / "docker" / "compose.yaml").read_text())
DOCKERFILE = (HOME / "docker" / "Dockerfile").read_text()
README = (HOME / "infra" / "README.md").read_text()


def prefect_commands() -> list[list[str]]:
    """The commands of Prefect in the README, without the variables that are set before them."""
    lines = [line.removeprefix("$ ") for line in README.splitlines() if line.startswith("$ ")]
    words = [[word for word in shlex.split(line) if not re.match(r"[A-Z0-9_]+=", word)] for line in lines]
    return [command for command in words if command[0] == "prefect"] + [
        ["prefect", "gcl", "update", "x", "--limit", "2"]
    ]


@pytest.mark.slow
@pytest.mark.parametrize("command", prefect_commands(), ids=" ".join)
def test_prefect_command_of_the_readme_exists_with_its_options(command: list[str]) -> None:
    verbs = [word for word in command[1:] if re.fullmatch(r"[a-z]+", word)]
    while verbs:
        done = subprocess.run(
            [sys.executable, "-m", "prefect", *verbs, "--help"], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            break
        verbs.pop()  # an argument
    assert verbs
    for option in [word for word in command if word.startswith("--")]:
        assert option in done.stdout


def test_files_that_the_readme_names_exist() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (HOME / "infra" / path).exists(), path


def test_compose_binds_every_port_to_this_machine() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_builds_targets_that_the_dockerfile_has() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    built = {service["build"]["target"] for service in COMPOSE["services"].values()}
    assert built <= targets
    assert not [
        service for service in COMPOSE["services"].values() if "build" not in service
    ]  # no image from a registry


def test_base_image_is_pinned_to_one_release() -> None:
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", base)
    assert base.partition("@")[0] in README


def test_compose_refuses_private_addresses() -> None:
    for name in ("deploy", "worker"):
        assert COMPOSE["services"][name]["environment"][REFUSE_PRIVATE] == "1"
