"""Prefect for a run from the command line: proxies, homes, signals, and what is used of Prefect that is private."""

import inspect
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import httpx
import pytest

from flows import prefect_server
from flows.prefect_server import TEMPORARY, Server, prepare_environment
from tests.support.prefect_home import DATABASE, provide_database
from tests.support.prefect_servers import ROOT, free_port
from tests.support.small_run import PROXIES

SMALL = ["--set", "ingest.sample.num_articles=20", "--set", "ingest.sample.num_files=1", "--until", "ingest"]
UNKNOWN_USER = 54321


def command(environment: dict[str, str], *arguments: str, prefix: Sequence[str] = ()) -> str:
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "flows.cli.main", *arguments],
        env=environment | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def plain_environment(folder: Path) -> dict[str, str]:
    left_out = (*PROXIES, "NO_PROXY", "no_proxy", "PREFECT_API_URL")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return kept | {"PREFECT_HOME": str(folder / "prefect"), "CRAWL2CHAT_STORE": str(folder / "store")}


def test_temporary_server_uses_what_prefect_uses_itself() -> None:
    from prefect.server.api.server import SubprocessASGIServer, create_app

    theirs = inspect.getsource(SubprocessASGIServer._run_uvicorn_command)
    assert '"prefect.server.api.server:create_app"' in theirs
    for name, value in TEMPORARY.items():
        assert f'"{name}": "{value}"' in theirs
    assert callable(create_app)


