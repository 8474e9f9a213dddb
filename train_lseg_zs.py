"""Train zero-shot LSeg on one fold of Pascal-5i, COCO-20i or FSS-1000. ``train_zs.sh`` trains and tests all folds.

Rate, batch size, epochs and shots that are not given come from recipes/zero_shot.json; ``python -m recipes.zero_shot
DATASET BACKBONE`` prints them with their sources.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from data import check_dataset
from data.choice import DataChoice
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import run_distributed
from lseg_utils.errors import InputError, raise_all
from lseg_utils.progress import is_rank_zero
from modules.models.named import backbone_spec
from modules.options import NO_EFFECT, add_data_options, add_training_options, training_settings
from modules.training.run import Training
from recipes.zero_shot import recipe_for


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    add = parser.add_argument_group("benchmark").add_argument
    add("--fold", type=int, default=0, help="train on this fold, 0 to 3; FSS-1000 has only one")
    add("--nshot", type=int, help="also learn from 0, 1 or 5 support images")
    few = "few-shot instead of zero-shot: learn from support images of the test classes alone"
    add("--finetune_mode", action="store_true", help=few)
    add(
        "--select",
        choices=("held_out", "official"),
        help="choose the epoch on training classes kept aside (held_out), or on the test classes themselves (official, "
        "as published; the default with --finetune_mode)",
    )
    add("--held_out", type=int, default=3, help="keep this many training classes aside to choose the epoch")
    borders = "count Pascal's border pixels (255) as others in the loss, as published, or ignore them"
    add("--borders", choices=("others", "ignored"), default="others", help=borders)
    add_data_options(parser, default_dataset="pascal", base_size=False)
    add_training_options(parser, backbone="clip_resnet101", exp_name="lseg_zs")
    parser.add_argument("--augment", action="store_true", help=NO_EFFECT)
    parser.set_defaults(base_lr=None, batch_size=None, max_epochs=None)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then load the data and train; a run that exists is resumed."""
    options = build_parser().parse(argv)
    training, choice = check_all(options)

    from data.lightning import TrainingData
    from encoding_ext.transforms import image_to_tensor
    from modules.lseg_module_zs import LSegModuleZS
    from modules.training.trainer import run_training

    config, seed, backbone = training.optimization, training.run.seed, backbone_spec(training.network.backbone)
    to_tensor = image_to_tensor(backbone.mean, backbone.std)
    split = training_split(options)
    data = TrainingData(choice, to_tensor, batch_size=config.batch_size, seed=seed, train_split=split)
    make_module = partial(
        LSegModuleZS,
        config=config,
        dataset=choice.dataset,
        data_path=choice.data_path,
        seed=seed,
        validation_classes=data.val_set.class_ids,
        finetune=options.finetune_mode,
        ignore_borders=options.borders == "ignored",
        selection=facts_of_the_run(options, choice, data.val_set.class_ids),
    )
    run_training(training, data, make_module)


def facts_of_the_run(
    options: argparse.Namespace, choice: DataChoice, validation_classes: Sequence[int]
) -> dict[str, Any]:
    """What a checkpoint keeps about its zero-shot training. A run with other facts is not resumed."""
    facts = {
        "fold": choice.fold,
        "nshot": choice.nshot,
        "finetune_mode": options.finetune_mode,
        "select": options.select,
        "selection_classes": list(validation_classes),
    }
    # Versions that ignored borders and drew images by frequency did not keep these: their runs must not be resumed.
    facts |= {"pascal": {"borders": options.borders}, "coco": {"classes_drawn": "uniformly"}}.get(options.dataset, {})
    # Only where it differs from the default, so that earlier runs of the other benchmarks can be resumed.
    return facts | ({"trained_on": "supports of the test classes"} if options.finetune_mode else {})


def check_all(options: argparse.Namespace) -> tuple[Training, DataChoice]:
    """The settings; one ``InputError`` with everything that is wrong, before torch is imported."""
    problems = []
    fill_from_recipe(options)
    if options.finetune_mode and not options.nshot:
        problems.append("--finetune_mode learns from support images; give --nshot 1 or 5")
    if options.finetune_mode and options.select == "held_out":
        problems.append("--finetune_mode trains on no class that could be kept aside; leave out --select held_out")
    options.select = options.select or ("official" if options.finetune_mode else "held_out")
    # FSS-1000 has validation categories of its own.
    held_out = options.held_out if options.select == "held_out" and options.dataset != "fss" else 0
    files = {"fold": options.fold, "nshot": options.nshot, "held_out": held_out}
    training, choice, *_ = raise_all(
        problems,
        lambda: training_settings(options),
        lambda: chosen(DataChoice, options, held_out=held_out),
        lambda: check_dataset(options.dataset, options.data_path, (training_split(options), "val"), **files),
    )
    images = training.optimization.batch_size * (options.nshot + (not options.finetune_mode))
    training.optimization.check_batch_statistics(choice.crop_size, images)
    return training, choice


def training_split(options: argparse.Namespace) -> str:
    """The split of the benchmark that is trained on."""
    return "finetune" if options.finetune_mode and options.nshot else "train"


def fill_from_recipe(options: argparse.Namespace) -> None:
    """Set the options that are not given to the values of the recipe, and print which recipe that is."""
    try:
        recipe, note = recipe_for(options.dataset, options.backbone)
    except InputError:
        options.nshot = 1 if options.nshot is None else options.nshot
        if None in (options.base_lr, options.batch_size, options.max_epochs):
            raise
        return  # a dataset of the user's own, whose values are all given
    values = dict(recipe.values)
    if options.schedule != "poly":
        values["schedule_epochs"] = None  # made for the published schedule
    used = {name: value for name, value in values.items() if getattr(options, name) is None and value is not None}
    vars(options).update(used)
    if is_rank_zero() and used:
        print(f"recipe {recipe.benchmark} {recipe.backbone}: " + ", ".join(f"{n} {v}" for n, v in used.items()))
        if note:
            print(f"note: {note}")


if __name__ == "__main__":
    run_distributed(main)
