"""What several datasets in one training cost, and what label sampling saves.

A training step on one dataset of 150 labels is compared with steps on two datasets of 150 labels each, on one of 1,000
labels, and on the latter with --label_sampling 100.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from benchmarks.bench_train_step import step_work
from benchmarks.common import SEED, build_parser, network, parse, pictures, precision_name, report
from benchmarks.measuring import Maker, Process, Work, alternate, row
from lseg_utils.errors import run_script
from lseg_utils.label_sets import LabelSet
from modules.device import allow_tf32, reduced_dtype
from modules.lseg_module import LSegModule
from modules.lseg_module_joint import LSegModuleJoint
from modules.training.label_texts import TrainingTexts
from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer

PRESENT = 20  # labels in an image, about as many as in one of ADE20K
SAMPLED = 100


def step_on(options: argparse.Namespace, sets: int = 0, labels: int = 150, sampled: bool = False) -> Work:
    """A training step on so many datasets of as many labels each; 0: as ``train_lseg.py`` trains on a single one."""
    many = argparse.Namespace(**vars(options) | {"labels": max(sets, 1) * labels})
    net, config = network(many).train(), OptimizationConfig(batch_size=options.batch)
    generator = torch.Generator().manual_seed(SEED)
    present = torch.stack([torch.randperm(labels, generator=generator)[:PRESENT] for _ in range(options.batch)])
    places = torch.randint(PRESENT, (options.batch, options.size, options.size), generator=generator)
    mask = torch.stack([own[place] for own, place in zip(present, places, strict=True)]).to(options.device)
    batch = {"image": pictures(options), "mask": mask, "source": torch.arange(options.batch) % max(sets, 1)}
    if sampled:
        compared = torch.zeros(options.batch, labels, dtype=torch.bool)
        for one, own in zip(compared, present, strict=True):
            one[own] = True
            one[(~one).nonzero().flatten()[torch.randperm(labels - PRESENT, generator=generator)[:SAMPLED]]] = True
        batch["compared"] = compared.to(options.device)
    module = LSegModule(net, config)
    if sets:
        names = [tuple(net.own_labels[start : start + labels]) for start in range(0, sets * labels, labels)]
        module = LSegModuleJoint(
            net, config, texts=TrainingTexts([LabelSet(f"set {i}", own) for i, own in enumerate(names)])
        )
    dtype, optimizer = reduced_dtype("auto", batch["image"].device), build_optimizer(net, config)
    allow_tf32(batch["image"].device.type == "cuda")

    def loss() -> torch.Tensor:
        with torch.autocast(batch["image"].device.type, dtype=dtype, enabled=dtype is not None):
            return module.batch_loss(batch, 0)[0]

    return step_work(loss, optimizer, options.batch, precision_name(dtype, options.device))


MAKERS: dict[str, Maker] = {
    "1 dataset, 150 labels": step_on,
    "2 datasets, 150 labels each": partial(step_on, sets=2),
    "1 dataset, 1,000 labels": partial(step_on, sets=1, labels=1000),
    f"1,000 labels, {SAMPLED} sampled": partial(step_on, sets=1, labels=1000, sampled=True),
}


def main() -> None:
    """Measure all of them in alternation."""
    options = parse(build_parser(__doc__, "labels"), cpu={"batch": 4, "rounds": 3}, cuda={"batch": 8, "rounds": 10})
    processes = {name: Process(maker, options) for name, maker in MAKERS.items()}
    measured, _ = alternate(processes, options.rounds, [])
    what = f"training step, {options.backbone}, {options.size}x{options.size}, batch {options.batch}"
    reference = next(iter(MAKERS))
    report("joint", options, [row(what, name, each, measured[reference]) for name, each in measured.items()])


if __name__ == "__main__":
    run_script(main)
