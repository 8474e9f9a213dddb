"""The options that change time and memory alone: read, named in the results, refused where they cannot be met."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

import train_lseg as train_script
import train_lseg_zs as zero_shot_train_script
from lseg_utils.errors import InputError
from modules import choices
from modules.choices import Speed
from modules.lseg_module import LSegModule
from modules.options import training_settings
from modules.training import together, trainer
from tiny import LABELS

CPU = torch.device("cpu")
TINY_DRY_RUN = [
    *("--dry_run", "--accelerator", "cpu", "--backbone", "tiny_resnet", "--num_features", "16"),
    *("--clip_weights", "random", "--backbone_weights", "random"),
    *("--base_lr", "0.004", "--batch_size", "1", "--max_epochs", "1"),
]


def train(monkeypatch, fit, script=train_script, *flags: str) -> None:
    """``run_training`` of the tiny network with a stand-in for Lightning's Trainer."""
    options = script.build_parser().parse([*TINY_DRY_RUN, *flags])
    fake = SimpleNamespace(is_global_zero=False, fit=fit)
    monkeypatch.setattr(trainer, "build_trainer", lambda *arguments: fake)
    data = SimpleNamespace(train_set=range(9), val_set=range(9), labels=LABELS, sizes=(96, 64), first_epoch=0)
    trainer.run_training(training_settings(options), data, LSegModule)


@pytest.mark.parametrize("script", [train_script, zero_shot_train_script])
@pytest.mark.parametrize("flags", [(), ("--grad_checkpointing",), ("--compile",)], ids=str)
def test_training_reads_its_flags_and_writes_the_sizes_of_the_data(script, flags, monkeypatch):
    compiled, fitted = [], []
    monkeypatch.setattr(trainer, "compile_parts", compiled.append)
    train(monkeypatch, lambda module, **more: fitted.append(module), script, *flags)
    (net,) = (module.net for module in fitted)
    assert (net.base_size, net.crop_size) == (96, 64)
    assert net.image_encoder.checkpointing == ("--grad_checkpointing" in flags)
    assert compiled == ([net] if "--compile" in flags else [])


def out_of_memory(*arguments: object, **more: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")


def test_a_training_that_runs_out_of_memory_says_what_to_do(monkeypatch):
    with pytest.raises(InputError, match="smaller --batch_size.*--grad_checkpointing"):
        train(monkeypatch, out_of_memory)


def test_several_processes_get_the_same_advice(monkeypatch):
    """With DDP the callback ends the process before the error reaches the caller of the Trainer."""
    shown = []
    monkeypatch.setattr(together, "end_because_of", shown.append)
    for error in (torch.OutOfMemoryError("CUDA out of memory. Tried"), KeyError("x")):
        together.Together().on_exception(None, None, error)
    assert isinstance(shown[0], InputError) and "smaller --batch_size" in str(shown[0])
    assert isinstance(shown[1], KeyError)


def test_compiling_without_a_compiler_is_an_instruction(monkeypatch):
    monkeypatch.setattr(choices.shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"C\+\+ compiler"):
        Speed(compile=True)
    Speed("auto", False)
