"""Garbage: what no kept run refers to, in a store that is a folder and in a remote one.

Reads the manifests, pointers, leases and sizes of a store; removes artifacts, and files that no manifest names. Kept is what a rule of
`--keep` names, and all that it was made of. Never removed is what a live lease is working on, nor what that work reads, nor anything
that was written in the last hour: a run that begins now may have looked it up already.

A manifest goes first and the files after it, so that a reader in the middle finds no artifact and never a part of one.
"""

import os
import re
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from model.errors import UserError
from model.processes import alive_file, lock_state, parse_lease, read_lease
from tasks.artifacts.manifest import MANIFEST, Manifest, check_id, is_bookkeeping
from tasks.artifacts.objects import Listed
from tasks.artifacts.remote import DamagedArtifact, object_key
from tasks.artifacts.store import Store
from tasks.execution.lease import LEASE
from tasks.execution.store_lease import free_artifact, is_live

# A run that finds an artifact up to date holds no lease on it until the next stage reads it.
YOUNG_SECONDS = 3600.0
DAY_SECONDS = 86_400.0
FINGERPRINT = re.compile(r"[0-9a-f]{16}")
AGE = re.compile(r"(\d+(?:\.\d+)?)d")
LATEST = "latest"
DEFAULT_KEEP = (LATEST, "7d")
MAX_RECORD_BYTES = 100_000


@dataclass
class Stored:
    """An artifact, finished or not, as the store has it."""

    artifact_id: str
    manifest: Manifest | None
    files: list[Listed] = field(default_factory=list)  # keys relative to the store
    reads: list[str] | None = None  # by the run that works on it; None: nobody does
    abandoned: str = ""  # version of the lease of a run on another machine that is dead

    @property
    def modified(self) -> float:
        """Seconds since the epoch: when something of it was written last."""
        return max((file.modified.timestamp() for file in self.files), default=0.0)


@dataclass(frozen=True)
class Removal:
    """What may go: an artifact as a whole, or files that are no part of it."""

    artifact_id: str
    reason: str
    keys: tuple[str, ...]
    bytes: int
    abandoned: str = ""  # see Stored


def find_garbage(store: Store, keep: Sequence[str] = DEFAULT_KEEP, now: float | None = None) -> list[Removal]:
    """What no kept run refers to. `keep`: rules, each `latest`, an age such as `7d`, or an artifact's id. Writes nothing.

    Raises UserError where a rule is something else, or names an artifact that does not exist.
    """
    now = time.time() if now is None else now
    found = {stored.artifact_id: stored for stored in _stored(store, now)}
    # With inputs, although the artifact does not need them any more: `crawl2chat show` and `trace` follow them to the archive.
    kept = _with_inputs(found, _kept(store, found, keep, now))
    # Also what the inputs were made of: a run that resumes after a kill may have to make one of them again.
    for stored in found.values():
        if stored.reads is not None:
            kept |= _with_inputs(found, {stored.artifact_id, *stored.reads})
    removals = []
    for artifact_id, stored in sorted(found.items()):
        # A lease among machines counts by its age on the server; see `is_live`.
        if stored.reads is not None or now - stored.modified < YOUNG_SECONDS:
            continue
        # A lease that was given back is a few bytes and stays: the number in it grows with each holder.
        own = [file for file in stored.files if not _is_lease(file.key)]
        if artifact_id not in kept and own:
            reason = "no kept run refers to it" if stored.manifest else "unfinished, and no run is at it"
            removals.append(_removal(stored, reason, own))
        elif artifact_id in kept and stored.manifest and (orphans := _orphans(store, stored, stored.manifest)):
            removals.append(_removal(stored, "files that its manifest does not name", orphans))
    return removals


def remove_garbage(store: Store, removals: Iterable[Removal]) -> int:
    """Remove it. Returns the number of bytes. An artifact that a run has begun to work on since is left."""
    num_bytes = 0
    for removal in removals:
        # Asked again under the lease: the list may be a minute old, or an hour where a person has read it first.
        with free_artifact(store, removal.artifact_id, removal.abandoned) as is_free:
            if is_free:
                _remove(store, removal)
                num_bytes += removal.bytes
    return num_bytes


def _remove(store: Store, removal: Removal) -> None:
    # The manifest first, see the head of this file. The lease and its locks stay: they are held, and a lock file that is deleted
    # would let two processes hold two locks of one name.
    keys = sorted(removal.keys, key=lambda key: not key.endswith(f"/{MANIFEST}"))
    folder = store.folder(removal.artifact_id)
    if store.remote is not None:
        store.remote.objects.delete(keys)
        return  # this machine's copy goes when it is next looked for
    for key in keys:
        (store.root / key).unlink(missing_ok=True)
    for parent, _, _ in os.walk(folder, topdown=False):
        if Path(parent) != folder and not any(Path(parent).iterdir()):
            Path(parent).rmdir()


def _removal(stored: Stored, reason: str, files: Sequence[Listed]) -> Removal:
    keys, num_bytes = tuple(file.key for file in files), sum(file.bytes for file in files)
    return Removal(stored.artifact_id, reason, keys, num_bytes, stored.abandoned)


