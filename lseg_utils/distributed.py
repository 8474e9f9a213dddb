"""Several processes that work on one job: how many a launcher started, joining them, sums, and a common end.

Importing this file, and ``run_distributed`` in a single process, does not import torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from lseg_utils.errors import InputError, run_script
from lseg_utils.watch import Watch, end_with_the_others

if TYPE_CHECKING:
    import torch
    from torch import Tensor

# In a test, one process may finish its images long before another. watch.py finds dead processes.
PATIENCE = timedelta(days=1)

_watch: Watch | None = None


class Launched(NamedTuple):
    """What torchrun started: processes on this node, nodes, processes on all nodes."""

    per_node: int
    nodes: int
    world: int


def launched() -> Launched | None:
    """What torchrun started, by its environment variables; None in a process that it did not start."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return None
    return Launched(*(int(os.environ[name]) for name in ("LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "WORLD_SIZE")))


def run_distributed(main: Callable[[], int | None]) -> None:
    """``run_script`` for a script that may run in several processes: when one fails, all end and show the reason."""

    def end_together() -> int | None:
        """``main``, while watching the other processes."""
        watch_others()
        try:
            code = main()
            leave_group()
        except (Exception, KeyboardInterrupt) as error:
            end_because_of(error)
            raise
        return code

    run_script(end_together)


def watch_others(children: Sequence[subprocess.Popen] = ()) -> None:
    """From now on, end when another process of this run ends; does nothing where no other is known.

    children: the processes after this one, where this one has started them.
    """
    global _watch
    if _watch is not None:
        return
    if dist := _group():
        rank, world = dist.get_rank(), dist.get_world_size()
    elif processes := launched():
        rank, world = int(os.environ["RANK"]), processes.world
    else:
        return
    if world > 1:
        _watch = Watch(rank, world, os.getppid() if launched() else None, children)
        _watch.start()


def end_because_of(error: BaseException) -> None:
    """If there are other processes: show ``error``, end this process and them. Alone: return."""
    if _watch is not None:
        end_with_the_others(_watch, error)


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The element-wise sum of ``tensor`` over all processes, on its own device; a plain copy in a single process.

    Every process must call it, with the same shape and dtype. ``tensor`` itself is not changed.
    """
    import torch

    dist = _group()
    if dist is None:
        return tensor.clone()
    # nccl moves nothing but CUDA tensors.
    device = torch.device("cuda", torch.cuda.current_device()) if dist.get_backend() == "nccl" else tensor.device
    total = tensor.to(device, copy=True)
    dist.all_reduce(total, op=dist.ReduceOp.SUM)
    return total.to(tensor.device)


def join_group(device: torch.device) -> torch.device:
    """Join the processes that torchrun started, each on its own GPU if ``device`` is CUDA; alone, do nothing.

    Returns the device that this process must use; raises ``InputError`` if there are fewer GPUs than processes.
    """
    import torch
    import torch.distributed as dist

    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        return device
    if device.type == "cuda":
        number, there = int(os.environ["LOCAL_RANK"]), torch.cuda.device_count()
        if number >= there:
            raise InputError(f"more processes than the {there} GPUs here; use torchrun --nproc_per_node {there}")
        device = torch.device("cuda", number)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=PATIENCE)
    return device


def leave_group() -> None:
    """Leave the group when all processes have come here: the first one, which may run the common store, ends last."""
    global _watch
    wait_for_all()
    if _watch is not None:
        _watch.stop()
        _watch = None
    wait_for_all()
    if dist := _group():
        dist.destroy_process_group()


def from_first(value: Any) -> Any:
    """The first process's ``value`` in all of them (every process must call it)."""
    dist = _group()
    if dist is None:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def wait_for_all() -> None:
    """Return when every process has come here."""
    if dist := _group():
        dist.barrier()


def _group() -> Any:
    """``torch.distributed`` if this process has joined a group, else None."""
    dist = sys.modules.get("torch.distributed")
    return dist if dist is not None and dist.is_available() and dist.is_initialized() else None
