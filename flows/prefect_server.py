"""Prefect for a run from the command line: its settings, and a temporary server for as long as the run lasts.

Where PREFECT_API_URL names no server, Prefect would start a temporary one (`SubprocessASGIServer`), but not before the first flow
runs, and only after it has imported the whole server into this process too: 3.4 CPU seconds. This one starts at once, in a separate
process, while the flows are still being imported. It uses of Prefect what `SubprocessASGIServer` uses of it, all private, and
tests/flows/test_prefect_server.py checks that the installed version still has it:

- the application factory `prefect.server.api.server:create_app`, run by uvicorn, here through flows/temporary_server.py;
- the variables of `TEMPORARY`, which turn off the UI and the services that a temporary server does not need.
"""

import atexit
import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from model.errors import UserError
from model.processes import die_with_parent

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

# Far above the seconds that a start takes: a run waits for it also on a machine that is busy with other work.
START_SECONDS, STOP_SECONDS, POLL_SECONDS = 300.0, 5.0, 0.1
QUIET = {  # our own display shows the run
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
    "PREFECT_LOGGING_LOGGERS_UVICORN_LEVEL": "CRITICAL",
}
RETRIES = {
    # Prefect's engine tries a request again after 2, 4, 8 ... s. The default of 5 times is a minute; 8 times is eight and a half.
    "PREFECT_CLIENT_MAX_RETRIES": "8",
    # A server that cannot connect to PostgreSQL answers 500 (Prefect 3.8.8; 503, which is always repeated, is for errors of SQL alone).
    # Without this a database that restarts ends every run that reports to the server at that moment.
    "PREFECT_CLIENT_RETRY_EXTRA_CODES": "500",
}
SETTINGS = QUIET | RETRIES | {"PREFECT_SERVER_ANALYTICS_ENABLED": "false", "DO_NOT_TRACK": "1"}
TEMPORARY = {"PREFECT_UI_ENABLED": "0", "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"}
# Nobody asks a temporary server for block types. To see whether they are registered, Prefect imports every installed collection and
# hashes all classes: 0.7 of the 3.4 CPU seconds of a start, and with a new database 1.5 of 4.3.
WITHOUT_BLOCKS = {
    "PREFECT_SERVER_REGISTER_BLOCKS_ON_START": "false",
    "PREFECT_SERVER_MEMOIZE_BLOCK_AUTO_REGISTRATION": "false",  # else it would be noted as done for later servers
}
UVICORN = [sys.executable, "-m", "uvicorn", "--log-level", "error", "--lifespan", "on"]
# By default uvicorn looks in the working directory first, which may have a folder `flows`, too.
APPLICATION = ["--app-dir", str(Path(__file__).parents[1]), "--factory", "flows.temporary_server:create_app"]
LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")


