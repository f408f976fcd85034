"""Training takes the whole machine: one training stage at a time on a Prefect server, in the order in which they came.

Reads and writes, on the Prefect server, a global concurrency limit of one slot, and a variable for each run that waits or trains.

The limit alone has three gaps, each seen with Prefect 3.8.8, which this module closes:

- Who asks first after the slot is free gets it, whoever came first. Here a run asks only when no living run is before it in the queue,
  which the variables are: Prefect stamps when each was made (its place) and changed (that its run lives).
- Prefect's own `concurrency(strict=True)` ends the work when a renewal of its lease fails, which a server that is away for a minute
  makes it do. Here training continues, and takes its lease again when the server is back; the runs that wait give it time for that.
- A server that keeps leases in memory, the default, forgets them at a restart, and then nothing frees the slot. Here the first of
  the queue frees a slot that nobody has claimed for longer than a lease lives.

A run that is killed neither renews its lease nor changes its variable: its slot is free after at most
`LEASE_SECONDS` and the 15 s of the server's search for expired leases.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound, PrefectHTTPStatusError
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.execution.reporter import logger

LIMIT = "crawl2chat-training"
QUEUE = "crawl2chat_training_"  # the names of the variables begin with it
LEASE_SECONDS = 60.0  # the shortest that Prefect takes
RENEW_SECONDS = 10.0
POLL_SECONDS = 3.0
DEAD_SECONDS = 45.0  # a variable that did not change for so long is of a run that is gone
ORPHAN_SECONDS = LEASE_SECONDS + 30.0  # a slot that nobody in the queue claims for so long was forgotten by the server
GONE, LOCKED = 410, 423
REQUEST_SECONDS = 10.0

Log = Callable[[str], None]


def make_limit(client: SyncPrefectClient) -> int:
    """Make the limit of one slot unless it is there. Returns how many slots it has: a person may have raised it."""
    try:
        return int(client.read_global_concurrency_limit_by_name(LIMIT).limit)
    except ObjectNotFound:
        with contextlib.suppress(ObjectAlreadyExists, PrefectHTTPStatusError):  # made by another run meanwhile
            client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=LIMIT, limit=1))
        return 1


@contextlib.contextmanager
def training_slot(run_name: str, log: Log = logger.info) -> Iterator[None]:
    """Hold the machine for training in this block: waits until every run that came before has ended. `run_name` is shown to others."""
    place = _Place(run_name, log)
    # A thread, since training holds the main one for hours; a daemon, so that a run that fails does not wait for it.
    keeper = threading.Thread(target=place.keep, name="training slot", daemon=True)
    try:
        place.wait_for_turn()
        keeper.start()
        yield
    finally:
        place.leave()


class Entry(NamedTuple):
    """A run in the queue, as the server shows it. Entries sort by when they were made."""

    created: datetime
    name: str
    updated: datetime
    run: str
    trains: bool


class _Place:
    """A run's place in the queue, and the lease of the slot when it has it."""

    def __init__(self, run_name: str, log: Log) -> None:
        self.run_name, self.log = run_name, log
        self.name = f"{QUEUE}{uuid4().hex}"
        self.lease_id: UUID | None = None
        self.has_left = threading.Event()
        self.first_since = self.seen_since = 0.0  # by the monotonic clock: at the head of the queue; the server answers

    def wait_for_turn(self) -> None:
        """Returns with the slot. A server that is away is waited for."""
        last_message = ""
        while True:
            try:
                with _client() as client:
                    blocker = self._try(client)
                if blocker is None:
                    return
                message = f"waiting for the machine: {blocker}"
            except Exception as error:
                if not _is_passing(error):
                    raise
                self.first_since = self.seen_since = 0.0
                message = "waiting for the machine: the Prefect server does not answer"
            if message != last_message:
                self.log(message)
            last_message = message
            time.sleep(POLL_SECONDS)

    def _try(self, client: SyncPrefectClient) -> str | None:
        """Take the slot if it is this run's turn. Else: why not."""
        now = time.monotonic()
        self.seen_since = self.seen_since or now
        queue = self._refresh(client)
        me = next(entry for entry in queue if entry.name == self.name)
        before = queue[: queue.index(me)]
        # The dead are removed by whoever waits behind them: no one else watches the queue.
        for dead in [other for other in before if self._is_dead(other, me, now)]:
            _delete(client, dead.name)
            before.remove(dead)
        # With a limit of n the first n of the queue train. The limit is read each time, since a person may change it in
        # the UI.
        if len(before) >= make_limit(client):
            self.first_since = 0.0
            return f"{before[-1].run} came before"
        self.first_since = self.first_since or now
        if self._acquire(client):
            return None
        if now - self.first_since > ORPHAN_SECONDS:
            logger.warning("a slot of %s belongs to no run: freed", LIMIT)
            _free(client, len(before))
        return "the slot is still held by a run that ended; it is freed within two minutes"

    def _is_dead(self, other: Entry, me: Entry, now: float) -> bool:
        """By the server's clock. After the server was away, every run has time to show that it lives."""
        has_had_time = now - self.seen_since > DEAD_SECONDS
        return has_had_time and me.updated - other.updated > timedelta(seconds=DEAD_SECONDS)

    def _refresh(self, client: SyncPrefectClient) -> list[Entry]:
        """Show that this run lives. Returns the whole queue, in order."""
        value = {"run": self.run_name, "trains": self.lease_id is not None, "changed": time.time()}
        try:
            # The update is also the proof of life: Prefect stamps `updated`. "changed" in the value makes every update
            # a change.
            client.request("PATCH", "/variables/name/{name}", path_params={"name": self.name}, json={"value": value})
        except PrefectHTTPStatusError as error:
            if error.response.status_code != 404:
                raise
            # The first time, or after a server that lost its database; in the second case the place in the queue is
            # lost too.
            client.request("POST", "/variables/", json={"name": self.name, "value": value})
        # 200 is the most that Prefect returns unless its server is set otherwise: the known limit of this queue.
        wanted = {"variables": {"name": {"like_": f"{QUEUE}%"}}, "limit": 200}
        found = client.request("POST", "/variables/filter", json=wanted).json()
        return sorted(_entry(variable) for variable in found)

    def _acquire(self, client: SyncPrefectClient) -> bool:
        try:
            # One attempt: the queue has decided whose turn it is, and a call that blocks would keep this run from
            # showing that it lives.
            response = client.increment_concurrency_slots_with_lease([LIMIT], 1, "concurrency", LEASE_SECONDS)
        except PrefectHTTPStatusError as error:
            if error.response.status_code == LOCKED:
                return False
            raise
        self.lease_id = UUID(response.json()["lease_id"])
        return True

    def keep(self) -> None:
        """Renew the lease and the variable until the run leaves. No error of the server ends it."""
        has_warned = False
        while not self.has_left.wait(RENEW_SECONDS):
            try:
                with _client() as client:
                    queue = self._refresh(client)
                    self._renew(client, queue)
            except Exception as error:  # training continues, whatever the server does
                if not has_warned:
                    logger.warning("the lease of the training slot is not renewed for now: %s", error)
                has_warned = True

    def _renew(self, client: SyncPrefectClient, queue: list[Entry]) -> None:
        assert self.lease_id is not None
        try:
            client.renew_concurrency_lease(self.lease_id, LEASE_SECONDS)
        except PrefectHTTPStatusError as error:
            if error.response.status_code != GONE:
                raise
            others = [entry for entry in queue if entry.name != self.name and entry.trains]
            # Where the slot is taken and fewer runs train than there are slots, the server forgot the lease but not the slot.
            if not self._acquire(client) and len(others) < make_limit(client):
                _free(client, len(others))
                self._acquire(client)

    def leave(self) -> None:
        """Give slot and place back; where the server is away, they run out by themselves."""
        self.has_left.set()
        # The stage has its result by now, or its own error, which must be the one that is shown.
        with contextlib.suppress(Exception), _client() as client:
            if self.lease_id is not None:
                client.release_concurrency_slots_with_lease(self.lease_id)
            _delete(client, self.name)


@contextlib.contextmanager
def _client() -> Iterator[SyncPrefectClient]:
    """A client that fails at once where the server is away: whoever uses it here tries again by itself."""
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}),
        get_client(httpx_settings={"timeout": REQUEST_SECONDS}, sync_client=True) as client,
    ):
        yield client


def _entry(variable: dict[str, Any]) -> Entry:
    created, updated = (datetime.fromisoformat(variable[name]) for name in ("created", "updated"))
    return Entry(created, variable["name"], updated, variable["value"]["run"], variable["value"]["trains"])


def _delete(client: SyncPrefectClient, name: str) -> None:
    with contextlib.suppress(ObjectNotFound):
        client.delete_variable_by_name(name)


def _free(client: SyncPrefectClient, num_held: int) -> None:
    """Let the server count the slots that living runs hold, and no others."""
    client.update_global_concurrency_limit(LIMIT, GlobalConcurrencyLimitUpdate(active_slots=num_held))


def _is_passing(error: Exception) -> bool:
    """Whether a server that is away, slow or busy is the cause."""
    if isinstance(error, PrefectHTTPStatusError):
        return error.response.status_code in (408, 429) or error.response.status_code >= 500
    return isinstance(error, httpx.HTTPError | OSError)
