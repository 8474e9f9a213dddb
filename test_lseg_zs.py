"""Test zero-shot LSeg on one fold of Pascal-5i, COCO-20i or FSS-1000 (protocol of HSNet): mIoU and FB-IoU.

An episode is an image and one of its classes; the labels are 'others' and that class. Pairs that the official sequence
repeats are segmented once and counted as often as they occur. On several GPUs: torchrun, as for test_lseg.py.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from data import check_dataset, get_dataset, get_labels
from data.choice import DataChoice
from data.loading import make_loader
from data.sampled import Remaining
from encoding_ext.transforms import image_to_tensor
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import join_group, run_distributed
from lseg_utils.errors import raise_all
from lseg_utils.progress import is_rank_zero
from modules.choices import Speed
from modules.device import resolve_device
from modules.options import (
    add_compatibility_options,
    add_data_options,
    add_device_options,
    add_network_options,
    compatibility_problems,
)
from modules.testing.common import add_test_options, load_for_test, output_problems, speed_up
from modules.testing.episodes import EpisodeTest, fold_output_folder
from modules.training.start import check_label_lengths
from modules.zoo import file_name_doubts


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    add_test_options(parser)
    add_fold_options(parser)
    parser.add_argument("--bsz", type=int, default=1, help="images per forward; changes time, not results")
    parser.add_argument("--ignore_index", type=int, choices=(255,), help="accepted; 255 never counts anyway")
    parser.add_argument("--save_pictures", type=int, default=0, metavar="N", help="sheets of N episodes")
    add_data_options(parser, default_dataset="pascal", base_size=False)
    add_network_options(parser, backbone=None)
    add_device_options(parser)
    add_compatibility_options(parser)
    return parser


def add_fold_options(parser: Parser) -> None:
    """Which part of a benchmark."""
    group = parser.add_argument_group("benchmark")
    group.add_argument("--fold", type=int, default=0, help="0..3; FSS-1000 has only one, whatever the number")
    group.add_argument("--nshot", type=int, default=0, help="support images: 0, 1 or 5")


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, load, segment what earlier runs left over, report."""
    options = build_parser().parse(argv)
    check_all(options)
    device = resolve_device(options.device)
    for doubt in file_name_doubts(options.weights, options.dataset, options.fold, options.backbone):
        if is_rank_zero():
            print(f"note: {doubt}", flush=True)  # before loading, whose error it may explain
    net = load_for_test(options)
    device = join_group(device)
    dataset = get_dataset(
        options.dataset,
        root=options.data_path,
        split="test",
        transform=image_to_tensor(net.mean, net.std),
        crop_size=options.crop_size,
        label_src=options.label_src,
        fold=options.fold,
        nshot=options.nshot,
    )
    check_label_lengths(net, dataset.labels)
    speed_up(net.to(device), options, device)
    EpisodeTest(net, dataset, options, device, loader_of(dataset, options)).run()


def check_all(options: argparse.Namespace) -> None:
    """One ``InputError`` with everything that is wrong, before the network is built."""
    problems = compatibility_problems(options)
    problems += output_problems(options, fold_output_folder(options))
    if options.bsz < 1:
        problems.append(f"--bsz {options.bsz}; give at least 1 image per forward")
    choice = {"fold": options.fold, "nshot": options.nshot}
    raise_all(
        problems,
        lambda: chosen(Speed, options),
        lambda: chosen(DataChoice, options),
        lambda: check_dataset(options.dataset, options.data_path, ("test",), **choice),
        lambda: get_labels(options.dataset, options.label_src, options.data_path),
    )


def loader_of(dataset: Any, options: argparse.Namespace) -> Callable[[Sequence[int]], Iterable[dict[str, Any]]]:
    """Indices -> batches of this process's share of these items."""

    def loader(indices: Sequence[int]) -> Iterable[dict[str, Any]]:
        left = Remaining(dataset, indices)
        return make_loader(left, options.bsz, options.seed, shuffle=False, num_workers=options.workers)

    return loader


if __name__ == "__main__":
    run_distributed(main)