def prepare_environment() -> None:
    """Set what Prefect reads from the environment when it is imported; a variable that is set already stays as it is.

    Adds this machine to NO_PROXY, so that a proxy for downloads does not catch the calls to our own server. Gives Prefect a
    temporary folder where there is no home to write to, and a user name to libraries that ask for one. Makes SIGINT end the run
    also where a shell started it in the background, which makes a process ignore the signal.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    _bypass_proxy()
    _provide_home()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _bypass_proxy() -> None:
    """Both spellings, since libraries differ in which they prefer."""
    listed = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = [host.strip() for host in listed.split(",") if host.strip()]
    # "*" bypasses the proxy for every host already.
    if "*" not in hosts:
        hosts += [host for host in LOCAL_HOSTS if host not in hosts]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)


def _provide_home() -> None:
    """A temporary home, removed at exit, where the user has none or it cannot be written to: of a container's bare uid, of a build."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.expanduser raises where there is no home
    if not os.access(home, os.W_OK):
        folder = tempfile.mkdtemp(prefix="crawl2chat-home-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        # What Prefect, Matplotlib, Triton and whatever follows XDG would otherwise write into the home.
        for name in ("PREFECT_HOME", "XDG_CACHE_HOME", "MPLCONFIGDIR", "TRITON_CACHE_DIR"):
            os.environ.setdefault(name, f"{folder}/{name.lower()}")
        # "~" stays as it is where neither HOME nor an account names a home.
        if not Path(home).is_absolute():
            os.environ["HOME"] = folder
    try:
        getpass.getuser()
    except (KeyError, OSError):  # torch names its cache by the user
        os.environ["USER"] = f"uid{os.getuid()}"


class Server:
    """The server that PREFECT_API_URL names, or a temporary one, which starts when this is made."""

    def __init__(self) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        # The variable alone, since reading Prefect's profiles means importing it; `used` looks at them when it is
        # imported anyway.
        if not os.environ.get("PREFECT_API_URL"):
            self._start()

    def _start(self) -> None:
        """Clients may connect at once: the socket listens already, and the server answers when it has started."""
        # Port 0: the kernel chooses a free one, and the listening socket is handed over, so no other process can take
        # the port in between. Bound to this machine only, as the temporary server has no password.
        with socket.create_server(("127.0.0.1", 0), backlog=128) as endpoint:
            # Connections inherit it. asyncio sets it for those that it knows to be TCP, and uvicorn takes a socket that is handed over for
            # a Unix one: each answer, written in two parts, would wait 40 ms for the acknowledgement of the first.
            endpoint.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.url = f"http://127.0.0.1:{endpoint.getsockname()[1]}/api"
            self.process = subprocess.Popen(
                [*UVICORN, "--fd", str(endpoint.fileno()), *APPLICATION],
                env=os.environ | TEMPORARY | WITHOUT_BLOCKS,
                stdin=subprocess.DEVNULL,
                pass_fds=[endpoint.fileno()],
                start_new_session=True,  # Ctrl-C is for the run, which still has to report its end to the server
                preexec_fn=die_with_parent,  # noqa: PLW1509 - one system call, no locks are touched
            )
        atexit.register(self.stop)  # before Prefect registers its own, so after it: its last logs need the server

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Run the flows of this block with it. Raises UserError if it does not answer, RuntimeError if the temporary one does not start."""
        from prefect.client.orchestration import get_client
        from prefect.settings import PREFECT_API_URL, temporary_settings

        settings = {}
        if PREFECT_API_URL.value():  # also by a profile or a file of Prefect's, which were not read before
            self.stop()
        else:
            # Nobody looks for dead flows by their heartbeat here, and each flow would wait a second for the last beat at its end.
            # Nor does it ask for tokens against requests of other sites, for which each client would ask it first.
            settings = {"api.url": self.url, "flows.heartbeat_frequency": None, "client.csrf_support_enabled": False}
        # Not by os.environ: Prefect has read its settings at import.
        with temporary_settings(settings):
            with get_client(sync_client=True) as client:
                wait_for_server(client, START_SECONDS if self.process else 0.0, self.process)
            yield

    def stop(self) -> None:
        """End the temporary server, if there is one."""
        if self.process is not None:
            # SIGTERM lets uvicorn end the requests that it is answering.
            self.process.terminate()
            try:
                self.process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            self.process = None


def wait_for_server(
    client: "SyncPrefectClient", wait_seconds: float, process: subprocess.Popen[bytes] | None = None
) -> None:
    """Wait until the server answers. Raises UserError if it does not, RuntimeError if it is our own `process` that does not start."""
    deadline = time.monotonic() + wait_seconds
    while error := client.api_healthcheck():
        if process is not None and (process.poll() is not None or time.monotonic() > deadline):
            status = "gives no answer" if process.returncode is None else f"ended with status {process.returncode}"
            raise RuntimeError(
                f"Prefect's temporary server {status}: run `prefect server start`, and name it with PREFECT_API_URL"
            )
        if process is None and time.monotonic() > deadline:
            raise UserError(
                f"no Prefect server answers at {client.api_url} ({error}): start it with `prefect server start`, or name "
                "another with PREFECT_API_URL"
            )
        time.sleep(POLL_SECONDS)
