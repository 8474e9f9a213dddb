"""Test LSeg on a dataset with a fixed label set: mIoU by the published protocol (--eval), or masks and overlays.

On several GPUs: ``torchrun --nproc_per_node 8 test_lseg.py --eval ...``; each process then tests a share of the images.
"""

from __future__ import annotations

import lseg_utils.interrupt  # noqa: F401  first: Ctrl-C while the rest is imported is quiet

# isort: split

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import check_dataset, get_labels, name_of
from data.choice import DataChoice
from lseg_utils.cli import Parser, chosen
from lseg_utils.distributed import join_group, run_distributed
from lseg_utils.errors import InputError, raise_all
from lseg_utils.progress import is_rank_zero
from modules.choices import Speed
from modules.options import (
    add_compatibility_options,
    add_data_options,
    add_device_options,
    add_network_options,
    compatibility_problems,
)
from modules.testing.settings import (
    Protocol,
    TestRun,
    add_official_test_options,
    add_protocol_options,
    add_test_options,
)

if TYPE_CHECKING:
    from modules.models import LSegNet

MAX_BN_BATCHES = 200


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    parser.add_argument("--eval", action="store_true", help="measure; without this, write masks and overlays")
    split = "use this split; default: val with --eval, else test, or val where there is no test split"
    parser.add_argument("--split", help=split)
    parser.add_argument(
        "--test_val",
        action="store_true",
        help="segment the split val: the official name for --split val without --eval",
    )
    parser.add_argument("--acc_bn", action="store_true", help="first re-estimate batch norm on training images")
    parser.add_argument("--train_split", default="train", help="take the images of --acc_bn from this split")
    parser.add_argument("--batch_size", type=int, default=8, help="put this many images into a batch of --acc_bn")
    parser.add_argument("--export", type=Path, help="write a plain official state dict (.pth) to this file and stop")
    add_protocol_options(parser)
    add_test_options(parser)
    add_data_options(parser)
    add_network_options(parser, backbone=None)
    add_device_options(parser)
    add_compatibility_options(parser)
    add_official_test_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> None:
    """Check everything, load, then export, measure or write pictures."""
    options = build_parser().parse(argv)
    run, data, protocol, speed, split = check(options)

    # What follows takes seconds to import, so it comes after everything that is quickly refused.
    from data.loading import make_loader
    from encoding_ext.precise_bn import precise_batch_norm
    from encoding_ext.transforms import image_to_tensor
    from modules.checkpoints import export_plain
    from modules.device import resolve_device
    from modules.testing.label_sets import LabelSetTest
    from modules.training.start import check_label_lengths

    device = resolve_device(options.device)
    net = run.load()
    device = join_group(device)
    data = with_trained_sizes(data, net)
    to_tensor = image_to_tensor(net.mean, net.std)
    if options.acc_bn:  # statistics of training crops instead of the moving averages
        training = data.load(options.train_split, "train", to_tensor)
        loader = make_loader(training, options.batch_size, run.seed, shuffle=True, num_workers=data.workers)
        images = (batch["image"].to(device) for batch in loader)
        precise_batch_norm(net.to(device), images, net.embed, min(MAX_BN_BATCHES, len(loader)))
    if options.export:
        if is_rank_zero():  # all processes would write the same file
            file = options.export if options.export.suffix == ".pth" else Path(f"{options.export}.pth")
            print(f"wrote {export_plain(net.cpu(), file)}")
        return

    # A checkpoint's own list for this dataset (such as the corrected one) counts, unless another one is asked for.
    standard = get_labels(data.dataset, data.label_src, data.data_path)
    trained_on, own = net.metadata.get("dataset", data.name), net.labels
    if data.label_src or trained_on != data.name or own is None or len(own) != len(standard):
        net.labels = standard
    check_label_lengths(net, net.labels)

    dataset = data.load(split, "testval" if options.eval else "test", to_tensor)
    if is_rank_zero():
        for doubt in doubts_of_the_test(net, own, standard, dataset, split):
            print(f"note: {doubt}")
    loader = make_loader(dataset, 1, run.seed, shuffle=False, num_workers=data.workers)
    source = data.label_src or "checkpoint or default"
    test = LabelSetTest(net.to(device), dataset, loader, run, protocol, speed, device, source)
    if options.eval:
        test.measure()
    else:
        test.write_pictures()


