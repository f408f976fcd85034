"""How a training process starts: `python -m model.training.ranks [--lease FILE TOKEN] MODULE ARGUMENTS`.

Runs a module as `python -m MODULE ARGUMENTS` does. The process is guarded from before the module's imports, which take seconds: it
ends with its parent and with its lease, see model/processes.py. The agent that starts several ranks is started in this way, and each
rank. An exception of the module is recorded as torch elastic's JSON in the file that TORCHELASTIC_ERROR_FILE names.
"""

import json
import os
import runpy
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from model.processes import LeaseFile, guard


def run_module(module: str, arguments: list[str]) -> None:
    """Run a module as the main program. What it raises is recorded for whoever started it, and raised."""
    # The module's own command line: its `main` reads sys.argv[1]. runpy puts the file's path in place of the first entry.
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception as error:
        record_error(error)
        raise


def record_error(error: Exception) -> None:
    """Write the error to TORCHELASTIC_ERROR_FILE: of an agent that of the rank that failed first, which the others then missed."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if not path:
        return
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record

    # Raised by the agent: it has a failure for each rank.
    if isinstance(error, ChildFailedError):
        failures = {rank: (failure.exitcode, float(failure.timestamp)) for rank, failure in error.failures.items()}
        record_killed_rank(failures, Path(path))
        return

    # torch's format, with traceback and time, which the agent reads to find the rank that failed first.
    @record
    def fail() -> None:
        raise error

    try:
        fail()
    except Exception as same:
        assert same is error, "record raises what it records"


def record_killed_rank(failures: Mapping[int, tuple[int, float]], path: Path) -> None:
    """Write to the error file `path` which rank was killed. `failures`: exit code, as subprocess has it, and time of each rank that failed.

    A rank that was killed comes before one that recorded an error: the others fail of its absence, and may have been noticed before it.
    Their agent ends the others with SIGTERM, and has copied the error file of the first that failed.
    """
    killed = {rank: (code, when) for rank, (code, when) in failures.items() if code < 0}
    # The agent's SIGTERM follows another failure; a rank killed in another way is the likelier cause.
    by_agent = {rank for rank, (code, _) in killed.items() if code == -signal.SIGTERM}
    # With an error file, and no rank killed but by the agent, the file has the cause already.
    if not killed or (path.exists() and by_agent == set(killed)):
        return
    rank, (code, _) = min(killed.items(), key=lambda item: (item[0] in by_agent, item[1][1]))
    # Only the kernel and users send SIGKILL.
    reason = " (manually or out of memory)" if code == -signal.SIGKILL else ""
    path.write_text(json.dumps({"message": f"rank {rank} was killed by {signal.Signals(-code).name}{reason}"}))


def main() -> None:
    """Guard this process with the lease that the command line names, then run its module."""
    # Not argparse: what follows the module is the module's, options included.
    arguments = sys.argv[1:]
    lease = None
    if arguments[0] == "--lease":
        lease, arguments = LeaseFile(Path(arguments[1]), arguments[2]), arguments[3:]
    guard(lease)
    run_module(arguments[0], arguments[1:])


if __name__ == "__main__":
    main()
