"""The training engine: a module and its optimizer on DeepSpeed, over one rank or many. What else the project does with DeepSpeed.

Reads and writes a checkpoint's files (model/training/checkpoints.py names the folders). `Engine` is what the trainers use: backward of
a sum, an optimizer step, sums over ranks, weights in float32, saving and loading. ZeRO is Rajbhandari et al. 2020.

DeepSpeed is pinned, and all that depends on its internals is in this file. Each point was seen in DeepSpeed 0.19.8 with torch 2.13:

- `deepspeed.ops.__compatible_ops__` is emptied: otherwise the first collective on a CPU compiles, with g++, an operation that only
  DeepSpeed's inference uses.
- The optimizer is passed to DeepSpeed: its own Adam would be compiled at the first step.
- torch's own optimizers import torch's compiler at the first call: 1.4 CPU seconds of each rank's start, a third. `EagerAdamW`
  does not; with ZeRO 3 or Muon it is imported in any case.
- ZeRO imports DeepSpeed's Muon to compare any optimizer with it, and Muon compiles its matrix products when it is imported: 1.9 of
  2.1 CPU seconds of a small run. Where it is not used they stay uncompiled, and without a GPU: compiling needs g++ and gains
  nothing on CPUs. torch.compile itself stays on.
- bfloat16 takes at least ZeRO 1: float32 master weights exist only there.
- Without ZeRO the gradient is clipped here: DeepSpeed then clips but does not report the norm.
- With Muon nothing is clipped: a step of Muon has the same length whatever the gradient's norm, and with ZeRO DeepSpeed would
  clip the step instead of the gradient.
- `load_checkpoint` asks torch for the unsafe load. TORCH_FORCE_WEIGHTS_ONLY_LOAD overrules it, so that no pickle is executed.
- A checkpoint of another number of ranks is read through DeepSpeed's universal checkpoint, whose converter is a command-line
  program. It does not know Muon's ZeRO shards; that is refused. From one of ZeRO 3 all parameter groups come back with the
  settings of the first, and share one step counter; both are put right after loading.
"""

import argparse
import contextlib
import inspect
import logging
import os
import resource
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import deepspeed
import torch
import torch.distributed as dist
from deepspeed.runtime import compiler
from deepspeed.runtime.zero.utils import ZERO_SUPPORTED_OPTIMIZERS
from torch import Tensor, nn

from model.config import OptimConfig
from model.errors import UserError
from model.files import files_of
from model.training import optim
from model.training.local_ranks import MEETING
from model.training.node_files import nodes_apart, spread

logger = logging.getLogger(__name__)

Tensors = TypeVar("Tensors", bound=tuple[Tensor, ...])


class EngineConfig(NamedTuple):
    """How an engine splits an optimizer step, and what it keeps where."""

    optim: OptimConfig
    dtype: str  # float32 or bfloat16
    zero_stage: int
    num_ranks: int
    microbatch: int  # records of one forward on one rank
    num_microbatches: int  # of one rank and optimizer step
    offload_optimizer: bool = False

    @property
    def effective_zero_stage(self) -> int:
        """The ZeRO stage that is used: bfloat16 needs the master weights of stage 1."""
        return max(self.zero_stage, int(self.dtype == "bfloat16"))

    @property
    def max_grad_norm(self) -> float:
        """The norm that the gradient is clipped to; 0 clips nothing."""
        return 0.0 if self.optim.optimizer == "muon" else self.optim.max_grad_norm

    def for_deepspeed(self, is_universal: bool) -> dict[str, Any]:
        """DeepSpeed's configuration. `is_universal`: a checkpoint of another number of ranks will be loaded."""
        # Names and meanings: https://www.deepspeed.ai/docs/config-json/, with the defaults of DeepSpeed 0.19.8.
        zero: dict[str, Any] = {
            "stage": self.effective_zero_stage,
            "reduce_scatter": self.optim.optimizer != "muon",  # Muon needs whole gradients of its matrices
        }
        # Without ZeRO there is no sharded optimizer to offload.
        if self.offload_optimizer and self.effective_zero_stage:
            zero["offload_optimizer"] = {"device": "cpu"}
        return {
            # The batch size is left out: DeepSpeed multiplies it from these
            # two and the number of ranks, and would refuse one that differs.
            "train_micro_batch_size_per_gpu": self.microbatch,
            "gradient_accumulation_steps": self.num_microbatches,
            # Without ZeRO `Engine.step` clips: see the docstring above.
            "gradient_clipping": self.max_grad_norm if self.effective_zero_stage else 0.0,
            "zero_optimization": zero,
            # Otherwise DeepSpeed refuses to offload any optimizer but its own CPU Adam, which it compiles.
            "zero_force_ds_cpu_optimizer": False,
            "bf16": {"enabled": self.dtype == "bfloat16"},
            # bfloat16 has 8 bits of precision: a sum over many microbatches in it would lose the small gradients.
            "data_types": {"grad_accum_dtype": "fp32"},
            # The project has its own metrics log.
            "steps_per_print": None,
            "checkpoint": {"load_universal": is_universal},
        }


