"""Test LSeg on a dataset with a fixed label set: mIoU by the published protocol (--eval), or masks and overlays.

On several GPUs: ``torchrun --nproc_per_node 8 test_lseg.py --eval ...``; each image is then tested by one of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data import check_dataset, get_dataset, get_labels
from data.loading import make_loader
from encoding_ext import MultiScaleEvaluator, SegmentationMetric, image_to_tensor
from encoding_ext.cli import Parser
from encoding_ext.comparison import comparison, extremes_sheets
from encoding_ext.distributed import join_group, run_distributed
from encoding_ext.errors import InputError, raise_all
from encoding_ext.evaluator import TEST_SCALES
from encoding_ext.extremes import Extremes
from encoding_ext.palettes import palette, save_palette_png, save_picture
from encoding_ext.pictures import overlay_with_legend
from encoding_ext.precise_bn import precise_batch_norm
from encoding_ext.progress import is_rank_zero, progress_bar
from encoding_ext.report_page import worst_confusions, write_report
from encoding_ext.results import append_log, text_table, write_csv, write_json
from encoding_ext.transforms import tensor_to_pixels
from modules.checkpoints import export_plain, git_state, read_checkpoint
from modules.models import LSegNet
from modules.options import (
    add_compatibility_options,
    add_data_options,
    add_device_options,
    add_network_options,
    compatibility_problems,
    data_problems,
    resolve_device,
    speed_problems,
)
from modules.start import check_label_lengths
from modules.testing import (
    add_test_options,
    default_folder,
    derangement,
    load_for_test,
    output_problems,
    predictor,
    reduced_dtype,
    speed_up,
)

BN_BATCHES = 200
PICTURED = 5  # images in the report, of the best and of the worst


def build_parser() -> Parser:
    """The options of this script."""
    parser = Parser(__doc__)
    parser.add_argument("--eval", action="store_true", help="measure; without it, masks and overlays are written")
    parser.add_argument("--split", help="default: val with --eval, else test, or val where there is no test split")
    parser.add_argument("--test_val", action="store_true", help="the official name for --split val without --eval")
    parser.add_argument(
        "--protocol",
        choices=("official", "single"),
        default="official",
        help="official: six scales, each with its mirror image, as published; single: scale 1 only, a quick look",
    )
    parser.add_argument("--scales", type=float, nargs="+", help="instead of those of the protocol")
    parser.add_argument("--no_flip", action="store_true", help="leave out the mirrored forwards")
    parser.add_argument(
        "--window_batch", type=window_batch, default="auto", help="crops per forward; auto: as the free memory allows"
    )
    parser.add_argument("--acc_bn", action="store_true", help="first re-estimate batch norm on training images")
    parser.add_argument("--batch_size", type=int, default=8, help="images per batch of --acc_bn")
    parser.add_argument("--export", type=Path, help="write a plain official state dict (.pth) and stop")
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
    evaluator = build_evaluator(net, dataset, options, device)
    if options.eval:
        evaluate(evaluator, dataset, options, net, split, device)
    else:
        write_pictures(evaluator, dataset, options, net, device)


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
    problems = compatibility_problems(options) + data_problems(options) + speed_problems(options)
    problems += output_problems(options, output_folder(options))
    if options.eval and split == "test":
        problems.append("--eval needs masks, and the test split has none; use --split val")
    if options.batch_size < 1:
        problems.append(f"--batch_size is {options.batch_size}; give at least 1")
    if options.window_batch is not None and options.window_batch < 1:
        problems.append(f"--window_batch is {options.window_batch}; give at least 1, or auto")
    splits = [split, "train"] if options.acc_bn and split != "train" else [split]
    raise_all(
        problems,
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


def build_evaluator(
    net: LSegNet, dataset: Any, options: argparse.Namespace, device: torch.device
) -> MultiScaleEvaluator:
    """The test protocol around the network; the labels are encoded here, once."""
    text = net.encode_labels(net.labels)
    if options.shuffle_labels is not None:
        text = text[derangement(len(text), options.shuffle_labels)]
    speed_up(net, options, device)
    predict, (scales, flip) = predictor(net, options, device), scales_and_flip(options)
    return MultiScaleEvaluator(
        lambda images: predict(images, text),
        len(net.labels),
        base_size=dataset.base_size,
        crop_size=dataset.crop_size,
        scales=scales,
        flip=flip,
        mean=net.mean,
        std=net.std,
        window_batch=options.window_batch,
    )


# ---------------------------------------------------------------------------------------------------- measuring


def evaluate(
    evaluator: Callable[[Tensor], Tensor],
    dataset: Any,
    options: argparse.Namespace,
    net: LSegNet,
    split: str,
    device: torch.device,
) -> None:
    """Count every image once, over all processes, and report."""
    metric, extremes = SegmentationMetric(len(net.labels)), Extremes(PICTURED)
    colours, to_pixels = palette(len(net.labels)), tensor_to_pixels(net.mean, net.std)
    bar = progress_bar(each_image(dataset, options), desc="testing", unit="image")
    for batch in bar:
        predicted = evaluator(batch["image"].to(device)).argmax(1)  # there: the scores are a hundred times larger
        single = SegmentationMetric(len(net.labels))
        single.update(batch["mask"], predicted.cpu())
        metric.merge(single)
        name = Path(dataset.name_of(int(batch["index"]))).name
        maps = batch["mask"][0].numpy(), predicted[0].cpu().numpy()
        draw = partial(comparison, batch["image"][0], *maps, colours, net.labels, to_pixels)
        extremes.add(single.miou_of_present(), name, draw)
        pixel_accuracy, miou = metric.get()
        bar.set_postfix_str(f"pixAcc {100 * pixel_accuracy:.2f} mIoU {100 * miou:.2f}")
    metric.all_reduce()
    extremes.gather()
    if is_rank_zero():
        report(metric, extremes, dataset, options, net, split)


def report(
    metric: SegmentationMetric,
    extremes: Extremes,
    dataset: Any,
    options: argparse.Namespace,
    net: LSegNet,
    split: str,
) -> None:
    """The table on the screen, results.json, per_class_iou.csv, report.html, a line in the log. Figures in percent."""
    pixel_accuracy, miou = (100 * value for value in metric.get())
    per_class = [100 * value for value in metric.per_class_iou().tolist()]
    groups = {name: 100 * metric.miou_of(indices) for name, indices in dataset.groups.items()}
    rows = [(i + 1, label, iou) for i, (label, iou) in enumerate(zip(net.labels, per_class, strict=True))]
    print(text_table(("class", "label", "IoU %"), rows))
    totals = {"pixel accuracy": pixel_accuracy, "mIoU": miou, **{f"mIoU {name}": groups[name] for name in groups}}
    for name, value in totals.items():
        print(f"{name}: {value:.2f} %")

    folder = output_folder(options)
    result = {
        "dataset": options.dataset,
        "split": split,
        "images": len(dataset),
        "weights": str(options.weights),
        "protocol": describe_protocol(options, dataset),
        "precision": describe_precision(options),
        "label_source": options.label_src or "checkpoint or default",
        "shuffled_labels": options.shuffle_labels,
        "pixel_accuracy": pixel_accuracy,
        "miou": miou,
        "groups": groups,
        "per_class_iou": dict(zip(numbered(net.labels), per_class, strict=True)),
        "confusion": metric.confusion.tolist(),
        "git": git_state(),
    }
    write_json(folder / "results.json", result)
    write_csv(folder / "per_class_iou.csv", ("class", "label", "iou_percent"), rows)
    append_log(
        options.log_dir / f"log_test_{options.jobname}_{options.dataset}.txt",
        f"{options.weights} {split} {result['protocol']} pixAcc {pixel_accuracy:.2f} mIoU {miou:.2f}",
    )
    facts = {name: result[name] for name in ("weights", "dataset", "split", "images", "protocol", "label_source")}
    write_report(
        folder / "report.html",
        f"LSeg on {options.dataset}",
        totals,
        {**facts, **({} if options.shuffle_labels is None else {"control": "label embeddings shuffled"})},
        [(label, iou) for _, label, iou in rows],
        worst_confusions(metric.confusion.numpy(), net.labels),
        extremes_sheets(extremes, "images, by mean IoU over the labels in them"),
    )
    print(f"wrote {folder / 'results.json'} and {folder / 'report.html'}")


def numbered(labels: Sequence[str]) -> list[str]:
    """Unique keys for JSON: a label that occurs again gets its class number."""
    return [label if label not in labels[:i] else f"{label} ({i + 1})" for i, label in enumerate(labels)]


def window_batch(text: str) -> int | None:
    """The value of --window_batch; None for auto."""
    return None if text == "auto" else int(text)


def scales_and_flip(options: argparse.Namespace) -> tuple[tuple[float, ...], bool]:
    """What is summed: the scales, and whether mirror images are."""
    single = options.protocol == "single"
    return tuple(options.scales or ((1.0,) if single else TEST_SCALES)), not (single or options.no_flip)


def describe_protocol(options: argparse.Namespace, dataset: Any) -> str:
    """The protocol's name, or what departs from the published one."""
    scales, flip = scales_and_flip(options)
    sizes = f"windows of {dataset.crop_size}, base {dataset.base_size}"
    if scales == TEST_SCALES and flip:
        return f"official (six scales, flip), {sizes}"
    if scales == (1.0,) and not flip:
        return f"single (scale 1, no flip), {sizes}"
    return f"scales {' '.join(map(str, scales))}{', flip' if flip else ', no flip'}, {sizes}"


