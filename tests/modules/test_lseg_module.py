"""The loss of the LightningModule, worked out by hand."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from modules.lseg_module import LSegModule
from modules.lseg_module_zs import LSegModuleZS, episode_labels
from modules.models.upsampling import upsample_x2
from modules.training.optimization import OptimizationConfig
from tiny import LABELS, pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")

BORDER = json.loads((Path(__file__).parents[1] / "golden" / "zero_shot_training.json").read_text())[
    "border_in_training_loss"
]

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


@pytest.mark.parametrize(("ignore_borders", "expected"), [(False, BORDER["loss"]), (True, math.log(2))])
def test_borders_count_as_others_in_the_loss_as_published_or_not_at_all(ignore_borders, expected):
    module = LSegModuleZS(tiny_net(labels=["dog"]), ignore_borders=ignore_borders)
    logits = torch.tensor([BORDER["logits_others"], BORDER["logits_class"]])[None, :, None]  # (1, 2, 1, 2)
    mask = torch.tensor(
        [[[1 if value == "class" else -1 for value in BORDER["mask_values"]]]]
    )  # as the dataset gives it
    batch = {"image": torch.zeros(1, 3, 1, 2), "mask": mask, "class_id": torch.tensor([0])}
    assert module.loss(logits, module.training_images(batch)[1]).item() == pytest.approx(expected, rel=1e-6)
    assert mask.min() == -1  # the metrics still ignore it


def test_unusual_masks_are_counted_and_named_once_at_the_end_of_training(capsys, monkeypatch):
    module = LSegModuleZS(tiny_net(labels=["dog"]), validation_classes=(0,))
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    batch = {"image": pictures(2, 32, 32), "mask": torch.ones(2, 32, 32, dtype=torch.long), "skipped": ["", ""]}
    batch |= {"class_id": torch.tensor([0, 0]), "weight": torch.ones(2, dtype=torch.long)}
    batch["note"] = ["", "no pixel of the class: a.png\na mask of another size than its image: a.png"]
    module.training_step(batch, 0)
    module.validation_step(batch | {"note": ["no pixel of the class: a.png", "no pixel of the class: b.png"]}, 0)
    module.on_train_end()
    printed = capsys.readouterr().out.splitlines()
    assert printed == [
        "note: a mask of another size than its image in 1 files: a.png",
        "note: no pixel of the class in 2 files: a.png, b.png",
    ]


# ----------------------------------------------------------------- the loss without logits at full size


def gradients(module: LSegModule, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    module.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.requires_grad}


@pytest.mark.parametrize("labels", [LABELS, [["dog", "sky"], ["cat", "sky"], ["a", "b"]]], ids=["one", "each-its-own"])
@pytest.mark.parametrize("ignored", [-1, 0])
@pytest.mark.parametrize(
    "block", [{}, {"arch_option": 1, "block_depth": 2, "activation": "lrelu"}, {"arch_option": 2}], ids=str
)
def test_loss_and_gradients_do_not_depend_on_the_size_of_the_logits(block, ignored, labels):
    module = LSegModule(tiny_net(**block), OptimizationConfig(ignore_index=ignored))
    images, target = pictures(3, 64, 32), torch.randint(-1, 2, (3, 64, 32))
    plain = module.loss(module.net(images, labels), target)
    loss = module.loss(module.net.half_logits(images, labels), target)
    torch.testing.assert_close(loss, plain, atol=1e-6, rtol=1e-5)
    expected, found = gradients(module, plain), gradients(module, loss)
    for name, gradient in expected.items():
        assert (found[name] - gradient).norm() <= 1e-4 * gradient.norm() + 1e-7, name


@pytest.mark.parametrize("kind", [LSegModule, LSegModuleZS])
def test_training_and_validation_never_make_logits_at_full_size(kind, monkeypatch):
    net = tiny_net(labels=["dog", "cat"])
    module = kind(net)
    monkeypatch.setattr(module, "log", lambda *args, **options: None)
    monkeypatch.setattr(net, "forward", None)
    batch = {"image": pictures(2, 32, 64), "mask": torch.randint(0, 2, (2, 32, 64)), "skipped": ["", ""]}
    batch |= {"class_id": torch.tensor([0, 1]), "weight": torch.ones(2, dtype=torch.long)}
    if kind is LSegModuleZS:
        module.metric = type(module.metric)((0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        module.training_step(batch, 0).backward()
    assert all(p.grad.isfinite().all() for p in net.parameters() if p.requires_grad)
    with torch.inference_mode():
        predicted = module.validation_step(batch, 0)
        text = module.labels_of(batch) if kind is LSegModuleZS else net.labels
        assert torch.equal(predicted, upsample_x2(net.half_logits(batch["image"], text)).argmax(1))
