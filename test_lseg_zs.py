"""Test zero-shot LSeg on one fold of Pascal-5i, COCO-20i or FSS-1000 (protocol of HSNet): mIoU and FB-IoU.

An episode is an image and one of its classes; the labels are 'others' and that class. Pairs that the official sequence
repeats are segmented once and counted as often as they occur. On several GPUs: torchrun, as for test_lseg.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data import check_dataset, get_dataset, get_labels
from data.loading import make_loader
from encoding_ext import EpisodeMetric, image_to_tensor
from encoding_ext.cli import Parser
from encoding_ext.comparison import COLUMNS, comparison, extremes_sheets
from encoding_ext.distributed import from_first, join_group, run_distributed, wait_for_all
from encoding_ext.episode_log import Areas, EpisodeLog
from encoding_ext.errors import raise_all
from encoding_ext.extremes import Extremes
from encoding_ext.memory import memory_advice
from encoding_ext.metrics import episode_areas
from encoding_ext.palettes import palette, save_picture
from encoding_ext.pictures import sheet
from encoding_ext.progress import is_rank_zero, process_rank, progress_bar
from encoding_ext.report_page import write_report
from encoding_ext.results import append_log, text_table, write_csv, write_json
from encoding_ext.transforms import tensor_to_pixels
from modules.checkpoints import git_state, read_checkpoint
from modules.lseg_module_zs import BACKGROUND, episode_labels
from modules.models import LSegNet
from modules.models.streaming import upsampled_max
from modules.options import (
    add_compatibility_options,
    add_data_options,
    add_device_options,
    add_network_options,
    block_options,
    compatibility_problems,
    data_problems,
    resolve_device,
    speed_problems,
)
from modules.released import file_name_doubts
from modules.start import check_label_lengths
from modules.testing import (
    add_test_options,
    default_folder,
    derangement,
    load_for_test,
    output_problems,
    predictor,
    speed_up,
)

PICTURED = 5  # episodes in the report, of the best and of the worst


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
    evaluate(net, dataset, options, device)


def check_all(options: argparse.Namespace) -> None:
    """One ``InputError`` with everything that is wrong, before the network is built."""
    problems = compatibility_problems(options) + data_problems(options) + speed_problems(options)
    problems += output_problems(options, output_folder(options))
    if options.bsz < 1:
        problems.append(f"--bsz {options.bsz}; give at least 1 image per forward")
    choice = {"fold": options.fold, "nshot": options.nshot}
    raise_all(
        problems,
        lambda: check_dataset(options.dataset, options.data_path, ("test",), **choice),
        lambda: get_labels(options.dataset, options.label_src, options.data_path),
    )


# ---------------------------------------------------------------------------------------------------- measuring


class Remaining:
    """The items of a dataset that are left to do."""

    on_bad_image = "stop"

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        self.dataset, self.indices = dataset, list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def sample(self, index: int, rng: np.random.Generator) -> dict[str, Any]:
        """Item ``index`` of what is left, with its place in the whole dataset as ``episode``."""
        episode = self.indices[index]
        return {**self.dataset.sample(episode, rng), "episode": episode}


def evaluate(net: LSegNet, dataset: Any, options: argparse.Namespace, device: torch.device) -> None:
    """Segment each distinct pair once over all processes, count, report; finished pairs survive an early end."""
    log = EpisodeLog(output_folder(options), describe_test(options), process_rank())
    finished: dict[int, Areas] = from_first(log.finished())
    metric = EpisodeMetric(dataset.class_ids)
    if is_rank_zero():
        if finished:
            print(f"taking up an unfinished test: {len(finished)} of {len(dataset)} pairs are done")
        count(metric, dataset, finished)
    todo = [index for index in range(len(dataset)) if index not in finished]
    bar = progress_bar(total=len(todo), desc=f"{options.dataset} fold {options.fold}", unit="image")
    for episodes in segment(net, dataset, todo, options, device):
        log.add(episodes.items())
        count(metric, dataset, episodes)
        bar.update(len(episodes))
        bar.set_postfix_str("mIoU {:.2f} FB-IoU {:.2f}".format(*metric.get()))
    bar.close()
    metric.all_reduce()
    if is_rank_zero():
        extremes = strongest_and_weakest(log.finished(), net, dataset, options, device)
        report(metric, extremes, dataset, options)
        save_pictures(net, dataset, options, device)
    wait_for_all()
    if is_rank_zero():
        log.remove()


def segment(
    net: LSegNet, dataset: Any, todo: Sequence[int], options: argparse.Namespace, device: torch.device
) -> Iterator[dict[int, Areas]]:
    """This process's share of ``todo``: index -> areas, batch by batch."""
    predict, names = predictor(net, options, device), class_names(dataset, options)
    left = Remaining(dataset, todo)
    loader = make_loader(left, options.bsz, options.seed, shuffle=False, num_workers=options.workers)
    for batch in loader if todo else ():
        with torch.inference_mode(), memory_advice("give a smaller --bsz"):
            logits = predict(batch["image"].to(device), text_of(net, batch["class_id"], names))
            predicted = upsampled_max(logits)[1].cpu()
        mask = batch["mask"]
        areas = episode_areas(predicted, mask, ignore=mask < 0)
        yield dict(zip(batch["episode"].tolist(), areas.tolist(), strict=True))


def text_of(net: LSegNet, class_ids: Tensor, names: list[str]) -> Tensor:
    """(B, 2, C): the vectors of 'others' and of each image's class."""
    return torch.stack([net.encode_labels(labels) for labels in episode_labels(class_ids, names)])


