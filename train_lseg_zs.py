"""Train zero-shot LSeg on one fold of Pascal-5i, COCO-20i or FSS-1000. ``train_zs.sh`` trains and tests all folds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl

from data import check_dataset, get_dataset
from data.choice import DataChoice
from data.loading import make_loader
from encoding_ext.transforms import image_to_tensor
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import run_distributed
from lseg_utils.errors import raise_all
from modules.choices import Speed
from modules.lseg_module_zs import LSegModuleZS
from modules.models import BACKBONES
from modules.options import (
    add_data_options,
    add_training_options,
    compatibility_problems,
    optimization_config,
)
from modules.training.start import build_network, start_problems
from modules.training.trainer import find_version, fit, trainer_problems


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    group = parser.add_argument_group("benchmark")
    group.add_argument("--fold", type=int, default=0, help="0..3; FSS-1000 has only one, whatever the number")
    group.add_argument("--nshot", type=int, default=1, help="support images that are learned from too: 0, 1 or 5")
    group.add_argument("--finetune_mode", action="store_true", help="learn from the support images alone")
    group.add_argument(
        "--select",
        choices=("held_out", "official"),
        default="held_out",
        help="what chooses the epoch: seen classes kept from training, or (as published) the test classes themselves",
    )
    group.add_argument("--held_out", type=int, default=3, help="how many training classes are kept for that choice")
    add_data_options(parser, default_dataset="pascal", base_size=False)
    add_training_options(parser, backbone="clip_resnet101", exp_name="lseg_zs")
    parser.set_defaults(batch_size=20, max_epochs=4)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, build, resume if the run is known, train."""
    options = build_parser().parse(argv)
    check_all(options)
    config = optimization_config(options)
    pl.seed_everything(options.seed, workers=True, verbose=False)
    train_set, val_set = load_split(options, "train"), load_split(options, "val")
    version, last = find_version(options)
    net = build_network(options, train_set.labels, resuming=last is not None)
    module = LSegModuleZS(
        net,
        config,
        dataset=options.dataset,
        data_path=options.data_path,
        seed=options.seed,
        validation_classes=val_set.class_ids,
        finetune=options.finetune_mode,
        selection={
            "fold": options.fold,
            "nshot": options.nshot,
            "finetune_mode": options.finetune_mode,
            "select": options.select,
            "selection_classes": list(val_set.class_ids),
        },
    )
    fit(module, train_set, val_set, make_loader, options, version, last)


def held_out(options: argparse.Namespace) -> int:
    """How many training classes choose the epoch; FSS-1000 has validation categories of its own."""
    return options.held_out if options.select == "held_out" and options.dataset != "fss" else 0


def check_all(options: argparse.Namespace) -> None:
    """One ``InputError`` with everything that is wrong, before anything is built."""
    problems = compatibility_problems(options) + trainer_problems(options) + start_problems(options)
    if options.finetune_mode and not options.nshot:
        problems.append("--finetune_mode learns from support images; give --nshot 1 or 5")
    choice = {"fold": options.fold, "nshot": options.nshot, "held_out": held_out(options)}
    raise_all(
        problems,
        lambda: optimization_config(options),
        lambda: chosen(Speed, options),
        lambda: chosen(DataChoice, options),
        lambda: check_dataset(options.dataset, options.data_path, ("train", "val"), **choice),
    )


def load_split(options: argparse.Namespace, split: str) -> Any:
    """The training or validation pairs of the fold, normalised as the backbone wants it."""
    spec = BACKBONES[options.backbone]
    return get_dataset(
        options.dataset,
        root=options.data_path,
        split=split,
        transform=image_to_tensor(spec.mean, spec.std),
        crop_size=options.crop_size,
        label_src=options.label_src,
        on_bad_image=options.on_bad_image,
        fold=options.fold,
        nshot=options.nshot if split == "train" else 0,
        held_out=held_out(options),
    )


if __name__ == "__main__":
    run_distributed(main)
