"""How many processes train and on what, how they are joined, and how they end: together."""

from __future__ import annotations

import argparse
import signal
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import DDPStrategy

from lseg_utils.distributed import end_because_of, from_first, launched, watch_others
from lseg_utils.errors import InputError


def uses_gpu(options: argparse.Namespace) -> bool:
    """Whether this run trains on CUDA."""
    return options.accelerator in ("auto", "gpu") and torch.cuda.is_available()


def process_counts(options: argparse.Namespace) -> tuple[int, int]:
    """(processes on this node, nodes)."""
    if found := launched():
        return found.per_node, found.nodes
    devices = options.devices
    if devices == -1:
        devices = torch.cuda.device_count() if uses_gpu(options) else 1
    return devices, options.num_nodes or 1


def process_problems(options: argparse.Namespace) -> list[str]:
    """What would go wrong later: no or too few GPUs, impossible numbers, others than torchrun's."""
    problems = []
    if options.accelerator == "gpu" and not torch.cuda.is_available():
        problems.append("--accelerator gpu, but PyTorch sees no CUDA GPU here; use --accelerator cpu")
    if options.accelerator == "mps" and not torch.backends.mps.is_available():
        problems.append("--accelerator mps, but PyTorch sees no Apple GPU here; use --accelerator cpu")
    if options.devices == 0 or options.devices < -1:
        problems.append(f"--devices {options.devices} is no number of processes; use -1 (one per GPU) or 1, 2 ...")
    if options.num_nodes is not None and options.num_nodes < 1:
        problems.append(f"--num_nodes is {options.num_nodes}, but has to be at least 1")
    if problems:
        return problems

    per_node, nodes = process_counts(options)
    if uses_gpu(options) and per_node > torch.cuda.device_count():
        problems.append(
            f"{per_node} processes are to train here, but there are {torch.cuda.device_count()} GPUs; give "
            "as many --devices (or --nproc_per_node to torchrun) as there are GPUs, or --accelerator cpu"
        )
    if found := launched():
        if found.per_node * found.nodes != found.world:
            problems.append("torchrun started unequal numbers of processes; give all nodes the same --nproc_per_node")
        if options.devices not in (-1, per_node):
            problems.append(
                f"--devices {options.devices}, but torchrun started {per_node} processes on this node; "
                "leave --devices out"
            )
        if options.num_nodes not in (None, nodes):
            problems.append(
                f"--num_nodes {options.num_nodes}, but torchrun joined {nodes} nodes; give it --nnodes "
                f"{options.num_nodes}, or leave --num_nodes out"
            )
    return problems


def strategy(many: bool) -> DDPStrategy | str:
    """DDP for several processes: all trained weights take part in every step, so unused ones are not searched for."""
    return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True) if many else "auto"


class Together(Callback):
    """Processes begin with the same facts and end when one of them fails.

    facts: what all processes must have found alike, by name (a checkpoint to go on from, numbers of images).
    """

    def __init__(self, **facts: Any) -> None:
        self.facts = {name: str(fact) for name, fact in facts.items()}

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Start watching; ``InputError`` if this process has not found what the first one has."""
        watch_others(getattr(trainer.strategy.launcher, "procs", ()))
        first = from_first(self.facts)
        pairs = {name: (here, first[name]) for name, here in self.facts.items()}
        unlike = [f"{name}: here {here}, there {there}" for name, (here, there) in pairs.items() if here != there]
        if unlike:
            raise InputError(
                f"process {trainer.global_rank} does not find what the first process finds ({'; '.join(unlike)}). Put "
                "--checkpoint_dir on a file system that all nodes share, and the same data on all"
            )

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # Lightning's handler broadcasts in the middle of whatever the processes exchange, and waits. Files survive.
        if trainer.world_size > 1:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        end_because_of(exception)
