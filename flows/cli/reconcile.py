"""`crawl2chat reconcile` and `crawl2chat worker`: let the Prefect server's records and what runs on this machine agree."""

import os
import sys
from typing import Annotated

import typer

from flows.cli.console import say
from flows.prefect_server import QUIET


def reconcile(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what does not fit.")] = False,
) -> None:
    """End runs of this machine that have no process, and processes and cluster jobs whose run has ended."""
    from flows.reconcile import reconcile as reconcile_runs
    from tasks.artifacts.store import Store

    findings = reconcile_runs(Store.default(), dry_run=dry_run)
    for finding in findings:
        say(f"{finding} (dry run)" if dry_run else str(finding))
    if not findings:
        say("The server's runs and this machine's processes agree.")


def worker(
    pool: Annotated[str, typer.Option(help="The work pool.")] = "crawl2chat",
    limit: Annotated[int, typer.Option(min=0, help="Runs at once; 0 sets no limit.")] = 0,
    name: Annotated[str, typer.Option(help="The worker's name in the UI; without it Prefect makes one up.")] = "",
) -> None:
    """Reconcile, then become a worker of the Prefect server that PREFECT_API_URL names."""
    reconcile()
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool]
    command += ["--limit", str(limit)] if limit else []
    command += ["--name", name] if name else []
    # The other commands have their own display. A worker has none: its log, and that of its runs, is what an operator reads.
    environment = {key: value for key, value in os.environ.items() if (key, value) not in QUIET.items()}
    # The same process, so that signals of whoever supervises it reach the worker.
    os.execve(command[0], command, environment)  # noqa: S606 - there is nothing for a shell to do
