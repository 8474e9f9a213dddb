"""What a training shows: lines of progress where output goes to a file, and pictures of its predictions."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger

from encoding_ext.label_colours import label_colours
from encoding_ext.transforms import tensor_to_pixels
from lseg_utils.pictures import sheet
from lseg_utils.progress import progress_bar

from ..lseg_module import LSegModule
from ..testing.comparison import COLUMNS, WIDTH, comparison

PICTURED = 4  # images of the first validation batch


class EpochLines(Callback):
    """Ends each epoch with a line of its losses and metrics, instead of Lightning's bar."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
        self.bar = progress_bar(total=int(trainer.num_training_batches), desc=name, unit="batch")

    def on_train_batch_end(self, *args: Any, **options: Any) -> None:
        self.bar.update()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.set_postfix({name: f"{float(value):.3f}" for name, value in trainer.progress_bar_metrics.items()})
        self.bar.close()


class ValidationPictures(Callback):
    """Image, truth and prediction of the first validation images, for TensorBoard or wandb, and for the report.

    newest: the sheet of the last validation, in the first process; None before.
    """

    newest: Image.Image | None = None

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """``outputs``: what ``validation_step`` returns, the predicted labels (B, H, W)."""
        assert isinstance(pl_module, LSegModule)  # the only module that these trainers have
        module, logger = pl_module, trainer.logger
        if batch_idx or not trainer.is_global_zero:
            return
        to_pixels, predicted = tensor_to_pixels(module.net.mean, module.net.std), outputs.cpu()
        rows = []
        for place, names in enumerate(module.labels_of(batch)[:PICTURED]):
            maps = batch["mask"][place].cpu().numpy(), predicted[place].numpy()
            rows.append(comparison(batch["image"][place].float().cpu(), *maps, label_colours(names), names, to_pixels))
        self.newest = sheet(rows, COLUMNS, cell=(WIDTH, WIDTH))
        picture = np.asarray(self.newest)  # uint8 (H, W, 3)
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_image("validation", picture, trainer.current_epoch, dataformats="HWC")
        elif isinstance(logger, WandbLogger):
            logger.log_image("validation", [picture])
