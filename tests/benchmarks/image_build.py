"""The images of docker/Dockerfile: built, and the command of Prefect's Docker worker started in them for runs of stages.

    python -m tests.benchmarks.image_build [--base IMAGE] [--folder FOLDER]

Needs root, buildah, debootstrap, and the packages prefect-docker and docker; no Docker daemon. Where no registry can be reached, the base image is made
here: Debian bookworm with its Python 3.11, and this machine's certificates and pip settings. A Prefect server on loopback gets the deployments of
`crawl2chat deploy --target docker`; each run is created there, and its container is what prefect-docker's worker makes of the deployment, the work pool's
job template and the run. It is started without a daemon: the image's root file system, mounted read-only, with user 1001, no capabilities, no new privileges,
a /scratch and a /dev/shm in memory, and the volumes of the job. Data stages run in the image `data`, pretrain in `train`; `serve` completes a text.
"""

import argparse
import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

from tests.benchmarks.harness import ROOT, machine, print_table, say
from tests.support.prefect_servers import FINAL, LocalPrefect, running_server

TARGETS = ("data", "serve", "train")
CONFIGS: dict[str, dict[str, Any]] = {  # of the stages, as the forms of the UI take them
    "ingest": {"sample": {"num_articles": 60, "num_files": 3}},
    "filter": {},
    "dedup": {},
    "tokenizer": {"vocab_size": 400},
    "tokenize": {},
    "pretrain": {
        "model": {"num_layers": 1, "width": 32, "num_heads": 2, "advanced": {"num_kv_heads": 2, "head_width": 16, "ff_width": 64}},
        "train": {"num_steps": 4, "batch_tokens": 512, "sequence_tokens": 64, "num_ranks": 1, "advanced": {"microbatch_sequences": 4}},
    },
}  # fmt: skip
USER = "1001"
PACKAGES = "ca-certificates,python3,python3-pip,python3-venv"
# $1: root of the image; $2: folder of the store; then the command, which `env` gives its variables
CONTAINER = """
set -eu
root=$1 store=$2 shm=$3; shift 3
mount --bind "$root" "$root"
mount --bind "$store" "$root/artifacts"
mount -t tmpfs -o uid=1001,gid=1001 tmpfs "$root/scratch"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o mode=1777,size="$shm" tmpfs "$root/dev/shm"
mount -o remount,bind,ro "$root"
exec chroot --userspec=1001:1001 --groups= "$root" setpriv --no-new-privs /usr/bin/tini -- "$@"
"""


class Image(NamedTuple):
    """An image that was built. `root`: its file system, mounted."""

    target: str
    num_bytes: int
    environment: dict[str, str]
    root: Path


def run(*command: str | Path, **options: Any) -> str:
    """The output of a command. Raises CalledProcessError, after what it printed, where it fails."""
    done = subprocess.run(list(map(str, command)), stdout=subprocess.PIPE, text=True, check=True, **options)
    return done.stdout.strip()


def make_base(folder: Path) -> str:
    """An image in place of python:3.11-slim-bookworm -> its name."""
    root = folder / "base"
    run("debootstrap", "--variant=minbase", f"--include={PACKAGES}", "bookworm", root, stderr=subprocess.DEVNULL)
    (root / "usr/bin/python").symlink_to("python3")
    (root / "usr/lib/python3.11/EXTERNALLY-MANAGED").unlink()  # in a container pip may install for the system
    for path in (Path("/etc/ssl/certs/ca-certificates.crt"), Path("/etc/resolv.conf"), Path("/etc/pip.conf")):
        if path.exists():
            shutil.copy(path, root / path.relative_to("/"))
    container = run("buildah", "from", "scratch")
    run("buildah", "copy", container, root, "/")
    run("buildah", "commit", "--rm", container, "localhost/crawl2chat-base")
    return "localhost/crawl2chat-base"


def build(target: str, base: str, commit: str) -> Image:
    """Build one target of the Dockerfile."""
    # Where pip's settings name folders of this machine, the builds see them.
    volumes = ["--volume=/opt:/opt:ro"] if Path("/opt").is_dir() else []
    arguments = [f"--build-arg=BASE_IMAGE={base}", f"--build-arg=COMMIT={commit}"]
    name = f"localhost/crawl2chat-{target}"
    command = ["buildah", "build", "--isolation=chroot", "--network=host", "--layers", *volumes, *arguments]
    subprocess.run(
        [*command, "--file=docker/Dockerfile", f"--target={target}", f"--tag={name}", "."],
        cwd=ROOT,
        check=True,
        stdout=sys.stderr,
    )
    container = run("buildah", "from", "--pull-never", name)
    lines = run("buildah", "inspect", "--format", "{{range .OCIv1.Config.Env}}{{println .}}{{end}}", container)
    environment = dict(line.split("=", 1) for line in lines.splitlines() if line)
    say(f"{target} is built")
    root = Path(run("buildah", "mount", container))
    num_bytes = int(run("du", "--summarize", "--block-size=1", root).split()[0])
    return Image(target, num_bytes, environment, root)