class Engine:
    """A module on DeepSpeed. Every rank has one, and all ranks call its methods in the same order."""

    def __init__(self, module: nn.Module, config: EngineConfig, *, is_resharded: bool = False) -> None:
        """`is_resharded`: the checkpoint that will be loaded is of another number of ranks. Raises UserError for Muon's."""
        if is_resharded and config.optim.optimizer == "muon":
            raise UserError(
                f"the newest checkpoint is of another number of ranks than num_ranks={config.num_ranks}, and DeepSpeed cannot put "
                "Muon's ZeRO shards together: resume with as many ranks as before, or train with zero_stage=0"
            )
        self.config = config
        # No scheduler is passed: `optim.learning_rate_factor` depends
        # on the step alone, and a checkpoint then has no state of one.
        self.deepspeed, *_ = deepspeed.initialize(
            model=module, optimizer=make_optimizer(module, config.optim), config=config.for_deepspeed(is_resharded)
        )
        self.module: Any = self.deepspeed.module
        self.device: torch.device = self.deepspeed.device
        self.rank: int = self.deepspeed.global_rank
        self.has_zero: bool = self.deepspeed.zero_optimization_stage() > 0
        self._norm = 0.0

    def __call__(self, *tensors: Tensor) -> Any:
        """The module's forward."""
        return self.deepspeed(*tensors)

    def backward(self, loss_sum: Tensor, num_terms: float) -> None:
        """Add the gradient of `loss_sum / num_terms`: a microbatch's summed loss over the number of terms of the whole batch.

        DeepSpeed averages over ranks and microbatches. A mean of means is wrong where their numbers of terms differ, so the loss is
        scaled for the average to be the sum.
        """
        # With 2 ranks and 3 microbatches DeepSpeed divides by 6, so the loss is multiplied by 6 here.
        self.deepspeed.backward(loss_sum * (self.config.num_ranks * self.config.num_microbatches / num_terms))

    def step(self) -> None:
        """Finish a microbatch. After the last one of an optimizer step the weights move."""
        if not self.has_zero and self.deepspeed.is_gradient_accumulation_boundary():
            # At the boundary `.grad` holds the whole batch: DeepSpeed 0.19.8
            # all-reduces at the end of the last microbatch's backward.
            # clip_grad_norm_ with no bound computes the norm alone.
            most = self.config.max_grad_norm or float("inf")
            self._norm = float(nn.utils.clip_grad_norm_(self.module.parameters(), most))
        self.deepspeed.step()

    @property
    def gradient_norm(self) -> float:
        """The L2 norm of the last step's gradient, before clipping."""
        # None before the first update: a first step may have nothing to learn from.
        return float(self.deepspeed.get_global_grad_norm() or 0.0) if self.has_zero else self._norm

    def set_learning_rates(self, factor: float) -> None:
        """Give every parameter group `factor` of its peak learning rate."""
        optim.set_learning_rates(self.deepspeed.optimizer, factor)

    def total(self, value: float) -> float:
        """The sum of `value` over ranks."""
        return self.totals([value])[0]

    def totals(self, values: Sequence[float]) -> list[float]:
        """The sum of each value over ranks; all ranks have as many."""
        # float64: sums of token counts and nats over a large batch lose digits in float32.
        summed = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(summed)
        return [float(value) for value in summed]

    def to_device(self, tensors: Tensors) -> Tensors:
        """A named tuple of tensors, on the engine's device."""
        moved = (tensor.to(self.device, non_blocking=True) for tensor in tensors)
        return type(tensors)(*moved)

    def full_weights(self, module: nn.Module) -> dict[str, Tensor]:
        """The weights of `module` in float32 on the CPU, gathered from the ranks that hold a part of them."""
        # Parameter by parameter, so that no more than one is whole on a GPU at a time.
        return {name: full_precision(parameter) for name, parameter in module.named_parameters()}

    def has_finite_weights(self) -> bool:
        """Whether no weight is NaN or infinite on any rank; all ranks call it."""
        # With ZeRO 3 a rank holds a part of each parameter, under a name of DeepSpeed's.
        parts = (getattr(parameter, "ds_tensor", parameter) for parameter in self.module.parameters())
        return self.total(float(not all(bool(part.isfinite().all()) for part in parts))) == 0

    def memory_bytes(self) -> int:
        """The most memory used so far: of the GPU, or on a CPU of the process."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        # Linux gives KiB.
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024

    def save(self, folder: Path, steps: int) -> None:
        """Write weights, optimizer state and the number of steps done into the new folder `folder`."""
        # DeepSpeed's `latest` file is not used: it is not replaced atomically, and Checkpoints finds the newest folder itself.
        state = {"step": steps}
        self.deepspeed.save_checkpoint(str(folder.parent), tag=folder.name, client_state=state, save_latest=False)

    def load(self, checkpoint: Path) -> int:
        """Continue from a checkpoint. Returns the steps it has done. Raises what DeepSpeed and torch raise where it is damaged."""
        is_universal = self.deepspeed.load_universal_checkpoint()
        folder = checkpoint.with_name(f"universal-{checkpoint.name}") if is_universal else checkpoint
        if is_universal:
            if self.rank == 0:
                # One rank converts; the others wait, and then read the files.
                make_universal(checkpoint, folder)
            dist.barrier()
            if apart := nodes_apart(checkpoint.parents[1]):
                spread(folder, files_of(folder), apart)
        # Kept before loading: a universal checkpoint overwrites all groups with the first one's settings.
        settings = [{**group, "params": None} for group in self.deepspeed.optimizer.param_groups]
        with weights_only():
            # DeepSpeed documents None as the path of a checkpoint that could not
            # be loaded; `Checkpoints.load` makes a UserError of the assertion.
            path, state = self.deepspeed.load_checkpoint(str(folder.parent), tag=folder.name)
        assert path is not None, "its files are missing"
        if is_universal:
            _restore_groups(self.deepspeed.optimizer, settings)
            dist.barrier()
            if self.rank in (0, *nodes_apart(checkpoint.parents[1])):
                shutil.rmtree(folder, ignore_errors=True)
        return int(state["step"])

    def destroy(self) -> None:
        """Release the memory, for another engine to take its place."""
        self.deepspeed.destroy()


def join_ranks(num_ranks: int) -> None:
    """Join the ranks that an agent started, or be the only one. Raises UserError where these are not `num_ranks`."""
    if not dist.is_initialized():
        # DeepSpeed asserts that LOCAL_RANK is set, for a single process too.
        os.environ.setdefault("LOCAL_RANK", "0")
        if torch.cuda.is_available():
            # Before the process group: NCCL takes the current device, and every rank of a machine would meet the others on GPU 0.
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        if "RANK" in os.environ:
            # None: at the address that torchrun has put into the environment.
            dist.init_process_group(init_method=os.environ.get(MEETING))
        else:
            # A process alone needs no port: a store in its memory. init_process_group would ask for MASTER_ADDR.
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)  # type: ignore[attr-defined]
    if dist.get_world_size() != num_ranks:
        raise UserError(f"num_ranks={num_ranks}, but {dist.get_world_size()} processes were started: start as many")
    # Before init_distributed, which looks the operation up: see the docstring above.
    deepspeed.ops.__compatible_ops__ = {}
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)


def leave_ranks() -> None:
    """End this process, all of whose work is done. At once: while Python shuts down, gloo's threads may abort the process."""
    dist.destroy_process_group()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


