"""Metrics worked out by hand, the golden numbers of the official code, and counting in two processes."""

from __future__ import annotations

import subprocess

import numpy as np
import pytest
import torch

from encoding_ext import EpisodeMetric, SegmentationMetric
from lseg_utils.errors import InputError
from scripts import REPOSITORY, environment, python_file

GOLDEN = REPOSITORY / "tests" / "golden" / "metrics.npz"

TRUTH = torch.tensor([[0, 0, 1], [1, 1, -1], [2, 2, 0]])
GUESS = torch.tensor([[0, 1, 1], [1, 0, 2], [2, 0, 0]])
# truth 0: two right, one taken for 1; truth 1: two right, one taken for 0; truth 2: one right, one taken for 0
CONFUSION = [[2, 1, 0], [1, 2, 0], [1, 0, 1]]


def filled(num_classes: int = 3) -> SegmentationMetric:
    metric = SegmentationMetric(num_classes)
    metric.update(TRUTH, GUESS)
    return metric


def test_three_by_three_by_hand():
    metric = filled()
    assert metric.confusion.tolist() == CONFUSION and metric.confusion.dtype == torch.int64
    accuracy, miou = metric.get()
    assert accuracy == pytest.approx(5 / 8)
    assert metric.per_class_iou() == pytest.approx(np.array([2 / 5, 2 / 4, 1 / 2]))
    assert miou == pytest.approx((2 / 5 + 2 / 4 + 1 / 2) / 3)
    assert metric.miou_of([0, 2]) == pytest.approx((2 / 5 + 1 / 2) / 2)


def test_logits_count_as_their_argmax():
    logits = torch.nn.functional.one_hot(GUESS, 3).permute(2, 0, 1).float()
    for target, scores in ((TRUTH, logits), (TRUTH[None], logits[None])):
        metric = SegmentationMetric(3)
        metric.update(target, scores)
        assert metric.confusion.tolist() == CONFUSION


def test_a_class_that_never_occurs_counts_zero_and_nothing_at_all_is_zero():
    metric = filled(num_classes=4)
    assert metric.per_class_iou()[3] == 0
    assert metric.get()[1] == pytest.approx((2 / 5 + 2 / 4 + 1 / 2) / 4)
    metric.reset()
    assert metric.get() == (0.0, 0.0)


def test_any_negative_target_is_ignored_whatever_is_predicted_there():
    metric = SegmentationMetric(2)
    metric.update(torch.tensor([[-1, -100, 1]]), torch.tensor([[99, 0, 1]]))
    assert metric.confusion.tolist() == [[0, 0], [0, 1]]


def test_merging_is_counting_all_in_one():
    metric = filled().merge(filled())
    assert metric.confusion.tolist() == [[2 * count for count in row] for row in CONFUSION]
    with pytest.raises(ValueError, match="3 classes into 4"):
        SegmentationMetric(4).merge(metric)


def test_labels_outside_the_list_are_named():
    with pytest.raises(InputError, match=r"target contains the label 7, but there are 3 classes"):
        SegmentationMetric(3).update(torch.tensor([[0, 7]]), torch.tensor([[0, 0]]))
    with pytest.raises(InputError, match=r"prediction contains the label \[3, 4\]"):
        SegmentationMetric(3).update(torch.tensor([[0, 1]]), torch.tensor([[3, 4]]))


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="label maps"):
        SegmentationMetric(3).update(torch.zeros(1, 2, 2).long(), torch.zeros(1, 4, 2, 2))
    with pytest.raises(ValueError, match="resize"):
        SegmentationMetric(3).update(torch.zeros(1, 2, 2).long(), torch.zeros(1, 3, 4, 4))
    with pytest.raises(ValueError, match="at least one class"):
        filled().miou_of([])


def test_golden_fixed_labels():
    golden = np.load(GOLDEN)
    metric = SegmentationMetric(7)
    for target, logits in zip(golden["target"], golden["logits"]):
        metric.update(torch.from_numpy(target), torch.from_numpy(logits))
    counts = metric.confusion.numpy()
    assert (counts.diagonal() == golden["inter"]).all()
    assert (counts.sum(0) + counts.sum(1) - counts.diagonal() == golden["union"]).all()
    assert metric.get() == pytest.approx((float(golden["pix_acc"]), float(golden["miou"])), rel=1e-12)


