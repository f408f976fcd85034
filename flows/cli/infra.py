"""`crawl2chat infra render`: write the manifests, chart values, units and scripts of a target, with the resources filled in."""

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import say

infra = typer.Typer(no_args_is_help=True, help="Files for clusters: manifests, chart values, units and scripts.")


@infra.callback()
def group() -> None:
    """Files for clusters: manifests, chart values, units and scripts."""


@infra.command()
def render(
    target: Annotated[str, typer.Option(help="process, docker, kubernetes, ray or slurm.")],
    output: Annotated[Path, typer.Option(help="The folder to write into.")],
    resources: Annotated[Path | None, typer.Option(help="A copy of infra/resources.yaml with other values.")] = None,
    pool: Annotated[str, typer.Option(help="The first part of the work pools' names.")] = "crawl2chat",
    namespace: Annotated[str, typer.Option(help="The Kubernetes namespace.")] = "crawl2chat",
    api_url: Annotated[str, typer.Option(help="The Prefect server, as workers reach it.")] = "",
    recipe: Annotated[str, typer.Option(help="The recipe that several nodes train.")] = "gpt2",
    preset: Annotated[str, typer.Option(help="Its model, as `crawl2chat plan` names it.")] = "gpt2",
    gpus: Annotated[str, typer.Option(help="Number and kind of all GPUs: 16xH100.")] = "16xH100",
) -> None:
    """Write the files of a target, with the resources and the plan of a training filled in."""
    from flows.infra import RENDERED, plan_training, render, values_of
    from flows.resources import load_resources
    from flows.targets import make_target
    from model.errors import UserError

    if target not in RENDERED:
        raise UserError(f"there is nothing to render for {target!r}: take one of {', '.join(RENDERED)}")
    loaded = load_resources(resources)
    # Slurm starts no Prefect worker; its scripts run the command itself, in the checkout.
    name = None if target == "slurm" else target
    chosen = make_target(name, pool, loaded, "ray://HEAD:10001" if name == "ray" else "")  # type: ignore[arg-type]
    training = plan_training(recipe, preset, gpus, loaded)
    server = api_url or (
        f"http://prefect-server.{namespace}.svc.cluster.local:4200/api"
        if target in ("kubernetes", "ray")
        else "http://127.0.0.1:4200/api"
    )
    for path in render(target, output, values_of(chosen, training, server, namespace)):
        say(str(path))
