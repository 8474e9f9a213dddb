"""Train LSeg on a dataset with a fixed label set. ``bash train.sh`` holds the paper's recipe."""

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
from modules.lseg_module import LSegModule
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
    add_data_options(parser)
    add_training_options(parser, backbone="clip_vitl16_384", exp_name="lseg_ade20k_l16")
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, build, resume if the run is known, train."""
    options = build_parser().parse(argv)
    check_all(options)
    config = optimization_config(options)
    pl.seed_everything(options.seed, workers=True, verbose=False)
    train_set, val_set = (load_split(options, split) for split in ("train", "val"))
    version, last = find_version(options)
    net = build_network(options, train_set.labels, resuming=last is not None)
    module = LSegModule(net, config, dataset=options.dataset, data_path=options.data_path, seed=options.seed)
    fit(module, train_set, val_set, make_loader, options, version, last)


def check_all(options: argparse.Namespace) -> None:
    """One ``InputError`` with everything that is wrong, before anything is built."""
    raise_all(
        compatibility_problems(options) + trainer_problems(options) + start_problems(options),
        lambda: optimization_config(options),
        lambda: chosen(Speed, options),
        lambda: chosen(DataChoice, options),
        lambda: check_dataset(options.dataset, options.data_path, ("train", "val")),
    )


def load_split(options: argparse.Namespace, split: str) -> Any:
    """The training or validation set, normalised as the backbone wants it."""
    spec = BACKBONES[options.backbone]
    return get_dataset(
        options.dataset,
        root=options.data_path,
        split=split,
        mode=split,
        transform=image_to_tensor(spec.mean, spec.std),
        base_size=options.base_size,
        crop_size=options.crop_size,
        label_src=options.label_src,
        on_bad_image=options.on_bad_image,
    )


if __name__ == "__main__":
    run_distributed(main)
