"""Train zero-shot LSeg on one fold of Pascal-5i, COCO-20i or FSS-1000. ``train_zs.sh`` trains and tests all folds."""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
from collections.abc import Sequence

from data import check_dataset
from data.choice import DataChoice
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import run_distributed
from lseg_utils.errors import raise_all
from modules.models.backbones import BACKBONES
from modules.options import add_data_options, add_training_options, training_settings
from modules.training.run import Training


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    group = parser.add_argument_group("benchmark")
    group.add_argument("--fold", type=int, default=0, help="train on this fold, 0 to 3; FSS-1000 has only one")
    group.add_argument("--nshot", type=int, default=1, help="also learn from 0, 1 or 5 support images")
    group.add_argument("--finetune_mode", action="store_true", help="learn from the support images alone")
    group.add_argument(
        "--select",
        choices=("held_out", "official"),
        default="held_out",
        help="choose the epoch on training classes kept aside, or (as published) on the test classes themselves",
    )
    aside = "keep this many training classes aside to choose the epoch"
    group.add_argument("--held_out", type=int, default=3, help=aside)
    add_data_options(parser, default_dataset="pascal", base_size=False)
    add_training_options(parser, backbone="clip_resnet101", exp_name="lseg_zs")
    parser.set_defaults(batch_size=20, max_epochs=4)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then load the data and train; a run that exists is resumed."""
    options = build_parser().parse(argv)
    training, choice = check_all(options)

    from data.lightning import TrainingData
    from encoding_ext.transforms import image_to_tensor
    from modules.lseg_module_zs import LSegModuleZS
    from modules.models import LSegNet
    from modules.training.trainer import run_training

    config, seed, backbone = training.optimization, training.run.seed, BACKBONES[training.network.backbone]
    to_tensor = image_to_tensor(backbone.mean, backbone.std)
    data = TrainingData(choice, to_tensor, batch_size=config.batch_size, seed=seed)

    def make_module(net: LSegNet) -> LSegModuleZS:
        return LSegModuleZS(
            net,
            config,
            dataset=choice.dataset,
            data_path=choice.data_path,
            seed=seed,
            validation_classes=data.val_set.class_ids,
            finetune=options.finetune_mode,
            selection={
                "fold": choice.fold,
                "nshot": choice.nshot,
                "finetune_mode": options.finetune_mode,
                "select": options.select,
                "selection_classes": list(data.val_set.class_ids),
            },
        )

    run_training(training, data, make_module)


def check_all(options: argparse.Namespace) -> tuple[Training, DataChoice]:
    """The settings; one ``InputError`` with everything that is wrong, before torch is imported."""
    problems = []
    if options.finetune_mode and not options.nshot:
        problems.append("--finetune_mode learns from support images; give --nshot 1 or 5")
    # FSS-1000 has validation categories of its own.
    held_out = options.held_out if options.select == "held_out" and options.dataset != "fss" else 0
    files = {"fold": options.fold, "nshot": options.nshot, "held_out": held_out}
    training, choice, *_ = raise_all(
        problems,
        lambda: training_settings(options),
        lambda: chosen(DataChoice, options, held_out=held_out),
        lambda: check_dataset(options.dataset, options.data_path, ("train", "val"), **files),
    )
    images = training.optimization.batch_size * (options.nshot + (not options.finetune_mode))
    training.optimization.check_batch_statistics(choice.crop_size, images)
    return training, choice


if __name__ == "__main__":
    run_distributed(main)
