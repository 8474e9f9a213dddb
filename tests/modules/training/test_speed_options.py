"""The options that change time and memory alone: read, named in the results, refused where they cannot be met."""

from __future__ import annotations

import argparse
import shlex
from types import SimpleNamespace

import pytest
import torch

import test_lseg as test_script
import test_lseg_zs as zero_shot_script
import train_lseg as train_script
import train_lseg_zs as zero_shot_train_script
from lseg_utils.cli import chosen
from lseg_utils.errors import InputError
from modules import choices
from modules.choices import Speed
from modules.lseg_module import LSegModule
from modules.options import training_settings
from modules.testing.common import predictor, speed_up
from modules.testing.protocol import describe_precision, describe_protocol, scales_and_flip
from modules.training import together, trainer
from tiny import LABELS, pictures, tiny_net

CPU = torch.device("cpu")
TINY_DRY_RUN = [
    *("--dry_run", "--accelerator", "cpu", "--backbone", "tiny_resnet", "--num_features", "16"),
    *("--clip_weights", "random", "--backbone_weights", "random"),
]
SIZES = SimpleNamespace(crop_size=480, base_size=520)


def parse(line: str = "", script=test_script) -> argparse.Namespace:
    return script.build_parser().parse(["--weights", "x.ckpt", *shlex.split(line)])


@pytest.mark.parametrize(
    ("line", "expected", "named"),
    [
        ("", ((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), True), "official (six scales, flip)"),
        ("--protocol single", ((1.0,), False), "single (scale 1, no flip)"),
        ("--scales 1 --no_flip", ((1.0,), False), "single (scale 1, no flip)"),
        ("--scales 1 2", ((1.0, 2.0), True), "scales 1.0 2.0, flip"),
        ("--protocol single --scales 0.5", ((0.5,), False), "scales 0.5, no flip"),
        ("--no-flip", ((0.5, 0.75, 1.0, 1.25, 1.5, 1.75), False), "scales 0.5 0.75 1.0 1.25 1.5 1.75, no flip"),
    ],
)
def test_protocols_and_their_names(line, expected, named):
    options = parse(line)
    assert scales_and_flip(options) == expected
    assert describe_protocol(options, SIZES) == f"{named}, windows of 480, base 520"


def test_window_batches(capsys):
    assert parse().window_batch is None and parse("--window_batch 7").window_batch == 7
    with pytest.raises(SystemExit):
        parse("--window_batch many")
    assert "--window_batch" in capsys.readouterr().err
    with pytest.raises(InputError, match="--window_batch is 0"):
        test_script.check_all(parse("--window_batch 0 --dataset ade20k --data_path nowhere"), "val")


@pytest.mark.parametrize("script", [test_script, zero_shot_script])
@pytest.mark.parametrize(("precision", "dtype"), [("auto", torch.float32), ("bf16", torch.bfloat16)])
def test_the_precision_of_a_test_reaches_the_network(script, precision, dtype):
    options, net = parse(f"--precision {precision}", script), tiny_net()
    images, text = pictures(1, 64, 64), net.encode_labels(LABELS)
    exact = net.half_logits(images, text)
    speed_up(net, options, CPU)
    assert net.decoder.embedding.weight.dtype == dtype
    with torch.inference_mode():
        logits = predictor(net, options, CPU)(images, text)
    assert logits.dtype == torch.float32 and logits.shape == exact.shape
    assert torch.equal(logits, exact) == (dtype == torch.float32)
    assert (logits - exact).abs().max() < 0.5
    if script is test_script:
        assert describe_precision(parse(f"--precision {precision} --device cpu")) == str(dtype)[6:]


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
        chosen(Speed, parse("--compile"))
    assert chosen(Speed, parse()) == Speed("auto", False)