@pytest.mark.slow
def test_temporary_server_starts_in_a_folder_with_other_flows_and_registers_no_block_types(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is it noted that they are registered: a server that needs them and finds this home will do it."""
    (tmp_path / "flows").mkdir()
    (tmp_path / "flows/__init__.py").write_text("raise SystemExit('not these')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PREFECT_HOME", str(provide_database(tmp_path / "prefect")))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    server = Server()
    try:
        found = httpx.post(f"{server.url}/block_types/filter", json={}, timeout=300, trust_env=False)
        assert found.json() == []
        assert not (tmp_path / "prefect/memo_store.toml").exists()
    finally:
        server.stop()


def test_connections_to_the_temporary_server_wait_for_no_acknowledgement(monkeypatch: pytest.MonkeyPatch) -> None:
    handed_over: list[socket.socket] = []

    def start(command: Sequence[str], *, pass_fds: Sequence[int], **_: object) -> None:
        handed_over.append(socket.fromfd(pass_fds[0], socket.AF_INET, socket.SOCK_STREAM))

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(subprocess, "Popen", start)
    server = prefect_server.Server()
    [endpoint] = handed_over
    with endpoint, socket.create_connection(endpoint.getsockname()), endpoint.accept()[0] as connection:
        assert f":{endpoint.getsockname()[1]}/" in server.url
        assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, "127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "intra.net"}, "intra.net,127.0.0.1,localhost,::1"),
        ({"no_proxy": "intra.net, localhost"}, "intra.net,localhost,127.0.0.1,::1"),
        ({"NO_PROXY": "upper", "no_proxy": "lower"}, "lower,127.0.0.1,localhost,::1"),
        ({"NO_PROXY": "*"}, "*"),
        ({"NO_PROXY": "", "no_proxy": ""}, "127.0.0.1,localhost,::1"),
    ],
)
def test_prepare_environment_bypasses_proxies_for_this_machine_alone(
    before: dict[str, str], after: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": "/tmp", "USER": "someone", "HTTP_PROXY": "http://proxy:3128", **before})
    prepare_environment()
    assert os.environ["NO_PROXY"] == os.environ["no_proxy"] == after
    assert os.environ["HTTP_PROXY"] == "http://proxy:3128"


def test_prepare_environment_keeps_what_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", {"HOME": "/tmp", "USER": "someone", "PREFECT_CLIENT_MAX_RETRIES": "2"})
    prepare_environment()
    assert os.environ["PREFECT_CLIENT_MAX_RETRIES"] == "2"
    assert os.environ["DO_NOT_TRACK"] == "1"
    assert "PREFECT_HOME" not in os.environ


def test_prepare_environment_handles_sigint_that_the_shell_ignores() -> None:
    """A shell without job control starts what ends with `&` with SIGINT ignored, and Python then leaves it so."""
    script = "import signal; from flows.prefect_server import prepare_environment as p; p(); print(signal.getsignal(2).__name__)"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert done.stdout.strip() == "default_int_handler"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_run_and_reading_commands_work_with_socks_proxies_that_are_dead(tmp_path: Path) -> None:
    """With dead HTTP proxies run all commands of tests/end_to_end/test_pipeline.py."""
    environment = plain_environment(tmp_path) | dict.fromkeys(PROXIES, f"socks5://127.0.0.1:{free_port()}")
    provide_database(tmp_path / "prefect")
    assert "✓ ingest" in command(environment, "run", "tiny", *SMALL)
    assert "documents" in command(environment, "show", "ingest")


# Another user, who may read everything (Python may lie in root's home) but write to nothing that is not their own.
OTHER_USER = [
    "setpriv",
    "--reuid",
    "54321",
    "--regid",
    "54321",
    "--clear-groups",
    "--inh-caps=+dac_read_search",
    "--ambient-caps=+dac_read_search",
]
CAN_CHANGE_USER = (
    os.getuid() == 0 and subprocess.run([*OTHER_USER, "true"], check=False, capture_output=True).returncode == 0
)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not CAN_CHANGE_USER, reason="only root can run a process as another user")
@pytest.mark.parametrize("home", [None, "not-there", "read-only"])
def test_run_and_reading_commands_work_without_a_home_to_write_to(home: str | None) -> None:
    """A user that no account file lists, as containers have them; a home that is not there, or cannot be written to.

    Without a home the server makes its database, as it does for a user; elsewhere it finds one.
    """
    with tempfile.TemporaryDirectory() as name:  # pytest's own folders are closed to others
        folder = Path(name)
        (folder / "read-only").mkdir(mode=0o555)
        os.chown(folder, UNKNOWN_USER, UNKNOWN_USER)
        environment = plain_environment(folder)
        for variable in ("HOME", "USER", "LOGNAME", "PREFECT_HOME", "XDG_CACHE_HOME"):
            environment.pop(variable, None)
        if home is not None:
            environment["HOME"] = str(folder / home)
            database = provide_database(folder / "made") / DATABASE
            for path in (database, database.parent):  # SQLite writes its journal next to it
                os.chown(path, UNKNOWN_USER, UNKNOWN_USER)
            environment["PREFECT_SERVER_DATABASE_CONNECTION_URL"] = f"sqlite+aiosqlite:///{database}"
        assert "✓ ingest" in command(environment, "run", "tiny", *SMALL, prefix=OTHER_USER)
        assert "documents" in command(environment, "show", "ingest", prefix=OTHER_USER)


def test_wait_for_server_names_the_address_that_does_not_answer() -> None:
    from prefect.client.orchestration import SyncPrefectClient

    from model.errors import UserError

    with (
        SyncPrefectClient(f"http://127.0.0.1:{free_port()}/api") as client,
        pytest.raises(UserError, match="PREFECT_API_URL"),
    ):
        prefect_server.wait_for_server(client, 0.0)


def test_wait_for_server_reports_a_temporary_server_that_ended() -> None:
    from prefect.client.orchestration import SyncPrefectClient

    ended = subprocess.Popen([sys.executable, "-c", "raise SystemExit(5)"])
    ended.wait()
    with (
        SyncPrefectClient(f"http://127.0.0.1:{free_port()}/api") as client,
        pytest.raises(RuntimeError, match="status 5"),
    ):
        prefect_server.wait_for_server(client, 0.0, ended)
