"""A run that is cancelled after its worker has died ends itself.

Reads the state of the flow run on the Prefect server. Usually the worker of a process pool sends a cancelled run SIGTERM. Where it was
killed, no other worker does (seen with Prefect 3.8.8): the run stays in Cancelling, and after five minutes the server marks it as
cancelled while it still works, and holds the training slot. So a run without its worker asks the server itself.
"""

import contextlib
import functools
import os
import signal
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import TerminationSignal
from prefect.states import Cancelled

POLL_SECONDS = 5.0
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"  # a worker sets it, in the process that it starts for a run

P = ParamSpec("P")
T = TypeVar("T")


def cancellable(run: Callable[P, T]) -> Callable[P, T]:
    """The function of a flow, which ends as CANCELLED when a person cancels it, also where nobody sends it a signal."""

    @functools.wraps(run)
    def watched(*args: P.args, **kwargs: P.kwargs) -> T:
        # A subflow, or a run of the command line, is ended with the process that it is in.
        if runtime.flow_run.id is None or runtime.flow_run.id != os.environ.get(RUN_VARIABLE):
            return run(*args, **kwargs)
        over, is_cancelled = threading.Event(), threading.Event()
        arguments = (UUID(runtime.flow_run.id), os.getppid(), over, is_cancelled)
        threading.Thread(target=_watch, args=arguments, name="cancellation", daemon=True).start()
        try:
            return run(*args, **kwargs)
        except TerminationSignal:
            if not is_cancelled.is_set():
                raise
            # A flow that returns a state ends in it. Raised on, the signal would make the run a crashed one.
            ended: Any = Cancelled(message="It was cancelled, and ended itself: its worker is gone.")
            return ended  # type: ignore[no-any-return]
        finally:
            over.set()

    return watched


def _watch(run_id: UUID, worker: int, over: threading.Event, is_cancelled: threading.Event) -> None:
    """Send this process SIGTERM when its parent, the worker, is gone and its run is cancelled."""
    while not over.wait(POLL_SECONDS):
        # 1: the worker was gone before the flow began, or this is a container.
        if os.getppid() == worker != 1:
            continue
        # A server that is away is asked again.
        with contextlib.suppress(Exception), get_client(sync_client=True) as client:
            state = client.read_flow_run(run_id).state
            if state and state.type in (StateType.CANCELLING, StateType.CANCELLED) and not over.is_set():
                is_cancelled.set()
                os.kill(os.getpid(), signal.SIGTERM)
                return
