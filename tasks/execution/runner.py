"""How a stage runs.

Reads the artifacts that a step names, writes the artifact that the step is. A step whose manifest is there and whose files are
unchanged is skipped. Two runners of one fingerprint: the second waits, or takes over a lease that is no longer renewed.

What a stage reports goes to whoever listens: the terminal, and Prefect where a flow runs it. Stages know neither.
"""

import contextlib
import importlib.metadata
import json
import logging
import os
import platform
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.artifacts.manifest import STATE, Artifact, Manifest
from tasks.artifacts.step import Step
from tasks.artifacts.store import Store

LEASE_SECONDS = 60.0
LIBRARIES = [
    "prefect",
    "pyarrow",
    "trafilatura",
    "lxml",
    "fasttext-community",
    "Resiliparse",
    "warcio",
    "xxhash",
    "tokenizers",
    "torch",
    "deepspeed",
    "numpy",
    "fsspec",
    "pydantic",
    "phonenumbers",
    "python-stdnum",
    "tldextract",
]

Row = dict[str, Any]
logger = logging.getLogger("crawl2chat")


class Listener:
    """Who follows a run: the terminal, Prefect. Each overrides what it wants to hear."""

    def log(self, stage: str, message: str) -> None: ...
    def progress(self, stage: str, done: float, total: float, unit: str, values: dict[str, float]) -> None: ...
    def table(self, stage: str, name: str, rows: Sequence[Row], description: str) -> None: ...
    def markdown(self, stage: str, name: str, text: str, description: str) -> None: ...
    def finished(self, step: Step[Any], manifest: Manifest, is_skipped: bool) -> None: ...


LISTENERS: ContextVar[tuple[Listener, ...]] = ContextVar("LISTENERS", default=())


