"""Segmentation metrics from whole numbers: fixed label sets (ADE20K protocol) and zero-shot episodes (HSNet protocol).

Shapes: B images, N labels, H x W pixels. Counts stay integers until the last division, so that the result depends
neither on the batch size nor on the number of processes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from lseg_utils.distributed import sum_over_processes
from lseg_utils.errors import InputError

# Keeps 0 / 0 at 0 without moving any other result; the official code divides by it too.
EPSILON = float(np.spacing(1))


class SegmentationMetric:
    """Pixel accuracy and mean IoU of a data set, from one confusion matrix.

    Intersections and unions are summed over all images before they are divided; pixels without a label (negative
    target) count neither in the truth nor in the prediction; the mean goes over all ``num_classes``, where a class
    that never occurs in truth or prediction counts 0 (protocol of ADE20K / PyTorch-Encoding).

    ``confusion`` is an int64 tensor (N, N) on the CPU: pixels by [truth, prediction].
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.reset()

    def reset(self) -> None:
        """Forget every pixel seen."""
        self.confusion = torch.zeros(self.num_classes, self.num_classes, dtype=torch.int64)

    def update(self, target: Tensor, logits_or_labels: Tensor) -> None:
        """Count one batch.

        ``target``: integers (B, H, W) or (H, W); negative = ignored. ``logits_or_labels``: floating-point scores
        (B, N, H, W) (or (N, H, W)), of which the highest wins, or integer labels of the target's shape. Raises
        ``InputError`` for a label outside 0..N-1 and ``ValueError`` for shapes that do not fit.
        """
        labels = logits_or_labels
        if labels.is_floating_point():
            if labels.dim() < 3 or labels.shape[-3] != self.num_classes:
                raise ValueError(
                    f"expected {self.num_classes} label maps, got logits of shape {tuple(labels.shape)}: "
                    "build SegmentationMetric with as many classes as the network has labels"
                )
            labels = labels.argmax(dim=-3)
        if labels.shape != target.shape:
            raise ValueError(
                f"the prediction covers {tuple(labels.shape)}, the target {tuple(target.shape)}: "
                "resize the prediction to the target's size before the update"
            )
        known = target >= 0
        truth, prediction = target[known].long(), labels[known].long()
        for what, found in (("target", truth), ("prediction", prediction)):
            wrong = found[(found < 0) | (found >= self.num_classes)].unique().tolist()
            if wrong:
                raise InputError(
                    f"the {what} contains the label {wrong[0] if len(wrong) == 1 else wrong[:10]}, but there are "
                    f"{self.num_classes} classes (0..{self.num_classes - 1}): check the label list against the masks"
                )
        pairs = torch.bincount(truth * self.num_classes + prediction, minlength=self.num_classes**2)
        self.confusion += pairs.view(self.num_classes, self.num_classes).cpu()

    def get(self) -> tuple[float, float]:
        """(pixel accuracy, mean IoU) of everything counted so far, both 0..1."""
        correct, labelled = self.confusion.trace().item(), self.confusion.sum().item()
        return correct / (labelled + EPSILON), float(self.per_class_iou().mean())

    def per_class_iou(self) -> np.ndarray:
        """The IoU of each class, float64 (N,), 0..1."""
        counts = self.confusion.numpy()
        intersection = counts.diagonal()
        union = counts.sum(axis=0) + counts.sum(axis=1) - intersection
        return intersection / (union + EPSILON)

    def miou_of(self, indices: Sequence[int]) -> float:
        """Mean IoU, 0..1, over some of the classes only; the confusions with all others still count against them."""
        if not len(indices):
            raise ValueError("the mean IoU needs at least one class index")
        return float(self.per_class_iou()[list(indices)].mean())

    def miou_of_present(self) -> float:
        """Mean IoU, 0..1, over the classes that occur in truth or prediction: a fair score of a single image."""
        present = (self.confusion.sum(dim=0) + self.confusion.sum(dim=1)).nonzero().flatten().tolist()
        return self.miou_of(present) if present else 0.0

    def merge(self, other: SegmentationMetric) -> SegmentationMetric:
        """Add the counts of another metric of as many classes; returns self."""
        if other.num_classes != self.num_classes:
            raise ValueError(f"cannot merge counts of {other.num_classes} classes into {self.num_classes}")
        self.confusion += other.confusion
        return self

    def all_reduce(self) -> SegmentationMetric:
        """Replace the counts by their sum over all processes (once, at the end, in every process); returns self."""
        self.confusion = sum_over_processes(self.confusion)
        return self