def start(image: Image, store: Path, environment: dict[str, str], command: Sequence[str], shm: int = 2**26) -> str:
    """Run a command in an image as a container would, to its end -> what it printed."""
    variables = [f"{name}={value}" for name, value in (image.environment | environment).items()]
    inside = ["/usr/bin/env", "-i", *variables, *command]
    # --pid: what is left when the command ends dies with it.
    place = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", CONTAINER, "container"]
    done = subprocess.run(
        [*place, str(image.root), str(store), str(shm), *inside],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(
            f"{shlex.join(command)} in the image {image.target} ended with {done.returncode}:\n{done.stdout[-4000:]}"
        )
    return done.stdout


def job_of(local: LocalPrefect, run_id: str) -> Any:
    """What Prefect's Docker worker makes of a run: its command, environment, image and limits."""
    from prefect_docker.worker import DockerWorkerJobConfiguration

    flow_run = local.run(run_id)
    deployment = local.call("GET", f"/deployments/{flow_run['deployment_id']}")
    pool = local.call("GET", f"/work_pools/{deployment['work_pool_name']}")
    values = deployment["job_variables"]
    with temporary_settings({PREFECT_API_URL: local.api}):
        job = asyncio.run(DockerWorkerJobConfiguration.from_template_and_values(pool["base_job_template"], values))
    job.prepare_for_flow_run(FlowRun.model_validate(flow_run))
    return job


def run_stage(local: LocalPrefect, images: dict[str, Image], stage: str, store: Path) -> tuple[str, ...]:
    """Run a stage's deployment in its image -> a row of the table."""
    created = local.create_run(stage, {"config": CONFIGS[stage]}, deployment=f"{stage}-docker")
    job = job_of(local, created["id"])
    image = images[job.image.split(":")[0].removeprefix("crawl2chat-")]
    assert job.container_create_kwargs["user"] == f"{USER}:{USER}"
    assert job.container_create_kwargs["read_only"]
    began = time.monotonic()
    # A container of Docker reaches the host by another name than the processes here do.
    environment = {**job.env, "PREFECT_API_URL": local.api}
    printed = start(image, store, environment, job.command.split(), job.container_create_kwargs["shm_size"])
    state = local.wait_for_state(created["id"], *FINAL)["state"]["type"]
    if state != "COMPLETED":
        sys.exit(f"{stage} ended as {state}:\n{printed[-4000:]}")
    return f"`{job.command}`, {stage}", image.target, state, f"{time.monotonic() - began:.0f}"


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """The folder, or a temporary one."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory(prefix="image-build-") as name:
        yield Path(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base", help="An image that buildah has, instead of one made here.")
    parser.add_argument("--folder", type=Path, help="Work here, and leave what was made.")
    options = parser.parse_args()
    if missing := [name for name in ("buildah", "debootstrap", "unshare") if not shutil.which(name)]:
        sys.exit(f"missing: {', '.join(missing)}")
    if os.geteuid():
        sys.exit("images are built and mounted by root alone here")
    with workplace(options.folder) as folder:
        base = options.base or make_base(folder)
        commit = run("git", "rev-parse", "HEAD", cwd=ROOT)
        images = {target: build(target, base, commit) for target in TARGETS}
        store = folder / "store"
        store.mkdir(exist_ok=True)
        shutil.chown(store, int(USER), int(USER))
        with running_server(folder, CRAWL2CHAT_STORE=str(store)) as local:
            local.deploy("--target", "docker")
            rows = [run_stage(local, images, stage, store) for stage in CONFIGS]
        began = time.monotonic()
        text = start(images["serve"], store, {}, ["crawl2chat", "complete", "The river"])
        say(text)
        rows.append(("`crawl2chat complete`", "serve", "status 0", f"{time.monotonic() - began:.0f}"))
    built = [(one.target, f"{one.num_bytes / 2**20:,.0f}") for one in images.values()]
    print_table("Images of docker/Dockerfile", ("Target", "MiB"), built)
    note = f"User {USER}, root file system read-only, no capabilities. Base: {base}. {machine()}."
    print_table("Commands in them", ("Command", "Image", "Ended as", "s, wall"), rows, note)


if __name__ == "__main__":
    main()
