"""The report of a training: a page and a JSON file that are rewritten after every epoch.

They lie next to the checkpoints of the run's version. A resumed run continues the curves of the earlier one.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from lseg_utils.errors import clean_message
from lseg_utils.git import git_state
from lseg_utils.html_page import Line, chart, fact_list, heading, headlines, paragraph, picture, table, write_page
from lseg_utils.results import versions, write_json

from .display import ValidationPictures

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "clip-anytorch", "numpy")
HISTORY, PAGE = "history.json", "report.html"
# Title of a chart -> its curves, by the names of the history; the first column of the table is the epoch.
CHARTS = {
    "Loss": {"train_loss": "training", "val_loss": "validation"},
    "Validation, in percent": {
        "val_miou_epoch": "mIoU",
        "val_fb_iou_epoch": "FB-IoU",
        "val_acc_epoch": "pixel accuracy",
    },
    "Learning rate": {"lr_encoder": "image encoder", "lr_decoder": "decoder and head"},
    "Seconds per epoch, with validation": {"seconds": "seconds"},
}
PERCENT = {"val_miou_epoch", "val_fb_iou_epoch", "val_acc_epoch"}

Row = dict[str, float]


class TrainingReport(Callback):
    """Writes ``report.html`` and ``history.json`` into ``folder``, in the first process.

    Args:
        folder: of the run's version.
        facts: what is trained on what, by name, for the page.
        settings: all settings of the run, by group.
        pictures: the callback whose newest sheet the page shows.

    ``history.json`` contains a dict for each epoch: losses (that of training is the mean over this process's batches),
    shares 0..1, rates, seconds and the peak of allocated GPU memory in bytes.
    """

    def __init__(
        self,
        folder: Path,
        facts: Mapping[str, Any],
        settings: Mapping[str, Mapping[str, Any]],
        pictures: ValidationPictures,
    ) -> None:
        self.folder, self.facts, self.settings, self.pictures = folder, facts, settings, pictures
        self.epochs: list[Row] = []
        self._losses: list[Tensor] = []
        self._validated, self._began = False, 0.0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over what an earlier part of the run has noted, up to the epoch that begins now."""
        if not trainer.is_global_zero:
            return
        try:
            noted = json.loads((self.folder / HISTORY).read_text(encoding="utf-8"))["epochs"]
            self.epochs = [dict(row) for row in noted if row["epoch"] <= trainer.current_epoch]
        except FileNotFoundError:  # a new run, or one of an earlier version
            pass
        except (ValueError, TypeError, KeyError) as error:
            print(f"note: {self.folder / HISTORY} is damaged ({error}); the report begins with this epoch")

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._losses, self._validated, self._began = [], False, time.monotonic()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # Kept on the device until the epoch ends: to read a loss is to wait for it. Lightning has divided it.
        self._losses.append(outputs["loss"].detach() * trainer.accumulate_grad_batches)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = True

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the epoch, and write both files."""
        if not trainer.is_global_zero:
            return
        groups = trainer.optimizers[0].param_groups
        row: Row = {"epoch": trainer.current_epoch + 1, "train_loss": float(torch.stack(self._losses).mean())}
        if self._validated:  # otherwise Lightning still has the metrics of an earlier epoch
            metrics = trainer.callback_metrics
            row |= {name: float(value) for name, value in metrics.items() if name.startswith("val_")}
        row |= {"lr_encoder": groups[0]["lr"], "lr_decoder": groups[1]["lr"]}
        row["seconds"] = time.monotonic() - self._began
        if pl_module.device.type == "cuda":
            row["peak_gpu_bytes"] = torch.cuda.max_memory_allocated(pl_module.device)
        self.epochs.append(row)
        self._write(f"epoch {len(self.epochs)} of {trainer.max_epochs} has ended; reload the page after the next one")

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero and self.epochs:
            self._write("finished")

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        if trainer.is_global_zero and self.epochs:
            reason = clean_message(exception) or type(exception).__name__
            self._write(f"stopped in epoch {trainer.current_epoch + 1}: {reason}")

    def _write(self, state: str) -> None:
        about = {"command": " ".join(sys.argv), "versions": versions(PACKAGES), "git": git_state()}
        write_json(self.folder / HISTORY, {"state": state, **self.facts, **about, "epochs": self.epochs})
        parts = [paragraph(f"State: {state}."), headlines(summary(self.epochs)), *charts(self.epochs)]
        if self.pictures.newest is not None:
            title = "Predictions for the first validation images"
            parts += [heading(title), picture(title, self.pictures.newest)]
        parts += [heading("What was trained"), fact_list({**self.facts, **about})]
        for group, values in self.settings.items():
            parts += [heading(f"Settings: {group}"), fact_list(values)]
        write_page(self.folder / PAGE, f"Training of {self.folder.parent.name}, {self.folder.name}", parts)


def summary(epochs: Sequence[Row]) -> dict[str, str]:
    """The figures that a training is about, as texts: the best and the last mIoU, and what it cost."""
    found = {}
    validated = [row for row in epochs if math.isfinite(row.get("val_miou_epoch", math.nan))]
    if validated:
        best = max(validated, key=lambda row: row["val_miou_epoch"])
        found[f"best validation mIoU, epoch {best['epoch']:.0f}"] = f"{100 * best['val_miou_epoch']:.2f} %"
        found[f"validation mIoU, epoch {validated[-1]['epoch']:.0f}"] = f"{100 * validated[-1]['val_miou_epoch']:.2f} %"
    found["training loss of the last epoch"] = f"{epochs[-1]['train_loss']:.4f}"
    seconds = sum(row["seconds"] for row in epochs)
    hours, minutes = divmod(round(seconds / 60), 60)
    found[f"for {len(epochs)} epochs"] = f"{hours} h {minutes} min" if hours else f"{seconds / 60:.1f} min"
    if peak := max(row.get("peak_gpu_bytes", 0) for row in epochs):
        found["peak GPU memory of a process"] = f"{peak / 2**30:.1f} GiB"
    return found


def charts(epochs: Sequence[Row]) -> list[str]:
    """The curves over the epochs, and all numbers as a table that can be opened."""
    drawn, columns = [], {}
    for title, curves in CHARTS.items():
        lines = []
        for name, text in curves.items():
            factor = 100 if name in PERCENT else 1
            points = [(row["epoch"], factor * row[name]) for row in epochs if math.isfinite(row.get(name, math.nan))]
            if points:
                lines.append(Line(text, points))
                columns[name] = f"{text} {title.split(',')[0].lower()}" if len(curves) > 1 else text
        if lines:
            drawn.append(chart(title, lines))
    rows = [[f"{row['epoch']:.0f}", *(f"{row[name]:.4g}" if name in row else "" for name in columns)] for row in epochs]
    numbers = table(["epoch", *columns.values()], rows, "All epochs; shares from 0 to 1")
    return [
        heading("By epoch"),
        f'<div class="charts">{"".join(drawn)}</div>',
        f"<details><summary>All numbers</summary>{numbers}</details>",
    ]
