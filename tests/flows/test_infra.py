"""What infra/ and docker/ promise: commands that exist, a port for this machine alone, versions that are pinned."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
import yaml

from flows.resources import HOME, ImageName, load_resources
from flows.targets import make_target
from tasks.web.http_client import REFUSE_PRIVATE

COMPOSE = yaml.safe_load((HOME / "docker" / "compose.yaml").read_text())
DOCKERFILE = (HOME / "docker" / "Dockerfile").read_text()
README = (HOME / "infra" / "README.md").read_text()


@pytest.mark.parametrize("command", re.findall(r"`prefect ([^`]+)`", README))
def test_prefect_command_in_a_sentence_of_the_readme_parses(command: str) -> None:
    """Those on lines of their own are parsed in tests/test_readme.py."""
    from prefect.cli import _app

    _app._app.parse_args(shlex.split(command), exit_on_error=False, print_error=False)


def test_files_that_the_readme_names_exist() -> None:
    for path in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (HOME / "infra" / path).exists(), path


def test_dockerfile_has_no_finding_of_hadolint() -> None:
    hadolint = shutil.which("hadolint", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if hadolint is None:
        pytest.skip("hadolint is not installed")
    done = subprocess.run([hadolint, HOME / "docker/Dockerfile"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("target", get_args(ImageName))
def test_image_runs_the_workers_command_as_a_numeric_user(target: str) -> None:
    """An entrypoint swallows the command that Prefect's workers pass; Kubernetes cannot check that a user by name is not root."""
    stage = re.search(rf"^FROM \S+ AS {target}\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
    assert stage
    assert re.findall(r"^ENTRYPOINT (.+)$", stage[1], re.MULTILINE) == ['["/usr/bin/tini", "--"]']
    assert re.findall(r"^USER (.+)$", stage[1], re.MULTILINE) == ["1001:1001"]
    assert "CRAWL2CHAT_COMMIT=${COMMIT}" in stage[1]


def test_dependencies_are_installed_before_the_code_is_copied() -> None:
    before, _, after = DOCKERFILE.partition("AS code")
    assert "COPY flows" not in before
    assert "pip install" not in after


def test_compose_binds_every_port_to_this_machine() -> None:
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_compose_builds_what_the_dockerfile_has_and_pins_other_images() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", DOCKERFILE, re.MULTILINE))
    for service in COMPOSE["services"].values():
        if "build" in service:
            assert service["build"]["target"] in targets
            assert service["image"] == f"crawl2chat-{service['build']['target']}:latest"
        else:
            assert re.search(r":\d+\.\d+[\w.-]*$", service["image"]), service["image"]


def test_compose_holds_no_secret_and_waits_for_what_a_service_needs() -> None:
    text = (HOME / "docker/compose.yaml").read_text()
    for secret in ("PREFECT_PASSWORD", "POSTGRES_PASSWORD", "S3_SECRET_KEY"):
        assert set(re.findall(rf"\$\{{?{secret}[^}}]*", text)) == {
            f"${{{secret}:?make docker/.env, see infra/README.md"
        }
        assert secret in README
    assert "docker/.env" in (HOME / ".gitignore").read_text()
    for service in COMPOSE["services"].values():
        for name, needed in service.get("depends_on", {}).items():
            assert name in COMPOSE["services"]
            if needed["condition"] == "service_healthy":
                assert "healthcheck" in COMPOSE["services"][name]


def test_compose_workers_serve_the_pools_that_it_deploys() -> None:
    services = COMPOSE["services"]
    commands = [service["command"] for name, service in services.items() if name.endswith("-worker")]
    assert all(command[:3] == ["crawl2chat", "worker", "--pool"] for command in commands)
    polled = {command[-1] for command in commands}
    target = make_target("process", "crawl2chat", load_resources())
    assert polled == {pool.name for pool in target.pools()}
    assert "crawl2chat deploy --target process" in services["deploy"]["command"][-1]
    for name in ("deploy", "data-worker", "training-worker", "evaluation-worker"):
        assert services[name]["environment"][REFUSE_PRIVATE] == "1"
        assert services[name]["read_only"] is True
    assert "shm_size" in services["training-worker"]


def test_base_image_is_pinned_to_one_release() -> None:
    (base,) = re.findall(r"^ARG BASE_IMAGE=(\S+)$", DOCKERFILE, re.MULTILINE)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-bookworm(@sha256:[0-9a-f]{64})?", base)
    assert base.partition("@")[0] in README