class EagerAdamW(torch.optim.AdamW):
    """torch's AdamW without its decorators, which import the compiler to tell it that these methods are not for it."""

    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
    add_param_group = inspect.unwrap(torch.optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(torch.optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.AdamW.load_state_dict)


# ZeRO compares classes themselves, and takes only those of its list.
ZERO_SUPPORTED_OPTIMIZERS.append(EagerAdamW)


def make_optimizer(model: nn.Module, config: OptimConfig) -> torch.optim.Optimizer:
    """The optimizer over the parameter groups of `model`: torch's fused AdamW, or DeepSpeed's Muon with AdamW for the rest."""
    if config.optimizer == "adamw" or not torch.cuda.is_available():
        _import_muon_uncompiled()
    if config.optimizer == "adamw":
        groups = optim.parameter_groups(model, config)
        # Fused: one pass over weights, gradients and moments instead of one for each operation of the update.
        return EagerAdamW(groups, betas=(config.beta1, config.beta2), eps=config.eps, fused=True)
    from deepspeed.runtime.zero.muon.muon_optimizer import MuonWithAuxAdam

    # ZeRO flattens the parameters into one vector: it needs the mark
    # to know which slices are matrices to orthogonalize as a whole.
    for name, parameter in model.named_parameters():
        parameter.use_muon = optim.is_hidden_matrix(name, parameter)  # type: ignore[attr-defined]  # ZeRO looks for it
    optimizer: torch.optim.Optimizer = MuonWithAuxAdam(optim.muon_groups(model, config))
    return optimizer


def _import_muon_uncompiled() -> None:
    """Import DeepSpeed's Muon with its functions uncompiled. Where it compiles them in another way, they stay so, with a warning."""
    compile_functions = compiler.compile
    # It returns the decorator of Muon's functions.
    compiler.compile = lambda: lambda function: function
    try:
        from deepspeed.runtime.zero.muon.original_muon import muon_update
    finally:
        compiler.compile = compile_functions
    # torch.compile keeps the original function under this name.
    if hasattr(muon_update, "_torchdynamo_orig_callable"):
        logger.warning("DeepSpeed %s has compiled the functions of Muon", deepspeed.__version__)


def full_precision(parameter: Tensor) -> Tensor:
    """A parameter in float32 on the CPU, gathered from the ranks that hold a part of it; all ranks call it."""
    # With ZeRO the float32 master weight, more exact than the bfloat16 copy; None without ZeRO, and of a frozen parameter.
    master = deepspeed.utils.safe_get_full_fp32_param(parameter)
    # With ZeRO 3 a frozen parameter is sharded too; GatheredParameters leaves others as they are.
    with deepspeed.zero.GatheredParameters([parameter], enabled=master is None and hasattr(parameter, "ds_id")):
        whole = parameter.detach() if master is None else master
        return whole.float().cpu().clone(memory_format=torch.contiguous_format)


@contextlib.contextmanager
def weights_only() -> Iterator[None]:
    """Have torch.load refuse pickles, but for the few classes that DeepSpeed puts into its checkpoints besides tensors."""
    from deepspeed.runtime.fp16.loss_scaler import LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        with torch.serialization.safe_globals([LossScaler, ZeroStageEnum, fragment_address]):
            yield
    finally:
        # The variable acts on the whole process: other code may need the state that it had before.
        os.environ.pop(name) if before is None else os.environ.__setitem__(name, before)


def make_universal(checkpoint: Path, target: Path) -> None:
    """Write a checkpoint with its ZeRO shards put together, so that any number of ranks can load it."""
    from deepspeed.checkpoint.ds_to_universal import main

    # What a kill left of an earlier conversion. The copy has the size
    # of the checkpoint: the disk must hold one more for a moment.
    shutil.rmtree(target, ignore_errors=True)
    # One worker each: DeepSpeed would start more as a pool of processes, forked from one that holds threads and a GPU.
    workers = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False}
    folders = {"input_folder": str(checkpoint), "output_folder": str(target)}
    # The converter prints its progress; stdout is the command's result.
    with weights_only(), contextlib.redirect_stdout(sys.stderr):
        main(argparse.Namespace(**folders, **workers, strict=True, inject_missing_state=True))


def _restore_groups(optimizer: Any, settings: list[dict[str, Any]]) -> None:
    """Restore the settings of every parameter group, and give every parameter a separate step counter."""
    for group, setting in zip(optimizer.param_groups, settings, strict=True):
        group |= {**setting, "params": group["params"]}
    for state in optimizer.optimizer.state.values():
        if isinstance(state.get("step"), Tensor):
            # One shared tensor would be incremented once per parameter in each step, and skew Adam's bias correction.
            state["step"] = state["step"].clone()
