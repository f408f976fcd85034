"""Files of a run whose nodes share no folder: rank 0's node has them all, and the others have copies of what their ranks read.

Reads and writes files under the same path on every node. They travel through the process group, as the tensors of the training do, in
pieces of CHUNK_BYTES: no node needs more than the network that it has. A node that sees a file which rank 0 has just made shares its
folder, and is left out: with a shared folder, or on one machine, nothing travels.
"""

import functools
import json
import os
import secrets
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import torch
import torch.distributed as dist

from model.files import files_of, replacing

CHUNK_BYTES = 2**26


def agreed(value: int) -> int:
    """Rank 0's value, on all ranks. On a network file system a node may list a folder as it was a minute ago."""
    tensor = torch.tensor(value)
    dist.broadcast(tensor, 0)
    return int(tensor)


@functools.cache
def nodes_apart(folder: Path) -> tuple[int, ...]:
    """One rank of each node that does not see rank 0's `folder`. All ranks call it."""
    if int(os.environ.get("LOCAL_WORLD_SIZE", "1")) == dist.get_world_size():
        return ()
    # A name that nobody has asked for: file systems remember that a file was missing.
    mark = folder / f".seen-{agreed(secrets.randbits(62)):016x}"
    if dist.get_rank() == 0:
        folder.mkdir(parents=True, exist_ok=True)
        mark.touch()
    dist.barrier()
    is_apart = torch.tensor(int(not mark.exists() and os.environ["LOCAL_RANK"] == "0"))
    flags = [torch.zeros_like(is_apart) for _ in range(dist.get_world_size())]
    dist.all_gather(flags, is_apart)
    if dist.get_rank() == 0:
        mark.unlink()
    return tuple(rank for rank, flag in enumerate(flags) if flag)


def spread(root: Path, paths: Iterable[Path], apart: Iterable[int]) -> None:
    """Copy rank 0's files `paths`, which lie under `root`, to the nodes of the ranks `apart`. All ranks call it."""
    for rank in apart:
        if dist.get_rank() == 0:
            send_files(root, paths, rank)
        elif dist.get_rank() == rank:
            receive_files(root, 0)
    dist.barrier()


def collect(folder: Path, apart: Iterable[int]) -> None:
    """Move all files under `folder` on the nodes of the ranks `apart` to rank 0's node. All ranks call it."""
    # One after the other: all of them share the line to rank 0.
    for rank in apart:
        if dist.get_rank() == 0:
            receive_files(folder, rank)
        elif dist.get_rank() == rank:
            send_files(folder, files_of(folder), 0)
            shutil.rmtree(folder)
    dist.barrier()


def send_files(root: Path, paths: Iterable[Path], rank: int) -> None:
    """Send files to another rank, which calls `receive_files`."""
    # Sizes are those of the moment: of a log that grows, what it has now is sent.
    sizes = {path: path.stat().st_size for path in paths}
    listing = json.dumps([[path.relative_to(root).as_posix(), size] for path, size in sizes.items()]).encode()
    dist.send(torch.tensor(len(listing)), rank)
    dist.send(torch.frombuffer(bytearray(listing), dtype=torch.uint8), rank)
    for path, size in sizes.items():
        with path.open("rb") as stream:
            for start in range(0, size, CHUNK_BYTES):
                chunk = bytearray(stream.read(min(CHUNK_BYTES, size - start)))
                dist.send(torch.frombuffer(chunk, dtype=torch.uint8), rank)


def receive_files(root: Path, rank: int) -> None:
    """Write files that another rank sends, under `root`."""
    num_bytes = torch.tensor(0)
    dist.recv(num_bytes, rank)
    listing = torch.empty(int(num_bytes), dtype=torch.uint8)
    dist.recv(listing, rank)
    for name, size in json.loads(listing.numpy().tobytes()):
        if ".." in PurePosixPath(name).parts or PurePosixPath(name).is_absolute():
            raise ValueError(f"rank {rank} sent a file {name!r}, which leads out of {root}")
        with replacing(root / name) as temporary, temporary.open("wb") as stream:
            for start in range(0, size, CHUNK_BYTES):
                chunk = torch.empty(min(CHUNK_BYTES, size - start), dtype=torch.uint8)
                dist.recv(chunk, rank)
                stream.write(chunk.numpy().tobytes())
