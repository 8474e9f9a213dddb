"""Estimate the peak memory and the least time of a training step on GPUs that are not here, and the batch that fits.

The step is traced on tensors without numbers. Memory: the storages that are alive at the same time. Time: for each
operator the longer of its floating-point work at the GPU's rate and its bytes at the GPU's bandwidth (a roofline), so
no real step is faster. ``--check`` compares the memory with that of a real step in float32 on this CPU.
"""

from __future__ import annotations

import argparse
import gc
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import forget_peak, memory
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.results import text_table
from modules.models import BACKBONES, LSegNet, build_lseg
from modules.models.upsampling import upsampling_matrix
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer

SPARE = 0.9  # of a GPU's memory: the rest is for CUDA, NCCL and fragmentation


@dataclass(frozen=True)
class GPU:
    """Dense rates without sparsity and the bandwidth, from NVIDIA's data sheets; memory in bytes."""

    reduced: float  # FLOP/s of bf16, or fp16 where there is no bf16
    float32: float  # FLOP/s outside the tensor cores
    bandwidth: float  # bytes/s
    memory: float


GPUS = {
    "V100 32GB": GPU(125e12, 15.7e12, 0.9e12, 32e9),  # fp16: it has no bf16
    "A100 80GB": GPU(312e12, 19.5e12, 2.0e12, 80e9),
    "H100 80GB": GPU(989e12, 67e12, 3.35e12, 80e9),
    "H200": GPU(989e12, 67e12, 4.8e12, 141e9),
    "RTX 4090": GPU(165e12, 82.6e12, 1.0e12, 24e9),
}


