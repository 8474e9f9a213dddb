"""Train LSeg on a dataset with a fixed label set, or on several. ``bash train.sh`` runs the paper's recipe."""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path

from data import check_dataset
from data.choice import DataChoice
from data.joint import JointChoice, split_sets
from data.relations import KNOWN as RELATIONS
from data.relations import Relations
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import run_distributed
from lseg_utils.errors import raise_all
from lseg_utils.progress import is_rank_zero
from modules.models.named import backbone_spec
from modules.options import add_data_options, add_training_options, training_settings
from openvocab.wording import Wording
from recipes.training import with_recipe


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    recipe = (
        "take the options of this recipe; those on the command line take precedence. `python -m recipes.training` "
        "lists all recipes"
    )
    parser.add_argument("--recipe", help=recipe)
    add_data_options(parser)
    add_joint_options(parser)
    add_training_options(parser, backbone="clip_vitl16_384", exp_name="lseg_ade20k_l16")
    heads = "compare pixels with text, or train a plain classifier without text (the paper's DPT baseline)"
    parser.add_argument("--augment", action="store_true", help="refused: the official code crashes when it is given")
    parser.add_argument("--head", choices=("text", "classes"), default="text", help=heads)
    return parser


def add_joint_options(parser: Parser) -> None:
    """What trains several datasets at once, or one with changing texts."""
    several = (
        "--dataset a,b:2,my.yaml trains several at once; an epoch shows each image of b twice (docs/joint_training.md)"
    )
    add = parser.add_argument_group("several datasets and changing texts", several).add_argument
    add("--label_table", type=Path, help="rename, drop and unite labels of the datasets as this YAML file says")
    few = "compare each image with the labels in it and with this many others of its dataset, drawn at random"
    add("--label_sampling", type=int, help=f"{few}; default: all")
    names = "in each step, use a random name of each label from this YAML or JSON file; known: the built-in names"
    add("--synonyms", help=names)
    sentences = (
        "in each step, put the labels into a random sentence of these: imagenet, vild, or a file of sentences with {}"
    )
    add("--templates", default="none", help=sentences)


def is_joint(options: argparse.Namespace) -> bool:
    """Whether the training is not the paper's: several datasets, or labels that are changed, sampled or reworded."""
    several = re.search("[,:]", options.dataset) and not Path(options.dataset).is_file()
    given = (options.label_table, options.label_sampling, options.synonyms)
    return bool(several) or options.templates != "none" or any(value is not None for value in given)


def joint_problems(options: argparse.Namespace) -> list[str]:
    """What several label sets exclude."""
    problems = []
    if options.head != "text":
        problems.append("--head classes has one list of classes; with several datasets or changing texts, leave it out")
    if options.ignore_index != -1:
        problems.append(
            f"--ignore_index {options.ignore_index} would mean another label in each dataset; drop labels by "
            "--label_table"
        )
    return problems


def joint_choice(options: argparse.Namespace) -> JointChoice:
    """The datasets of the command line."""
    names = {field.name for field in fields(DataChoice)} - {"dataset"}
    shared = {name: value for name, value in vars(options).items() if name in names}
    return JointChoice.of(options.dataset, options.label_table, options.label_sampling, **shared)


def synonyms_of(source: str | None) -> dict[str, list[str]]:
    """Text -> other names for it; ``InputError`` for a file that cannot be used."""
    path = RELATIONS if source == "known" else source and Path(source)
    return Relations.read(path).other_names() if path else {}


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, then load the data and train; a run that exists is resumed."""
    options = build_parser().parse(with_recipe(sys.argv[1:] if argv is None else argv))
    joint = is_joint(options)
    problems = joint_problems(options) if joint else []
    if options.augment:
        problems.append(
            "--augment asks for augmentations that the official code does not contain (it crashes here); leave it out"
        )
    training, choice, synonyms, templates, *_ = raise_all(
        problems,
        lambda: training_settings(options),
        lambda: joint_choice(options) if joint else chosen(DataChoice, options),
        lambda: synonyms_of(options.synonyms),
        lambda: Wording(options.templates).sentences,
        *[
            lambda name=name: check_dataset(name, options.data_path, ("train", "val"))
            for name, _ in (split_sets(options.dataset) if joint else [(options.dataset, 1)])
        ],
    )
    config, seed, backbone = training.optimization, training.run.seed, backbone_spec(training.network.backbone)
    config.check_batch_statistics(choice.crop_size, images=config.batch_size)

    # What follows takes seconds to import, so it comes after everything that is quickly refused.
    from data.lightning import TrainingData
    from encoding_ext.transforms import image_to_tensor
    from modules.lseg_module import LSegModule
    from modules.training.trainer import run_training

    to_tensor = image_to_tensor(backbone.mean, backbone.std)
    data = TrainingData(choice, to_tensor, batch_size=config.batch_size, seed=seed)
    facts = {"dataset": choice.name, "data_path": choice.data_path, "seed": seed}
    if joint:
        from modules.lseg_module_joint import LSegModuleJoint
        from modules.training.label_texts import TrainingTexts

        texts = TrainingTexts(choice.label_sets, synonyms, templates)
        more = choice.facts() | {"synonyms": texts.synonyms, "templates": list(texts.templates)}
        if is_rank_zero():
            print(choice.table([len(part) for part in data.train_set.parts]))
        run_training(training, data, partial(LSegModuleJoint, config=config, texts=texts, facts=more, **facts))
    else:
        run_training(training, data, partial(LSegModule, config=config, dataset_file=choice.file, **facts))


if __name__ == "__main__":
    run_distributed(main)
