"""The loss of the LightningModule, worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from modules.lseg_module import LSegModule
from modules.lseg_module_zs import LSegModuleZS, episode_labels
from modules.optimization import OptimizationConfig
from tiny import tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")

# Two labels, three pixels: the true label's probability is 1/2, 3/4 and 1/4.
LOGITS = torch.tensor([[[[0.0, math.log(3.0), 0.0]], [[0.0, 0.0, math.log(3.0)]]]])


@pytest.mark.parametrize(
    ("target", "ignored", "expected"),
    [
        ([0, 0, 0], -1, (math.log(2) + math.log(4 / 3) + math.log(4)) / 3),
        ([0, -1, 0], -1, (math.log(2) + math.log(4)) / 2),
        ([0, -1, 1], 1, math.log(2)),  # label 1 and unlabelled pixels, both left out
        ([0, -1, 0], 255, (math.log(2) + math.log(4)) / 2),
        ([-1, -1, -1], -1, 0.0),  # nothing to learn from is no NaN
    ],
)
def test_the_loss_is_the_mean_over_pixels_that_count(target, ignored, expected):
    module = LSegModule(tiny_net(), OptimizationConfig(ignore_index=ignored))
    assert module.loss(LOGITS, torch.tensor([[target]])).item() == pytest.approx(expected, abs=1e-6)


def test_support_images_are_further_images_and_alone_in_fine_tuning():
    names = ["dog", "cat"]
    batch = {
        "image": torch.zeros(2, 3, 32, 32),
        "mask": torch.zeros(2, 32, 32, dtype=torch.long),
        "class_id": torch.tensor([1, 0]),
        "support_images": torch.arange(1.0, 5.0).view(2, 2, 1, 1, 1).expand(2, 2, 3, 32, 32),
        "support_masks": torch.ones(2, 2, 32, 32, dtype=torch.long),
    }
    for finetune, images in ((False, [0, 0, 1, 2, 3, 4]), (True, [1, 2, 3, 4])):
        module = LSegModuleZS(tiny_net(labels=names), finetune=finetune)
        found, masks, labels = module.training_images(batch)
        assert found[:, 0, 0, 0].tolist() == images
        assert masks[:, 0, 0].tolist() == [int(value > 0) for value in images]
        assert labels == episode_labels(torch.tensor([1, 0, 1, 1, 0, 0][-len(images) :]), names)
        assert labels[-1] == ["others", "dog"]
