"""`crawl2chat deploy`: register every stage as a deployment with a Prefect server."""

from typing import Annotated

import typer

from flows.cli.console import say


def deploy(pool: Annotated[str, typer.Option(help="The work pool.")] = "crawl2chat") -> None:
    """Register every stage as a deployment with the Prefect server that PREFECT_API_URL names."""
    from flows import deployments

    deployments.deploy(pool)
    say(f"The deployments are registered. Start a worker with: prefect worker start --pool {pool}")