@dataclass
class Trace(TorchDispatchMode):
    """What passes while it is entered: bytes alive and their peak, and each operator's work and traffic."""

    alive: int = 0
    peak: int = 0
    work: list[tuple[float, float, bool]] = field(default_factory=list)  # FLOPs, bytes, whether in 16 bits

    def __post_init__(self) -> None:
        super().__init__()
        self._known: dict[int, weakref.ref] = {}

    def hold(self, tensors: Sequence[Any]) -> None:
        """Count the storages of tensors, each once, until they are freed."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            key, size = id(storage), storage.nbytes()
            if key not in self._known:
                self._known[key] = weakref.ref(storage, lambda _, key=key, size=size: self._free(key, size))
                self.alive += size
        self.peak = max(self.peak, self.alive)

    def _free(self, key: int, size: int) -> None:
        del self._known[key]
        self.alive -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        outputs = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        inputs = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        count = flop_registry.get(func._overloadpacket)
        flop = count(*args, **kwargs, out_val=result) if count else 0
        moved = sum(each.numel() * each.element_size() for each in inputs + outputs)
        views = {each.untyped_storage()._cdata for each in inputs}
        if flop or any(each.untyped_storage()._cdata not in views for each in outputs) or func._schema.is_mutable:
            self.work.append((flop, moved, bool(outputs) and outputs[0].element_size() == 2))
        self.hold(outputs)
        return result

    def seconds(self, gpu: GPU) -> float:
        """The roofline of all operators, one after the other."""
        return sum(max(flop / (gpu.reduced if half else gpu.float32), moved / gpu.bandwidth)
                   for flop, moved, half in self.work)  # fmt: skip


def step(net: LSegNet, optimizer: torch.optim.Optimizer, batch: int, side: int, labels: int, half: bool) -> None:
    """One training step on empty images, as ``train_lseg.py`` does it."""
    from modules.models.streaming import upsampled_cross_entropy

    width = net.decoder.embedding.out_channels
    images, text = torch.zeros(batch, 3, side, side), torch.zeros(labels, width)
    target = torch.zeros(batch, side, side, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = net.half_logits(images, text)
    upsampled_cross_entropy(logits, target, -1).backward()
    optimizer.step()
    optimizer.zero_grad()


def without_numbers(net: nn.Module) -> None:
    """Replace all parameters and buffers by fake ones; inside a ``FakeTensorMode``."""
    for module in net.modules():
        for name, old in list(module._parameters.items()):
            if old is not None:
                fake = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype)
                module._parameters[name] = nn.Parameter(fake, requires_grad=old.requires_grad)
        for name, old in list(module._buffers.items()):
            if old is not None:
                module._buffers[name] = torch.empty_strided(old.shape, old.stride(), dtype=old.dtype)


def trace_step(backbone: str, batch: int, side: int, labels: int, half: bool, checkpointing: bool = False) -> Trace:
    """Trace the second training step, when the optimiser has its state."""
    net = build_lseg(backbone, None).train()
    net.image_encoder.checkpointing = checkpointing
    upsampling_matrix.cache_clear()
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            without_numbers(net)
            optimizer = build_optimizer(net, OptimizationConfig(batch_size=batch))
            with (trace := Trace()):
                trace.hold([*net.parameters(), *net.buffers()])
                step(net, optimizer, batch, side, labels, half)
                trace.work.clear()
                step(net, optimizer, batch, side, labels, half)
    finally:
        upsampling_matrix.cache_clear()
    return trace


def measured_bytes(backbone: str, batch: int, side: int, labels: int) -> float:
    """How much the resident memory of this process grows over a real network and two steps in float32."""
    for name, size in (("tiny_vit", 64), (backbone, side)):
        gc.collect()
        before = memory("cpu")  # the small network has loaded PyTorch's kernels
        forget_peak("cpu")
        net = build_lseg(name, None).train()
        optimizer = build_optimizer(net, OptimizationConfig(batch_size=batch))
        for _ in range(2):
            step(net, optimizer, batch, size, labels, half=False)
        grown = memory("cpu", peak=True) - before
        del net, optimizer
    return grown


def largest_batch(one: Trace, two: Trace, gpu: GPU) -> int:
    """The batch that fits: memory grows with each image by what the second one added."""
    return max(int((SPARE * gpu.memory - one.peak) / (two.peak - one.peak)) + 1, 0)


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each GPU, or compare the memory with a real step."""
    parser = Parser(__doc__)
    parser.add_argument("--backbone", choices=list(BACKBONES), default="clip_vitl16_384")
    parser.add_argument("--batch", type=int, default=4, help="images per step")
    parser.add_argument("--side", type=int, default=480, help="side of the square crops")
    parser.add_argument("--labels", type=int, default=150, help="number of labels")
    parser.add_argument("--precision", choices=("bf16", "32"), default="bf16", help="numbers of the forward pass")
    parser.add_argument("--grad_checkpointing", action="store_true", help="trace with gradient checkpointing")
    parser.add_argument("--check", action="store_true", help="compare with the memory of a real step on this CPU")
    options = parser.parse(argv)
    if min(options.batch, options.side // 32, options.labels) < 1:
        raise InputError("--batch and --labels must be at least 1, --side at least 32")
    if options.check:
        print(compare(options))
        return
    how = options.side, options.labels, options.precision == "bf16", options.grad_checkpointing
    one, two = (trace_step(options.backbone, batch, *how) for batch in (1, 2))
    asked = two if options.batch == 2 else trace_step(options.backbone, options.batch, *how)
    rows = []
    for name, gpu in GPUS.items():
        seconds = asked.seconds(gpu)
        fits = "yes" if asked.peak < SPARE * gpu.memory else "no"
        rows.append([name, f"{asked.peak / 1e9:.1f}", fits, largest_batch(one, two, gpu), f"{seconds:.3f}",
                     f"{options.batch / seconds:.1f}"])  # fmt: skip
    print(text_table(["GPU", "peak GB", "fits", "largest batch", "least seconds", "most images/s"], rows))


def compare(options: argparse.Namespace) -> str:
    """Estimated and measured memory of a step in float32, and their ratio."""
    sizes = options.backbone, options.batch, options.side, options.labels
    measured = measured_bytes(*sizes)
    estimated = trace_step(*sizes, half=False).peak
    return f"estimated {estimated / 1e9:.2f} GB, measured {measured / 1e9:.2f} GB, ratio {estimated / measured:.2f}"


if __name__ == "__main__":
    run_script(main)
