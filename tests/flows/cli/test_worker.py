"""`crawl2chat worker`: what becomes of its process."""

import os

import pytest

from flows.cli import reconcile as module
from flows.cli.reconcile import worker
from flows.prefect_server import prepare_environment


def test_worker_reconciles_first_and_then_logs_as_prefects_own_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other commands silence Prefect for their display; a worker's log is all that an operator has."""
    monkeypatch.setattr(os, "environ", {"HOME": "/tmp", "USER": "someone", "PREFECT_API_URL": "http://server/api"})
    done: list[object] = []
    monkeypatch.setattr(module, "reconcile", lambda: done.append("reconciled"))
    monkeypatch.setattr(os, "execve", lambda *arguments: done.append(arguments))
    prepare_environment()  # as the command does
    worker(pool="crawl2chat-process-data", limit=0, name="one-data")
    assert done[0] == "reconciled"
    _, command, environment = done[1]  # type: ignore[misc]
    assert command[1:] == [
        "-m", "prefect", "worker", "start", "--pool", "crawl2chat-process-data", "--name", "one-data"
    ]  # fmt: skip
    assert not [name for name in environment if name.startswith("PREFECT_LOGGING")]
    assert environment["PREFECT_API_URL"] == "http://server/api"
    # Runs of the worker, too, outlast a server that is away, and a database that is away behind it.
    assert environment["PREFECT_CLIENT_MAX_RETRIES"] == "8"
    assert environment["PREFECT_CLIENT_RETRY_EXTRA_CODES"] == "500"
