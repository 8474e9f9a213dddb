"""Train LSeg on a dataset with a fixed label set. ``bash train.sh`` runs the paper's recipe."""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

from collections.abc import Sequence
from functools import partial

from data import check_dataset
from data.choice import DataChoice
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import run_distributed
from lseg_utils.errors import raise_all
from modules.models.backbones import BACKBONES
from modules.options import add_data_options, add_training_options, training_settings


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    add_data_options(parser)
    add_training_options(parser, backbone="clip_vitl16_384", exp_name="lseg_ade20k_l16")
    heads = "compare pixels with text, or train a plain classifier without text (the paper's DPT baseline)"
    parser.add_argument("--augment", action="store_true", help="refused: the official code crashes when it is given")
    parser.add_argument("--head", choices=("text", "classes"), default="text", help=heads)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then load the data and train; a run that exists is resumed."""
    options = build_parser().parse(argv)
    augment = "--augment asks for augmentations that the official code does not contain (it crashes here); leave it out"
    training, choice, *_ = raise_all(
        [augment] if options.augment else [],
        lambda: training_settings(options),
        lambda: chosen(DataChoice, options),
        lambda: check_dataset(options.dataset, options.data_path, ("train", "val")),
    )
    config, seed, backbone = training.optimization, training.run.seed, BACKBONES[training.network.backbone]
    config.check_batch_statistics(choice.crop_size, images=config.batch_size)

    # What follows takes seconds to import, so it comes after everything that is quickly refused.
    from data.lightning import TrainingData
    from encoding_ext.transforms import image_to_tensor
    from modules.lseg_module import LSegModule
    from modules.training.trainer import run_training

    to_tensor = image_to_tensor(backbone.mean, backbone.std)
    data = TrainingData(choice, to_tensor, batch_size=config.batch_size, seed=seed)
    facts = {"dataset": choice.name, "data_path": choice.data_path, "seed": seed}
    run_training(training, data, partial(LSegModule, config=config, **facts))


if __name__ == "__main__":
    run_distributed(main)
