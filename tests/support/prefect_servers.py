"""A Prefect server, worker and deployments of a test's own: a folder, a port, real processes, and waits without a fixed time.

Nothing here sleeps for an effect: a test waits for a condition, for as long as `PATIENCE_SECONDS`, which only a hang reaches, also
with other busy processes on the machine.
"""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.prefect_server import SETTINGS, WITHOUT_BLOCKS, Server
from tests.support.commands import crawl2chat_here
from tests.support.prefect_home import provide_database

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 600.0
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
ERROR = re.compile(r"\| (?:ERROR|CRITICAL) +\||^Traceback|database is locked|Exception in ASGI", re.MULTILINE)
T = TypeVar("T")
COMMAND = ("prefect", "server", "start")
# The same application with the same services, by uvicorn as the command starts it. It starts in less CPU time: with neither the UI
# nor block types, for which Prefect imports each installed collection.
BARE = ("uvicorn", "--factory", "flows.temporary_server:create_app")
BARE_SETTINGS = WITHOUT_BLOCKS | {"PREFECT_UI_ENABLED": "0"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], T | bool | None], what: str, seconds: float = PATIENCE_SECONDS) -> T:
    """Ask until `condition` is true, and return what it was. Fails after `seconds`."""
    deadline, pause = time.monotonic() + seconds, 0.1
    while not (value := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        # What takes long is asked seldom: each question costs the server, which others are waiting for.
        time.sleep(pause)
        pause = min(1.3 * pause, 1.0)
    return value  # type: ignore[return-value]


class LocalPrefect:
    """A server that is started, killed and started again at the same address; a worker; what both logged."""

    def __init__(self, folder: Path, command: Sequence[str] = COMMAND, **settings: str) -> None:
        self.folder, self.command, self.port = folder, command, free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PREFECT_HOME": str(provide_database(folder / "prefect")),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",
            "DO_NOT_TRACK": "1",
            "CRAWL2CHAT_STORE": str(folder / "store"),
            **settings,
        }
        # One client, since each loads certificates; no connection is kept, since servers are killed here.
        self.client = httpx.Client(timeout=60, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
        self.busy = {httpx.codes.SERVICE_UNAVAILABLE}  # status codes after which `call` asks again
        self.processes: list[subprocess.Popen[bytes]] = []
        self.server: subprocess.Popen[bytes] | None = None

    def start(self, log: str, *command: str) -> subprocess.Popen[bytes]:
        """Run `python -m command`, its output appended to a file of the folder."""
        with (self.folder / log).open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", *command],
                env=self.environment,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def start_server(self) -> None:
        self.server = self.start("server.log", *self.command, "--port", str(self.port))
        wait_for(self.answers, "the server answers")

    def start_worker(self) -> subprocess.Popen[bytes]:
        return self.start("worker.log", "prefect", "worker", "start", "--pool", "crawl2chat")

    def answers(self) -> bool:
        try:
            return self.client.get(f"{self.api}/health").is_success
        except httpx.HTTPError:
            return False

    def kill_server(self) -> None:
        assert self.server is not None
        kill(self.server)

    def deploy(self, *options: str) -> None:
        command = [sys.executable, "-m", "flows.cli.main", "deploy", *options]
        subprocess.run(command, env=self.environment, check=True, cwd=self.folder)

    def deploy_here(self, *options: str, status: int = 0) -> str:
        """The same command in this process, which has imported Prefect and the flows already. Returns what it prints."""
        with temporary_settings({PREFECT_API_URL: self.api}), contextlib.chdir(self.folder):
            return crawl2chat_here(self.environment | {"COLUMNS": "160"}, "deploy", *options, status=status)

    def stop(self) -> None:
        for process in reversed(self.processes):
            kill(process)

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        """Ask the server, again while it is busy, as Prefect's own client does."""

        def ask() -> httpx.Response | None:
            try:
                response = self.client.request(method, self.api + path, json=body)
            except httpx.HTTPError:
                return None
            return None if response.status_code in self.busy else response

        response = wait_for(ask, f"{method} {path} is answered")
        response.raise_for_status()
        return response.json() if response.content else None

    def create_run(
        self, stage: str, parameters: dict[str, Any], name: str | None = None, deployment: str = ""
    ) -> dict[str, Any]:
        """Create a run of a stage's deployment, by default the one of its name, as the UI's Run button does."""
        found = self.call("GET", f"/deployments/name/{stage}/{deployment or stage}")
        body = {"parameters": parameters, **({"name": name} if name else {})}
        return self.call("POST", f"/deployments/{found['id']}/create_flow_run", body)  # type: ignore[no-any-return]

    def run(self, run_id: str) -> dict[str, Any]:
        return self.call("GET", f"/flow_runs/{run_id}")  # type: ignore[no-any-return]

    def wait_for_state(self, run_id: str, *types: str) -> dict[str, Any]:
        """The run, when it is in one of the states, or in a final one."""

        def reached() -> dict[str, Any] | None:
            run = self.run(run_id)
            return run if run["state"]["type"] in (*types, *FINAL) else None

        return wait_for(reached, f"run {run_id} is {types or FINAL}")

    def trigger(self, stage: str, parameters: dict[str, Any], name: str | None = None) -> dict[str, Any]:
        """Run a stage's deployment to its end. Returns the flow run."""
        return self.wait_for_state(self.create_run(stage, parameters, name)["id"])

    def artifacts(self, run_id: str | None = None) -> dict[str, Any]:
        """The newest artifact of each key, of one run or of all."""
        wanted = {"artifacts": {"flow_run_id": {"any_": [run_id]}}} if run_id else {}
        found = self.call("POST", "/artifacts/filter", wanted)
        return {artifact["key"]: artifact for artifact in sorted(found, key=lambda it: it["created"])}

    def logs(self, run_id: str) -> list[str]:
        """Every log line of a run; the server gives at most 200 a request."""
        wanted = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC"}
        lines: list[str] = []
        while page := self.call("POST", "/logs/filter", {**wanted, "offset": len(lines)}):
            lines += [line["message"] for line in page]
        return lines

    def errors(self, log: str = "server.log") -> list[str]:
        """The lines of a log that report an error, each with what follows it."""
        text = (self.folder / log).read_text(errors="replace")
        return [text[found.start() : found.start() + 500] for found in ERROR.finditer(text)]


def kill(process: subprocess.Popen[bytes]) -> None:
    """End a process and its group at once."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def server_for_commands(folder: Path) -> Iterator[str]:
    """The address of a server as `crawl2chat run` starts one for itself, which takes ten CPU seconds: here for several runs."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.setenv("PREFECT_HOME", str(provide_database(folder / "server")))
        server = Server()
    try:
        yield server.url
    finally:
        server.stop()


@contextlib.contextmanager
def running_server(folder: Path, command: Sequence[str] = COMMAND, **settings: str) -> Iterator[LocalPrefect]:
    """A server in a folder, which ends with the block, with all that was started with it."""
    local = LocalPrefect(folder, command, **settings)
    try:
        local.start_server()
        yield local
    finally:
        local.stop()


def bare_server(folder: Path, **settings: str) -> contextlib.AbstractContextManager[LocalPrefect]:
    """The same for tests that use neither the UI nor blocks."""
    return running_server(folder, BARE, **BARE_SETTINGS, **settings)
