"""The network's predictions for a few validation images, in the logger after every epoch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import TensorBoardLogger, WandbLogger
from torch import Tensor

from encoding_ext.palettes import palette
from encoding_ext.transforms import tensor_to_pixels
from lseg_utils.pictures import sheet

from ..lseg_module import LSegModule
from ..testing.comparison import COLUMNS, WIDTH, comparison

TAG = "validation"


class ValidationPictures(Callback):
    """Logs image, truth and prediction of the first ``count`` images of the first validation batch."""

    def __init__(self, count: int = 4) -> None:
        self.count = count

    def on_validation_batch_end(
        self,
        trainer: pl.Trainer,
        pl_module: pl.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """``outputs``: what ``validation_step`` returns, the predicted labels (B, H, W)."""
        assert isinstance(pl_module, LSegModule)  # the only module that these trainers have
        if batch_idx == 0 and trainer.is_global_zero and trainer.logger is not None:
            log_picture(trainer.logger, self._picture(pl_module, outputs.cpu(), batch), trainer.current_epoch)

    def _picture(self, module: LSegModule, predicted: Tensor, batch: dict[str, Any]) -> np.ndarray:
        to_pixels = tensor_to_pixels(module.net.mean, module.net.std)
        rows = []
        for place, names in enumerate(module.labels_of(batch)[: self.count]):
            maps = batch["mask"][place].cpu().numpy(), predicted[place].numpy()
            rows.append(comparison(batch["image"][place].float().cpu(), *maps, palette(len(names)), names, to_pixels))
        return np.asarray(sheet(rows, COLUMNS, cell=(WIDTH, WIDTH)))


def log_picture(logger: Any, picture: np.ndarray, epoch: int) -> None:
    """Show ``picture``, uint8 (H, W, 3), in TensorBoard or wandb."""
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_image(TAG, picture, epoch, dataformats="HWC")
    elif isinstance(logger, WandbLogger):
        logger.log_image(TAG, [picture])
