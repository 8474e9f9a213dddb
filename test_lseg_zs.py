"""Test zero-shot LSeg on one fold of Pascal-5i, COCO-20i or FSS-1000 (protocol of HSNet): mIoU and FB-IoU.

An episode is an image and one of its classes; the labels are 'others' and that class. Pairs that the official sequence
repeats are segmented once and counted as often as they occur. On several GPUs: torchrun, as for test_lseg.py.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
from collections.abc import Sequence
from dataclasses import replace

from data import check_dataset, get_labels
from data.choice import DataChoice
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import join_group, run_distributed
from lseg_utils.errors import raise_all
from lseg_utils.progress import is_rank_zero
from modules.choices import Speed
from modules.options import (
    add_compatibility_options,
    add_data_options,
    add_device_options,
    add_network_options,
    compatibility_problems,
)
from modules.testing.settings import TestRun, add_official_test_options, add_test_options

# What the official parser takes and its zero-shot test never reads.
UNUSED = ("base_size", "batch_size", "train_split", "eval", "acc_bn", "test_val", "use_pretrained")


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    add_test_options(parser)
    add = parser.add_argument_group("benchmark").add_argument
    add("--fold", type=int, default=0, help="test this fold, 0..3; FSS-1000 has a single one, whatever the number")
    add("--nshot", type=int, default=0, help="draw this many support images: 0, 1 or 5")
    add("--bsz", type=int, default=1, help="segment this many images at once; changes time, not results")
    add("--save_pictures", type=int, default=0, metavar="N", help="save a sheet of N episodes")
    add("--benchmark", help="must agree with --dataset; changes nothing else")
    add_data_options(parser, default_dataset="pascal", base_size=False)
    add_network_options(parser, backbone=None)
    add_device_options(parser)
    add_compatibility_options(parser)
    add_official_test_options(parser, *UNUSED)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, load, segment what earlier runs left over, report."""
    options = build_parser().parse(argv)
    run, data, speed = check(options)

    # What follows takes seconds to import, so it comes after everything that is quickly refused.
    from data.loading import make_loader
    from data.sampled import Remaining
    from encoding_ext.transforms import image_to_tensor
    from modules.device import resolve_device
    from modules.released import file_name_doubts
    from modules.testing.episodes import EpisodeTest
    from modules.training.start import check_label_lengths

    device = resolve_device(options.device)
    for doubt in file_name_doubts(run.weights, data.dataset, options.fold, run.backbone) if is_rank_zero() else ():
        print(f"note: {doubt}", flush=True)  # before loading, whose error it may explain
    net = run.load()
    device = join_group(device)
    if net.metadata.get("dataset") == data.dataset and "sizes" in net.metadata:
        data = replace(data, crop_size=data.crop_size or net.crop_size)
    dataset = data.load("test", transform=image_to_tensor(net.mean, net.std))
    check_label_lengths(net, dataset.labels)

    def loader(indices: Sequence[int]) -> object:
        left = Remaining(dataset, indices)
        return make_loader(left, options.bsz, run.seed, shuffle=False, num_workers=data.workers)

    test = EpisodeTest(net.to(device), dataset, loader, run, speed, device)
    test.measure()
    if options.save_pictures and is_rank_zero():
        test.save_sheet(options.save_pictures)


def check(options: argparse.Namespace) -> tuple[TestRun, DataChoice, Speed]:
    """What is asked for; one ``InputError`` with everything that is wrong with it."""
    problems = compatibility_problems(options)
    if options.bsz < 1:
        problems.append(f"--bsz is {options.bsz}; give at least 1 image per forward pass")
    if options.save_pictures < 0:
        problems.append(f"--save_pictures is {options.save_pictures}; give a number of episodes")
    if options.benchmark not in (None, options.dataset):
        problems.append(f"--benchmark {options.benchmark} and --dataset {options.dataset} differ; give --dataset")

    name = f"{options.dataset}_fold{options.fold}_{options.nshot}shot"
    files = {"fold": options.fold, "nshot": options.nshot}
    run, data, speed, *_ = raise_all(
        problems,
        lambda: chosen(TestRun, options, name=name),
        lambda: chosen(DataChoice, options, base_size=None),  # the official parser has the option, and ignores it
        lambda: chosen(Speed, options),
        lambda: check_dataset(options.dataset, options.data_path, ("test",), **files),
        lambda: get_labels(options.dataset, options.label_src, options.data_path),
    )
    return run, data, speed


if __name__ == "__main__":
    run_distributed(main)
