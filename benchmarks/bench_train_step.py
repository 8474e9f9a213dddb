"""A training step (forward, loss, backward, optimiser): the project's default against the plain procedure.

On a GPU also each at the largest batch that fits, by doubling.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from benchmarks import plain
from benchmarks.common import (
    SEED,
    build_parser,
    matrix_rates,
    network,
    parse,
    pictures,
    precision_name,
    report,
)
from benchmarks.measuring import Maker, Process, Work, alternate, row
from lseg_utils.errors import run_script
from modules.device import allow_tf32, reduced_dtype
from modules.lseg_module import LSegModule
from modules.models import LSegNet
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer

DEFAULTS = {
    "cpu": {"backbone": "clip_vitb32_384", "size": 480, "batch": 2, "labels": 150, "rounds": 1},
    "cuda": {"backbone": "clip_vitl16_384", "size": 480, "batch": 4, "labels": 150, "rounds": 10},
}
MAX_BATCH = 512


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


def project_step(options: argparse.Namespace) -> Work:
    """What ``train_lseg.py`` does by default here: float32 on a CPU, bfloat16 on a GPU."""
    return _project(network(options), options, default_dtype(options))


def project_bfloat16(options: argparse.Namespace) -> Work:
    """``train_lseg.py --precision bf16``."""
    return _project(network(options), options, torch.bfloat16)


def project_checkpointing(options: argparse.Namespace) -> Work:
    """``train_lseg.py --grad_checkpointing``."""
    net = network(options)
    net.image_encoder.checkpointing = True
    return _project(net, options, default_dtype(options))


def default_dtype(options: argparse.Namespace) -> torch.dtype | None:
    """The reduced dtype that --precision auto means on this device, None for float32."""
    return reduced_dtype("auto", torch.device(options.device))


def _project(net: LSegNet, options: argparse.Namespace, dtype: torch.dtype | None) -> Work:
    config = OptimizationConfig(batch_size=options.batch)
    module, optimizer = LSegModule(net.train(), config), build_optimizer(net, config)
    images, target = pictures(options), masks(options)
    allow_tf32(images.device.type == "cuda")

    def loss() -> Tensor:
        with torch.autocast(images.device.type, dtype=dtype, enabled=dtype is not None):
            return module.loss(net.half_logits(images), target)

    return step_work(loss, optimizer, options.batch, precision_name(dtype, options.device))


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
    "project, bfloat16": project_bfloat16,
    "project, gradient checkpointing": project_checkpointing,
}


def largest_batch(maker: Maker, options: argparse.Namespace) -> dict[str, Any] | None:
    """The measurement at the largest power of two that fits on the GPU, None if not even one image does."""
    best, batch = None, 1
    while batch <= MAX_BATCH:
        here = argparse.Namespace(**vars(options) | {"batch": batch})
        process = Process(maker, here)
        try:
            measured = process("warm_up")
            measured["seconds"] = [process("time") for _ in range(options.rounds)]
            best = measured | {"peak_bytes": process("peak")}
        except MemoryError:
            break
        finally:
            process.close()
        batch *= 2
    return best


def main(argv: Sequence[str] | None = None) -> None:
    """Measure at a common batch, and on a GPU at the largest ones."""
    options = parse(build_parser(__doc__), argv, DEFAULTS)
    rates, on_gpu = matrix_rates(options.device, options.quick), options.device != "cpu"
    makers = {name: maker for name, maker in MAKERS.items() if not (on_gpu and "bfloat16" in name)}  # the default there
    what = f"training step, {options.backbone}, {options.size}x{options.size}, {options.labels} labels"
    measured, _ = alternate(makers, options, ["project"])
    rows = [
        row(f"{what}, batch {options.batch}", name, each, rates, "images", measured["plain"])
        for name, each in measured.items()
    ]
    if on_gpu:
        largest = {name: best for name, maker in makers.items() if (best := largest_batch(maker, options))}
        rows += [
            row(f"{what}, largest batch", f"{name}, {best['items']}", best, rates, "images", largest.get("plain"))
            for name, best in largest.items()
        ]
    report("train_step", options, rates, rows)


if __name__ == "__main__":
    run_script(main)
