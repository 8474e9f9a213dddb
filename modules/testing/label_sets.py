"""One test with a fixed label set: every image segmented once, counted and reported, or written as pictures."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoding_ext.metrics import SegmentationMetric
from encoding_ext.palettes import palette
from encoding_ext.transforms import tensor_to_pixels
from lseg_utils.memory import memory_advice
from lseg_utils.pictures import overlay_with_legend, save_palette_png, save_picture
from lseg_utils.progress import is_rank_zero, progress_bar
from lseg_utils.results import append_log, text_table, write_csv, write_json

from ..checkpoints import git_state
from ..models import LSegNet
from .common import default_folder
from .comparison import comparison, extremes_sheets
from .extremes import Extremes
from .protocol import describe_precision, describe_protocol
from .report_page import worst_confusions, write_report

PICTURED = 5  # images in the report, of the best and of the worst


class LabelSetTest:
    """The test of ``net`` on one split.

    Args:
        net: gives the labels and the normalisation.
        evaluator: (1, 3, H, W) -> scores (1, N, H, W).
        dataset: the split.
        loader: this process's share of it, an image at a time.
        options: of ``test_lseg.py``.
        device: where the evaluator works.
    """

    def __init__(
        self,
        net: LSegNet,
        evaluator: Callable[[Tensor], Tensor],
        dataset: Any,
        loader: Iterable[dict[str, Any]],
        options: argparse.Namespace,
        device: torch.device,
    ) -> None:
        self.net, self.evaluator, self.dataset, self.loader = net, evaluator, dataset, loader
        self.options, self.device = options, device
        self.metric, self.extremes = SegmentationMetric(len(net.labels)), Extremes(PICTURED)
        self.colours, self.to_pixels = palette(len(net.labels)), tensor_to_pixels(net.mean, net.std)
        self.folder = output_folder(options)

    def measure(self) -> None:
        """Count every image once, over all processes, and report."""
        bar = progress_bar(self.loader, desc="testing", unit="image")
        for batch in bar:
            self._count(batch)
            pixel_accuracy, miou = self.metric.get()
            bar.set_postfix_str(f"pixAcc {100 * pixel_accuracy:.2f} mIoU {100 * miou:.2f}")
        self.metric.all_reduce()
        self.extremes.gather()
        if is_rank_zero():
            self._report()

    def write_pictures(self) -> None:
        """A palette PNG (value = label + 1) and an overlay with a legend for every image."""
        for batch in progress_bar(self.loader, desc="segmenting", unit="image"):
            labels = self._predicted(batch)[0].numpy()
            stem = Path(batch["name"][0]).stem
            save_palette_png(self.folder / "masks" / f"{stem}.png", labels, self.colours)
            picture = overlay_with_legend(self.to_pixels(batch["image"][0]), labels, self.colours, self.net.labels)
            save_picture(self.folder / "overlays" / f"{stem}.jpg", picture)
        if is_rank_zero():
            print(f"wrote {self.folder / 'masks'} and {self.folder / 'overlays'}")

    def _predicted(self, batch: dict[str, Any]) -> Tensor:
        """(1, H, W); chosen on the device, since the scores are a hundred times larger."""
        with memory_advice("the scores of a whole image are too many for this device; choose another --device"):
            return self.evaluator(batch["image"].to(self.device)).argmax(1).cpu()

    def _count(self, batch: dict[str, Any]) -> None:
        predicted, single = self._predicted(batch), SegmentationMetric(len(self.net.labels))
        single.update(batch["mask"], predicted)
        self.metric.merge(single)
        name = Path(self.dataset.name_of(int(batch["index"]))).name
        maps = batch["mask"][0].numpy(), predicted[0].numpy()
        draw = partial(comparison, batch["image"][0], *maps, self.colours, self.net.labels, self.to_pixels)
        self.extremes.add(single.miou_of_present(), name, draw)

    def _report(self) -> None:
        """The table on the screen, results.json, per_class_iou.csv, report.html, a log line. Figures in percent."""
        per_class = [100 * value for value in self.metric.per_class_iou().tolist()]
        rows = [(i + 1, label, iou) for i, (label, iou) in enumerate(zip(self.net.labels, per_class, strict=True))]
        result = self._result(per_class)
        print(text_table(("class", "label", "IoU %"), rows))
        totals = {"pixel accuracy": result["pixel_accuracy"], "mIoU": result["miou"]}
        totals |= {f"mIoU {name}": miou for name, miou in result["groups"].items()}
        for name, value in totals.items():
            print(f"{name}: {value:.2f} %")

        write_json(self.folder / "results.json", result)
        write_csv(self.folder / "per_class_iou.csv", ("class", "label", "iou_percent"), rows)
        figures = f"pixAcc {result['pixel_accuracy']:.2f} mIoU {result['miou']:.2f}"
        append_log(
            self.options.log_dir / f"log_test_{self.options.jobname}_{self.options.dataset}.txt",
            f"{self.options.weights} {result['split']} {result['protocol']} {result['precision']} {figures}",
        )
        names = ("weights", "dataset", "split", "images", "protocol", "precision", "label_source")
        control = {} if self.options.shuffle_labels is None else {"control": "label embeddings shuffled"}
        write_report(
            self.folder / "report.html",
            f"LSeg on {self.options.dataset}",
            totals,
            {name: result[name] for name in names} | control,
            [(label, iou) for _, label, iou in rows],
            worst_confusions(self.metric.confusion.numpy(), self.net.labels),
            extremes_sheets(self.extremes, "images, by mean IoU over the labels in them"),
        )
        print(f"wrote {self.folder / 'results.json'} and {self.folder / 'report.html'}")

    def _result(self, per_class: Sequence[float]) -> dict[str, Any]:
        pixel_accuracy, miou = (100 * value for value in self.metric.get())
        return {
            "dataset": self.options.dataset,
            "split": self.dataset.split,
            "images": len(self.dataset),
            "weights": str(self.options.weights),
            "protocol": describe_protocol(self.options, self.dataset),
            "precision": describe_precision(self.options),
            "label_source": self.options.label_src or "checkpoint or default",
            "shuffled_labels": self.options.shuffle_labels,
            "pixel_accuracy": pixel_accuracy,
            "miou": miou,
            "groups": {name: 100 * self.metric.miou_of(indices) for name, indices in self.dataset.groups.items()},
            "per_class_iou": dict(zip(numbered(self.net.labels), per_class, strict=True)),
            "confusion": self.metric.confusion.tolist(),
            "git": git_state(),
        }


def numbered(labels: Sequence[str]) -> list[str]:
    """Unique keys for JSON: a label that occurs again gets its class number."""
    return [label if label not in labels[:i] else f"{label} ({i + 1})" for i, label in enumerate(labels)]


def output_folder(options: argparse.Namespace) -> Path:
    """Where the results of this test go."""
    return options.output_dir or default_folder(options, options.dataset)
