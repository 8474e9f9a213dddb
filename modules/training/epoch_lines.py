"""The progress of a training where output goes to a file: a few lines per epoch instead of Lightning's bar."""

from __future__ import annotations

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from lseg_utils.progress import progress_bar


class EpochLines(Callback):
    """Ends each epoch with a line of its losses and metrics."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self.bar = progress_bar(total=int(trainer.num_training_batches), desc=name, unit="batch")

    def on_train_batch_end(self, *args: Any, **options: Any) -> None:
        self.bar.update()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.set_postfix({name: f"{float(value):.3f}" for name, value in trainer.progress_bar_metrics.items()})
        self.bar.close()
