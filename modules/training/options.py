"""Command-line options that several scripts share, and their translation into the objects of ``modules``."""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError

from ..choices import PRECISIONS
from ..models.backbones import BACKBONES
from ..models.lseg_net import MULTIPLE
from .optimization import OPTIMIZERS, SCHEDULES, OptimizationConfig

NO_EFFECT = "accepted for old command lines; changes nothing, as in the official code"


def add_data_options(parser: Parser, default_dataset: str = "ade20k", base_size: bool = True) -> None:
    """Which pictures, which labels, how they are loaded. ``base_size`` False: images are only squeezed to the crop."""
    group = parser.add_argument_group("data")
    group.add_argument("--dataset", default=default_dataset, help="name of the dataset")
    places = "default: datasets beside the repository; data/Dataset_HSN for pascal, coco and fss"
    group.add_argument("--data_path", "--datapath", type=Path, help=f"folder that holds the datasets; {places}")
    lists = "default, corrected, another one that the dataset knows, or a file; by default the dataset's"
    group.add_argument("--label_src", help=f"label list: {lists} or the checkpoint's own")
    if base_size:
        group.add_argument("--base_size", type=int, help="size that scales refer to; default: the dataset's")
    group.add_argument("--crop_size", type=int, help="side of crops, a multiple of 32; default: the dataset's")
    group.add_argument("--workers", "--nworker", type=int, default=4, help="processes that load images")


def data_problems(options: argparse.Namespace) -> list[str]:
    """Numbers of ``add_data_options`` with which no image would ever be loaded or taken by the network."""
    problems = []
    if options.workers < 0:
        problems.append(f"--workers is {options.workers}; give 0 (load in this process) or more")
    if options.crop_size is not None and (options.crop_size < MULTIPLE or options.crop_size % MULTIPLE):
        fitting = max(-(-options.crop_size // MULTIPLE), 1) * MULTIPLE
        problems.append(f"--crop_size is {options.crop_size}, but must be a multiple of {MULTIPLE}, such as {fitting}")
    return problems


def add_network_options(parser: Parser, backbone: str | None) -> None:
    """The architecture. ``backbone`` None: for a test, which reads from the checkpoint whatever that can tell."""
    group = parser.add_argument_group("network")
    group.add_argument("--backbone", default=backbone, choices=list(BACKBONES), help="image encoder and text tower")
    if backbone is not None:
        group.add_argument("--num_features", type=int, default=256, help="width of the decoder")
    group.add_argument("--arch_option", type=int, choices=(0, 1, 2), help="0 plain, 1 bottleneck, 2 depthwise block")
    group.add_argument("--block_depth", type=int, help="applications of the block (0 counts as 1)")
    group.add_argument("--activation", choices=("relu", "lrelu", "tanh"), help="between the block's applications")


def block_options(options: argparse.Namespace) -> dict[str, int | str]:
    """Those of arch_option, block_depth and activation that were given."""
    names = ("arch_option", "block_depth", "activation")
    return {name: getattr(options, name) for name in names if getattr(options, name) is not None}


def add_optimization_options(parser: Parser) -> None:
    """Optimiser, rates, schedule: the fields of ``OptimizationConfig``."""
    group = parser.add_argument_group("optimisation")
    defaults = OptimizationConfig()
    group.add_argument("--batch_size", type=int, default=defaults.batch_size, help="images per process and step")
    group.add_argument("--base_lr", type=float, default=defaults.base_lr, help="rate per 16 images of a batch")
    group.add_argument("--scratch_factor", type=float, default=defaults.scratch_factor, help="decoder / encoder rate")
    group.add_argument("--weight_decay", type=float, default=defaults.weight_decay)
    group.add_argument("--momentum", type=float, default=defaults.momentum, help="of sgd")
    group.add_argument("--dropout", type=float, default=0.0, help="in the ViT; the official networks ran without")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default=defaults.optimizer)
    group.add_argument("--midasproto", action="store_true", help="the official name for --optimizer adam")
    group.add_argument("--schedule", choices=SCHEDULES, default=defaults.schedule)
    group.add_argument("--warmup_steps", type=int, default=defaults.warmup_steps, help="with --schedule cosine")
    group.add_argument("--max_epochs", type=int, default=defaults.max_epochs)
    group.add_argument("--ignore_index", type=int, default=defaults.ignore_index, help="label number outside the loss")


def optimization_config(options: argparse.Namespace) -> OptimizationConfig:
    """The checked configuration; ``InputError`` for an impossible one."""
    names = OptimizationConfig.__dataclass_fields__
    values = {name: getattr(options, name) for name in names}
    if options.midasproto:
        values["optimizer"] = "adam"
    try:
        return OptimizationConfig(**values)
    except ValueError as error:
        raise InputError(str(error)) from None


def add_compatibility_options(parser: Parser) -> None:
    """Flags of the official README that never had an effect, and two that crashed."""
    group = parser.add_argument_group("compatibility with official command lines")
    for flag in ("widehead", "widehead_hr", "no_scaleinv", "no_batchnorm", "use_relabeled", "scale_inv"):
        group.add_argument(f"--{flag}", action="store_true", help=NO_EFFECT)
    for flag in ("module", "model", "aux_weight", "se_weight"):
        group.add_argument(f"--{flag}", help=NO_EFFECT)
    for flag in ("aux", "se_loss"):
        group.add_argument(f"--{flag}", action="store_true", help="refused: the network has no such head")


def compatibility_problems(options: argparse.Namespace) -> list[str]:
    """What cannot be done although the official parser took it."""
    return [
        f"--{flag} asks for a head that LSeg does not have (the official code crashes here); leave it out"
        for flag in ("aux", "se_loss")
        if getattr(options, flag)
    ]


def add_device_options(parser: Parser) -> None:
    """Device and precision of a test."""
    group = parser.add_argument_group("device")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1, mps")
    add_speed_options(group)


def add_speed_options(group: argparse._ArgumentGroup) -> None:
    """What changes the time that a training or a test takes."""
    group.add_argument("--precision", choices=PRECISIONS, default="auto", help="auto: bf16, else fp16; 32 on the CPU")
    group.add_argument("--compile", action="store_true", help="torch.compile the network: pays off in long runs")


def speed_problems(options: argparse.Namespace) -> list[str]:
    """What --compile lacks here."""
    if options.compile and not any(map(shutil.which, ("g++", "c++", "clang++"))):
        return ["--compile needs a C++ compiler, and there is none here (apt-get install g++); or leave it out"]
    return []
