"""A test with a fixed label set: every image is segmented once, and counted or written as pictures."""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from encoding_ext.evaluator import MultiScaleEvaluator
from encoding_ext.label_colours import label_colours
from encoding_ext.metrics import SegmentationMetric
from encoding_ext.palettes import palette
from encoding_ext.transforms import tensor_to_pixels
from encoding_ext.views import TEST_SCALES
from lseg_utils.errors import InputError
from lseg_utils.memory import memory_advice
from lseg_utils.named_maps import overlay_with_legend
from lseg_utils.pictures import palette_picture, save_picture
from lseg_utils.progress import is_rank_zero, progress_bar

from ..choices import Speed
from ..device import dtype_name, reduced_dtype
from ..models import LSegNet
from .common import check_scores, derangement, prepare_forward, write_results
from .comparison import Extremes, comparison, extremes_sheets
from .report_page import worst_confusions
from .settings import Protocol, TestRun

PICTURED = 5  # images in the report, of the best and of the worst


class LabelSetTest:
    """The test of a network on one split.

    Args:
        net: on ``device``; gives the labels and the normalisation. Its weights are cast as ``speed`` asks.
        dataset: the split.
        loader: this process's share of the split, one image per batch.
        run, protocol, speed: what is asked for.
        device: where the network computes.
        label_source: where the labels come from, for the report.
    """

    def __init__(
        self,
        net: LSegNet,
        dataset: Any,
        loader: Iterable[dict[str, Any]],
        run: TestRun,
        protocol: Protocol,
        speed: Speed,
        device: torch.device,
        label_source: str = "checkpoint or default",
    ) -> None:
        self.net, self.dataset, self.loader, self.run, self.device = net, dataset, loader, run, device
        self.labels = net.own_labels
        self.metric, self.extremes = SegmentationMetric(len(self.labels)), Extremes(PICTURED)
        self.colours, self.to_pixels = label_colours(self.labels), tensor_to_pixels(net.mean, net.std)
        text = net.encode_labels(self.labels)  # (N, C), once
        if run.shuffle_labels is not None:
            text = text[derangement(len(text), run.shuffle_labels)]
        forward = prepare_forward(net, speed, device)
        sizes = dataset.base_size, dataset.crop_size
        self.evaluator = MultiScaleEvaluator(
            lambda crops: forward(crops, text),
            len(self.labels),
            *sizes,
            scales=protocol.scales or TEST_SCALES,
            flip=protocol.flip,
            window_batch=protocol.window_batch,
            mean=net.mean,
            std=net.std,
        )
        self.facts = {
            "weights": str(run.weights),
            "dataset": dataset.name,
            "split": dataset.split,
            "images": len(dataset),
            "protocol": protocol.describe(*sizes),
            "precision": dtype_name(reduced_dtype(speed.precision, device)),
            "label_source": label_source,
        }

    def measure(self) -> None:
        """Count every image once over all processes, and report."""
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
            mask = palette_picture(labels, palette(len(self.labels)))  # ADE20K's colours, as officially
            save_picture(self.run.folder / "masks" / f"{stem}.png", mask)
            picture = overlay_with_legend(self.to_pixels(batch["image"][0]), labels, self.colours, self.labels)
            save_picture(self.run.folder / "overlays" / f"{stem}.jpg", picture)
        if is_rank_zero():
            print(f"wrote {self.run.folder / 'masks'} and {self.run.folder / 'overlays'}")

    def _predicted(self, batch: dict[str, Any]) -> Tensor:
        """Labels (1, H, W); the maximum is taken on the device, since the scores are a hundred times larger."""
        with memory_advice("the scores of a whole image do not fit on this device; choose another --device"):
            scores, labels = self.evaluator(batch["image"].to(self.device)).max(1)
        check_scores(scores, self.facts["precision"])
        return labels.cpu()

    def _count(self, batch: dict[str, Any]) -> None:
        predicted, single = self._predicted(batch), SegmentationMetric(len(self.labels))
        single.update(batch["mask"], predicted)
        self.metric.merge(single)
        name = Path(self.dataset.name_of(int(batch["index"]))).name
        maps = batch["mask"][0].numpy(), predicted[0].numpy()
        draw = partial(comparison, batch["image"][0], *maps, self.colours, self.labels, self.to_pixels)
        self.extremes.add(single.miou_of_present(), name, draw)

    def _report(self) -> None:
        labels = self.labels
        if not self.metric.confusion.any():
            raise InputError(f"no pixel of the {len(self.dataset)} masks has a label, so there is nothing to measure")
        if absent := int((self.metric.confusion.sum(dim=0) + self.metric.confusion.sum(dim=1) == 0).sum()):
            print(f"note: {absent} of {len(labels)} labels occur in no mask and no prediction; they count as IoU 0")
        pixel_accuracy, miou = (100 * value for value in self.metric.get())
        per_class = [100 * value for value in self.metric.per_class_iou().tolist()]
        # Unique keys for JSON: a repeated label gets its number.
        unique = [label if label not in labels[:i] else f"{label} ({i})" for i, label in enumerate(labels)]
        groups = {name: 100 * self.metric.miou_of(indices) for name, indices in self.dataset.groups.items()}
        what = " ".join(self.facts[name] for name in ("weights", "split", "protocol", "precision"))
        write_results(
            self.run,
            f"LSeg on {self.dataset.name}",
            ("log_test", f"{what} pixAcc {pixel_accuracy:.2f} mIoU {miou:.2f}"),
            self.facts,
            {"pixel accuracy": pixel_accuracy, "mIoU": miou} | {f"mIoU {name}": iou for name, iou in groups.items()},
            [(i, label, iou) for i, (label, iou) in enumerate(zip(labels, per_class, strict=True))],
            labels,
            {
                "pixel_accuracy": pixel_accuracy,
                "miou": miou,
                "groups": groups,
                "per_class_iou": dict(zip(unique, per_class, strict=True)),
                "confusion": self.metric.confusion.tolist(),
            },
            control="label embeddings shuffled",
            confusions=worst_confusions(self.metric.confusion.numpy(), labels),
            pictures=extremes_sheets(self.extremes, "images, by mean IoU over the labels in them"),
        )
