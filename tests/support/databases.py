"""PostgreSQL and Redis of a test's own on loopback, as Debian's packages `postgresql` and `redis-server` install them.

Each is a private process with its data in a temporary folder, on a free port, and can be killed and started again on the same data. The
system's instances are not touched. PostgreSQL refuses to run as root, so there it runs as the user `postgres` of its package.
"""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Self

import psutil

from tests.support.prefect_servers import free_port, wait_for

DEBIAN = Path("/usr/lib/postgresql")
START_SECONDS = 120.0  # a bound on hangs
ROLE = "postgres"


def missing_databases() -> str:
    """Why no server of several processes can be started here; empty where it can."""
    if find_postgres() is None:
        return "no PostgreSQL: apt-get install postgresql"
    if shutil.which("redis-server") is None:
        return "no Redis: apt-get install redis-server"
    return "" if find_spec("prefect_redis") else "no prefect-redis: pip install prefect-redis"


def find_postgres() -> Path | None:
    """The folder of PostgreSQL's programs: of Debian's newest version, else of PATH."""
    versions = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    found = str(versions[-1]) if versions else shutil.which("initdb")
    return Path(found).parent if found else None


class _Service:
    """A process in the foreground. `account`: the user that it runs as, and that owns its data; None: this one."""

    def __init__(self, account: str | None, port: int = 0) -> None:
        self.account, self.port = account, port or free_port()
        # Not in the folder of a test, whose parents only this user may enter.
        self.folder = Path(tempfile.mkdtemp(prefix="crawl2chat-test-"))
        if account:
            shutil.chown(self.folder, account)
        self.process: subprocess.Popen[bytes] | None = None

    def command(self) -> Sequence[str | Path]:
        raise NotImplementedError

    def start(self) -> None:
        """Start it, also again on the same data and port."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder, user=self.account, start_new_session=True,
            )  # fmt: skip
        wait_for(self._answers, f"{self.command()[0]} answers", START_SECONDS)

    def _answers(self) -> bool:
        raise NotImplementedError

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def kill(self) -> None:
        """End it as a power cut does, with the processes that it has started."""
        assert self.process is not None
        if self.process.poll() is None:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self.process.kill()
            for child in children:
                with contextlib.suppress(psutil.NoSuchProcess):
                    child.kill()
            psutil.wait_procs(children)
        self.process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """End it, and delete its data."""
        if self.process is not None:
            self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)


class PostgreSQL(_Service):
    """A database server with one empty database. `port`: 0 takes a free one."""

    def __init__(self, port: int = 0) -> None:
        programs = find_postgres()
        assert programs is not None
        super().__init__(ROLE if os.getuid() == 0 else None, port)
        self.programs, self.data = programs, self.folder / "data"
        initdb = [programs / "initdb", "--pgdata", self.data, "--username", ROLE, "--auth", "trust", "--no-sync"]
        subprocess.run(initdb, check=True, stdout=subprocess.DEVNULL, user=self.account, cwd=self.folder)
        self.url = f"postgresql+asyncpg://{ROLE}@127.0.0.1:{self.port}/postgres"
        self.start()

    def command(self) -> Sequence[str | Path]:
        """On loopback alone, without a socket in a folder that others use."""
        settings = ["listen_addresses=127.0.0.1", f"port={self.port}", "unix_socket_directories="]
        return [self.programs / "postgres", "-D", self.data, *(word for one in settings for word in ("-c", one))]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        ask = [self.programs / "pg_isready", "--host", "127.0.0.1", "--port", str(self.port)]
        return subprocess.run(ask, stdout=subprocess.DEVNULL, check=False).returncode == 0


class Redis(_Service):
    """A server of messages, which keeps nothing on disk: a kill loses what it holds."""

    def __init__(self) -> None:
        super().__init__(None)
        self.start()

    def command(self) -> Sequence[str | Path]:
        """As docker/compose.yaml starts it."""
        return ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--appendonly", "no"]

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                connection.sendall(b"PING\r\n")
                return connection.recv(16).startswith(b"+PONG")
        except OSError:
            return False


def server_settings(database: PostgreSQL, redis: Redis) -> dict[str, str]:
    """What makes Prefect's server use both, as docker/compose.yaml has it."""
    return {
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": database.url,
        "PREFECT_SERVER_EVENTS_MESSAGING_BROKER": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_MESSAGING_CACHE": "prefect_redis.messaging",
        "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
        "PREFECT_SERVER_DOCKET_URL": f"redis://127.0.0.1:{redis.port}/1",
        "PREFECT_REDIS_MESSAGING_HOST": "127.0.0.1",
        "PREFECT_REDIS_MESSAGING_PORT": str(redis.port),
        "PREFECT_REDIS_MESSAGING_DB": "0",
    }
