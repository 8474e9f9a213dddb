"""Zero-shot LSeg as a LightningModule: each image has a class, and the two labels 'others' and that class."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from encoding_ext.metrics import EpisodeMetric
from lseg_utils.results import counted_by_reason

from .lseg_module import LSegModule
from .models import LSegNet
from .models.network import Labels
from .training.optimization import OptimizationConfig

BACKGROUND = "others"


def episode_labels(class_ids: Tensor, names: list[str]) -> list[list[str]]:
    """One label list per image: ['others', name of its class]."""
    return [[BACKGROUND, names[class_id]] for class_id in class_ids.tolist()]


class LSegModuleZS(LSegModule):
    """Trains on (image, class) pairs; validates by mIoU over the classes of the validation split.

    Args:
        net: the network; its labels are all class names of the benchmark, in class order.
        validation_classes: the classes whose mean IoU chooses the checkpoint.
        finetune: learn from the support images alone (few-shot fine-tuning of the official ``--finetune_mode``).
        ignore_borders: leave pixels that the metrics ignore (-1, Pascal's borders) out of the loss too; officially they
            count as 'others' there.
        selection: how checkpoints are chosen (fold, classes, ``held_out`` or ``official``), for their metadata.
        options: as for ``LSegModule``.
    """

    def __init__(
        self,
        net: LSegNet,
        config: OptimizationConfig | None = None,
        *,
        validation_classes: tuple[int, ...] = (),
        finetune: bool = False,
        ignore_borders: bool = False,
        selection: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(net, config, **options)
        self.metric = EpisodeMetric(validation_classes)
        self.finetune, self.ignore_borders = finetune, ignore_borders
        self.notes: set[str] = set()
        self.selection = selection or {}

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """As ``LSegModule``; keeps what is unusual about the masks."""
        self._keep_notes(batch)
        return super().training_step(batch, batch_idx)

    def training_images(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Labels]:
        """The images of the batch and their support images (in fine-tuning: the support images alone), with labels."""
        images, masks, class_ids = [], [], []
        if not self.finetune:
            images, masks, class_ids = [batch["image"]], [batch["mask"]], [batch["class_id"]]
        if "support_images" in batch:
            shots = batch["support_images"].shape[1]
            images.append(batch["support_images"].flatten(0, 1))  # (B * shots, 3, H, W)
            masks.append(batch["support_masks"].flatten(0, 1))
            class_ids.append(batch["class_id"].repeat_interleave(shots))
        target = self._loss_target(torch.cat(masks))
        return torch.cat(images), target, episode_labels(torch.cat(class_ids), self.net.own_labels)

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Count a batch of episodes; return the predicted labels, int64 (B, H, W)."""
        self._keep_notes(batch)
        logits, mask = self.net.half_logits(batch["image"], self.labels_of(batch)), batch["mask"]
        predicted = self.predicted(logits, batch)
        self.metric.update(mask, predicted, batch["class_id"], ignore=mask < 0, weight=batch["weight"])
        self.log("val_loss", self.loss(logits, self._loss_target(mask)), sync_dist=True, batch_size=len(mask))
        return predicted

    def _loss_target(self, mask: Tensor) -> Tensor:
        return mask if self.ignore_borders else mask.clamp_min(0)

    def _keep_notes(self, batch: dict[str, Any]) -> None:
        self.notes.update(line for note in batch.get("note", ()) for line in note.splitlines())

    def on_train_end(self) -> None:
        """Report the masks that were accepted although they are unusual."""
        for line in counted_by_reason(self.notes):
            print(f"note: {line}")

    def labels_of(self, batch: dict[str, Any]) -> list[list[str]]:
        """'others' and the class of each image."""
        return episode_labels(batch["class_id"], self.net.own_labels)

    def on_validation_epoch_end(self) -> None:
        miou, fb_iou = self.metric.all_reduce().get()
        self.log_dict({"val_miou_epoch": miou, "val_fb_iou_epoch": fb_iou}, prog_bar=True)

    def extra_metadata(self) -> dict[str, Any]:
        return {"zero_shot": self.selection}
