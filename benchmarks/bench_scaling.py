"""A training step in one process and in two, joined as ``train_lseg.py`` joins them (DDP).

On a CPU the same batch and the same threads are divided among the processes. On GPUs each process has one, and a whole
batch of its own.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.bench_train_step import default_dtype, masks, step_work
from benchmarks.common import build_parser, matrix_rates, network, parse, pictures, precision_name, report
from benchmarks.measuring import Process, Work, row
from lseg_utils.errors import InputError, run_script
from modules.lseg_module import LSegModule
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer

DEFAULTS = {
    "cpu": {"backbone": "clip_vitb32_384", "size": 480, "batch": 2, "labels": 150, "rounds": 2},
    "cuda": {"backbone": "clip_vitl16_384", "size": 480, "batch": 8, "labels": 150, "rounds": 10},
}
COUNTS = (1, 2)


class Loss(nn.Module):
    """The network and its loss as one module, whose gradients DDP averages."""

    def __init__(self, module: LSegModule, dtype: torch.dtype | None) -> None:
        super().__init__()
        self.net, self.loss, self.dtype = module.net, module.loss, dtype

    def forward(self, images: Tensor, target: Tensor) -> Tensor:
        with torch.autocast(images.device.type, dtype=self.dtype, enabled=self.dtype is not None):
            return self.loss(self.net.half_logits(images), target)


def joined_step(rank: int, store: str, options: argparse.Namespace) -> Work:
    """The share of one of ``options.processes`` in a step."""
    on_gpu = options.device != "cpu"
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo", init_method=f"file://{store}", rank=rank, world_size=options.processes
    )
    options.device = f"cuda:{rank}" if on_gpu else "cpu"
    config = OptimizationConfig(batch_size=options.batch)
    net = network(options).train()
    optimizer = build_optimizer(net, config)
    if on_gpu:
        net = nn.SyncBatchNorm.convert_sync_batchnorm(net)
    whole = Loss(LSegModule(net, config), default_dtype(options))
    parallel = DistributedDataParallel(whole, device_ids=[rank] if on_gpu else None, gradient_as_bucket_view=True)
    images, target = pictures(options), masks(options)
    precision = precision_name(whole.dtype, options.device)
    return step_work(lambda: parallel(images, target), optimizer, options.batch, precision)


class Group:
    """Several processes that do their work together."""

    def __init__(self, count: int, options: argparse.Namespace, folder: str) -> None:
        share = {"processes": count}
        if options.device == "cpu":
            share |= {"threads": max(options.threads // count, 1), "batch": max(options.batch // count, 1)}
        own, store = argparse.Namespace(**vars(options) | share), str(Path(folder, f"store{count}"))
        self.count, self.threads = count, own.threads
        self.processes = [Process(partial(joined_step, rank, store), own) for rank in range(count)]

    def __call__(self, question: str) -> list[Any]:
        """The answers of all, who are asked at the same time."""
        for process in self.processes:
            process.ask(question)
        return [process.answer() for process in self.processes]

    def close(self) -> None:
        for process in self.processes:
            process.close()


def measure(options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """By procedure, as ``measuring.alternate`` gives it; a step takes as long as its last process."""
    with TemporaryDirectory() as folder:
        groups = [Group(count, options, folder) for count in COUNTS]
        try:
            measured = []
            for group in groups:
                answers = group("warm_up")
                sums = {key: sum(each[key] for each in answers) for key in ("flop", "items")}
                measured.append(answers[0] | sums | {"seconds": []})
            for _ in range(options.rounds):
                for group, each in zip(groups, measured):
                    each["seconds"].append(max(group("time")))
            for group, each in zip(groups, measured):
                each["peak_bytes"] = sum(group("peak"))
        finally:
            for group in groups:
                group.close()
    names = [f"{group.count} process(es), {group.threads} thread(s) each" for group in groups]
    return dict(zip(names, measured))


def main(argv: Sequence[str] | None = None) -> None:
    """Measure one and two processes in one run."""
    options = parse(build_parser(__doc__), argv, DEFAULTS)
    on_gpu = options.device != "cpu"
    if on_gpu and torch.cuda.device_count() < max(COUNTS):
        print("one GPU here: nothing to compare")
        return
    if not on_gpu and options.batch % max(COUNTS) and not options.quick:
        raise InputError(f"--batch is {options.batch}; give a multiple of {max(COUNTS)}, which processes can share")
    rates = matrix_rates(options.device, options.quick)
    measured = measure(options)
    first = next(iter(measured.values()))
    what = f"training step, {options.backbone}, {options.size}x{options.size}, {options.labels} labels"
    rows = []
    for count, (name, each) in zip(COUNTS, measured.items()):
        available = {name: rate * (count if on_gpu else 1) for name, rate in rates.items()}
        rows.append(row(f"{what}, {each['items']} images", name, each, available, "images", first))
    report("scaling", options, rates, rows)


if __name__ == "__main__":
    run_script(main)