@contextlib.contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Let `listener` hear what the stages of this block tell."""
    token = LISTENERS.set((*LISTENERS.get(), listener))
    try:
        yield
    finally:
        LISTENERS.reset(token)


@dataclass(frozen=True)
class Run:
    """What a stage function is given beside its inputs: where to write, and how to tell what it does.

    `folder` becomes the artifact; `state` lies in it and is kept until the stage is finished.
    """

    step: Step[Any]
    folder: Path

    @property
    def state(self) -> Path:
        path = self.folder / STATE
        path.mkdir(parents=True, exist_ok=True)
        return path

    def log(self, message: str) -> None:
        logger.info("%s: %s", self.step.stage, message)
        for listener in LISTENERS.get():
            listener.log(self.step.stage, message)

    def progress(self, done: float, total: float, unit: str, **values: float) -> None:
        """`done` of `total` in `unit` ("documents", "steps"); `values` are shown beside it by name."""
        for listener in LISTENERS.get():
            listener.progress(self.step.stage, done, total, unit, values)

    def table(self, name: str, rows: Sequence[Row], description: str) -> None:
        """A table a person wants to look at."""
        for listener in LISTENERS.get():
            listener.table(self.step.stage, name, rows, description)

    def markdown(self, name: str, text: str, description: str) -> None:
        """A page of Markdown a person wants to look at."""
        for listener in LISTENERS.get():
            listener.markdown(self.step.stage, name, text, description)


def execute(step: Step[Any], store: Store, *, force: bool = False) -> Manifest:
    """The manifest of `step`, made now unless it is up to date. Sources it needs are made on the way.

    Raises ValueError where an input is missing, DamagedArtifact where a file was changed.
    """
    if not force and (manifest := up_to_date(step, store)):
        _tell(step, manifest, is_skipped=True)
        return manifest
    for source in step.inputs.values():
        if source.is_source:
            execute(source, store)
    inputs = {role: store.open(input_step.id, input_step.kind) for role, input_step in step.inputs.items()}
    run = Run(step, store.folder(step.id))
    with lease(run.folder, run.log):
        if not force and (manifest := up_to_date(step, store)):  # another runner finished it while this one waited
            _tell(step, manifest, is_skipped=True)
            return manifest
        if force or store.find(step.id):
            store.discard(step.id)
        manifest = _make(run, store, inputs)
    _tell(step, manifest, is_skipped=False)
    return manifest


def up_to_date(step: Step[Any], store: Store) -> Manifest | None:
    """The manifest of `step` if it is finished, undamaged, and made of its inputs as they are now; else None."""
    manifest = store.find(step.id)
    if manifest is None:
        return None
    store.verify(manifest)
    for role, input_step in step.inputs.items():
        made_of = store.find(input_step.id)
        if made_of is not None and made_of.digest != manifest.input_digests[role]:
            return None
    return manifest


def _tell(step: Step[Any], manifest: Manifest, is_skipped: bool) -> None:
    for listener in LISTENERS.get():
        listener.finished(step, manifest, is_skipped)


def _make(run: Run, store: Store, inputs: dict[str, Artifact]) -> Manifest:
    started, start = datetime.now(UTC), time.monotonic()
    step = run.step
    outcome = step.run(run, step.config, **inputs)
    manifest = Manifest(
        kind=step.kind.__name__,
        stage=step.stage,
        stage_version=step.version,
        fingerprint=step.fingerprint,
        inputs={role: input_step.id for role, input_step in step.inputs.items()},
        input_digests={role: artifact.manifest.digest for role, artifact in inputs.items()},
        config=step.config.model_dump(mode="json"),
        files=store.records(run.folder),
        counts=outcome.counts,
        metrics=outcome.metrics,
        provenance=provenance(started, time.monotonic() - start),
    )
    store.commit(manifest)
    return manifest


def provenance(started: datetime, wall_seconds: float) -> dict[str, Any]:
    """Which code, libraries, command and machine made an artifact."""
    return {
        **_commit(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
        "argv": sys.argv,
        "host": socket.gethostname(),
        "started": started.isoformat(timespec="seconds"),
        "wall_seconds": round(wall_seconds, 3),
    }


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _commit() -> dict[str, str | bool]:
    """The commit of this code: of its git checkout, or CRAWL2CHAT_COMMIT where an image has none."""
    if given := os.environ.get("CRAWL2CHAT_COMMIT"):
        return {"commit": given, "is_dirty": False}
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        commit = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True).stdout.strip()
        status = subprocess.run([*git, "status", "--porcelain"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "is_dirty": True}
    return {"commit": commit, "is_dirty": bool(status)}


@contextlib.contextmanager
def lease(folder: Path, log: Callable[[str], None] = logger.info) -> Iterator[None]:
    """Hold `folder` against other runners: waits for one that renews its lease, which is told, takes over one that does not."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "lease"
    if not _take(path):
        log("another run is at this stage: waiting for it")
        while not _take(path):
            time.sleep(1.0)
    is_over = threading.Event()
    renewer = threading.Thread(target=_renew, args=(path, is_over), daemon=True)
    renewer.start()
    try:
        yield
    finally:
        is_over.set()
        renewer.join()
        path.unlink(missing_ok=True)


def _take(path: Path) -> bool:
    try:
        with path.open("x") as stream:
            json.dump({"host": socket.gethostname(), "pid": os.getpid()}, stream)
        return True
    except FileExistsError:
        if _is_abandoned(path):
            logger.info("taking over %s from a runner that is gone", path)
            path.unlink(missing_ok=True)
            return _take(path)
        return False


def _is_abandoned(path: Path) -> bool:
    try:
        holder = json.loads(path.read_text() or "{}")
        age_seconds = time.time() - path.stat().st_mtime
    except (FileNotFoundError, json.JSONDecodeError):
        return False  # just given up, or being written: look again
    is_dead = holder.get("host") == socket.gethostname() and not Path(f"/proc/{holder.get('pid')}").exists()
    return age_seconds > LEASE_SECONDS or is_dead


def _renew(path: Path, is_over: threading.Event) -> None:
    while not is_over.wait(LEASE_SECONDS / 6):
        with contextlib.suppress(FileNotFoundError):
            os.utime(path)
