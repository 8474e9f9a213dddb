"""One zero-shot test: every episode segmented once, counted, reported; what is finished survives an early end."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from encoding_ext.metrics import EpisodeMetric, episode_areas
from encoding_ext.palettes import palette
from encoding_ext.transforms import tensor_to_pixels
from lseg_utils.distributed import from_first, wait_for_all
from lseg_utils.memory import memory_advice
from lseg_utils.pictures import save_picture, sheet
from lseg_utils.progress import is_rank_zero, process_rank, progress_bar
from lseg_utils.results import append_log, text_table, write_csv, write_json

from ..checkpoints import git_state, read_checkpoint
from ..lseg_module_zs import BACKGROUND, episode_labels
from ..models import LSegNet
from ..models.streaming import upsampled_max
from ..options import block_options
from .common import default_folder, derangement, predictor
from .comparison import COLUMNS, comparison, extremes_sheets
from .episode_log import Areas, EpisodeLog
from .extremes import Extremes
from .protocol import describe_precision
from .report_page import write_report

PICTURED = 5  # episodes in the report, of the best and of the worst


class EpisodeTest:
    """The test of ``net`` on one fold.

    Args:
        net: on ``device``.
        dataset: the fold's test split; its ``pairs`` are the distinct episodes.
        options: of ``test_lseg_zs.py``.
        loader: indices of pairs -> batches of this process's share of them, which name their index as ``episode``.
    """

    def __init__(
        self,
        net: LSegNet,
        dataset: Any,
        options: argparse.Namespace,
        device: torch.device,
        loader: Callable[[Sequence[int]], Iterable[dict[str, Any]]],
    ) -> None:
        self.net, self.dataset, self.options, self.device, self.loader = net, dataset, options, device, loader
        self.metric = EpisodeMetric(dataset.class_ids)
        self.predict = predictor(net, options, device)
        self.names = class_names(dataset, options.shuffle_labels)
        self.folder = fold_output_folder(options)

    def run(self) -> None:
        """Segment each distinct pair once over all processes, and report."""
        log = EpisodeLog(self.folder, describe_test(self.options), process_rank())
        finished: dict[int, Areas] = from_first(log.finished())
        if is_rank_zero():
            if finished:
                print(f"taking up an unfinished test: {len(finished)} of {len(self.dataset)} pairs are done")
            self._count(finished)
        todo = [index for index in range(len(self.dataset)) if index not in finished]
        bar = progress_bar(total=len(todo), desc=f"{self.options.dataset} fold {self.options.fold}", unit="image")
        for episodes in self._segment(todo):
            log.add(episodes)
            self._count(episodes)
            bar.update(len(episodes))
            bar.set_postfix_str("mIoU {:.2f} FB-IoU {:.2f}".format(*(100 * value for value in self.metric.get())))
        bar.close()
        self.metric.all_reduce()
        if is_rank_zero():
            self._report(self._strongest_and_weakest(log.finished()))
            self._save_pictures()
        wait_for_all()
        if is_rank_zero():
            log.remove()

    def _segment(self, todo: Sequence[int]) -> Iterator[dict[int, Areas]]:
        """This process's share of ``todo``: index -> areas, batch by batch."""
        for batch in self.loader(todo) if todo else ():
            predicted, mask = self._predicted(batch["image"], batch["class_id"]), batch["mask"]
            areas = episode_areas(mask, predicted, ignore=mask < 0)
            yield dict(zip(batch["episode"].tolist(), areas.tolist(), strict=True))

    def _predicted(self, images: Tensor, class_ids: Tensor) -> Tensor:
        """(B, 3, S, S), (B,) -> labels (B, S, S): 0 others, 1 the class."""
        text = torch.stack([self.net.encode_labels(labels) for labels in episode_labels(class_ids, self.names)])
        with torch.inference_mode(), memory_advice("give a smaller --bsz"):
            return upsampled_max(self.predict(images.to(self.device), text))[1].cpu()  # text: (B, 2, C)

    def _count(self, episodes: dict[int, Areas]) -> None:
        """Add episodes with the weight that the official sequence gives them."""
        if episodes:
            indices = list(episodes)
            class_ids = torch.tensor([self.dataset.pairs[index][0] for index in indices])
            weights = torch.tensor([self.dataset.count_of(index) for index in indices])
            self.metric.add(torch.tensor([episodes[index] for index in indices]), class_ids, weights)

    # ------------------------------------------------------------------------------------------------ reporting

    def _report(self, extremes: Extremes) -> None:
        """The table on the screen, results.json, per_class_iou.csv, report.html, a log line. Figures in percent."""
        options, (miou, fb_iou) = self.options, (100 * value for value in self.metric.get())
        ious = zip(self.metric.class_ids, self.metric.per_class_iou().tolist(), strict=True)
        rows = [(class_id, self.dataset.labels[class_id], 100 * iou) for class_id, iou in ious]
        print(text_table(("class", "label", "IoU %"), rows))
        print(f"mIoU: {miou:.2f} %\nFB-IoU: {fb_iou:.2f} %")
        result = {
            "dataset": options.dataset,
            "fold": options.fold,
            "nshot": options.nshot,
            "weights": str(options.weights),
            "trained": read_checkpoint(options.weights, options.trust_checkpoint).metadata.get("zero_shot", {}),
            "episodes": len(self.dataset.episodes),
            "distinct_pairs": len(self.dataset),
            "precision": describe_precision(options),
            "shuffled_labels": options.shuffle_labels,
            "miou": miou,
            "fb_iou": fb_iou,
            "per_class_iou": {label: iou for _, label, iou in rows},
            "git": git_state(),
        }
        write_json(self.folder / "results.json", result)
        write_csv(self.folder / "per_class_iou.csv", ("class", "label", "iou_percent"), rows)
        append_log(
            options.log_dir / f"log_test_zs_{options.jobname}_{options.dataset}.txt",
            f"fold {options.fold} nshot {options.nshot} {options.weights} {result['precision']} "
            f"mIoU {miou:.2f} FB-IoU {fb_iou:.2f}",
        )
        names = ("weights", "dataset", "fold", "nshot", "episodes", "distinct_pairs", "precision")
        facts = {name: result[name] for name in names}
        write_report(
            self.folder / "report.html",
            f"Zero-shot LSeg on {options.dataset}, fold {options.fold}",
            {"mIoU": miou, "FB-IoU": fb_iou},
            {**facts, **({} if options.shuffle_labels is None else {"control": "names of the classes exchanged"})},
            [(label, iou) for _, label, iou in rows],
            pictures=extremes_sheets(extremes, "episodes, by the IoU of the class"),
        )
        print(f"wrote {self.folder / 'results.json'} and {self.folder / 'report.html'}")

    def _strongest_and_weakest(self, episodes: dict[int, Areas]) -> Extremes:
        """The episodes with the highest and lowest IoU of their class, segmented once more for their pictures."""
        extremes = Extremes(PICTURED)
        for index, ((_, intersection), (_, union)) in episodes.items():
            class_id, image = self.dataset.pairs[index]
            name = f"{self.dataset.labels[class_id]} in {image}"
            extremes.add(intersection / max(union, 1), name, lambda index=index: index)
        return extremes.map(self._picture)

    def _save_pictures(self) -> None:
        """sheet.png: image, truth and prediction of evenly spread episodes."""
        shown = min(self.options.save_pictures, len(self.dataset))
        if not shown:
            return
        indices = [number * len(self.dataset) // shown for number in range(shown)]
        titles = [self.names[self.dataset.pairs[index][0]] for index in indices]
        path = self.folder / "sheet.png"
        save_picture(path, sheet([self._picture(index) for index in indices], COLUMNS, row_titles=titles))
        print(f"wrote {path}")

    def _picture(self, index: int) -> list[Image.Image]:
        """[image, truth, prediction] of an episode."""
        item = self.dataset.sample(index, np.random.default_rng(self.options.seed))
        predicted = self._predicted(item["image"][None], torch.tensor([item["class_id"]]))[0].numpy()
        labels, to_pixels = [BACKGROUND, self.names[item["class_id"]]], tensor_to_pixels(self.net.mean, self.net.std)
        return comparison(item["image"], item["mask"].numpy(), predicted, palette(2), labels, to_pixels)


def class_names(dataset: Any, shuffle_seed: int | None) -> list[str]:
    """The labels by class; in the control, exchanged among the classes of this test."""
    names = list(dataset.labels)
    if shuffle_seed is not None:
        order = derangement(len(dataset.class_ids), shuffle_seed)
        for place, other in enumerate(order):
            names[dataset.class_ids[place]] = dataset.labels[dataset.class_ids[other]]
    return names


def describe_test(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that the areas of an episode depend on."""
    state = options.weights.stat()
    names = ("dataset", "fold", "nshot", "label_src", "crop_size", "shuffle_labels")
    return {
        "weights": [str(options.weights.resolve()), state.st_size, state.st_mtime_ns],
        "data_path": str(options.data_path),
        "precision": describe_precision(options),  # what "auto" stands for here
        **{name: getattr(options, name) for name in names},
        **block_options(options),
    }


def fold_output_folder(options: argparse.Namespace) -> Path:
    """Where the results of this test go."""
    return options.output_dir or default_folder(options, f"{options.dataset}_fold{options.fold}_{options.nshot}shot")
