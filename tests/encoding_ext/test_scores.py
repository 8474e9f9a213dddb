"""Scores of open-vocabulary benchmarks: against golden numbers, hand-computed cases and plain loops."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from encoding_ext.mask_scores import THRESHOLDS, boundary_counts, boundary_iou, cp_iou
from encoding_ext.metrics import scores_from_confusion
from lseg_utils.errors import InputError
from reference import GOLDEN


def test_golden_scores():
    golden = json.loads((GOLDEN / "scores.json").read_text())
    scores = scores_from_confusion(np.array(golden["confusion_truth_by_prediction"]), np.array(golden["similarity"]))
    assert scores.keys() == golden["scores"].keys()
    for name, value in golden["scores"].items():
        assert scores[name] == pytest.approx(value, abs=1e-9), name


def test_an_absent_class_and_one_that_is_never_predicted():
    # Class 0: 6 of 8 right. Class 1: never predicted. Class 2: only predicted, on pixels of 0. Class 3: nowhere.
    confusion = torch.tensor([[6, 0, 2, 0], [4, 0, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]])
    iou = 6 / 12  # of class 0: 6 of the 8 + 10 - 6
    found = scores_from_confusion(confusion)
    assert found == pytest.approx(
        {
            "miou_present": 100 * iou / 2,
            "miou_present_or_predicted": 100 * iou / 3,
            "miou_all": 100 * iou / 4,
            "fwiou": 100 * iou * 8 / 12,
            "macc": 100 * (6 / 8) / 2,
            "pacc": 100 * 6 / 12,
        }
    )


def test_open_miou_counts_a_similar_label_in_part():
    confusion, similarity = np.array([[4, 4], [0, 2]]), np.array([[1, 0.5], [0.5, 1]])
    found = scores_from_confusion(confusion, similarity)
    # Class 0: 4 + 0.5 * 4 hits, 2 missed. Class 1: 2 hits, and 2 that belong to class 0.
    assert found["open_miou_present"] == pytest.approx(100 * (6 / 8 + 2 / 4) / 2)
    exact = scores_from_confusion(confusion, np.eye(2))
    assert exact["open_miou_present"] == pytest.approx(exact["miou_present"])


def test_nothing_counted_gives_zeros():
    assert set(scores_from_confusion(np.zeros((3, 3), int), np.eye(3)).values()) == {0.0}


@pytest.mark.parametrize(
    "confusion, similarity, fact",
    [
        (np.zeros((2, 3), int), None, "(2, 3)"),
        (np.array([[-1]]), None, "at least 0"),
        (np.array([[0.5]]), None, "whole numbers"),
        (np.eye(2, dtype=int), np.eye(3), "(3, 3)"),
        (np.eye(2, dtype=int), np.full((2, 2), 0.5), "diagonal"),
        (np.eye(2, dtype=int), np.array([[1, 1.5], [0, 1]]), "1.5"),
    ],
)
def test_matrices_that_do_not_fit_are_refused(confusion, similarity, fact):
    with pytest.raises(InputError) as caught:
        scores_from_confusion(confusion, similarity)
    assert fact in str(caught.value)


def slow_boundary(labels: np.ndarray, label: int, reach: int) -> np.ndarray:
    """The boundary region of one class, pixel by pixel."""
    height, width = labels.shape
    found = np.zeros(labels.shape, bool)
    for y, x in zip(*np.nonzero(labels == label)):
        around = [(y + dy, x + dx) for dy in range(-reach, reach + 1) for dx in range(-reach, reach + 1)]
        inside = all(0 <= v < height and 0 <= u < width and labels[v, u] == label for v, u in around)
        found[y, x] = not inside
    return found


def test_boundary_counts_equal_a_plain_loop_over_classes_and_pixels():
    rng = np.random.default_rng(0)
    target, predicted = (np.kron(rng.integers(0, 4, (4, 5)), np.ones((20, 20), int)) for _ in range(2))
    target[:10, 30:] = -1
    counts, seen = boundary_counts(target, predicted, 5), np.where(target < 0, -1, predicted)
    reach = round(0.02 * np.hypot(80, 100))
    assert reach == 3
    for label in range(5):
        truth, found = (slow_boundary(labels, label, reach) for labels in (target, seen))
        assert counts[label].tolist() == [(truth & found).sum(), (truth | found).sum()]
    expected = np.mean([counts[label, 0] / counts[label, 1] for label in range(4)])  # class 4 has no boundary
    assert boundary_iou(counts) == pytest.approx(100 * expected)
    assert boundary_iou(boundary_counts(target, np.maximum(target, 0), 4)) == 100
    assert boundary_iou(np.zeros((3, 2), int)) == 0


def test_cp_iou_equals_a_plain_loop_over_thresholds_and_classes():
    torch.manual_seed(0)
    scores, target = torch.rand(6, 8, 9), torch.randint(-1, 4, (8, 9))
    scores[2] = 0.05  # in the truth, above no threshold
    scores[5] *= 0.5  # not in the truth
    scores[0, 0, :3] = torch.tensor([0.1, 0.3, 0.9])  # not above their own thresholds
    for threshold, row in zip(THRESHOLDS, cp_iou(scores, target), strict=True):
        found: dict[str, list[float]] = {"iou": [], "extra": [], "missed": []}
        for label in range(6):
            mask, truth = scores[label] > threshold, target == label
            if mask.any() and truth.any():
                found["iou"].append(((mask & truth).sum() / (mask | truth).sum()).item())
            elif mask.any():
                found["extra"].append(mask.float().mean().item())
            elif truth.any():
                found["missed"].append(truth.float().mean().item())
        expected = [np.mean(values) if values else 0.0 for values in found.values()]
        assert row == pytest.approx(expected, abs=1e-6)
    with pytest.raises(InputError, match="resize"):
        cp_iou(scores, target[1:])
