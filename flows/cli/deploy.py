"""`crawl2chat deploy`: register every stage as a deployment with a Prefect server."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from flows.cli.console import console, say

if TYPE_CHECKING:  # imported when it is used: every command imports this module
    from flows.targets import Target


def deploy(
    target: Annotated[
        str,
        typer.Option(
            help="Where runs go: process, docker, kubernetes, or ray (processes whose data stages use a Ray cluster), each with a work "
            "pool for data, training and evaluation. Without it everything is in one pool of processes on one machine."
        ),
    ] = "",
    pool: Annotated[
        str, typer.Option(help="The work pool; of a target, the first part of its pools' names.")
    ] = "crawl2chat",
    resources: Annotated[Path | None, typer.Option(help="A copy of infra/resources.yaml with other values.")] = None,
    executor: Annotated[str, typer.Option(help="A Ray cluster for the shards of data stages: ray://HEAD:10001.")] = "",
    notify: Annotated[str, typer.Option(help="A notification block for failed runs: slack-webhook/team.")] = "",
    filter_after_ingest: Annotated[
        bool, typer.Option("--filter-after-ingest", help="Start filter when a run of ingest has finished.")
    ] = False,
    monthly_crawl: Annotated[
        list[str],
        typer.Option(help="Web archive files to read on the fifth of each month, up to dedup. May be repeated."),
    ] = [],
    dedup_against: Annotated[
        list[str],
        typer.Option(help="Artifact of an earlier dedup, whose documents the monthly crawl drops. May be repeated."),
    ] = [],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only print what would be registered.")] = False,
) -> None:
    """Register every stage as a deployment with the Prefect server that PREFECT_API_URL names."""
    from flows import deployments
    from flows.resources import load_resources
    from flows.targets import TARGET_NAMES, make_target
    from model.errors import UserError

    if target and target not in TARGET_NAMES:
        raise UserError(f"there is no target {target!r}: take one of {', '.join(TARGET_NAMES)}")
    if dedup_against and not monthly_crawl:
        raise UserError("--dedup-against belongs to a schedule: give --monthly-crawl too")
    chosen = make_target(target or None, pool, load_resources(resources), executor)
    wishes = deployments.Wishes(notify, filter_after_ingest, monthly_crawl, dedup_against)
    changes = deployments.deploy(chosen, wishes, dry_run=dry_run)
    changed = [change for change in changes if change.is_new or change.fields]
    if dry_run:
        console.print(_table(chosen))
    for change in changes if dry_run else changed:
        say(str(change))
    if dry_run:
        return
    say(f"The deployments are registered: {len(changed)} of {len(changes)} objects changed. Start a worker with:")
    # A worker of containers finds no processes of runs on its machine: Prefect's own command is all of it.
    command = "prefect worker start" if chosen.has_images else "crawl2chat worker"
    for name in dict.fromkeys(one.name for one in chosen.pools()):
        say(f"  {command} --pool {name}")


def _table(target: "Target") -> Table:
    """Each deployment with its pool and resources."""
    from flows.resources import DEPLOYMENT_NAMES

    table = Table("deployment", "work pool", "cores", "memory", "GPUs", "image", box=None)
    for name in DEPLOYMENT_NAMES:
        stage = target.resources.stages[name]
        image = target.resources.image(name) if target.has_images else ""
        row = (
            target.deployment(name),
            target.pool_of(name),
            f"{stage.cpu:g}",
            stage.memory,
            str(stage.gpus or ""),
            image,
        )
        table.add_row(*row)
    return table
