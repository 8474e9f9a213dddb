"""Training on several label sets: every image's loss is that of the image alone, unions are sums of probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lseg_utils.errors import InputError
from lseg_utils.label_sets import LabelSet, all_texts
from modules.lseg_module import LSegModule
from modules.lseg_module_joint import LSegModuleJoint
from modules.models.streaming import Unions, upsampled_cross_entropy, upsampled_max
from modules.models.upsampling import upsample_x2
from modules.training.label_texts import TrainingTexts
from tiny import pictures, tiny_net

pytestmark = pytest.mark.usefixtures("one_thread")

STREET = LabelSet("street", ("road", "vehicle", "person"), {"vehicle": ("car", "truck", "bus")})
ROOM = LabelSet("room", ("wall", "chair", "person", "lamp", "door"))


def joint(sets: Sequence[LabelSet] = (STREET, ROOM), **wording: object) -> LSegModuleJoint:
    """A module around a tiny network in eval mode: batch norm would mix the images of a batch."""
    module = LSegModuleJoint(tiny_net(labels=all_texts(sets)), texts=TrainingTexts(sets, **wording))
    module.log = lambda *args, **options: None
    module.trainer = SimpleNamespace(current_epoch=3)
    return module


def batch_of(sources: Sequence[int], sets: Sequence[LabelSet] = (STREET, ROOM), side: int = 64) -> dict:
    """Noise, whose masks have a different share of unlabelled pixels in each image."""
    generator = torch.Generator().manual_seed(1)
    masks = [
        torch.randint(-1 - row, len(sets[s].labels), (side, side), generator=generator) for row, s in enumerate(sources)
    ]
    batch = {"image": pictures(len(sources), side, side), "mask": torch.stack(masks).clamp_min(-1)}
    return batch | {"source": torch.tensor(sources), "skipped": [""] * len(sources)}


def learned(module: LSegModule, batch: dict, step: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The loss of a batch and the gradients of all that is trained."""
    module.zero_grad()
    loss, _ = module.batch_loss(batch, step)
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def probabilities(counts: Sequence[int], of_texts: Sequence[float]) -> list[float]:
    """What the loss takes for the probability of each label, whose texts have these ones."""
    unions, logits = Unions(counts), torch.tensor(of_texts).log()[None]
    return [unions.cross_entropy(logits, torch.tensor([label]), -1).neg().exp().item() for label in range(len(counts))]


def row_of(batch: dict, row: int) -> dict:
    return {name: value[row : row + 1] for name, value in batch.items()}


WORDINGS = {
    "plain": {},
    "reworded": {"synonyms": {"chair": ["seat"], "car": ["auto", "motor car"]}, "templates": ("a {}", "the {} here")},
}


@pytest.mark.parametrize("sampled", [False, True], ids=["all labels", "sampled"])
@pytest.mark.parametrize("wording", WORDINGS)
def test_a_mixed_batch_is_the_sum_of_its_images_and_their_gradients(wording, sampled):
    module, batch = joint(**WORDINGS[wording]), batch_of([0, 1, 1, 0])
    if sampled:
        batch["compared"] = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 0, 1], [1, 1, 1, 1, 1], [1, 1, 1, 0, 0]]).bool()
        batch["mask"][1][batch["mask"][1] == 3] = 4  # a label that is not compared cannot be in the mask
    loss, gradients = learned(module, batch)
    pixels = [(mask >= 0).sum() for mask in batch["mask"]]
    assert len(set(map(int, pixels))) > 1, "otherwise weights do not show"
    alone = [learned(module, row_of(batch, row)) for row in range(4)]
    shares = [count / sum(pixels) for count in pixels]
    expected = sum(share * one for share, (one, _) in zip(shares, alone, strict=True))
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert any(gradient.abs().max() > 1e-3 for gradient in gradients.values())
    for name, gradient in gradients.items():
        summed_up = sum(share * one[name] for share, (_, one) in zip(shares, alone, strict=True))
        torch.testing.assert_close(gradient, summed_up, atol=1e-6, rtol=1e-4)


def test_images_of_one_set_have_the_loss_of_a_training_on_it_alone():
    module, batch = joint([ROOM]), batch_of([0, 0], [ROOM])
    single = LSegModule(module.net)
    loss, gradients = learned(module, batch)
    expected, expected_gradients = learned(single, batch)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(gradients[name], gradient, atol=1e-6, rtol=1e-4)


def test_sampled_labels_are_the_loss_over_these_labels_only():
    module, batch = joint(), batch_of([1])
    batch["mask"] = batch["mask"].clamp_max(1)
    batch["compared"] = torch.tensor([[True, True, False, True, False]])
    logits = module.net(batch["image"], ["wall", "chair", "lamp"])
    expected = F.cross_entropy(logits, batch["mask"], ignore_index=-1)
    assert learned(module, batch)[0].item() == pytest.approx(expected.item(), abs=1e-5)


# ------------------------------------------------------------------------------------------------------ unions


def test_a_union_has_the_summed_probability_by_hand():
    # road 1/2, car 1/8, truck 1/8, bus 1/4: the vehicle has 1/2.
    assert probabilities([1, 3], [1 / 2, 1 / 8, 1 / 8, 1 / 4]) == pytest.approx([1 / 2, 1 / 2])
    # Unions between single labels keep their places.
    assert probabilities([2, 1, 1, 2], [0.1, 0.2, 0.3, 0.1, 0.15, 0.15]) == pytest.approx([0.3, 0.3, 0.1, 0.3])


