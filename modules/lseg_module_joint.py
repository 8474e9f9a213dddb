"""LSeg trained on several datasets at once: every image is compared with the labels of its own dataset."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from statistics import harmonic_mean
from typing import Any

import numpy as np
import torch
from torch import Tensor

from encoding_ext.metrics import SegmentationMetric
from lseg_utils.label_sets import LabelSet

from .lseg_module import LSegModule
from .models import LSegNet
from .models.streaming import Unions, upsampled_max
from .training.label_texts import TrainingTexts
from .training.optimization import OptimizationConfig

_TEXTS = 4  # first word of the seeds of a step's texts; those of ``data.loading`` are 1 to 3
Part = tuple[int, list[int], Tensor, Tensor, Unions | None]
"""(label set, images of the batch, logits at half size, target, unions)."""


class LSegModuleJoint(LSegModule):
    """Trains on batches whose images have a ``source``, the number of their label set, as ``data.joint`` makes them.

    The checkpoint is chosen by the harmonic mean of the datasets' mIoU.

    Args:
        net: the network; its labels are the texts of all label sets.
        texts: the label sets, and what else their labels are called.
        facts: what a resumed run must have in common with this one (weights, label sampling), for the checkpoint.
        options: as for ``LSegModule``.

    Raises:
        InputError: a wording that the text tower cannot read.
    """

    def __init__(
        self,
        net: LSegNet,
        config: OptimizationConfig | None = None,
        *,
        texts: TrainingTexts,
        facts: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(net, config, **options)
        texts.check(net)
        self.texts, self.facts = texts, facts or {}
        self.metrics = [SegmentationMetric(len(one.labels)) for one in self.sets]

    @property
    def sets(self) -> Sequence[LabelSet]:
        """The label sets."""
        return self.texts.sets

    def batch_loss(self, batch: dict[str, Any], batch_idx: int) -> tuple[Tensor, int]:
        """The mean over the labelled pixels of the batch, each against the labels of its own dataset."""
        # Every process draws for every set, so that what it draws depends on the step alone.
        rng = np.random.default_rng((_TEXTS, self.seed, self.current_epoch, batch_idx))
        drawn = [self.texts.draw(number, rng) for number in range(len(self.sets))]
        parts = self._compare(batch, drawn)
        return self._mean_loss([part[2:] for part in parts]), len(batch["image"])

    def _compare(self, batch: dict[str, Any], texts: Sequence[list[list[str]]]) -> list[Part]:
        """The images of a batch, grouped by what they are compared with; ``texts`` by label set and label."""
        coarse, parts = self.net.coarse_embedding(batch["image"]), []  # (B, C, h, w)
        for number, rows, labels in self._groups(batch):
            target, chosen = batch["mask"][rows], texts[number]
            if labels is not None:  # the numbers of the labels that count, among themselves
                places = torch.full((len(chosen) + 1,), -1, device=target.device)
                places[labels] = torch.arange(len(labels), device=target.device)
                target = places[target]  # -1 takes the last place, which is -1
                chosen = [chosen[label] for label in labels.tolist()]
            counts = [len(members) for members in chosen]
            unions = Unions(counts, target.device) if max(counts) > 1 else None
            if labels is None or self.texts.vary or any(len(members) > 1 for members in texts[number]):
                matrix = self.net.text_encoder([text for members in chosen for text in members])  # (M, C)
            else:  # made once for all steps
                matrix = self.net.text_encoder([members[0] for members in texts[number]])[labels]
            logits = self.net.head.half_logits(coarse[rows], matrix)
            parts.append((number, rows, logits, target, unions))
        return parts

    def _mean_loss(self, parts: Iterable[tuple[Tensor, Tensor, Unions | None]]) -> Tensor:
        """The mean over the labelled pixels of all (logits, target, unions)."""
        total, pixels = [], []
        for logits, target, unions in parts:
            loss = self.loss(logits, target) if unions is None else self.loss(logits, target, unions)
            pixels.append((target >= 0).sum())
            total.append(loss * pixels[-1])
        return torch.stack(total).sum() / torch.stack(pixels).sum().clamp_min(1)

    def _groups(self, batch: dict[str, Any]) -> Iterator[tuple[int, list[int], Tensor | None]]:
        """(label set, the images of the batch that have it, the labels that count; None: all)."""
        sources = batch["source"].tolist()
        if "compared" in batch:
            for row, number in enumerate(sources):  # each has labels of its own
                yield number, [row], batch["compared"][row].nonzero().flatten()
            return
        for number in sorted(set(sources)):
            yield number, [row for row, source in enumerate(sources) if source == number], None

    def on_validation_epoch_start(self) -> None:
        for metric in self.metrics:
            metric.reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Count a batch; return the predicted labels, int64 (B, H, W), numbers of each image's own label set."""
        predicted = torch.empty_like(batch["mask"])
        parts = self._compare(batch, [self.texts.plain(number) for number in range(len(self.sets))])
        for number, rows, logits, target, unions in parts:
            predicted[rows] = upsampled_max(logits, unions)[1]
            self.metrics[number].update(target, predicted[rows])
        loss = self._mean_loss([part[2:] for part in parts])
        self.log("val_loss", loss, sync_dist=True, batch_size=len(predicted))
        return predicted

    def labels_of(self, batch: dict[str, Any]) -> list[list[str]]:
        """The labels of each image's dataset."""
        return [list(self.sets[source].labels) for source in batch["source"].tolist()]

    def on_validation_epoch_end(self) -> None:
        """Log each dataset's mIoU, and their harmonic mean (0 if one is 0), which chooses the checkpoint."""
        mious = [metric.all_reduce().get()[1] for metric in self.metrics]
        self.log_dict({f"val_miou_{one.name}": miou for one, miou in zip(self.sets, mious, strict=True)})
        self.log("val_miou_epoch", harmonic_mean(mious), prog_bar=True)

    def extra_metadata(self) -> dict[str, Any]:
        sets = {one.name: list(one.labels) for one in self.sets}
        unions = {one.name: {label: list(texts) for label, texts in one.unions.items()} for one in self.sets}
        return {"label_sets": sets, "unions": unions, **self.facts}
