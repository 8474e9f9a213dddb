"""The estimate of a training step's memory and time: against counted FLOPs, and against a real step's memory."""

from __future__ import annotations

import re

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import estimate_step
from modules.models import build_lseg
from modules.models.streaming import upsampled_cross_entropy
from scripts import run


@pytest.mark.slow
def test_the_traced_work_is_what_pytorch_counts():
    trace = estimate_step.trace_step("tiny_vit", 2, 64, 5, half=False)
    net = build_lseg("tiny_vit", None).train()
    width = net.decoder.embedding.out_channels
    with FlopCounterMode(display=False) as counter:
        logits = net.half_logits(torch.zeros(2, 3, 64, 64), torch.zeros(5, width))
        upsampled_cross_entropy(logits, torch.zeros(2, 64, 64, dtype=torch.int64), -1).backward()
    assert sum(flop for flop, _, _ in trace.work) == counter.get_total_flops()


@pytest.mark.slow
def test_memory_contains_weights_gradients_and_momentum_and_grows_with_the_batch():
    one, two, four = (estimate_step.trace_step("tiny_resnet", batch, 64, 5, half=False).peak for batch in (1, 2, 4))
    net = build_lseg("tiny_resnet", None)
    trained = sum(parameter.nbytes for parameter in net.parameters() if parameter.requires_grad)
    assert one > 3 * trained
    assert four - two == pytest.approx(2 * (two - one), rel=0.1)


def test_a_faster_gpu_takes_less_time():
    trace = estimate_step.trace_step("tiny_vit", 1, 64, 5, half=True)
    seconds = {name: trace.seconds(gpu) for name, gpu in estimate_step.GPUS.items()}
    assert seconds["H200"] <= seconds["H100 80GB"] < seconds["A100 80GB"] < seconds["V100 32GB"]


def test_the_table_has_a_row_for_each_gpu(capsys):
    estimate_step.main(["--backbone", "tiny_vit", "--batch", "2", "--side", "64", "--labels", "5"])
    out = capsys.readouterr().out
    assert all(name in out for name in estimate_step.GPUS)


@pytest.mark.slow
@pytest.mark.parametrize(("backbone", "batch", "side"), [("tiny_vit", 4, 256), ("tiny_resnet", 4, 256)])
def test_the_estimate_is_near_a_real_step(backbone, batch, side, tmp_path):
    options = ("--backbone", backbone, "--batch", batch, "--side", side, "--check")
    output = run("benchmarks/estimate_step.py", *options, cwd=tmp_path)
    assert 0.85 < float(re.search(r"ratio ([\d.]+)", output)[1]) < 1.15, output


def test_a_frozen_encoder_has_the_same_forward_and_less_to_train():
    whole, frozen = (estimate_step.count("tiny_vit", 64, 5, frozen=frozen) for frozen in (False, True))
    assert frozen[0] == whole[0] and frozen[1] < whole[1] and frozen[2] < whole[2]
