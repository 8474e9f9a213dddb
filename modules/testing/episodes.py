"""A zero-shot test: every episode is segmented once, counted and reported; a test that ends early can resume."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from encoding_ext.metrics import EpisodeMetric, episode_areas
from encoding_ext.palettes import palette
from encoding_ext.transforms import tensor_to_pixels
from lseg_utils.distributed import from_first, wait_for_all
from lseg_utils.files import file_state
from lseg_utils.memory import memory_advice
from lseg_utils.pictures import save_picture, sheet
from lseg_utils.progress import is_rank_zero, process_rank, progress_bar
from lseg_utils.results import counted_by_reason

from ..choices import Speed, block_options
from ..device import dtype_name, reduced_dtype
from ..lseg_module_zs import BACKGROUND, episode_labels
from ..models import LSegNet
from ..models.streaming import upsampled_max
from .common import check_scores, derangement, prepare_forward, write_results
from .comparison import COLUMNS, Extremes, comparison, extremes_sheets
from .episode_log import Areas, EpisodeLog
from .settings import TestRun

PICTURED = 5  # episodes in the report, of the best and of the worst


def setting_of(metadata: Mapping[str, Any], dataset: str, fold: int) -> str:
    """What a test on ``fold`` of ``dataset`` measures, by what the network's checkpoint tells of its training.

    "zero-shot" also where the checkpoint tells nothing, as official ones do.
    """
    trained, name = metadata.get("zero_shot", {}), metadata.get("dataset")
    if "trained_on" in trained:
        return f"few-shot: fine-tuned on supports of the test classes, {trained.get('nshot')} per episode"
    if name == dataset and trained.get("fold", fold) != fold:
        return f"not zero-shot: trained on {name} fold {trained['fold']}, which contains the classes of fold {fold}"
    if name not in (None, dataset):
        return f"not zero-shot: trained on {name}, which may contain the classes that are tested"
    return "zero-shot"


class EpisodeTest:
    """The test of a network on one fold.

    Args:
        net: on ``device``. Its weights are cast as ``speed`` asks.
        dataset: the fold's test split; its ``pairs`` are the distinct episodes.
        loader: indices of pairs -> batches of this process's share of them, which give their index as ``episode``.
        run, speed: what is asked for.
        device: where the network computes.
    """

    def __init__(
        self,
        net: LSegNet,
        dataset: Any,
        loader: Callable[[Sequence[int]], Iterable[dict[str, Any]]],
        run: TestRun,
        speed: Speed,
        device: torch.device,
    ) -> None:
        self.net, self.dataset, self.loader, self.run, self.device = net, dataset, loader, run, device
        self.metric = EpisodeMetric(dataset.class_ids)
        self.names = list(dataset.labels)  # by class; the control exchanges those of this test's classes
        if run.shuffle_labels is not None:
            order = derangement(len(dataset.class_ids), run.shuffle_labels)
            for place, other in enumerate(order):
                self.names[dataset.class_ids[place]] = dataset.labels[dataset.class_ids[other]]
        self.forward = prepare_forward(net, speed, device)
        self.facts = {
            "setting": setting_of(net.metadata, dataset.name, dataset.fold),
            "weights": str(run.weights),
            "dataset": dataset.name,
            "fold": dataset.fold,
            "nshot": dataset.nshot,
            "episodes": len(dataset.episodes),
            "distinct_pairs": len(dataset),
            "precision": dtype_name(reduced_dtype(speed.precision, device)),
        }

    def measure(self) -> None:
        """Segment each distinct pair once over all processes, and report."""
        identity = {  # everything that the areas of an episode depend on
            **self.facts,
            "weights": file_state(self.run.weights),
            "data_path": str(self.dataset.root),
            "labels": self.names,
            "crop_size": self.dataset.crop_size,
            **block_options(self.run),
        }
        log = EpisodeLog(self.run.folder, identity, process_rank())
        finished: dict[int, Areas] = from_first(log.finished())
        if is_rank_zero():
            if finished:
                print(f"resuming an unfinished test: {len(finished)} of {len(self.dataset)} pairs are done")
            self._count(finished)
        todo = [index for index in range(len(self.dataset)) if index not in finished]
        bar = progress_bar(total=len(todo), desc=f"{self.dataset.name} fold {self.dataset.fold}", unit="image")
        for batch in self.loader(todo) if todo else ():  # this process's share
            predicted, mask = self._predicted(batch["image"], batch["class_id"]), batch["mask"]
            areas = episode_areas(mask, predicted, ignore=mask < 0)
            episodes = dict(zip(batch["episode"].tolist(), areas.tolist(), strict=True))
            log.add(episodes, batch["note"])
            self._count(episodes)
            bar.update(len(episodes))
            bar.set_postfix_str("mIoU {:.2f} FB-IoU {:.2f}".format(*(100 * value for value in self.metric.get())))
        bar.close()
        self.metric.all_reduce()
        if is_rank_zero():
            self._report(self._strongest_and_weakest(log.finished()), counted_by_reason(log.notes()))
        wait_for_all()
        if is_rank_zero():
            log.remove()

    def save_sheet(self, count: int) -> None:
        """Write sheet.png: image, truth and prediction of ``count`` evenly spread episodes."""
        shown = min(count, len(self.dataset))
        indices = [number * len(self.dataset) // shown for number in range(shown)]
        titles = [self.names[self.dataset.pairs[index][0]] for index in indices]
        path = self.run.folder / "sheet.png"
        save_picture(path, sheet([self._picture(index) for index in indices], COLUMNS, row_titles=titles))
        print(f"wrote {path}")

    def _predicted(self, images: Tensor, class_ids: Tensor) -> Tensor:
        """(B, 3, S, S), (B,) -> labels (B, S, S): 0 others, 1 the class."""
        text = torch.stack([self.net.encode_labels(labels) for labels in episode_labels(class_ids, self.names)])
        with torch.inference_mode(), memory_advice("give a smaller --bsz"):
            scores, labels = upsampled_max(self.forward(images.to(self.device), text))  # text: (B, 2, C)
        check_scores(scores, self.facts["precision"])
        return labels.cpu()

    def _count(self, episodes: dict[int, Areas]) -> None:
        """Add episodes, each as often as the official sequence repeats it."""
        if episodes:
            indices = list(episodes)
            class_ids = torch.tensor([self.dataset.pairs[index][0] for index in indices])
            weights = torch.tensor([self.dataset.weights[index] for index in indices])
            self.metric.add(torch.tensor([episodes[index] for index in indices]), class_ids, weights)

    # ------------------------------------------------------------------------------------------------ reporting

    def _report(self, extremes: Extremes, notes: list[str]) -> None:
        miou, fb_iou = (100 * value for value in self.metric.get())
        ious = zip(self.metric.class_ids, self.metric.per_class_iou().tolist(), strict=True)
        rows = [(class_id, self.dataset.labels[class_id], 100 * iou) for class_id, iou in ious]
        setting = self.facts["setting"]
        print("\n".join([setting, *(f"note: {note}" for note in notes)]))
        what = "{setting} fold {fold} nshot {nshot} {weights} {precision}".format(**self.facts)
        write_results(
            self.run,
            f"{setting.split(':')[0].capitalize()} LSeg on {self.dataset.name}, fold {self.dataset.fold}",
            ("log_test_zs", f"{what} mIoU {miou:.2f} FB-IoU {fb_iou:.2f}"),
            self.facts,
            {"mIoU": miou, "FB-IoU": fb_iou},
            rows,
            self.dataset.labels,
            {
                "trained": self.net.metadata.get("zero_shot", {}),
                "miou": miou,
                "fb_iou": fb_iou,
                "per_class_iou": {label: iou for _, label, iou in rows},
                "unusual_masks": notes,
            },
            control="names of the classes exchanged",
            pictures=extremes_sheets(extremes, "episodes, by the IoU of the class"),
        )

    def _strongest_and_weakest(self, episodes: dict[int, Areas]) -> Extremes:
        """The episodes with the highest and lowest IoU of their class, segmented once more for their pictures."""
        extremes = Extremes(PICTURED)
        for index, ((_, intersection), (_, union)) in episodes.items():
            class_id, image = self.dataset.pairs[index]
            name = f"{self.dataset.labels[class_id]} in {image}"
            extremes.add(intersection / max(union, 1), name, partial(int, index))
        return extremes.map(self._picture)

    def _picture(self, index: int) -> list[Image.Image]:
        """[image, truth, prediction] of an episode."""
        item = self.dataset.sample(index, np.random.default_rng(self.run.seed))
        predicted = self._predicted(item["image"][None], torch.tensor([item["class_id"]]))[0].numpy()
        labels, to_pixels = [BACKGROUND, self.names[item["class_id"]]], tensor_to_pixels(self.net.mean, self.net.std)
        return comparison(item["image"], item["mask"].numpy(), predicted, palette(2), labels, to_pixels)
