"""A run looks after its own state: it ends itself when it is cancelled and nobody ends it, and says that it lives when it is taken for dead.

Reads the state of the flow run on the Prefect server, and writes it. Three gaps, each seen with Prefect 3.8.8:

- Usually the worker of a process pool sends a cancelled run SIGTERM. Where it was killed, no other worker does: the run stays in
  Cancelling, and after five minutes the server marks it as cancelled while it still works, and holds the training slot.
- A worker that lives stops to listen for cancellations when the server was away for some 25 s, for as long as it lives.
- After an outage of some two minutes the automation that misses heartbeats (flows/automations.py) takes runs for dead whose next heartbeat
  arrives after an event of another run.
"""

import contextlib
import functools
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import TerminationSignal
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Cancelled, Running

POLL_SECONDS = 5.0
WORKER_SECONDS = 20.0  # a worker that listens has sent its signal by then
REQUEST_SECONDS = 10.0
RUN_VARIABLE = "PREFECT__FLOW_RUN_ID"  # a worker sets it, in the process that it starts for a run
TAKEN_FOR_DEAD = "No heartbeat: its process is gone."  # the message of the automation's state

P = ParamSpec("P")
T = TypeVar("T")


def cancellable(run: Callable[P, T]) -> Callable[P, T]:
    """The function of a flow, which ends as CANCELLED when a person cancels it, also where nobody sends it a signal."""

    @functools.wraps(run)
    def watched(*args: P.args, **kwargs: P.kwargs) -> T:
        # A subflow, or a run of the command line, is ended with the process that it is in.
        if runtime.flow_run.id is None or runtime.flow_run.id != os.environ.get(RUN_VARIABLE):
            return run(*args, **kwargs)
        watch = _Watch(UUID(runtime.flow_run.id), os.getppid())
        threading.Thread(target=watch.keep, name="cancellation", daemon=True).start()
        try:
            return run(*args, **kwargs)
        except TerminationSignal:
            if not watch.is_cancelled:
                raise
            # A flow that returns a state ends in it. Raised on, the signal would make the run a crashed one.
            ended: Any = Cancelled(message="It was cancelled, and ended itself: no worker did.")
            return ended  # type: ignore[no-any-return]
        finally:
            watch.end()

    return watched


class _Watch:
    """Asks for the state of a run every POLL_SECONDS, until the run ends."""

    def __init__(self, run_id: UUID, worker: int) -> None:
        self.run_id, self.worker = run_id, worker
        self.is_cancelled = False
        self.over = threading.Event()
        self.checking = threading.Lock()  # so that no state is written after the one in which the run ends
        self.cancelled_since = 0.0  # by the monotonic clock; 0: it is not

    def keep(self) -> None:
        """Ask, until the run is over or has a signal to end."""
        # No retries: they would wait for minutes, and it asks again anyway.
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            while not (self.over.wait(POLL_SECONDS) or self.is_cancelled):
                # A server that is away is asked again.
                with contextlib.suppress(Exception), self.checking:
                    self._check_state()

    def end(self) -> None:
        """The run has ended: nothing is written any more."""
        self.over.set()
        with self.checking:
            pass

    def _check_state(self) -> None:
        with get_client(httpx_settings={"timeout": REQUEST_SECONDS}, sync_client=True) as client:
            state = client.read_flow_run(self.run_id).state
            if state is None or self.over.is_set():
                return
            if state.type is StateType.CRASHED and state.message == TAKEN_FOR_DEAD:
                client.set_flow_run_state(self.run_id, Running(message="It was taken for dead, and lives."), force=True)
        if state.type not in (StateType.CANCELLING, StateType.CANCELLED):
            self.cancelled_since = 0.0
            return
        self.cancelled_since = self.cancelled_since or time.monotonic()
        # 1: the worker was gone before the flow began, or this is a container.
        is_worker_gone = not os.getppid() == self.worker != 1
        if is_worker_gone or time.monotonic() - self.cancelled_since > WORKER_SECONDS:
            self.is_cancelled = True
            os.kill(os.getpid(), signal.SIGTERM)