def check(options: argparse.Namespace) -> tuple[TestRun, DataChoice, Protocol, Speed, str]:
    """What is asked for; one ``InputError`` with everything that is wrong with it."""
    problems = compatibility_problems(options)
    if options.batch_size < 1:
        problems.append(f"--batch_size is {options.batch_size}; give at least 1")
    if options.eval and options.split == "test":
        problems.append("--eval needs masks, and the test split has none; use --split val")
    if options.export and options.export.is_dir():
        problems.append(f"--export {options.export} is a folder; give the name of a file")
    # Without --split, the official test images if pictures are to be made.
    split = options.split or ("val" if options.eval or options.test_val or options.export else "")
    if not split:
        try:
            check_dataset(options.dataset, options.data_path, ("test",))
            split = "test"
        except InputError as error:
            split = "val"
            if is_rank_zero():
                print(f"no test split ({str(error).splitlines()[0]}); segmenting the validation images")
    needed = [options.train_split] if options.acc_bn else []
    checks = []
    if not options.export:
        needed.append(split)
        checks.append(lambda: get_labels(options.dataset, options.label_src, options.data_path))
    if needed:
        checks.append(lambda: check_dataset(options.dataset, options.data_path, needed))
    run, data, protocol, speed, *_ = raise_all(
        problems,
        lambda: chosen(TestRun, options, name=name_of(options.dataset), writes_results=not options.export),
        lambda: chosen(DataChoice, options),
        lambda: Protocol.named(options.protocol, options.scales, options.no_flip, options.window_batch),
        lambda: chosen(Speed, options),
        *checks,
    )
    return run, data, protocol, speed, split


def doubts_of_the_test(net: LSegNet, own: list[str] | None, standard: list[str], dataset: Any, split: str) -> list[str]:
    """What makes a test another one than it seems. own: the checkpoint's labels; standard: the dataset's."""
    trained_on, doubts = net.metadata.get("dataset", dataset.name), []
    if trained_on != dataset.name:
        doubts.append(f"the network was trained on {trained_on}; it is tested with the labels of {dataset.name}")
    elif split == "train" and net.metadata:
        doubts.append(
            "the split train is what the network was trained on: the figures are not comparable with those of val"
        )
    if own and len(own) != len(standard) and trained_on == dataset.name:
        doubts.append(f"tested with {len(standard)} labels of the dataset, not with the checkpoint's own {len(own)}")
    elif own and own == net.labels and own != standard:
        number = next(place for place, (a, b) in enumerate(zip(own, standard)) if a != b)
        moved = ", the same names in another order" if sorted(own) == sorted(standard) else ""
        doubts.append(
            f"tested with the checkpoint's own labels{moved}: label {number} is {own[number]!r} there and "
            f"{standard[number]!r} in the dataset; --label_src default takes the dataset's"
        )
    sizes, trained = (dataset.base_size, dataset.crop_size), (net.base_size, net.crop_size)
    if "sizes" in net.metadata and sizes != trained:
        doubts.append(
            f"the network was trained at base size {trained[0]} and crops of {trained[1]}; this test uses {sizes[0]} "
            f"and {sizes[1]} (--base_size, --crop_size)"
        )
    return doubts


def with_trained_sizes(data: DataChoice, net: LSegNet) -> DataChoice:
    """The sizes with which the network was trained on this dataset, unless others are asked for."""
    if net.metadata.get("dataset") != data.name or "sizes" not in net.metadata:
        return data
    return replace(data, base_size=data.base_size or net.base_size, crop_size=data.crop_size or net.crop_size)


if __name__ == "__main__":
    run_distributed(main)
