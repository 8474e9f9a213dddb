"""Rates, groups and schedules, worked out by hand from the official recipe."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from modules.training.optimization import OptimizationConfig
from modules.training.optimizer import build_optimizer
from tiny import TINY, tiny_net

GOLDEN = json.loads((Path(__file__).parents[2] / "golden" / "zero_shot_training.json").read_text())["rate_factors"]

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_papers_rates():
    config = OptimizationConfig(base_lr=0.004, batch_size=4)
    assert config.encoder_lr == pytest.approx(0.001)  # 0.004 / 16 * 4
    assert config.scratch_lr == pytest.approx(0.01)
    assert OptimizationConfig().encoder_lr == pytest.approx(0.00025)  # the defaults: 0.004, one image a GPU
    assert OptimizationConfig(base_lr=0.16, batch_size=2, scratch_factor=3).scratch_lr == pytest.approx(0.06)


def test_the_log_shows_rates_and_formula():
    text = OptimizationConfig(base_lr=0.004, batch_size=4, max_epochs=30).describe()
    assert "0.004 / 16 * 4 = 0.001" in text and "10 * that = 0.01" in text and "poly over 30 epochs" in text


def test_training_may_end_long_before_its_schedule():
    """Pascal and COCO: the rate decays over 200 epochs, training ends after the fourth."""
    config = OptimizationConfig(max_epochs=4, schedule_epochs=GOLDEN["length_of_schedule"])
    factors = [config.factor(epoch, 10 * epoch, 40) for epoch in range(4)]
    assert factors == pytest.approx(GOLDEN["pascal_and_coco_epochs_0_to_3"], rel=1e-12)
    assert "poly over 200 epochs, ending after 4" in config.describe()
    cosine = OptimizationConfig(schedule="cosine", max_epochs=4, schedule_epochs=8)
    assert [cosine.factor(0, step, 40) for step in (0, 40)] == pytest.approx([1, 0.5])
    with pytest.raises(ValueError, match="schedule_epochs is 3, but max_epochs 4"):
        OptimizationConfig(max_epochs=4, schedule_epochs=3)


@pytest.mark.parametrize("backbone", TINY)
def test_the_image_encoder_has_the_base_rate_and_the_rest_ten_times_that(backbone):
    net = tiny_net(backbone, arch_option=1)
    optimizer = build_optimizer(net, OptimizationConfig(base_lr=0.008, batch_size=2))
    rates = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    for name, parameter in net.named_parameters():
        if parameter.requires_grad:
            expected = 0.001 if name.startswith("image_encoder.") else 0.01
            assert rates.pop(id(parameter)) == pytest.approx(expected), name
    assert not rates  # nothing frozen, nothing twice
    assert [group["initial_lr"] for group in optimizer.param_groups] == pytest.approx([0.001, 0.01])


def test_one_step_of_sgd_by_hand():
    net = tiny_net()
    config = OptimizationConfig(base_lr=1.6, batch_size=1, momentum=0.5, weight_decay=0.1)
    optimizer = build_optimizer(net, config)
    parameter = net.decoder.embedding.bias
    with torch.no_grad():
        parameter.fill_(2.0)
    # The rate is 1.0; the velocity 1 + 0.1 * 2 = 1.2, then 0.5 * 1.2 + 1 + 0.1 * 0.8 = 1.68.
    for expected in (2 - 1.2, 0.8 - 1.68):
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        torch.testing.assert_close(parameter.detach(), torch.full_like(parameter, expected))


@pytest.mark.parametrize(
    ("name", "kind"), [("sgd", torch.optim.SGD), ("adam", torch.optim.Adam), ("adamw", torch.optim.AdamW)]
)
def test_kinds_of_optimiser(name, kind):
    optimizer = build_optimizer(tiny_net(), OptimizationConfig(optimizer=name, weight_decay=0.03, momentum=0.8))
    assert type(optimizer) is kind
    for group in optimizer.param_groups:
        assert group["weight_decay"] == 0.03
        assert group["momentum"] == 0.8 if name == "sgd" else group["betas"] == (0.9, 0.999)


def test_poly_is_constant_within_an_epoch_and_falls_to_zero():
    config = OptimizationConfig(max_epochs=4)
    assert config.factor(epoch=0, step=0, total_steps=100) == 1
    assert config.factor(epoch=0, step=24, total_steps=100) == 1
    assert config.factor(epoch=1, step=25, total_steps=100) == pytest.approx(0.75**0.9)
    assert config.factor(epoch=3, step=99, total_steps=100) == pytest.approx(0.25**0.9)
    assert config.factor(epoch=4, step=100, total_steps=100) == 0
    assert config.factor(epoch=9, step=100, total_steps=100) == 0  # and is never complex


def test_cosine_rises_over_the_warm_up_and_falls_to_zero():
    config = OptimizationConfig(schedule="cosine", warmup_steps=4, max_epochs=2)
    factors = [config.factor(epoch=0, step=step, total_steps=12) for step in range(13)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert factors[4] == pytest.approx(1.0)
    assert factors[6] == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))  # a quarter of the eight steps
    assert factors[8] == pytest.approx(0.5)
    assert factors[12] == pytest.approx(0.0, abs=1e-12)
    assert config.factor(epoch=5, step=99, total_steps=12) == pytest.approx(0.0, abs=1e-12)


def test_cosine_without_warm_up_starts_at_the_full_rate():
    config = OptimizationConfig(schedule="cosine")
    assert config.factor(epoch=0, step=0, total_steps=10) == 1
    assert config.factor(epoch=0, step=0, total_steps=0) == 1


def test_a_warm_up_longer_than_the_training_only_rises():
    config = OptimizationConfig(schedule="cosine", warmup_steps=10)
    assert [config.factor(0, step, 5) for step in range(5)] == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.5])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "lion"}, "'lion'.*sgd, adam, adamw"),
        ({"schedule": "step"}, "'step'.*poly, cosine"),
        ({"warmup_steps": 5}, "warmup_steps.*cosine"),
        ({"warmup_steps": -5, "schedule": "cosine"}, "warmup_steps is -5"),
        ({"base_lr": 0.0}, "base_lr is 0.0"),
        ({"base_lr": float("nan")}, "base_lr is nan"),
        ({"base_lr": float("inf")}, "base_lr is inf"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"scratch_factor": -1.0}, "scratch_factor is -1.0"),
        ({"max_epochs": 0}, "max_epochs is 0"),
        ({"momentum": -0.1}, "momentum is -0.1"),
        ({"momentum": 1.0}, "momentum is 1.0"),
        ({"weight_decay": -1e-4}, "weight_decay is -0.0001"),
    ],
)
def test_impossible_configurations(values, message):
    with pytest.raises(ValueError, match=message):
        OptimizationConfig(**values)


def test_all_problems_are_reported_at_once():
    with pytest.raises(ValueError, match=r"(?s)lion.*base_lr.*batch_size"):
        OptimizationConfig(optimizer="lion", base_lr=-1, batch_size=0)