ONE_OF_TWO = """
import sys
import torch, torch.distributed as dist
from encoding_ext import SegmentationMetric

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
metric = SegmentationMetric(3)
for truth, guess in torch.load(f"{folder}/pairs.pt")[rank::2]:
    metric.update(truth, guess)
assert metric.all_reduce() is metric
torch.save(metric.confusion, f"{folder}/{rank}.pt")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_end_with_the_counts_of_one(tmp_path):
    torch.save([(TRUTH, GUESS)] * 3, tmp_path / "pairs.pt")  # an odd number: process 0 counts two, process 1 one
    commands = [[python_file(), "-c", ONE_OF_TWO, str(rank), str(tmp_path)] for rank in (0, 1)]
    processes = [subprocess.Popen(command, env=environment(PYTHONPATH=str(REPOSITORY))) for command in commands]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    for rank in (0, 1):
        assert torch.load(tmp_path / f"{rank}.pt").tolist() == [[3 * count for count in row] for row in CONFUSION]


def test_all_reduce_in_a_single_process_changes_nothing():
    assert filled().all_reduce().confusion.tolist() == CONFUSION


# Episodes: 1 row of 4 pixels each.
PREDICTION = torch.tensor([[[1, 1, 0, 0]], [[1, 0, 0, 0]], [[0, 0, 0, 1]]])
TARGET = torch.tensor([[[1, 0, 0, 0]], [[1, 1, 0, 0]], [[0, 0, 0, 1]]])
CLASS = torch.tensor([5, 5, 8])


def test_episodes_by_hand():
    metric = EpisodeMetric([5, 8])
    metric.update(TARGET, PREDICTION, CLASS)
    # class 5: foreground 1 of 2 and 1 of 2; class 8: 1 of 1. Background: 2 of 3, 2 of 3, 3 of 3.
    assert metric.per_class_iou() == pytest.approx(np.array([0.5, 1.0]))
    assert metric.get() == pytest.approx((0.75, (3 / 5 + 7 / 9) / 2))


def test_a_class_without_an_episode_counts_zero_and_reset_forgets_all():
    metric = EpisodeMetric([5, 6, 8])
    metric.update(TARGET, PREDICTION, CLASS)
    assert metric.get()[0] == pytest.approx(0.5)
    metric.reset()
    assert metric.get() == (0.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32])
def test_ignored_pixels_count_on_neither_side(dtype):
    ignore = torch.zeros_like(TARGET)
    ignore[0, 0, 1] = ignore[1, 0, 1] = 255
    target = TARGET.clone()
    target[0, 0, 1] = 255  # Pascal masks say 255 where a pixel is ignored
    metric = EpisodeMetric([5, 8])
    metric.update(target, PREDICTION, CLASS, ignore=ignore.to(dtype))
    assert metric.get() == pytest.approx((1.0, 1.0))


def test_an_episode_of_weight_three_is_three_episodes():
    weighted, repeated, single = (EpisodeMetric([5]) for _ in range(3))
    prediction = torch.tensor([[[1, 1, 1, 0]], [[1, 0, 0, 0]]])
    target = torch.tensor([[[1, 0, 0, 0]], [[1, 0, 0, 0]]])
    weighted.update(target, prediction, CLASS[:2], weight=torch.tensor([3, 1]))
    order = [0, 0, 0, 1]
    repeated.update(target[order], prediction[order], CLASS[[0] * 4])
    single.update(target, prediction, CLASS[:2])
    assert weighted.per_class_iou() == pytest.approx(np.array([4 / 10]))  # 3 times 1 of 3, once 1 of 1
    assert weighted.get() == repeated.get() != single.get()


def test_foreign_classes_and_values_are_named():
    with pytest.raises(InputError, match=r"\[8\].*\[5, 6\]"):
        EpisodeMetric([5, 6]).update(TARGET, PREDICTION, CLASS)
    with pytest.raises(InputError, match="prediction.*0 and 1"):
        EpisodeMetric([5, 8]).update(TARGET, PREDICTION * 2, CLASS)


@pytest.mark.parametrize("batch", [1, 6])
def test_golden_episodes(batch):
    golden = np.load(GOLDEN)
    parts = [torch.from_numpy(golden[f"zs_{name}"]).split(batch) for name in ("pred", "target", "class", "ignore")]
    metric = EpisodeMetric(range(5, 10))
    for prediction, target, class_id, ignore in zip(*parts):
        metric.update(target, prediction, class_id, ignore=ignore)
    # the official code divides in float32
    percent = [100 * value for value in metric.get()]
    assert percent == pytest.approx([float(golden["zs_miou"]), float(golden["zs_fb_iou"])], rel=1e-6)