def class_names(dataset: Any, options: argparse.Namespace) -> list[str]:
    """The labels by class; in the control, exchanged among the classes of this test."""
    names = list(dataset.labels)
    if options.shuffle_labels is not None:
        order = derangement(len(dataset.class_ids), options.shuffle_labels)
        for place, other in enumerate(order):
            names[dataset.class_ids[place]] = dataset.labels[dataset.class_ids[other]]
    return names


def count(metric: EpisodeMetric, dataset: Any, episodes: dict[int, Areas]) -> None:
    """Add episodes with the weight that the official sequence gives them."""
    if episodes:
        indices = list(episodes)
        class_ids = torch.tensor([dataset.pairs[index][0] for index in indices])
        weights = torch.tensor([dataset.count_of(index) for index in indices])
        metric.add(torch.tensor([episodes[index] for index in indices]), class_ids, weights)


def describe_test(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the areas of an episode depend on."""
    state = options.weights.stat()
    names = ("dataset", "fold", "nshot", "label_src", "crop_size", "shuffle_labels", "precision")
    return {
        "weights": [str(options.weights.resolve()), state.st_size, state.st_mtime_ns],
        "data_path": str(options.data_path),
        **{name: getattr(options, name) for name in names},
        **block_options(options),
    }


# ---------------------------------------------------------------------------------------------------- reporting


def report(metric: EpisodeMetric, extremes: Extremes, dataset: Any, options: argparse.Namespace) -> None:
    """The table on the screen, results.json, per_class_iou.csv, report.html, a line in the log. Figures in percent."""
    miou, fb_iou = metric.get()
    ious = zip(metric.class_ids, metric.per_class_iou().tolist(), strict=True)
    rows = [(class_id, dataset.labels[class_id], iou) for class_id, iou in ious]
    print(text_table(("class", "label", "IoU %"), rows))
    print(f"mIoU: {miou:.2f} %\nFB-IoU: {fb_iou:.2f} %")
    folder = output_folder(options)
    result = {
        "dataset": options.dataset,
        "fold": options.fold,
        "nshot": options.nshot,
        "weights": str(options.weights),
        "trained": read_checkpoint(options.weights, options.trust_checkpoint).metadata.get("zero_shot", {}),
        "episodes": len(dataset.episodes),
        "distinct_pairs": len(dataset),
        "shuffled_labels": options.shuffle_labels,
        "miou": miou,
        "fb_iou": fb_iou,
        "per_class_iou": {label: iou for _, label, iou in rows},
        "git": git_state(),
    }
    write_json(folder / "results.json", result)
    write_csv(folder / "per_class_iou.csv", ("class", "label", "iou_percent"), rows)
    append_log(
        options.log_dir / f"log_test_zs_{options.jobname}_{options.dataset}.txt",
        f"fold {options.fold} nshot {options.nshot} {options.weights} mIoU {miou:.2f} FB-IoU {fb_iou:.2f}",
    )
    facts = {name: result[name] for name in ("weights", "dataset", "fold", "nshot", "episodes", "distinct_pairs")}
    write_report(
        folder / "report.html",
        f"Zero-shot LSeg on {options.dataset}, fold {options.fold}",
        {"mIoU": miou, "FB-IoU": fb_iou},
        {**facts, **({} if options.shuffle_labels is None else {"control": "names of the classes exchanged"})},
        [(label, iou) for _, label, iou in rows],
        pictures=extremes_sheets(extremes, "episodes, by the IoU of the class"),
    )
    print(f"wrote {folder / 'results.json'} and {folder / 'report.html'}")


def strongest_and_weakest(
    episodes: dict[int, Areas], net: LSegNet, dataset: Any, options: argparse.Namespace, device: torch.device
) -> Extremes:
    """The episodes with the highest and lowest IoU of their class, segmented once more for their pictures."""
    extremes = Extremes(PICTURED)
    for index, ((_, intersection), (_, union)) in episodes.items():
        class_id, image = dataset.pairs[index]
        name = f"{dataset.labels[class_id]} in {image}"
        extremes.add(intersection / max(union, 1), name, lambda index=index: index)
    return extremes.map(lambda index: episode_picture(net, dataset, options, device, index))


def save_pictures(net: LSegNet, dataset: Any, options: argparse.Namespace, device: torch.device) -> None:
    """sheet.png: image, truth and prediction of evenly spread episodes."""
    shown = min(options.save_pictures, len(dataset))
    if not shown:
        return
    indices = [number * len(dataset) // shown for number in range(shown)]
    names = class_names(dataset, options)
    rows = [episode_picture(net, dataset, options, device, index) for index in indices]
    picture = sheet(rows, COLUMNS, row_titles=[names[dataset.pairs[index][0]] for index in indices])
    path = output_folder(options) / "sheet.png"
    save_picture(path, picture)
    print(f"wrote {path}")


@torch.inference_mode()
def episode_picture(
    net: LSegNet, dataset: Any, options: argparse.Namespace, device: torch.device, index: int
) -> list[Image.Image]:
    """[image, truth, prediction] of an episode."""
    item, names = dataset.sample(index, np.random.default_rng(options.seed)), class_names(dataset, options)
    text = text_of(net, torch.tensor([item["class_id"]]), names)
    logits = predictor(net, options, device)(item["image"][None].to(device), text)
    predicted = upsampled_max(logits)[1][0].cpu().numpy()
    labels = [BACKGROUND, names[item["class_id"]]]
    return comparison(
        item["image"], item["mask"].numpy(), predicted, palette(2), labels, tensor_to_pixels(net.mean, net.std)
    )


def output_folder(options: argparse.Namespace) -> Path:
    """Where the results of this test go."""
    return options.output_dir or default_folder(options, f"{options.dataset}_fold{options.fold}_{options.nshot}shot")


if __name__ == "__main__":
    run_distributed(main)
