"""The report of a training: what is noted of each epoch, after a kill and after an error, and the page."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from lseg_utils.errors import InputError
from modules.training.display import ValidationPictures
from modules.training.report import TrainingReport, summary

MODULE = SimpleNamespace(device=torch.device("cpu"))


def report(folder) -> TrainingReport:
    """A report of the run "street" with one picture."""
    pictures = ValidationPictures()
    pictures.newest = Image.new("RGB", (8, 8))
    return TrainingReport(
        folder / "street" / "version_0", {"network": "tiny"}, {"run": {"seed": 3, "name": "<b>"}}, pictures
    )


def trainer(**more) -> SimpleNamespace:
    """What the report asks a Lightning trainer for."""
    optimizer = SimpleNamespace(param_groups=[{"lr": 0.1}, {"lr": 1.0}])
    known = {"is_global_zero": True, "max_epochs": 3, "accumulate_grad_batches": 1, "optimizers": [optimizer]}
    return SimpleNamespace(**known | {"callback_metrics": {}, "current_epoch": 0} | more)


def train(one: TrainingReport, epochs, losses=(1.0, 3.0), validate=True, **more) -> SimpleNamespace:
    """Let these epochs pass, with a validation mIoU of a tenth of the epoch's number."""
    one.on_train_start(trainer(current_epoch=epochs[0], **more), MODULE)
    for epoch in epochs:
        now = trainer(current_epoch=epoch, callback_metrics={"val_miou_epoch": epoch / 10, "train_loss": 9.0}, **more)
        one.on_train_epoch_start(now, MODULE)
        for number, loss in enumerate(losses):
            one.on_train_batch_end(now, MODULE, {"loss": torch.tensor(loss)}, None, number)
        if validate:
            one.on_validation_end(now, MODULE)
        one.on_train_epoch_end(now, MODULE)
    return now


def history(one: TrainingReport) -> dict:
    return json.loads((one.folder / "history.json").read_text(encoding="utf-8"))


def test_an_epoch_is_noted_with_its_mean_loss_its_metrics_and_its_rates(tmp_path):
    one = report(tmp_path)
    train(one, [0], accumulate_grad_batches=2)  # Lightning divides the loss of each batch by 2
    (row,) = history(one)["epochs"]
    assert row.pop("seconds") >= 0
    assert row == {"epoch": 1, "train_loss": 4.0, "val_miou_epoch": 0.0, "lr_encoder": 0.1, "lr_decoder": 1.0}
    assert "1 of 3" in history(one)["state"]


def test_an_epoch_without_validation_has_none_of_the_figures_of_an_earlier_one(tmp_path):
    one = report(tmp_path)
    train(one, [0, 1], validate=False)
    assert not any("val_miou_epoch" in row for row in history(one)["epochs"])


def test_a_resumed_run_continues_and_forgets_what_was_noted_after_its_checkpoint(tmp_path):
    train(report(tmp_path), [0, 1, 2])
    again = report(tmp_path)
    train(again, [1, 2], losses=(5.0,))  # killed before the checkpoint of epoch 2
    assert [(row["epoch"], row["train_loss"]) for row in again.epochs] == [(1, 2.0), (2, 5.0), (3, 5.0)]


def test_a_damaged_history_is_noted_and_begun_anew(tmp_path, capsys):
    one = report(tmp_path)
    one.folder.mkdir(parents=True)
    (one.folder / "history.json").write_text('{"epochs": 3}')
    train(one, [4])
    assert "history.json" in capsys.readouterr().out and [row["epoch"] for row in history(one)["epochs"]] == [5]


def test_an_error_and_the_end_are_told_on_the_page(tmp_path):
    one = report(tmp_path)
    now = train(one, [0, 1])
    one.on_exception(now, MODULE, InputError("the loss is nan"))
    page = (one.folder / "report.html").read_text(encoding="utf-8")
    assert "the loss is nan" in page and "street" in page and "data:image/jpeg" in page
    assert "&lt;b&gt;" in page and "<b>street" not in page
    one.on_train_end(now, MODULE)
    assert history(one)["state"] == "finished" and "finished" in (one.folder / "report.html").read_text()


def test_other_processes_write_nothing(tmp_path):
    one = report(tmp_path)
    now = train(one, [0], is_global_zero=False)
    one.on_exception(now, MODULE, KeyboardInterrupt())
    assert not one.folder.exists()


def test_the_figures_of_a_training():
    epochs = [
        {"epoch": 1, "train_loss": 2.0, "val_miou_epoch": 0.5, "seconds": 3000.0, "peak_gpu_bytes": 2**31},
        {"epoch": 2, "train_loss": 1.0, "val_miou_epoch": 0.25, "seconds": 3000.0, "peak_gpu_bytes": 2**30},
        {"epoch": 3, "train_loss": 0.5, "seconds": 1200.0},
    ]
    figures = summary(epochs)
    assert figures["best validation mIoU, epoch 1"] == "50.00 %" and figures["validation mIoU, epoch 2"] == "25.00 %"
    assert figures["for 3 epochs"] == "2 h 0 min" and "2.0 GiB" in figures.values()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_figure_that_is_no_number_does_not_stop_the_training(tmp_path, value):
    one = report(tmp_path)
    train(one, [0], losses=(value,))
    assert (one.folder / "report.html").is_file() and len(one.epochs) == 1
