"""What the two open-vocabulary scripts share: options, and checks of what they ask for. Does not import torch."""

from __future__ import annotations

import argparse
from pathlib import Path

from data import check_dataset, get_available_datasets
from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, did_you_mean
from modules.choices import PRECISIONS, precision
from modules.models.backbones import BACKBONES
from modules.options import weights_name
from modules.weights_file import check_weights_file
from openvocab.benchmarks import BENCHMARKS, GROUPS, Benchmark, find_benchmark
from openvocab.wording import SYNONYMS


def add_model_options(parser: Parser, saved: bool = True) -> None:
    """One of: LSeg, CLIP, a model of the user's own, saved predictions."""
    add = parser.add_argument_group("model (give one)").add_argument
    add("--weights", "--checkpoint", type=Path, help="test the LSeg network of this checkpoint")
    add("--clip", type=Path, help="test this CLIP file with dense features (MaskCLIP), without any training")
    add("--model", metavar="FILE.py:NAME", help="test what NAME() of this Python file returns (docs/openvocab.md)")
    if saved:
        add(
            "--predictions",
            type=Path,
            help="score the predictions in this folder: PNG of class numbers, or .npy of logits",
        )
    ambiguous = "load --weights as this backbone, if the file fits several (a message then says so)"
    add("--backbone", choices=list(BACKBONES), help=ambiguous)
    add("--trust_checkpoint", action="store_true", help="run code contained in the checkpoint: risky")
    add("--device", default="auto", help="run on auto, cpu, cuda, cuda:1 or mps")
    add("--precision", type=precision, choices=PRECISIONS, default="auto", help="compute LSeg in this precision")


def add_wording_options(parser: Parser) -> None:
    """The fields of ``Wording``."""
    add = parser.add_argument_group("labels").add_argument
    add(
        "--templates",
        default="none",
        help="put labels into no sentences (none), CLIP's 80 (imagenet), ViLD's 14 (vild), or those of a file",
    )
    names = (
        "for labels such as 'car, automobile': use the first name, the mean or the best of all names, or the whole text"
    )
    add("--synonyms", choices=SYNONYMS, default="first", help=names)


def check_model(options: argparse.Namespace, saved: bool = True) -> str:
    """What results are named after; ``InputError`` unless exactly one model is given and its file exists."""
    given = {
        name: value for name in ("weights", "clip", "model", "predictions") if (value := getattr(options, name, None))
    }
    if len(given) != 1:
        found = " and ".join(f"--{name}" for name in given) or "none"
        flags = "--weights, --clip, --model or --predictions" if saved else "--weights, --clip or --model"
        raise InputError(f"give one model: {flags}; you gave {found}")
    ((kind, value),) = given.items()
    if options.backbone and kind != "weights":
        raise InputError(f"--backbone is the network of --weights; leave it out with --{kind}")
    if kind == "model":
        file, _, name = value.rpartition(":")
        if not name or not Path(file).expanduser().is_file():
            raise InputError(f"--model is {value!r}; give FILE.py:NAME, where NAME() returns the model")
        return f"{Path(file).stem}_{name}"
    if kind == "predictions":
        if not value.is_dir():
            raise InputError(f"--predictions {value} is not a folder; give the folder of the saved predictions")
        return f"predictions_{value.resolve().name}"
    return f"{'clip_' if kind == 'clip' else ''}{weights_name(check_weights_file(value))}"


def check_short_side(side: int) -> None:
    """``InputError`` for a side of nothing."""
    if side < 1:
        raise InputError(f"--short_side is {side}; give at least 1")


def find_datasets(text: str, root: Path | None) -> tuple[list[Benchmark], list[str]]:
    """The benchmarks of ``--datasets`` whose files are here, and a sentence about each of the others.

    ``InputError`` for a name that is neither a benchmark nor a dataset.
    """
    given = [name.strip() for name in text.split(",") if name.strip()]
    names = [name for one in given for name in GROUPS.get(one.lower(), [one])]
    known = [*GROUPS, *BENCHMARKS, *get_available_datasets()]
    here, missing, unknown = [], [], []
    for name in dict.fromkeys(names):
        benchmark = find_benchmark(name)
        is_file = Path(name).suffix in (".yaml", ".yml") and ("=" not in name or Path(name).is_file())
        if benchmark.name not in BENCHMARKS and not is_file and name not in known:
            unknown.append(f"{name!r}{did_you_mean(name, known)}")
            continue
        try:
            check_dataset(benchmark.dataset, benchmark.root(root), (benchmark.split,))
            here.append(benchmark)
        except InputError as error:
            missing.append(f"{benchmark.name}: {' '.join(str(error).splitlines())}")
    if unknown or not names:
        what = f"unknown: {', '.join(unknown)}" if unknown else "--datasets is empty"
        raise InputError(f"{what}; give some of {', '.join(known)}, or YAML files of datasets")
    return here, missing
