"""Checkpoints to resume from: which folders hold one, and when one is complete.

Writes step-00000123/ with what DeepSpeed needs to resume after 123 steps: weights, optimizer state by rank, and the steps done. It is
written under another name, put on the disk and renamed when all ranks are done, so that a folder of that name is complete
after a kill and after a power cut. Only the newest few are kept. Nodes may share the folder; otherwise that of rank 0's node counts, which
collects the files of the others, and gives them theirs before a run resumes (model/training/node_files.py).
"""

import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
import torch.distributed as dist

from model.errors import UserError
from model.files import files_of, naming_full_disk
from model.processes import check_lease
from model.training.engine import Engine
from model.training.node_files import agreed, collect, nodes_apart, spread

# Eight digits: names sort as numbers up to 100 million steps, which at one a second are three years.
STEP_FOLDER = re.compile(r"step-(\d+)")


class Checkpoints:
    """The checkpoints in a folder, of which the newest `num_kept` stay."""

    def __init__(self, folder: Path, num_kept: int) -> None:
        self.folder = folder
        self.num_kept = num_kept

    def save(self, engines: Mapping[str, Engine], steps: int) -> None:
        """Write the checkpoint after `steps` steps, and delete the oldest; all ranks call it.

        `engines` by name, each in a folder of that name; that of the empty name is in the checkpoint's folder itself.

        Raises LeaseLost where another run has taken over the folder. It is asked again before the rename: to write takes minutes for a
        large model, and what counts is that no two runs leave checkpoints in one folder.
        """
        check_lease()
        partial, apart = self.folder / f"partial-{steps:08d}", nodes_apart(self.folder.parent)
        rank = engines[""].rank
        # What a kill left. The other ranks cannot write into it yet: `engine.save` begins with a barrier.
        if rank in (0, *apart):
            shutil.rmtree(partial, ignore_errors=True)
        try:
            with naming_full_disk(self.folder):
                for name, engine in engines.items():
                    engine.save(partial / name, steps)
                if apart:
                    collect(partial, apart)
        # KeyboardInterrupt and SystemExit too. On a full disk, what was written would hold the rest of the space.
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        check_lease()
        if rank == 0:
            # Only after engine.save and collect, which end with a barrier: all ranks' files are there.
            sync([*partial.rglob("*"), partial])
            partial.replace(self.folder / f"step-{steps:08d}")
            sync([self.folder])
            # Last, so that a kill leaves one checkpoint too many and never one too few.
            for old in complete_checkpoints(self.folder)[: -self.num_kept]:
                shutil.rmtree(old)

    def load(self, engines: Mapping[str, Engine]) -> int:
        """Resume from the newest checkpoint; all ranks call it. Returns the steps done, 0 without a checkpoint.

        Raises UserError where it cannot be read.
        """
        newest = self.newest()
        if newest is None:
            return 0
        try:
            steps = [engine.load(newest / name) for name, engine in engines.items()]
            return steps[0]  # all have done as many: they were saved together
        # A RuntimeError too, but the checkpoint is not at fault.
        except torch.OutOfMemoryError:
            raise
        # AssertionError: files are missing, see `Engine.load`. UnpicklingError:
        # one holds a class that `weights_only` does not admit.
        except (EOFError, AssertionError, OSError, RuntimeError, UnpicklingError) as error:
            # torch's messages run over many lines: the first sentence has the cause.
            reason = re.split(r"\. |\n", str(error))[0] or type(error).__name__
            raise UserError(
                f"the checkpoint {newest} cannot be read ({reason}): if it is damaged, delete that folder to resume from the one before"
            ) from None

    def newest(self) -> Path | None:
        """The newest complete checkpoint, as rank 0 sees it; all ranks call it."""
        found = complete_checkpoints(self.folder)
        steps = agreed(int(found[-1].name.removeprefix("step-")) if found else -1)
        return self.folder / f"step-{steps:08d}" if steps >= 0 else None

    def fetch(self, output: Path) -> None:
        """Copy what a run resumes from to nodes that do not see it; all ranks call it, before they read any of it.

        That is the newest checkpoint, what lies next to the checkpoints, and the metrics in `output`.
        """
        state = self.folder.parent
        if not (apart := nodes_apart(state)):
            return
        newest = self.newest()
        if dist.get_rank() in apart:
            # Checkpoints of a run that this node was once the first of.
            shutil.rmtree(self.folder, ignore_errors=True)
        # A log grows, and its launcher's alone.
        others = [path for path in files_of(state) if self.folder not in path.parents and path.suffix != ".log"]
        spread(state, [*others, *(files_of(newest) if newest else ())], apart)
        spread(output, [path for path in (output / "metrics.jsonl",) if path.exists()], apart)

    def is_resharded(self, num_ranks: int) -> bool:
        """Whether the newest checkpoint was sharded over another number of ranks than `num_ranks`; all ranks call it."""
        newest = self.newest()
        # With ZeRO every rank writes one file of optimizer states.
        num_shards = agreed(len(list(newest.glob("*optim_states.pt")))) if newest else 0
        return num_shards not in (0, num_ranks)  # without ZeRO nothing is sharded


def complete_checkpoints(folder: Path) -> list[Path]:
    """The complete checkpoints in a folder, by step."""
    return sorted(path for path in folder.glob("step-*") if STEP_FOLDER.fullmatch(path.name))


def sync(paths: Iterable[Path]) -> None:
    """Have files and folders on the disk. Otherwise a rename may survive a power cut that they do not."""
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
