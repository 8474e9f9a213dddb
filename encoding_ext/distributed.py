"""What tests and metrics need from torch.distributed: joining a group, and a sum over all processes."""

from __future__ import annotations

import os
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from encoding_ext.errors import InputError


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The element-wise sum of ``tensor`` over all processes, on its own device; a plain copy in a single process.

    Every process has to call it, with the same shape and dtype. ``tensor`` itself stays as it is.
    """
    if not (dist.is_available() and dist.is_initialized()):
        return tensor.clone()
    # nccl moves nothing but CUDA tensors.
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else tensor.device
    total = tensor.to(device, copy=True)
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return total.to(tensor.device)


def join_group(device: torch.device) -> torch.device:
    """Join the processes that torchrun started, each on its own GPU if ``device`` is CUDA; alone, nothing happens.

    Returns the device this process is to use; raises ``InputError`` if there are fewer GPUs than processes.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if device.type == "cuda":
        number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= there:
            raise InputError(f"more processes than GPUs: there are {there} here; use torchrun --nproc_per_node {there}")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    return device


def leave_group() -> None:
    """End what ``join_group`` began."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def from_first(value: Any) -> Any:
    """The first process's ``value`` in all of them (every process has to call it)."""
    if not (dist.is_available() and dist.is_initialized()):
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_all() -> None:
    """Return when every process has come here."""
    if dist.is_available() and dist.is_initialized():
        dist.barrier()
