"""Training over two nodes: launchers with different ranks in their environment, on loopback and in two network namespaces."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from model.config import TrainRun
from model.files import read_lines
from model.training.checkpoints import complete_checkpoints
from tests.model.training.test_loop import losses, make_run, write_data
from tests.support.prefect_servers import free_port

LIMIT_SECONDS = 900.0  # a bound on hangs
NUM_STEPS = 40

# What a stage does on each node, without its inputs.
STAGE = """if True:
    import sys
    from pathlib import Path
    from model.nodes import this_node
    from tasks.execution.launcher import join, launch
    from tasks.execution.lease import lease
    folder = Path(sys.argv[1])
    node = this_node()
    if node and not node.is_first:
        join(node)
        sys.exit()
    with lease(folder) as held:
        launch(sys.argv[2], folder / ".state/run.json", num_ranks=2, metrics_file=folder / "metrics.jsonl",
               on_metrics=lambda line: None, lease=held)
"""


def prepared(data: Path, folder: Path, num_steps: int = NUM_STEPS) -> TrainRun:
    settings = {"num_steps": num_steps, "num_ranks": 2, "zero_stage": 1, "checkpoint_every_steps": 5}
    run = make_run(data, folder, **settings, eval_every_steps=0, sample_every_steps=0)
    (folder / ".state").mkdir()
    (folder / ".state/run.json").write_text(run.model_dump_json())
    return run


@contextmanager
def started(
    folder: Path, environment: dict[str, str], *before: str, module: str = "model.training.loop"
) -> Iterator[psutil.Popen]:
    command = [*before, sys.executable, "-c", STAGE, str(folder), module]
    with (folder.parent / f"node-{environment.get('PET_NODE_RANK', 'alone')}.log").open("a") as log:
        process = psutil.Popen(
            command, env={**os.environ, "OMP_NUM_THREADS": "1", **environment}, stdout=log, stderr=log
        )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def node(rank: int, endpoint: str, **more: str) -> dict[str, str]:
    conf = f"join_timeout={LIMIT_SECONDS:.0f}"
    values = {
        "NNODES": "2",
        "NODE_RANK": str(rank),
        "NPROC_PER_NODE": "1",
        "RDZV_ENDPOINT": endpoint,
        "RDZV_CONF": conf,
    }
    return {f"PET_{name}": value for name, value in (values | more).items()}


class Place(NamedTuple):
    """Where two nodes are: the rendezvous, and how a command is run on each."""

    endpoint: str
    on_first: tuple[str, ...] = ()
    on_second: tuple[str, ...] = ()


@contextmanager
def on_loopback(folder: Path) -> Iterator[Place]:
    """Two nodes of one machine that share the folder."""
    yield Place(f"127.0.0.1:{free_port()}")


@contextmanager
def in_namespaces(folder: Path) -> Iterator[Place]:
    """Two nodes with a network cable between them, each with a folder of that name that the other does not see."""
    names = [f"crawl2chat-{os.getpid()}-{number}" for number in range(2)]
    if shutil.which("ip") is None:
        pytest.skip("there is no program ip")
    made = subprocess.run(["ip", "netns", "add", names[0]], check=False, capture_output=True, text=True)
    if made.returncode:
        pytest.skip(f"network namespaces cannot be made here: {made.stderr.strip()}")
    ip("netns", "add", names[1])
    try:
        ip("link", "add", "cable", "netns", names[0], "type", "veth", "peer", "name", "cable", "netns", names[1])
        for number, name in enumerate(names):
            ip("-n", name, "address", "add", f"10.99.7.{number + 1}/24", "dev", "cable")
            for device in ("lo", "cable"):
                ip("-n", name, "link", "set", device, "up")
        separate = folder.with_name("separate")
        separate.mkdir()
        # `ip netns exec` makes a mount namespace too: what is mounted there is seen by this command alone.
        mounted = ("sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(separate), str(folder))
        first, second = (("ip", "netns", "exec", name) for name in names)
        yield Place("10.99.7.1:29500", first, (*second, *mounted))
    finally:
        for name in names:
            ip("netns", "delete", name)


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)


def wait_for_steps(run: TrainRun, num_steps: int, process: psutil.Popen) -> None:
    path = Path(run.output) / "metrics.jsonl"
    wait_until(lambda: path.exists() and len(path.read_bytes().splitlines()) >= num_steps, process, lambda: logs(run))


def wait_until(is_so: Callable[[], bool], process: psutil.Popen, logs: Callable[[], str] = str) -> None:
    deadline = time.monotonic() + LIMIT_SECONDS
    while not is_so():
        assert process.poll() is None and time.monotonic() < deadline, logs()
        time.sleep(0.01)


def logs(run: TrainRun) -> str:
    folder = Path(run.output)
    return "\n".join(path.read_text() for path in [*folder.parent.glob("*.log"), *folder.glob(".state/*.log")])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def alone(data: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainRun:
    """Two ranks on one machine."""
    run = prepared(data, tmp_path_factory.mktemp("alone") / "out")
    with started(Path(run.output), {}) as process:
        assert process.wait(LIMIT_SECONDS) == 0, logs(run)
    return run


@pytest.mark.parametrize("place", [on_loopback, pytest.param(in_namespaces, marks=pytest.mark.slow)])
def test_node_that_is_killed_and_comes_back_resumes_to_the_losses_of_one_machine(
    place: Callable[[Path], AbstractContextManager[Place]], data: Path, alone: TrainRun, tmp_path: Path
) -> None:
    run = prepared(data, tmp_path / "out")
    folder = Path(run.output)
    with place(folder) as (endpoint, on_first, on_second), ExitStack() as ended:
        first = ended.enter_context(started(folder, node(0, endpoint), *on_first))
        second = ended.enter_context(started(folder, node(1, endpoint), *on_second))
        wait_for_steps(run, 12, first)
        # The launcher alone: that its agent and ranks end with it is a part of what is tested.
        second.kill()
        back = ended.enter_context(started(folder, node(1, endpoint), *on_second))
        assert first.wait(LIMIT_SECONDS) == 0, logs(run)
        assert back.wait(LIMIT_SECONDS) == 0, logs(run)
    assert losses(run) == losses(alone)
    assert [line["step"] for line in read_lines(folder / "metrics.jsonl")] == list(range(1, NUM_STEPS + 1))
    newest = complete_checkpoints(folder / ".state/checkpoints")[-1]
    assert len(list(newest.glob("*optim_states.pt"))) == 2


WAITING = """
import os, pathlib, time
pathlib.Path(os.environ["SEEN"], os.environ["RANK"]).touch()
time.sleep(1000)
"""


@pytest.mark.parametrize("victim", ["launcher", pytest.param("rank", marks=pytest.mark.slow)])
def test_other_nodes_end_with_the_first_one(victim: str, tmp_path: Path) -> None:
    """Its launcher is killed, or its rank once too often. These ranks exchange nothing and would not notice by themselves."""
    folder, endpoint = tmp_path / "out", f"127.0.0.1:{free_port()}"
    (folder / ".state").mkdir(parents=True)
    (folder / ".state/run.json").write_text("{}")
    (tmp_path / "waiting.py").write_text(WAITING)
    more = {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]), "SEEN": str(tmp_path), "PET_MAX_RESTARTS": "0"}
    with (
        started(folder, node(0, endpoint) | more, module="waiting") as first,
        started(folder, node(1, endpoint) | more, module="waiting") as second,
    ):
        wait_until(lambda: (tmp_path / "0").exists() and (tmp_path / "1").exists(), first)
        children = second.children(recursive=True)
        rank = first.children(recursive=True)[-1]
        (first if victim == "launcher" else rank).kill()
        assert second.wait(LIMIT_SECONDS) == 1
        _, living = psutil.wait_procs(children, LIMIT_SECONDS)
        assert not living
    log = (tmp_path / "node-1.log").read_text()
    # The two nodes share a folder here: the second may learn it from the lease before it does from the rendezvous.
    reasons = (
        "the ranks of node 1 ended: the training has ended on another node",
        "its stage has ended or lost its lease",
    )
    assert any(reason in log for reason in reasons), log
