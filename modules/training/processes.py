"""How many processes train, and on what. Importing this file does not import torch."""

from __future__ import annotations

from dataclasses import dataclass

from lseg_utils.distributed import launched
from lseg_utils.errors import InputError, raise_all


@dataclass(frozen=True)
class Processes:
    """The accelerator and the numbers of processes and nodes; where torchrun started the processes, its numbers count.

    ``check_devices`` asks PyTorch whether the devices exist; everything else is checked on construction.
    """

    accelerator: str = "auto"
    devices: int = -1
    """Processes on this node; -1: one per GPU."""
    num_nodes: int | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.devices == 0 or self.devices < -1:
            problems.append(f"--devices is {self.devices}, but must be -1 (one per GPU) or at least 1")
        if self.num_nodes is not None and self.num_nodes < 1:
            problems.append(f"--num_nodes is {self.num_nodes}, but must be at least 1")
        if not problems and (found := launched()):
            if found.per_node * found.nodes != found.world:
                problems.append("torchrun started unequal numbers of processes; use one --nproc_per_node on all nodes")
            if self.devices not in (-1, found.per_node):
                problems.append(
                    f"--devices {self.devices}, but torchrun started {found.per_node} processes on this node; "
                    "leave --devices out"
                )
            if self.num_nodes not in (None, found.nodes):
                problems.append(
                    f"--num_nodes {self.num_nodes}, but torchrun joined {found.nodes} nodes; start it with --nnodes "
                    f"{self.num_nodes}, or leave --num_nodes out"
                )
        raise_all(problems)

    @property
    def on_gpu(self) -> bool:
        """Whether this run trains on CUDA."""
        import torch

        return self.accelerator in ("auto", "gpu") and torch.cuda.is_available()

    def counts(self) -> tuple[int, int]:
        """(processes on this node, nodes)."""
        if found := launched():
            return found.per_node, found.nodes
        import torch

        automatic = torch.cuda.device_count() if self.on_gpu else 1
        return automatic if self.devices == -1 else self.devices, self.num_nodes or 1

    def check_devices(self) -> None:
        """``InputError`` if this machine lacks the accelerator, or has fewer GPUs than processes."""
        import torch

        if self.accelerator == "gpu" and not torch.cuda.is_available():
            raise InputError("--accelerator gpu, but PyTorch finds no CUDA GPU here; use --accelerator cpu")
        if self.accelerator == "mps" and not torch.backends.mps.is_available():
            raise InputError("--accelerator mps, but PyTorch finds no Apple GPU here; use --accelerator cpu")
        per_node, gpus = self.counts()[0], torch.cuda.device_count()
        if self.on_gpu and per_node > gpus:
            raise InputError(
                f"{per_node} processes were asked for, but this machine has {gpus} GPUs; give --devices {gpus} (or "
                f"--nproc_per_node {gpus} to torchrun), or --accelerator cpu"
            )
