"""A training step (forward, loss, backward, optimiser): the project's default against the plain procedure.

On a GPU also each at the largest batch that fits, by doubling.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, nn

from benchmarks import plain
from benchmarks.common import SEED, build_parser, network, parse, pictures, precision_name, report
from benchmarks.measuring import Maker, Process, Work, alternate, row
from lseg_utils.errors import run_script
from modules.device import allow_tf32, reduced_dtype
from modules.lseg_module import LSegModule
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer


class Loss(nn.Module):
    """The network and its loss as one module, whose gradients DDP can average."""

    def __init__(self, module: LSegModule, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.net, self.loss, self.dtype = module.net, module.loss, dtype

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return self.loss(self.net.half_logits(images), target)


def masks(options: argparse.Namespace) -> Tensor:
    """(batch, size, size): a label for every pixel, one in ten without."""
    shape = (options.batch, options.size, options.size)
    generator = torch.Generator().manual_seed(SEED)
    target = torch.randint(options.labels, shape, generator=generator)
    return target.masked_fill(torch.rand(shape, generator=generator) < 0.1, -1).to(options.device)


def plain_step(options: argparse.Namespace) -> Work:
    """Text through the tower in every step, forward and backward; logits at full size; float32."""
    net = plain.prepare(network(options)).train()
    config = OptimizationConfig(batch_size=options.batch)
    images, target = pictures(options), masks(options)
    optimizer = plain.optimizer(net, config.encoder_lr, config.scratch_lr)
    return step_work(lambda: plain.loss(net, images, net.labels, target), optimizer, options.batch, "float32")


def project_step(
    options: argparse.Namespace,
    precision: str = "auto",
    checkpointing: bool = False,
    wrap: Callable[[Loss], nn.Module] | None = None,
) -> Work:
    """What ``train_lseg.py`` does with this --precision and --grad_checkpointing; ``wrap`` makes it parallel."""
    net, config = network(options).train(), OptimizationConfig(batch_size=options.batch)
    net.image_encoder.checkpointing = checkpointing
    images, target = pictures(options), masks(options)
    dtype, optimizer = reduced_dtype(precision, images.device), build_optimizer(net, config)
    allow_tf32(images.device.type == "cuda")
    loss = Loss(LSegModule(net, config), dtype)
    loss = wrap(loss) if wrap else loss
    return step_work(lambda: loss(images, target), optimizer, options.batch, precision_name(dtype, options.device))


def step_work(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer, batch: int, precision: str) -> Work:
    """A step that learns from ``loss()``."""

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        return value.item()

    return Work(step, batch, precision)


MAKERS: dict[str, Maker] = {
    "plain": plain_step,
    "project": project_step,
    "project, bfloat16": partial(project_step, precision="bf16"),
    "project, gradient checkpointing": partial(project_step, checkpointing=True),
}


def largest_batch(maker: Maker, options: argparse.Namespace) -> dict[str, Any] | None:
    """The measurement at the largest power of two up to 512 that fits on the GPU, None if not even one image does."""
    best = None
    for exponent in range(10):
        here = argparse.Namespace(**vars(options) | {"batch": 2**exponent})
        try:
            best = alternate({"it": Process(maker, here)}, options.rounds)[0]["it"]
        except MemoryError:
            break
    return best


def main() -> None:
    """Measure at a common batch, and on a GPU at the largest ones."""
    options = parse(build_parser(__doc__), cpu={"batch": 2, "rounds": 1}, cuda={"batch": 4, "rounds": 10})
    on_gpu = options.device != "cpu"
    makers = {name: maker for name, maker in MAKERS.items() if not (on_gpu and "bfloat16" in name)}  # the default there
    what = f"training step, {options.backbone}, {options.size}x{options.size}, {options.labels} labels"
    processes = {name: Process(maker, options) for name, maker in makers.items()}
    measured, _ = alternate(processes, options.rounds, ["project"])
    at_batch = f"{what}, batch {options.batch}"
    rows = [row(at_batch, name, each, measured["plain"]) for name, each in measured.items()]
    if on_gpu:
        largest = {name: best for name, maker in makers.items() if (best := largest_batch(maker, options))}
        for name, best in largest.items():
            rows.append(row(f"{what}, largest batch", f"{name}, {best['items']}", best, largest.get("plain")))
    report("train_step", options, rows)


if __name__ == "__main__":
    run_script(main)
