"""What the page of a run shows of its cost, and the command that repeats it.

Reads the flow run that this process is in, the command line, and Linux's /proc. Writes nothing.
"""

import json
import os
import resource
import shlex
import sys
from pathlib import Path
from typing import Any

from prefect.context import FlowRunContext
from prefect.runtime import deployment

from tasks.artifacts.manifest import Manifest
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store
from tasks.execution.reporter import Row
from tasks.redaction import redact_arguments, redact_text

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# Fields 4 and 14 to 17 of /proc/PID/stat (proc(5)), counted from the third, which is the first after the name in parentheses.
PARENT, TIMES = 1, slice(11, 15)


def repeat_command(step: Step[Any]) -> str:
    """The command that runs the stage again with the same settings and the same inputs. Secrets are left out."""
    context = FlowRunContext.get()
    # A subflow has no deployment, also where its parent has one: what repeats it is the command of the whole.
    if context is None or context.flow is None or context.flow_run is None or context.flow_run.deployment_id is None:
        return shlex.join(["crawl2chat", *redact_arguments(sys.argv)[1:]])
    # "latest" may be another artifact by then.
    known = context.flow.parameters.properties
    inputs = {role: given.id for role, given in step.inputs.items() if role in known}
    parameters = inputs | {name: value for name, value in context.flow_run.parameters.items() if name not in inputs}
    name = f"{context.flow.name}/{deployment.name}"
    return redact_text(shlex.join(["prefect", "deployment", "run", name, "--params", json.dumps(parameters)]))


def cost(manifest: Manifest, store: Store, cpu_seconds: float) -> list[Row]:
    """What the artifact cost, by name: time, memory, and bytes read and written."""
    inputs = [found for artifact_id in manifest.inputs.values() if (found := store.find(artifact_id))]
    return [
        {"name": "wall time, seconds", "value": manifest.provenance["wall_seconds"]},
        {"name": "CPU time of this machine, seconds", "value": round(cpu_seconds, 1)},
        # The largest of one process; Linux reports kilobytes.
        {"name": "memory of the largest process, bytes", "value": max(map(_peak_kilobytes, _BOTH)) * 1024},
        {"name": "artifacts read, bytes", "value": sum(_bytes(one) for one in inputs)},
        {"name": "artifact written, bytes", "value": _bytes(manifest)},
    ]


def cpu_seconds() -> float:
    """User and system time of this process and of all it has started, also of those that live.

    `getrusage` has only those that have ended and were waited for by this process: a worker of a fork server is not among them.
    """
    try:
        stats = _stats()
    except OSError:  # no Linux
        usages = [resource.getrusage(who) for who in _BOTH]
        return sum(usage.ru_utime + usage.ru_stime for usage in usages)
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[PARENT]), []).append(pid)
    total, pending = 0, [os.getpid()]
    while pending:
        pid = pending.pop()
        total += sum(map(int, stats[pid][TIMES]))
        pending += children.get(pid, [])
    return total / TICKS_PER_SECOND


_BOTH = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def _stats() -> dict[int, list[str]]:
    """The fields of every process after its name, which may hold spaces and parentheses."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                found[int(folder.name)] = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()
            except OSError:  # it has ended meanwhile
                continue
    return found


def _peak_kilobytes(who: int) -> int:
    return resource.getrusage(who).ru_maxrss


def _bytes(manifest: Manifest) -> int:
    return sum(file.bytes for file in manifest.files)
