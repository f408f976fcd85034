"""Mutated requests to every endpoint of the server and its page: no fault of the server, one clear message, memory that stays.

    python -m tests.benchmarks.hostile_clients [NUM_REQUESTS] [SEED]      # 10,000, 0

The server runs in a separate process with three small models, people's feedback, an index of training data and a key. 24 clients send at once. Of every
refusal: a status of 4xx and one line. At the end nothing may run or wait, and a good request must be answered as at the beginning.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

from model.serve.guard import Limits
from tasks.artifacts.store import Store
from tasks.provenance.lineage import open_training_data
from tasks.provenance.routes import why_said_router
from tasks.provenance.served import Explainer
from tests.benchmarks.harness import machine, print_table, say
from tests.support.hostile_requests import COMPLETION, KEY, Answer, Request, fault, message, requests, send
from tests.support.page_server import served_page
from tests.support.training_runs import PAGES, make_run

NUM_CLIENTS = 24
SHOWN_FAULTS = 20
GOOD = Request("good", message("POST", "/v1/completions", json.dumps(COMPLETION).encode()))


def serve(folder: Path) -> None:
    """The server's process: prints its port, and serves until its input ends."""
    store = Store(str(folder / "store"))
    run = make_run(store, PAGES)
    open_training_data(store, run)
    routers = [why_said_router(Explainer(store, "tiny"))]
    lineages = {"policy": run.model.id}
    with served_page(folder / "models", api_key=KEY, lineages=lineages, routers=routers) as server:
        print(server.url.rpartition(":")[2], flush=True)
        sys.stdin.read()


@contextlib.contextmanager
def server() -> Iterator[tuple[int, int]]:
    """A server in a process: its port and process id."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "tests.benchmarks.hostile_clients", "--serve", folder]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
        with subprocess.Popen(command, text=True, **pipes) as process:
            assert process.stdout
            try:
                yield int(process.stdout.readline()), process.pid
            finally:
                process.kill()


def memory(pid: int, name: str) -> float:
    """VmRSS (now) or VmHWM (at its peak) of a process in MiB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) / 1024


async def attack(port: int, number: int, seed: int) -> tuple[dict[str, Counter[int]], list[str]]:
    """Statuses by kind of request, and what was wrong."""
    queue = enumerate(requests(number, seed, body_seconds=Limits().body_seconds))
    statuses: dict[str, Counter[int]] = defaultdict(Counter)
    faults: list[str] = []

    async def work() -> None:
        for place, request in queue:
            try:
                answer = await send(port, request)
            except TimeoutError:
                faults.append(f"{place} {request.kind}: no answer in time: {request.content[:300]!r}")
                continue
            statuses[request.kind][answer.status] += 1
            if wrong := fault(request, answer):
                faults.append(f"{place} {request.kind}: {wrong} to {request.content[:300]!r}")
            if place % 500 == 0:
                say(f"{place} requests")

    await asyncio.gather(*(work() for _ in range(NUM_CLIENTS)))
    return statuses, faults


async def wait_until_idle(port: int) -> bool:
    """Whether nothing runs or waits within a minute."""
    for _ in range(600):
        answer = await send(port, Request("good", message("GET", "/health")))
        loads = json.loads(answer.body)["models"].values()
        if not any(load["running"] or load["waiting"] for load in loads):
            return True
        await asyncio.sleep(0.1)
    return False


def text_of(answer: Answer) -> str:
    return str(json.loads(answer.body)["choices"][0]["text"])


def main() -> None:
    number, seed = (int(value) for value in [*sys.argv[1:], *(10_000, 0)[len(sys.argv) - 1 :]])
    with server() as (port, pid):
        first = text_of(asyncio.run(send(port, GOOD)))
        asyncio.run(attack(port, 200, seed + 1))  # caches and thread pools grow at first
        before, start = memory(pid, "VmRSS"), time.monotonic()
        Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")  # the peak counts from here
        statuses, faults = asyncio.run(attack(port, number, seed))
        seconds = time.monotonic() - start
        is_idle = asyncio.run(wait_until_idle(port))
        after, peak = memory(pid, "VmRSS"), memory(pid, "VmHWM")
        is_same = text_of(asyncio.run(send(port, GOOD))) == first
    for line in faults[:SHOWN_FAULTS]:
        say(line)
    kinds = [(kind, *columns(counts)) for kind, counts in sorted(statuses.items())]
    note = (
        f"{len(faults)} answers were wrong: a status of 5xx, a refusal without one clear line, or none. {seconds:.0f} s. Memory of the server in MiB: "
        f"before {before:.0f}, after {after:.0f}, at its peak {peak:.0f}. Afterwards {'nothing' if is_idle else 'SOMETHING'} ran or waited, and a good "
        f"request got {'the same' if is_same else 'ANOTHER'} answer. {machine()}."
    )
    print_table(f"{number:,} hostile requests", ["Kind", "answered", "4xx", "5xx", "hung up"], kinds, note)
    if faults or not is_idle or not is_same:
        sys.exit(1)


def columns(counts: Counter[int]) -> tuple[int, int, int, int]:
    """Numbers of answers with 2xx, with 4xx, with 5xx, and of none."""
    return (
        sum(count for status, count in counts.items() if 0 < status < 400),
        sum(count for status, count in counts.items() if 400 <= status < 500),
        sum(count for status, count in counts.items() if status >= 500),
        counts[0],
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Path(sys.argv[2]))
    else:
        main()