class EpisodeMetric:
    """mIoU and FB-IoU of zero- or few-shot episodes: one class per image, background 0 and foreground 1.

    Areas are summed per class over the whole run. mIoU is the IoU of the foreground averaged over ``class_ids``, where
    a class without an episode counts 0. FB-IoU is the average of two IoUs: that of all background and that of all
    foreground. An empty union counts as one pixel (HSNet protocol).
    """

    def __init__(self, class_ids: Iterable[int]) -> None:
        self.class_ids = tuple(class_ids)
        self._row = {class_id: row for row, class_id in enumerate(self.class_ids)}
        self.reset()

    def reset(self) -> None:
        """Forget every episode seen."""
        # (class, [intersection, union], [background, foreground]), in pixels
        self._areas = torch.zeros(len(self.class_ids), 2, 2, dtype=torch.int64)

    def update(
        self,
        target: Tensor,
        prediction: Tensor,
        class_id: Tensor,
        ignore: Tensor | None = None,
        weight: Tensor | int = 1,
    ) -> None:
        """Count one batch of episodes.

        ``target``, ``prediction``: (B, H, W), 0 or 1 (any dtype). ``class_id``: (B,), from ``class_ids``.
        ``ignore``: (B, H, W), pixels that are not 0 count neither in truth nor in prediction. ``weight``: how often
        each episode counts, an integer or (B,), for runs that repeat an image. Raises ``InputError`` for a class
        that does not belong to this run and for values other than 0 and 1.
        """
        self.add(episode_areas(target, prediction, ignore), class_id, weight)

    def add(self, areas: Tensor, class_id: Tensor, weight: Tensor | int = 1) -> None:
        """Count episodes whose ``episode_areas`` (B, 2, 2) are already known."""
        wanted = class_id.tolist()
        unknown = sorted(set(wanted) - set(self.class_ids))
        if unknown:
            raise InputError(f"class {unknown} is not among the classes of this run: {list(self.class_ids)}")
        rows = torch.tensor([self._row[value] for value in wanted], dtype=torch.int64)
        weights = torch.as_tensor(weight, dtype=torch.int64, device="cpu").expand(len(rows))
        self._areas.index_add_(0, rows, areas.cpu() * weights[:, None, None])

    def all_reduce(self) -> EpisodeMetric:
        """Replace the areas by their sum over all processes (once, at the end, in every process); returns self."""
        self._areas = sum_over_processes(self._areas)
        return self

    def get(self) -> tuple[float, float]:
        """(mIoU, FB-IoU) of everything counted so far, both 0..1."""
        intersection, union = self._areas.sum(dim=0)
        return float(self.per_class_iou().mean()), float((intersection.double() / union.clamp(min=1)).mean())

    def per_class_iou(self) -> np.ndarray:
        """The foreground IoU of each class, 0..1, in the order of ``class_ids``, float64."""
        intersection, union = self._areas[:, :, 1].unbind(dim=1)
        return (intersection.double() / union.clamp(min=1)).numpy()