def _is_lease(key: str) -> bool:
    name = key.split("/")[2]
    return name == LEASE or name.startswith(f".{LEASE}.")


def _kept(store: Store, found: dict[str, Stored], keep: Sequence[str], now: float) -> set[str]:
    kept: set[str] = set()
    for rule in keep:
        if rule == LATEST:
            kept |= set(_pointers(store))
        elif match := AGE.fullmatch(rule):
            oldest = now - float(match[1]) * DAY_SECONDS
            # By the newest object and not by the time in the manifest: an old artifact that is being made again is young.
            kept |= {artifact_id for artifact_id, stored in found.items() if stored.modified > oldest}
        else:
            kept.add(_named(found, rule, store))
    return kept


def _named(found: dict[str, Stored], rule: str, store: Store) -> str:
    try:
        check_id(rule)
    except ValueError:
        raise UserError(
            f"--keep {rule[:80]!r} is no rule: write latest, an age in days such as 30d, or an artifact as STAGE/FINGERPRINT"
        ) from None
    if rule not in found:
        raise UserError(
            f"--keep {rule}: {store.shown_url} has no such artifact; `crawl2chat stages` lists those of a recipe"
        )
    return rule


def _with_inputs(found: dict[str, Stored], ids: Iterable[str]) -> set[str]:
    """The artifacts, and all that they were made of."""
    kept: set[str] = set()
    pending = list(ids)
    while pending:
        artifact_id = pending.pop()
        # An input may be gone already: what was made of it is still good, and its own inputs are then unknown.
        if artifact_id not in kept:
            kept.add(artifact_id)
            stored = found.get(artifact_id)
            pending += stored.manifest.inputs.values() if stored and stored.manifest else ()
    return kept


def _orphans(store: Store, stored: Stored, manifest: Manifest) -> list[Listed]:
    """Files of a finished artifact that are no part of it: of runs that were killed or were not the first to commit."""
    if store.remote is None:
        named = {f"{stored.artifact_id}/{file.path}" for file in manifest.files}
    else:
        named = {object_key(stored.artifact_id, file) for file in manifest.files}
    named.add(f"{stored.artifact_id}/{MANIFEST}")
    return [file for file in stored.files if file.key not in named and not _is_lease(file.key)]


def _stored(store: Store, now: float) -> Iterator[Stored]:
    """Every artifact of the store, finished or not."""
    by_id = defaultdict[str, list[Listed]](list)
    for file in _files(store):
        parts = file.key.split("/")
        if len(parts) > 2 and FINGERPRINT.fullmatch(parts[1]):
            by_id["/".join(parts[:2])].append(file)
    for artifact_id, files in by_id.items():
        # What a run has begun has one of these. Other files may lie here too: the store may be a home, or a bucket for many things.
        if not any(is_bookkeeping(file.key.split("/")[2]) for file in files):
            continue
        manifest = None
        if any(file.key == f"{artifact_id}/{MANIFEST}" for file in files):
            try:
                manifest = store.find(artifact_id)
            except DamagedArtifact as error:
                # Left alone: what it was made of cannot be known, so nothing that it may need is safe to remove.
                raise UserError(f"nothing was removed: {error}") from None
            if manifest is None:  # removed since the listing
                continue
        stored = Stored(artifact_id, manifest, files)
        _find_lease(store, stored, now)
        yield stored


def _files(store: Store, prefix: str = "") -> Iterator[Listed]:
    """What the store has under `prefix`, which is empty or ends with a slash. Keys are relative to the store."""
    if store.remote is not None:
        yield from store.remote.objects.listing(prefix)
        return
    for parent, _, names in os.walk(store.root / prefix):
        for name in names:
            path = Path(parent, name)
            stat = path.lstat()
            key = str(path.relative_to(store.root))
            yield Listed(key, stat.st_size, datetime.fromtimestamp(stat.st_mtime, UTC))


def _find_lease(store: Store, stored: Stored, now: float) -> None:
    """Find out whether a run works on an artifact now."""
    path = store.folder(stored.artifact_id) / LEASE
    record = read_lease(path)
    # A lock that cannot be asked for (another user's, a file system without locks) counts as held.
    if record is not None and lock_state(alive_file(path)) != "free":
        stored.reads = _reads(record)
    if store.remote is None:
        return
    for file in stored.files:
        if file.key == f"{stored.artifact_id}/{LEASE}" and (
            found := store.remote.objects.get(file.key, MAX_RECORD_BYTES)
        ):
            record = parse_lease(found.data)
            if is_live(record, now - file.modified.timestamp()):
                stored.reads = _reads(record)
            else:
                stored.abandoned = found.tag


def _reads(record: dict[str, object]) -> list[str]:
    reads = record.get("reads")
    return [str(artifact_id) for artifact_id in reads] if isinstance(reads, list) else []


def _pointers(store: Store) -> Iterator[str]:
    """The ids of the latest artifacts of all recipes."""
    for file in _files(store, "recipes/"):
        _, *names = file.key.split("/")
        if len(names) == 2:
            yield store.latest(names[0], names[1])
