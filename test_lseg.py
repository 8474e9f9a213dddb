"""Test LSeg on a dataset with a fixed label set: mIoU by the published protocol (--eval), or masks and overlays.

On several GPUs: ``torchrun --nproc_per_node 8 test_lseg.py --eval ...``; each image is then tested by one of them.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from data import check_dataset, get_dataset, get_labels
from data.choice import DataChoice
from data.loading import make_loader
from encoding_ext.precise_bn import precise_batch_norm
from encoding_ext.transforms import image_to_tensor
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import join_group, run_distributed
from lseg_utils.errors import InputError, raise_all
from lseg_utils.progress import is_rank_zero
from modules.checkpoints import export_plain, read_checkpoint
from modules.choices import Speed
from modules.device import resolve_device
from modules.models import LSegNet
from modules.options import (
    add_compatibility_options,
    add_data_options,
    add_device_options,
    add_network_options,
    compatibility_problems,
)
from modules.testing.common import add_test_options, load_for_test, output_problems
from modules.testing.label_sets import LabelSetTest, output_folder
from modules.testing.protocol import add_protocol_options, build_evaluator, protocol_problems
from modules.training.start import check_label_lengths

BN_BATCHES = 200


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    parser.add_argument("--eval", action="store_true", help="measure; without it, masks and overlays are written")
    parser.add_argument("--split", help="default: val with --eval, else test, or val where there is no test split")
    parser.add_argument("--test_val", action="store_true", help="the official name for --split val without --eval")
    parser.add_argument("--acc_bn", action="store_true", help="first re-estimate batch norm on training images")
    parser.add_argument("--batch_size", type=int, default=8, help="images per batch of --acc_bn")
    parser.add_argument("--export", type=Path, help="write a plain official state dict (.pth) and stop")
    add_protocol_options(parser)
    add_test_options(parser)
    add_data_options(parser)
    add_network_options(parser, backbone=None)
    add_device_options(parser)
    add_compatibility_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, load, then export, measure or write pictures."""
    options = build_parser().parse(argv)
    if options.export:
        if is_rank_zero():  # torchrun starts several, and they would write one file
            export(options)
        return
    split = choose_split(options)
    check_all(options, split)
    device = resolve_device(options.device)
    net = load_network(options)
    device = join_group(device)
    net.to(device)
    dataset = load_split(options, net, split, mode="testval" if options.eval else "test")
    if options.acc_bn:
        estimate_batch_norm(net, options, device)
    loader = make_loader(dataset, 1, options.seed, shuffle=False, num_workers=options.workers)
    test = LabelSetTest(net, build_evaluator(net, dataset, options, device), dataset, loader, options, device)
    if options.eval:
        test.measure()
    else:
        test.write_pictures()


def export(options: argparse.Namespace) -> None:
    """Write the checkpoint as ``--export`` asks, with the suffix .pth that the official script adds."""
    raise_all(compatibility_problems(options))
    name = options.export.name
    path = options.export if name.endswith(".pth") else options.export.with_name(f"{name}.pth")
    print(f"wrote {export_plain(load_for_test(options), path)}")


# ------------------------------------------------------------------------------------------------ before the test


def choose_split(options: argparse.Namespace) -> str:
    """Which images: as asked, else val for measuring and the official test images (no masks) for pictures."""
    if options.split or options.eval or options.test_val:
        return options.split or "val"
    try:
        get_dataset(options.dataset, root=options.data_path, split="test", mode="test")
    except InputError:
        if is_rank_zero():
            print(f"{options.dataset} has no test split here; taking the validation images")
        return "val"
    return "test"


def check_all(options: argparse.Namespace, split: str) -> None:
    """One ``InputError`` with everything that is wrong, before the network is built."""
    problems = compatibility_problems(options)
    problems += protocol_problems(options) + output_problems(options, output_folder(options))
    if options.eval and split == "test":
        problems.append("--eval needs masks, and the test split has none; use --split val")
    if options.batch_size < 1:
        problems.append(f"--batch_size is {options.batch_size}; give at least 1")
    splits = [split, "train"] if options.acc_bn and split != "train" else [split]
    raise_all(
        problems,
        lambda: chosen(Speed, options),
        lambda: chosen(DataChoice, options),
        lambda: check_dataset(options.dataset, options.data_path, splits),
        lambda: get_labels(options.dataset, options.label_src, options.data_path),
    )


def load_network(options: argparse.Namespace) -> LSegNet:
    """The checkpoint's network, with the label list of this test."""
    net = load_for_test(options)
    standard = get_labels(options.dataset, options.label_src, options.data_path)
    trained_on = read_checkpoint(options.weights, options.trust_checkpoint).metadata.get("dataset", options.dataset)
    if trained_on != options.dataset and is_rank_zero():
        print(f"note: {options.weights} was trained on {trained_on}; it is given the labels of {options.dataset}")
    # A checkpoint's own list for this dataset (say, the corrected one) counts, unless another one is asked for.
    foreign = trained_on != options.dataset or net.labels is None or len(net.labels) != len(standard)
    if options.label_src or foreign:
        net.labels = standard
    check_label_lengths(net, net.labels)
    return net


def load_split(options: argparse.Namespace, net: LSegNet, split: str, mode: str) -> Any:
    """A dataset, normalised as the network wants it."""
    return get_dataset(
        options.dataset,
        root=options.data_path,
        split=split,
        mode=mode,
        transform=image_to_tensor(net.mean, net.std),
        base_size=options.base_size,
        crop_size=options.crop_size,
        label_src=options.label_src,
    )


def estimate_batch_norm(net: LSegNet, options: argparse.Namespace, device: torch.device) -> None:
    """Replace the moving averages of batch norm by the statistics of training crops (official --acc-bn)."""
    training = load_split(options, net, "train", mode="train")
    loader = make_loader(training, options.batch_size, options.seed, shuffle=True, num_workers=options.workers)
    images = (batch["image"].to(device) for batch in loader)
    precise_batch_norm(net, images, lambda batch: net.embed(batch), min(BN_BATCHES, len(loader)))


if __name__ == "__main__":
    run_distributed(main)
