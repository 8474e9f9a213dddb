"""A training step in one process and in two, joined as ``train_lseg.py`` joins them (DDP).

On a CPU the same batch and the same threads are divided among the processes. On GPUs each process has one, and a whole
batch of its own.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from benchmarks.bench_train_step import Loss, project_step
from benchmarks.common import build_parser, parse, report
from benchmarks.measuring import Process, Work, alternate, row
from lseg_utils.errors import InputError, run_script

COUNTS = (1, 2)


def joined_step(rank: int, store: str, options: argparse.Namespace) -> Work:
    """The share of one of ``options.processes`` in a step."""
    on_gpu = options.device != "cpu"
    distributed.init_process_group(
        "nccl" if on_gpu else "gloo", init_method=f"file://{store}", rank=rank, world_size=options.processes
    )
    options.device = f"cuda:{rank}" if on_gpu else "cpu"

    def join(loss: Loss) -> nn.Module:
        joined = nn.SyncBatchNorm.convert_sync_batchnorm(loss) if on_gpu else loss
        return DistributedDataParallel(joined, device_ids=[rank] if on_gpu else None, gradient_as_bucket_view=True)

    return project_step(options, wrap=join)


class Group:
    """Several processes that do their work together, asked as one ``measuring.Process``."""

    def __init__(self, count: int, options: argparse.Namespace, folder: str) -> None:
        share = {"processes": count}
        if options.device == "cpu":
            share |= {"threads": max(options.threads // count, 1), "batch": max(options.batch // count, 1)}
        own, store = argparse.Namespace(**vars(options) | share), str(Path(folder, f"store{count}"))
        self.name = f"{count} process(es), {own.threads} thread(s) each"
        self.processes = [Process(partial(joined_step, rank, store), own) for rank in range(count)]

    def __call__(self, question: str) -> Any:
        """The work and the memory of all; a step takes as long as its last process."""
        for process in self.processes:
            process.ask(question)
        answers = [process.answer() for process in self.processes]
        if question == "warm_up":
            return answers[0] | {key: sum(each[key] for each in answers) for key in ("flop", "items")}
        return {"time": max, "peak": sum}.get(question, list)(answers)

    def close(self) -> None:
        """End the processes."""
        for process in self.processes:
            process.close()


def main() -> None:
    """Measure one and two processes in one run."""
    options = parse(build_parser(__doc__), cpu={"batch": 2, "rounds": 2}, cuda={"batch": 8, "rounds": 10})
    on_gpu = options.device != "cpu"
    if on_gpu and torch.cuda.device_count() < max(COUNTS):
        print("there is only one GPU here, so there is nothing to compare")
        return
    if not on_gpu and options.batch % max(COUNTS) and not options.quick:
        raise InputError(f"--batch is {options.batch}; give a multiple of {max(COUNTS)}, which processes can share")
    with TemporaryDirectory() as folder:
        groups = [Group(count, options, folder) for count in COUNTS]
        measured, _ = alternate({group.name: group for group in groups}, options.rounds)
    what = f"training step, {options.backbone}, {options.size}x{options.size}, {options.labels} labels"
    first = measured[groups[0].name]
    rows = [
        row(f"{what}, {each['items']} images", name, each, first, gpus=count if on_gpu else 1)
        for count, (name, each) in zip(COUNTS, measured.items())
    ]
    report("scaling", options, rows)


if __name__ == "__main__":
    run_script(main)