def episode_areas(target: Tensor, prediction: Tensor, ignore: Tensor | None = None) -> Tensor:
    """Areas of each episode in pixels: int64 (B, 2, 2) as [intersection, union] by [background, foreground].

    Takes the arguments of :meth:`EpisodeMetric.update`.
    """
    counted = torch.ones_like(target, dtype=torch.bool) if ignore is None else ignore == 0
    for name, mask in (("target", target), ("prediction", prediction)):
        if not ((mask == 0) | (mask == 1))[counted].all():
            raise InputError(f"the {name} of an episode contains values other than 0 and 1: ignore or convert them")
    sides = []
    for side in (0, 1):
        there, found = (target == side) & counted, (prediction == side) & counted
        sides.append(torch.stack([mask.sum(dim=(1, 2)) for mask in (there & found, there | found)], dim=1))
    return torch.stack(sides, dim=2)  # (B, [intersection, union], [background, foreground])


def scores_from_confusion(
    confusion: Tensor | np.ndarray, similarity: Tensor | np.ndarray | None = None
) -> dict[str, float]:
    """The scores that the literature computes from one confusion matrix, in percent.

    They differ in the classes over which the mean IoU goes:

    - ``miou_present``: those with pixels in the truth (detectron2 today);
    - ``miou_present_or_predicted``: those with pixels in the truth or in the prediction (CAT-Seg, older detectron2);
    - ``miou_all``: all N; a class that never occurs counts 0 (official LSeg, PyTorch-Encoding).

    ``fwiou``: IoU weighted by the pixels of the truth. ``macc``: mean share of correct pixels of the classes in the
    truth. ``pacc``: share of correct pixels. With ``similarity``, also Open mIoU (arXiv 2311.03352) as
    ``open_miou_present`` and ``open_miou_present_or_predicted``: a pixel of class t predicted as p counts as S[t, p]
    of a correct pixel of t, and the rest of it as an error. A score without any class to average is 0.

    Args:
        confusion: whole numbers (N, N), pixels by [truth, prediction].
        similarity: (N, N), 0..1, with ones on the diagonal.

    Raises:
        InputError: a matrix that is not square, negative or fractional counts, similarities that do not fit.
    """
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1] or not counts.size:
        raise InputError(f"a confusion matrix is square, [truth, prediction]; this one has the shape {counts.shape}")
    if not np.issubdtype(counts.dtype, np.integer) or counts.min() < 0:
        raise InputError("a confusion matrix contains counts of pixels: whole numbers of at least 0")
    hits, truth, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)
    there, found = truth > 0, (truth + predicted) > 0

    iou = _ratio(hits, truth + predicted - hits)
    pixels = max(int(truth.sum()), 1)
    scores = {
        "miou_present": _mean(iou, there),
        "miou_present_or_predicted": _mean(iou, found),
        "miou_all": 100 * float(iou.mean()),
        "fwiou": 100 * float((iou * truth).sum()) / pixels,
        "macc": _mean(_ratio(hits, truth), there),
        "pacc": 100 * int(hits.sum()) / pixels,
    }
    if similarity is None:
        return scores
    alike = np.asarray(similarity, dtype=np.float64)
    if alike.shape != counts.shape or not ((alike >= 0) & (alike <= 1)).all() or (alike.diagonal() != 1).any():
        raise InputError(
            f"the similarity matrix has the shape {alike.shape} and values {alike.min():.3g}..{alike.max():.3g}; it "
            f"needs the shape {counts.shape}, values in 0..1, and ones on the diagonal"
        )
    errors, soft_hits = counts * (1 - alike), (counts * alike).sum(axis=1)
    open_iou = _ratio(soft_hits, soft_hits + errors.sum(axis=1) + errors.sum(axis=0))
    open_found = (truth + soft_hits + errors.sum(axis=0)) > 0
    return scores | {
        "open_miou_present": _mean(open_iou, there),
        "open_miou_present_or_predicted": _mean(open_iou, open_found),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """The share of each class, 0 where there is nothing to divide by."""
    return np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)


def _mean(values: np.ndarray, over: np.ndarray) -> float:
    """The mean of some classes, in percent; 0 where there are none."""
    return 100 * float(values[over].sum()) / max(int(over.sum()), 1)
