"""Where a run is: the machine and the process, as labels of the flow run on the Prefect server.

Prefect's server knows that a run began, and for a run of a process pool the number of a process, but not on which machine. With these
labels whoever is on that machine can say whether the run still lives (flows/reconcile.py). Reads Linux's /proc.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient

from model.processes import boot_id

MACHINE, PROCESS = "crawl2chat.machine", "crawl2chat.process"
START_TIME = 19  # of /proc/PID/stat, counted from the first field after the name in parentheses


class Place(NamedTuple):
    """`machine`: a boot of a machine, and on it a namespace of process numbers. `process`: number and start, since numbers come again."""

    machine: str
    process: str

    @classmethod
    def here(cls) -> "Place | None":
        """That of this process; None where there is no /proc."""
        machine = this_machine()
        return Place(machine, f"{os.getpid()}/{start_of(os.getpid())}") if machine else None

    @property
    def lives(self) -> bool:
        """Whether the process is there; only asked on its machine."""
        pid, _, start = self.process.partition("/")
        return pid.isdecimal() and start_of(int(pid)) == start


def this_machine() -> str:
    """The boot of this machine and the namespace of process numbers; empty where there is no /proc."""
    # Not the name of the host: containers on one machine may share it and see other processes.
    try:
        return f"{boot_id()}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def start_of(pid: int) -> str:
    """When a process began, in ticks since the boot; empty where there is no such process, or it has ended and waits to be collected."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[START_TIME]


def write_place(run_id: UUID, place: Place, client: SyncPrefectClient) -> None:
    """Label a flow run with the place of its process."""
    labels = {MACHINE: place.machine, PROCESS: place.process}
    client.request("PATCH", "/flow_runs/{id}/labels", path_params={"id": run_id}, json=labels)


def place_of(labels: dict[str, Any]) -> Place | None:
    """The place that a run's labels name; None where it has none."""
    machine, process = labels.get(MACHINE), labels.get(PROCESS)
    return Place(str(machine), str(process)) if machine and process else None