def describe_precision(options: argparse.Namespace) -> str:
    """float32, bfloat16 or float16: what the convolutions and products were computed in."""
    dtype = reduced_dtype(options, resolve_device(options.device)) or torch.float32
    return str(dtype).removeprefix("torch.")


# ----------------------------------------------------------------------------------------------------- pictures


def write_pictures(
    evaluator: Callable[[Tensor], Tensor],
    dataset: Any,
    options: argparse.Namespace,
    net: LSegNet,
    device: torch.device,
) -> None:
    """A palette PNG (value = label + 1) and an overlay with a legend for every image."""
    folder, colours = output_folder(options), palette(len(net.labels))
    to_pixels = tensor_to_pixels(net.mean, net.std)
    for batch in progress_bar(each_image(dataset, options), desc="segmenting", unit="image"):
        labels = evaluator(batch["image"].to(device))[0].argmax(0).cpu().numpy()
        stem = Path(batch["name"][0]).stem
        save_palette_png(folder / "masks" / f"{stem}.png", labels, colours)
        picture = overlay_with_legend(to_pixels(batch["image"][0]), labels, colours, net.labels)
        save_picture(folder / "overlays" / f"{stem}.jpg", picture)
    if is_rank_zero():
        print(f"wrote {folder / 'masks'} and {folder / 'overlays'}")


def each_image(dataset: Any, options: argparse.Namespace) -> Iterable[dict[str, Any]]:
    """This process's share of the images, one at a time, loaded ahead."""
    return make_loader(dataset, 1, options.seed, shuffle=False, num_workers=options.workers)


def output_folder(options: argparse.Namespace) -> Path:
    """Where the results of this test go."""
    return options.output_dir or default_folder(options, options.dataset)


if __name__ == "__main__":
    run_distributed(main)
