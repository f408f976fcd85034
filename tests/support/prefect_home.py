"""A home of Prefect whose database has all migrations: made once a test session, copied for each server with a new home.

A server that makes its database takes ten CPU seconds more than one that finds it. Writes into the folder that
the environment variable SHARED names, which tests/conftest.py makes for all processes of a session; without it nothing is copied, and
the first server makes the database, as it does for a user. That it can is tested in tests/flows/test_prefect_server.py.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from filelock import FileLock

SHARED = "CRAWL2CHAT_TESTS_SHARED"
DATABASE = "prefect.db"


def provide_database(home: Path) -> Path:
    """Put a database with all migrations into `home`, a folder that need not be there, and return the folder."""
    home.mkdir(parents=True, exist_ok=True)
    shared = os.environ.get(SHARED)
    if shared and not (home / DATABASE).exists():
        made = Path(shared) / "prefect"
        with FileLock(f"{made}.lock"):
            if not made.exists():
                _make(made)
        shutil.copy(made / DATABASE, home)
    return home


def _make(folder: Path) -> None:
    partial = folder.with_name("partial")
    left_out = ("PREFECT_API_URL", "PREFECT_API_DATABASE_CONNECTION_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL")
    environment = {name: value for name, value in os.environ.items() if name not in left_out}
    command = [sys.executable, "-m", "prefect", "server", "database", "upgrade", "--yes"]
    subprocess.run(
        command,
        env=environment | {"PREFECT_HOME": str(partial)},
        check=True,
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert [path.name for path in partial.iterdir() if path.name.startswith(DATABASE)] == [DATABASE]
    partial.rename(folder)
