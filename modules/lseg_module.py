"""LSeg as a LightningModule: one fixed label set, loss, rates, metrics, and checkpoints that explain themselves."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytorch_lightning as pl
import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext.metrics import SegmentationMetric
from lseg_utils.errors import InputError

from .checkpoints import METADATA_KEY, from_official, load_lseg, metadata_of, to_official
from .models import LSegNet
from .models.network import Labels
from .models.streaming import upsampled_cross_entropy, upsampled_max
from .training.optimization import OptimizationConfig
from .training.optimizer import apply_settings, build_optimizer

if TYPE_CHECKING:
    from typing_extensions import Self


class NonFiniteLossError(InputError):
    """The loss became infinite or NaN; the message names the step and the files."""


class LSegModule(pl.LightningModule):
    """Trains and validates an ``LSegNet`` on batches of ``data.loading`` (``image``, ``mask``, ``index``, ``skipped``).

    Args:
        net: the network, with its labels.
        config: optimiser, rates and schedule.
        dataset, data_path: name of the dataset and its folder (None: the default one), for the checkpoint.
        seed: of everything random inside the network (dropout).

    Attributes:
        run_facts: what else a resumed run must have in common with the checkpoint, which records it.
        settings: all settings by group, for the logger.
    """

    def __init__(
        self,
        net: LSegNet,
        config: OptimizationConfig | None = None,
        *,
        dataset: str | None = None,
        data_path: Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.net = net
        self.config = config or OptimizationConfig()
        self.dataset, self.data_path = dataset, data_path
        self.seed = seed
        self.metric: Any = SegmentationMetric(len(net.labels)) if net.labels else None  # a subclass may have another
        self.skipped: list[str] = []
        self.run_facts: dict[str, Any] = {}
        self.settings: dict[str, Any] = {}

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # its options are those of load_lseg, not Lightning's
        cls, checkpoint_path: str | Path, map_location: str = "cpu", **options: Any
    ) -> Self:
        """A module around the network of an official or own file; ``options`` as for ``checkpoints.load_lseg``."""
        return cls(load_lseg(checkpoint_path, map_location=map_location, **options))

    def forward(self, images: Tensor, labels: Any = None) -> Tensor:
        """As ``LSegNet``: (B, 3, H, W) -> (B, N, H, W)."""
        return self.net(images, labels)

    # ------------------------------------------------------------------------------------------ training

    def setup(self, stage: str) -> None:
        """Log the settings; TensorBoard's logger writes them to hparams.yaml."""
        if stage == "fit" and self.logger and self.settings:
            self.logger.log_hyperparams(self.settings)

    def on_train_start(self) -> None:
        self.total_steps = int(self.trainer.estimated_stepping_batches)
        apply_settings(self.trainer.optimizers[0], self.config)

    def on_train_epoch_start(self) -> None:
        # Random numbers depend on the seed and the epoch alone, so a resumed run draws the same as an undisturbed one.
        torch.manual_seed(hash((self.seed, self.current_epoch, self.global_rank)) % 2**63)

    def on_train_batch_start(self, batch: dict[str, Any], batch_idx: int) -> None:
        factor = self.config.factor(self.current_epoch, self.global_step, self.total_steps)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = group["initial_lr"] * factor

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """The loss of a batch; ``NonFiniteLossError`` with step and files if it is infinite or NaN."""
        images, masks, labels = self.training_images(batch)
        loss = self.loss(self.net.half_logits(images, labels), masks)
        if not torch.isfinite(loss):
            raise NonFiniteLossError(self._where(batch, loss))
        self.skipped += [reason for reason in batch["skipped"] if reason]
        self.log("train_loss", loss.detach(), prog_bar=True, batch_size=len(images))
        return loss

    def training_images(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor, Labels | None]:
        """What a step learns from: images (B, 3, H, W), masks (B, H, W), labels (None: the network's own)."""
        return batch["image"], batch["mask"], None

    def on_train_epoch_end(self) -> None:
        """Log the rates, and report the images that were skipped."""
        groups = self.trainer.optimizers[0].param_groups
        self.log_dict({"lr_encoder": groups[0]["lr"], "lr_decoder": groups[1]["lr"]})
        if self.skipped:
            shown = "\n  ".join(sorted(set(self.skipped))[:10])
            print(f"epoch {self.current_epoch}: skipped {len(self.skipped)} unreadable image(s):\n  {shown}")
            self.skipped.clear()

    def loss(self, logits: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over the labelled pixels, in float32; 0 where no pixel of the batch has a label.

        Simplest replacement: ``F.cross_entropy(upsample_x2(logits), target, ignore_index=-1)``.

        logits: (B, N, H, W), or (B, N, H/2, W/2) as ``net.half_logits`` returns them: less memory.
        target: (B, H, W) int64; negative values and ``config.ignore_index`` are left out.
        """
        ignored = self.config.ignore_index
        target = target.masked_fill(target < 0, ignored)
        if logits.shape[-2:] == target.shape[-2:]:
            total = F.cross_entropy(logits.float(), target, ignore_index=ignored, reduction="sum")
        else:
            total = upsampled_cross_entropy(logits, target, ignored)
        return total / (target != ignored).sum().clamp_min(1)

    def _where(self, batch: dict[str, Any], loss: Tensor) -> str:
        """Where the loss became infinite or NaN, and what to do."""
        loader: Any = self.trainer.train_dataloader
        files = ", ".join(loader.dataset.dataset.name_of(int(i)) for i in batch["index"])
        folder = getattr(self.trainer.checkpoint_callback, "dirpath", None)
        last = Path(folder or "") / "last.ckpt"
        there = last if folder and last.exists() else "none yet"
        return (
            f"the loss is {loss.item()} at step {self.global_step} of epoch {self.current_epoch} (process "
            f"{self.global_rank}); the batch: {files}. The last checkpoint is intact ({there}). Lower --base_lr, or "
            "train with --precision 32 to see whether half precision is the cause"
        )

    # ---------------------------------------------------------------------------------------- validation

    def on_validation_epoch_start(self) -> None:
        self.metric.reset()

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Count a batch; return the predicted labels, int64 (B, H, W)."""
        logits = self.net.half_logits(batch["image"])
        predicted = upsampled_max(logits)[1]
        self.metric.update(batch["mask"], predicted)
        self.log("val_loss", self.loss(logits, batch["mask"]), sync_dist=True, batch_size=len(batch["image"]))
        return predicted

    def labels_of(self, batch: dict[str, Any]) -> list[list[str]]:
        """The label list of each image of a validation batch."""
        return [self.net.own_labels] * len(batch["image"])

    def on_validation_epoch_end(self) -> None:
        pixel_accuracy, miou = self.metric.all_reduce().get()
        # Every process has the same sums, so nothing is left to synchronise.
        self.log_dict({"val_acc_epoch": pixel_accuracy, "val_miou_epoch": miou}, prog_bar=True)

    # ---------------------------------------------------------------------- optimiser and checkpoint hooks

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return build_optimizer(self.net, self.config)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Write official names, and the metadata that describe the file."""
        checkpoint["state_dict"] = to_official(self.net.state_dict())
        metrics = {name: float(value) for name, value in self.trainer.callback_metrics.items()}
        checkpoint[METADATA_KEY] = metadata_of(
            self.net,
            dataset=self.dataset,
            data_path=self.data_path and str(self.data_path.resolve()),
            optimization=asdict(self.config),
            run=self.run_facts,
            epoch=self.current_epoch,
            step=self.global_step,
            metric=metrics,
            **self.extra_metadata(),
        )

    def extra_metadata(self) -> dict[str, Any]:
        """Further metadata of a subclass's checkpoints."""
        return {}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        weights = from_official(checkpoint["state_dict"])
        checkpoint["state_dict"] = {f"net.{name}": tensor for name, tensor in weights.items()}
