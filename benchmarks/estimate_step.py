"""Estimate the peak memory and the least time of a training step on GPUs that are not here, and the batch that fits.

The step is traced on tensors without numbers. Memory: the storages that are alive at the same time. Time: for each
operator the longer of its floating-point work at the GPU's rate and its bytes at the GPU's bandwidth (a roofline), so
no real step is faster. ``--check`` compares the memory with that of a real step in float32 on this CPU. ``--flops``
counts with PyTorch's own counter, where a multiplication with an addition counts as two.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.measuring import forget_peak, resident_bytes
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.results import text_table
from modules.models import BACKBONES, LSegNet, build_lseg
from modules.models.streaming import upsampled_cross_entropy
from modules.models.upsampling import upsampling_matrix
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer
from recipes.training import read_recipe

M_MMAP_THRESHOLD = -3  # of glibc's mallopt
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


class Trace(TorchDispatchMode):
    """What passes while it is entered: bytes alive and their peak, and each operator's work and traffic."""

    def __init__(self) -> None:
        super().__init__()
        self.alive = self.peak = 0
        self.work: list[tuple[float, float, bool]] = []  # FLOPs, bytes, whether in 16 bits
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
        rates = {True: gpu.reduced, False: gpu.float32}
        return sum(max(flop / rates[half], moved / gpu.bandwidth) for flop, moved, half in self.work)


def step(net: LSegNet, optimizer: torch.optim.Optimizer, batch: int, side: int, labels: int, half: bool) -> None:
    """One training step on empty images, as ``train_lseg.py`` does it."""
    images, text = torch.zeros(batch, 3, side, side), torch.zeros(labels, net.decoder.embedding.out_channels)
    target = torch.zeros(batch, side, side, dtype=torch.int64)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        logits = net.half_logits(images, text)
    upsampled_cross_entropy(logits, target, -1).backward()
    optimizer.step()
    optimizer.zero_grad()


def build(backbone: str, text_tower: str | None = None, frozen: bool = False) -> LSegNet:
    """The network in training mode; ``frozen``: its image encoder as --freeze_encoder of the training has it."""
    net = build_lseg(backbone, None, text_tower=text_tower).train()
    if frozen:
        net.image_encoder.freeze()
    return net


def trace_step(
    backbone: str, batch: int, side: int, labels: int, half: bool, checkpointing: bool = False, **network: Any
) -> Trace:
    """Trace the second training step, when the optimiser has its state. ``network``: further arguments of ``build``."""
    net = build(backbone, **network)
    net.image_encoder.checkpointing = checkpointing
    upsampling_matrix.cache_clear()
    # PyTorch before 2.8 would keep the parameters on the meta device.
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with FakeTensorMode(allow_non_fake_inputs=True):
            net.to_empty(device="cpu")  # parameters and buffers without numbers
            optimizer = build_optimizer(net, OptimizationConfig(batch_size=batch))
            with (trace := Trace()):
                trace.hold([*net.parameters(), *net.buffers()])
                step(net, optimizer, batch, side, labels, half)
                trace.work.clear()
                step(net, optimizer, batch, side, labels, half)
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        upsampling_matrix.cache_clear()
    return trace


def compare(backbone: str, batch: int, side: int, labels: int) -> str:
    """Compare the estimated memory of a step in float32 with how much two real ones let this process grow."""
    # glibc keeps freed blocks below 32 MB for itself: now it gives back what is freed, and what is resident is alive.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, 1 << 16)
    for name, size in (("tiny_vit", 64), (backbone, side)):  # the small network loads PyTorch's kernels
        gc.collect()
        before = resident_bytes()
        forget_peak()
        net = build_lseg(name, None).train()
        optimizer = build_optimizer(net, OptimizationConfig(batch_size=batch))
        for _ in range(2):
            step(net, optimizer, batch, size, labels, half=False)
        measured = resident_bytes(peak=True) - before
        del net, optimizer
    estimated = trace_step(backbone, batch, side, labels, half=False).peak
    return f"estimated {estimated / 1e9:.2f} GB, measured {measured / 1e9:.2f} GB, ratio {estimated / measured:.2f}"


def count(backbone: str, side: int, labels: int, **network: Any) -> list[float]:
    """GFLOP of an image's forward and of its training step, million trained weights, GB that these take in training."""
    flop = []
    with torch.device("meta"):
        net = build(backbone, **network)
        images, text = torch.empty(2, 3, side, side), torch.empty(labels, net.decoder.embedding.out_channels)
        with FlopCounterMode(display=False) as counter:
            logits = net(images, text)
            flop.append(counter.get_total_flops() / 2e9)
            logits.sum().backward()
            flop.append(counter.get_total_flops() / 2e9)
    trained = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return [*flop, trained / 1e6, 3 * 4 * trained / 1e9]


def main(argv: Sequence[str] | None = None) -> None:
    """Print a row for each GPU, or for each backbone, or compare the memory with a real step."""
    parser = Parser(__doc__)
    parser.add_argument(
        "--backbone", choices=list(BACKBONES), default="clip_vitl16_384", help="estimate for this backbone"
    )
    recipe = "take backbone, text tower and freezing from this recipe of `python -m recipes.training`"
    parser.add_argument("--recipe", help=recipe)
    parser.add_argument("--batch", type=int, default=4, help="put this many images into a step")
    parser.add_argument("--side", type=int, default=480, help="use square crops with sides of this many pixels")
    parser.add_argument("--labels", type=int, default=150, help="use this many labels")
    parser.add_argument(
        "--precision", choices=("bf16", "32"), default="bf16", help="run the forward pass in this precision"
    )
    parser.add_argument("--grad_checkpointing", action="store_true", help="trace with gradient checkpointing")
    parser.add_argument("--check", action="store_true", help="compare with the memory of a real step on this CPU")
    parser.add_argument("--flops", action="store_true", help="count the work of one image and the weights, by backbone")
    options = parser.parse(argv)
    if min(options.batch, options.side // 32, options.labels) < 1:
        raise InputError("--batch and --labels must be at least 1, --side at least 32")
    network: dict[str, Any] = {}
    if options.recipe:
        given = {name: value for name, (value, _) in read_recipe(options.recipe).options.items()}
        options.backbone = given["backbone"]
        network = {"text_tower": given.get("text_tower"), "frozen": "freeze_encoder" in given}
    if options.flops:
        header = ("backbone", "forward GFLOP", "training GFLOP", "trained M", "weights + gradients + momentum GB")
        names = [name for name in BACKBONES if not name.startswith("tiny")]
        names = [options.backbone] if options.recipe else names
        print(text_table(header, [(name, *count(name, options.side, options.labels, **network)) for name in names]))
        return
    if options.check:
        print(compare(options.backbone, options.batch, options.side, options.labels))
        return
    how = options.side, options.labels, options.precision == "bf16", options.grad_checkpointing
    one, two, asked = (trace_step(options.backbone, batch, *how, **network) for batch in (1, 2, options.batch))
    rows = []
    for name, gpu in GPUS.items():
        free, seconds = SPARE * gpu.memory, asked.seconds(gpu)
        fits = "yes" if asked.peak < free else "no"
        largest = max(int((free - one.peak) / (two.peak - one.peak)) + 1, 0)  # memory grows by the same for each image
        speed = f"{options.batch / seconds:.1f}"
        rows.append([name, f"{asked.peak / 1e9:.1f}", fits, largest, f"{seconds:.3f}", speed])
    print(text_table(["GPU", "peak GB", "fits", "largest batch", "least seconds", "most images/s"], rows))


if __name__ == "__main__":
    run_script(main)
