"""Several processes, each with a device, that train one model: `torchrun --nproc-per-node 8 -m gristmill.training...`.

torchrun tells every process its place (RANK, WORLD_SIZE, LOCAL_RANK). Gradients go over NCCL between GPUs, over gloo
between CPUs; what the processes agree on goes over gloo. "ddp" keeps the whole model on every device, "fsdp" (FSDP2,
Zhao et al. 2023) a part of its weights, gradients and moments on each.

The laws kept here: what the processes decide, they decide alike, from numbers that are equal on all of them; and
weights have the same names and values however they are spread. Not covered: tensor, pipeline and context parallelism,
and a number of processes that changes during a run.
"""

from __future__ import annotations

import contextlib
import gc
import os
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from gristmill.dataops.dataset import InputError
from gristmill.training.stream import World

Kind = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Peers:
    """This process among those that train together, and its device; alone where `world.size` is 1."""

    world: World
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this is the one that speaks and writes."""
        return self.world.rank == 0

    def total(self, part: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, in place; on a GPU without waiting for it."""
        if self.world.size > 1:
            dist.all_reduce(part)
        return part

    def any(self, *flags: bool) -> list[bool]:
        """Of each, whether it is so for any process."""
        return [number > 0 for number in self.total(torch.tensor(flags, dtype=torch.int32)).tolist()]

    def lead(self, value: float) -> float:
        """What the first process says, such as a time."""
        return float(self.total(torch.tensor(value if self.first else 0.0, dtype=torch.float64)))

    def wait(self) -> None:
        """Until all processes are here."""
        self.any(False)


@contextlib.contextmanager
def joined() -> Iterator[Peers]:
    """The processes that torchrun started; without it, this one alone. Raises InputError where a GPU is missing.

    What was spread over them has to be a local of functions that were called within.
    """
    world = World(int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1)))
    local = int(os.environ.get("LOCAL_RANK", 0))
    device = torch.device("cpu")
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise InputError(
                f"process {local} of this machine has no GPU, there are {torch.cuda.device_count()}: "
                "start as many processes as GPUs (--nproc-per-node)"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    if world.size == 1:
        yield Peers(world, device)
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    try:
        yield Peers(world, device)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        # The last to hold the group has to be Python, which lets go of the interpreter while gloo's threads end. DDP's
        # reducer does not: it would wait for a thread that waits for the interpreter.
        gc.collect()
        dist.destroy_process_group()


def spread(module: Any, kind: Kind, peers: Peers) -> Any:
    """The module, which has `layers`, on its device and ready for steps together; the same weights on all processes
    are taken for granted. `module` itself stays in use for its names.

    DDP and FSDP average gradients over processes. On GPUs FSDP gathers weights in bfloat16 and adds gradients up in
    float32.
    """
    module.to(peers.device)
    if peers.world.size == 1:
        return module
    if kind == "ddp":
        ids = [peers.device.index] if peers.device.type == "cuda" else None
        return DistributedDataParallel(module, device_ids=ids, gradient_as_bucket_view=True)
    mesh = init_device_mesh(peers.device.type, (peers.world.size,))
    policy = MixedPrecisionPolicy()
    if peers.device.type == "cuda":
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    for part in (*module.layers, module):
        fully_shard(part, mesh=mesh, mp_policy=policy)
    return module


def adding_up(module: Any, last: bool) -> contextlib.AbstractContextManager[None]:
    """Around a piece of a step: DDP adds gradients up over processes with the last piece alone. FSDP does with every
    piece, since what waits would have to be whole, which takes the memory that sharding saves."""
    if isinstance(module, DistributedDataParallel) and not last:
        return module.no_sync()
    return contextlib.nullcontext()


def clip(module: torch.nn.Module, most: float) -> torch.Tensor:
    """Scale the gradients down to a norm of at most `most` over all processes; returns their norm before that."""
    norm = torch.nn.utils.clip_grad_norm_(module.parameters(), most)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def whole(tree: Any, keep: bool) -> Any:
    """A state dict with whole tensors for sharded ones, on the CPU. All processes must ask for it; where `keep` is
    false the tensors are let go at once, and None stands for them."""
    if isinstance(tree, dict):
        return {name: whole(value, keep) for name, value in tree.items()}
    if isinstance(tree, list):
        return [whole(value, keep) for value in tree]
    if isinstance(tree, DTensor):
        full = tree.full_tensor()
        return full.cpu() if keep else None
    return tree


def like(full: torch.Tensor, place: torch.Tensor) -> torch.Tensor:
    """A whole tensor, spread over the processes as `place` is; every process has to have it."""
    if isinstance(place, DTensor):
        return distribute_tensor(full.to(place.device), place.device_mesh, place.placements, src_data_rank=None)
    return full