def test_the_best_label_may_be_a_union_or_a_single_one():
    logits = torch.tensor([[0.3, 0.2, 0.1, 0.4], [0.1, 0.1, 0.2, 0.6], [0.2, 0.2, 0.35, 0.25]]).log()
    scores, labels = Unions([2, 1, 1]).strongest(logits)
    assert labels.tolist() == [0, 2, 0]
    assert scores.exp().tolist() == pytest.approx([0.5, 0.6, 0.4])


def test_pixels_that_are_ignored_do_not_count_in_a_union():
    unions, logits = Unions([2, 1]), torch.tensor([[0.5, 0.25, 0.25]] * 4).log()
    for ignored in (-1, 1, 255):
        target = torch.tensor([0, ignored, ignored, 0])
        assert unions.cross_entropy(logits, target, ignored).item() == pytest.approx(-2 * math.log(0.75))


def test_a_union_wins_where_its_parts_together_are_the_most_likely():
    texts = torch.tensor([0.4, 0.3, 0.3]).log()[None, :, None, None].expand(1, 3, 4, 4)
    assert upsampled_max(texts)[1].unique().tolist() == [0]
    assert upsampled_max(texts, Unions([1, 2]))[1].unique().tolist() == [1]


def test_the_streamed_loss_of_unions_equals_the_plain_one():
    unions, target = Unions([1, 3, 1]), torch.randint(-1, 3, (2, 16, 8))
    logits = torch.randn(2, 5, 8, 4, requires_grad=True)
    total = upsampled_cross_entropy(logits, target, -1, unions)
    (gradient,) = torch.autograd.grad(total, logits)
    single, united, last = upsample_x2(logits).split([1, 3, 1], dim=1)
    merged = torch.cat([single, united.logsumexp(dim=1, keepdim=True), last], dim=1)
    expected = F.cross_entropy(merged, target, ignore_index=-1, reduction="sum")
    torch.testing.assert_close(total, expected, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, logits)[0], atol=1e-5, rtol=1e-4)
    module = LSegModule(tiny_net())
    torch.testing.assert_close(module.loss(upsample_x2(logits), target, unions), module.loss(logits, target, unions))


def test_the_loss_of_a_mask_of_a_union_is_that_of_its_parts():
    module, batch = joint([STREET]), batch_of([0], [STREET])
    probabilities = module.net(batch["image"], ["road", "car", "truck", "bus", "person"]).softmax(dim=1)
    vehicle = probabilities[:, 1:4].sum(dim=1)
    batch["mask"] = torch.ones_like(batch["mask"])
    assert learned(module, batch)[0].item() == pytest.approx(-vehicle.log().mean().item(), abs=1e-5)


# -------------------------------------------------------------------------------------------------------- texts


def test_each_step_draws_a_name_for_each_label_and_one_template_for_all():
    texts = TrainingTexts([ROOM], {"Chair": ["seat", "stool"], "lamp": ["light"]}, ("a {}", "the {}"))
    rng = np.random.default_rng(0)
    drawn = [[members[0] for members in texts.draw(0, rng)] for _ in range(60)]
    assert {step[0] for step in drawn} == {"a wall", "the wall"}
    assert {step[1].split()[1] for step in drawn} == {"chair", "seat", "stool"}
    assert all(len({text.split()[0] for text in step}) == 1 for step in drawn)
    assert texts.plain(0) == [["wall"], ["chair"], ["person"], ["lamp"], ["door"]]


def test_a_name_that_would_stand_for_two_labels_of_a_set_is_not_used():
    sets = [LabelSet("a", ("stairs", "stairway", "step")), LabelSet("b", ("stairs",))]
    texts = TrainingTexts(sets, {"stairs": ["stairway", "steps"], "stairway": ["stairs"], "step": ["steps"]})
    assert texts.wordings[0] == [[["stairs"]], [["stairway"]], [["step"]]]
    assert texts.wordings[1] == [[["stairs", "stairway", "steps"]]]


def test_the_texts_of_a_step_depend_on_seed_epoch_and_step_alone():
    module, batch = joint(**WORDINGS["reworded"]), batch_of([0, 1])
    losses = [learned(module, batch, step)[0].item() for step in (0, 1, 2, 3, 0)]
    assert losses[0] == losses[-1] and len(set(losses)) > 2
    again = joint(**WORDINGS["reworded"])
    assert learned(again, batch, 2)[0].item() == losses[2]


def test_a_wording_that_is_too_long_is_told_before_training():
    texts = TrainingTexts([ROOM], {"lamp": ["a very " * 40 + "long lamp"]})
    with pytest.raises(InputError, match="longer than.*--synonyms"):
        LSegModuleJoint(tiny_net(), texts=texts)


# --------------------------------------------------------------------------------------------------- validation


def test_validation_counts_each_dataset_apart_and_the_harmonic_mean_chooses():
    module, logged = joint(), {}
    module.log = lambda name, value, **options: logged.update({name: float(torch.as_tensor(value).detach())})
    module.log_dict = lambda values, **options: logged.update(values)
    batch = batch_of([0, 1, 0])
    module.on_validation_epoch_start()
    predicted = module.validation_step(batch, 0)
    module.on_validation_epoch_end()
    assert predicted.shape == batch["mask"].shape and predicted[0].max() <= 2
    counts = [int(metric.confusion.sum()) for metric in module.metrics]
    assert counts == [int((batch["mask"][[0, 2]] >= 0).sum()), int((batch["mask"][1] >= 0).sum())]
    mious = [logged["val_miou_street"], logged["val_miou_room"]]
    assert logged["val_miou_epoch"] == pytest.approx(2 / (1 / mious[0] + 1 / mious[1]))
    assert module.labels_of(batch)[1] == list(ROOM.labels)
