"""Scores that a confusion matrix does not contain: boundary IoU, and CP-IoU of thresholded masks.

Legend: N labels, H x W the image, T thresholds.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import torch
from torch import Tensor

from lseg_utils.errors import InputError

BOUNDARY = 0.02  # of the image's diagonal: how far from a contour a pixel still belongs to it (Boundary IoU's paper)
THRESHOLDS = tuple(0.1 * step for step in range(1, 10))  # of RevisitOVS


def boundary_counts(target: np.ndarray, predicted: np.ndarray, num_classes: int) -> np.ndarray:
    """Intersection and union of each class's boundary regions (arXiv 2103.16562): int64 (N, 2), pixels.

    The boundary region of a class is the part of it within 2 % of the image's diagonal (at least a pixel) of anything
    else, the image's border included. Counts of several images may be added before they are divided.

    Args:
        target: integers (H, W), 0..N-1; negative = unlabelled, which counts in neither map.
        predicted: integers (H, W), 0..N-1.
    """
    reach = max(1, round(BOUNDARY * math.hypot(*target.shape)))
    truth = np.where(target < 0, -1, target).astype(np.int16)
    sides = []
    for labels in (truth, np.where(truth < 0, -1, predicted).astype(np.int16)):
        # A pixel is inside its class if the square around it contains no other label: if minimum and maximum agree.
        padded = cv2.copyMakeBorder(labels, reach, reach, reach, reach, cv2.BORDER_CONSTANT, value=-2)
        square = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
        least, most = cv2.erode(padded, square), cv2.dilate(padded, square)
        at_edge = (least != most)[reach:-reach, reach:-reach]
        sides.append(np.where(at_edge, labels, -1))
    both = np.where(sides[0] == sides[1], sides[0], -1)
    areas = [np.bincount(labels.ravel() + 1, minlength=num_classes + 1)[1:] for labels in (*sides, both)]
    return np.stack([areas[2], areas[0] + areas[1] - areas[2]], axis=1)


def boundary_iou(counts: np.ndarray) -> float:
    """The mean boundary IoU, in percent, of the classes with a boundary in truth or prediction; 0 if there is none.

    counts: sums of :func:`boundary_counts`, (N, 2).
    """
    found = counts[:, 1] > 0
    return 100 * float((counts[found, 0] / counts[found, 1]).mean()) if found.any() else 0.0


def cp_iou(scores: Tensor, target: Tensor, thresholds: tuple[float, ...] = THRESHOLDS) -> np.ndarray:
    """Mask-wise scores of one image at each threshold, as RevisitOVS defines them: float64 (T, 3), 0..1.

    At a threshold, a class's mask are the pixels whose score is above it. The three columns are means over classes:
    of the IoU, over those with pixels in mask and truth; of the mask's share of the image, over those without truth; of
    the truth's share, over those without mask. A mean over no class is 0. Average the rows of several images.

    Every score is looked at once, whatever T is: pixels are counted by the number of thresholds below their score.

    Args:
        scores: (N, H, W), usually probabilities.
        target: integers (H, W), 0..N-1; negative = unlabelled: in no class's truth, but masks may cover it.
        thresholds: increasing.
    """
    if scores.shape[1:] != target.shape:
        raise InputError(f"scores cover {tuple(scores.shape[1:])}, the truth {tuple(target.shape)}; resize the scores")
    classes, bins = len(scores), len(thresholds) + 1
    levels = torch.bucketize(scores, torch.tensor(thresholds, dtype=scores.dtype, device=scores.device))
    own = torch.arange(classes, device=scores.device).view(-1, 1, 1) * bins + levels  # (N, H, W)
    known = target >= 0
    truth = target[known].long()
    hits = own.permute(1, 2, 0)[known].gather(1, truth[:, None]).flatten()  # each labelled pixel, its own class's bin

    def above(bins_of_pixels: Tensor) -> np.ndarray:
        """(N, T): the pixels of each class above each threshold."""
        counts = torch.bincount(bins_of_pixels.flatten(), minlength=classes * bins).view(classes, bins)
        return counts[:, 1:].flip(1).cumsum(1).flip(1).cpu().numpy()

    mask, shared = above(own), above(hits)
    area = torch.bincount(truth, minlength=classes).cpu().numpy()[:, None].repeat(len(thresholds), axis=1)
    pixels = target.numel()

    def mean(values: np.ndarray, over: np.ndarray) -> np.ndarray:
        return np.where(over, values, 0).sum(axis=0) / np.maximum(over.sum(axis=0), 1)

    iou = shared / np.maximum(mask + area - shared, 1)
    both, extra, missed = (mask > 0) & (area > 0), (mask > 0) & (area == 0), (mask == 0) & (area > 0)
    return np.stack([mean(iou, both), mean(mask / pixels, extra), mean(area / pixels, missed)], axis=1)
