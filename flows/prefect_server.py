"""Prefect for a run from the command line: its server, for as long as the run lasts.

Where no PREFECT_API_URL is set, Prefect starts a temporary server of itself, but not before the first flow, and imports it here as
well. This one starts at once, in a process of its own, while the flows are still being imported: a third of the time.
"""

import atexit
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from tasks.execution.launcher import die_with_parent

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

START_SECONDS, STOP_SECONDS, POLL_SECONDS = 120.0, 5.0, 0.05
QUIET = {  # what is done from the command line is told by our own display, and phones nobody
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LOGGERS_UVICORN_LEVEL": "CRITICAL",
}
TEMPORARY = {
    "PREFECT_UI_ENABLED": "0",
    "PREFECT__SERVER_EPHEMERAL": "1",
    "PREFECT__SERVER_FINAL": "1",
}  # as Prefect's own
UVICORN = [sys.executable, "-m", "uvicorn", "--log-level", "error", "--lifespan", "on", "--host", "127.0.0.1"]


def quieten() -> None:
    """Before Prefect is imported, which reads these settings, and where nothing is set tells and sends what is used."""
    os.environ.update({name: os.environ.get(name, value) for name, value in QUIET.items()})


class Server:
    """The server that PREFECT_API_URL names, or a temporary one, which starts when this is made."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        if not os.environ.get("PREFECT_API_URL"):
            self.port = _free_port()
            self.process = subprocess.Popen(
                [*UVICORN, "--port", str(self.port), "--factory", "prefect.server.api.server:create_app"],
                env=os.environ | TEMPORARY,
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for the run, which still has to tell the server of it
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no locks are touched
            )
            atexit.register(self.stop)  # before Prefect registers its own, so after it: its last logs need the server

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Run the flows of this block with it. Raises ValueError where it does not answer, RuntimeError where it does not start."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        if PREFECT_API_URL.value():  # also by a profile or a file of Prefect's, which were not read before
            self.stop()
            with get_client(sync_client=True) as client:
                await_answer(client, 0.0)
            yield
            return
        assert self.process is not None
        _await(self.process, self.port)
        # Nobody looks for dead flows by their heartbeat here, and each flow would wait a second for the last beat at its end.
        with temporary_settings({"api.url": f"http://127.0.0.1:{self.port}/api", "flows.heartbeat_frequency": None}):
            yield

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def await_answer(client: "SyncPrefectClient", wait_seconds: float) -> None:
    """Until the server that PREFECT_API_URL names answers. Raises ValueError where it does not."""
    deadline = time.monotonic() + wait_seconds
    while error := client.api_healthcheck():
        if time.monotonic() > deadline:
            raise ValueError(
                f"no Prefect server answers at {client.api_url} ({error}): start it with `prefect server start`, or name "
                "another with PREFECT_API_URL"
            )
        time.sleep(1.0)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    """Until it takes connections, which uvicorn does when the application has started."""
    started = time.monotonic()
    while process.poll() is None and time.monotonic() - started < START_SECONDS:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(POLL_SECONDS)
        else:
            return
    how = (
        f"gave no answer in {START_SECONDS:.0f} s"
        if process.poll() is None
        else f"ended with status {process.returncode}"
    )
    raise RuntimeError(
        f"Prefect's temporary server {how}: run `prefect server start`, and name it with PREFECT_API_URL"
    )
