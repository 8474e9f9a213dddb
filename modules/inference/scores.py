"""Scores of every pixel for every label, never all at once: streamed over chunks of labels and strips of rows.

Legend: N labels, K of them at a time; H x W the image; h x w a canvas; C embedding dimensions; k the best kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from encoding_ext.views import View

from ..models.head import CorrelationHead, correlate
from ..models.precision import full_precision
from ..models.streaming import strongest
from ..models.upsampling import resized_rows, upsample_x2
from .image_tower import EmbeddedImage

CANVAS_NUMBERS = 2**26  # of a chunk of labels on all canvases: 256 MB
STRIP_NUMBERS = {"cpu": 2**20}  # of a chunk of labels on a strip of the image; on a CPU it should stay in the cache
STRIP_NUMBERS_ELSEWHERE = 2**25


class Ranking(NamedTuple):
    """The best k labels of every pixel.

    indices: (k, H, W) int32, best first. scores: (k, H, W) float32. confidence: (H, W) float32, the best label's
    probability: softmax of the scores over all labels.
    """

    indices: Tensor
    scores: Tensor
    confidence: Tensor


@torch.no_grad()
def rank(image: EmbeddedImage, text: Tensor, head: CorrelationHead, k: int = 1) -> Ranking:
    """The best ``k`` of N labels for every pixel of an image, in memory that does not grow with N times H times W.

    A pixel's scores are what the network gives for each view, averaged where views overlap, resized to the image
    (bilinear, aligned corners) and averaged over canvases.

    Args:
        text: (N, C) unit vectors.
        head: the network's, or another one without weights.
        k: at most N.
    """
    with full_precision(text.device):
        # 1. How many labels and rows at a time.
        height, width = image.pixels.shape[:2]
        numbers = sum(rows * columns for rows, columns in (canvas.full_size for canvas, _ in image.looks))
        chunk = max(min(CANVAS_NUMBERS // numbers, len(text)), 1)
        step = max(STRIP_NUMBERS.get(text.device.type, STRIP_NUMBERS_ELSEWHERE) // (chunk * width), 1)
        chunks = text.split(chunk)
        # 2. What must be known of each view before its logits can be computed for some of the labels.
        canvases = [
            (canvas, canvas.cover(text.device), [_ViewLogits(*pair, chunks, head) for pair in zip(canvas.views, maps)])
            for canvas, maps in image.looks
        ]
        # 3. Each chunk of labels: its mean logits on every canvas, then strip by strip of the image into the ranking.
        best = _Best(k, height, width, text.device)
        for first, vectors in zip(range(0, len(text), chunk), chunks):
            means = []
            for canvas, cover, views in canvases:
                total = vectors.new_zeros(*canvas.full_size, len(vectors))
                for logits in views:
                    full = logits.view.orient(upsample_x2(logits.half(vectors))[0])  # (K, view's height, width)
                    logits.view.place(total.permute(2, 0, 1)).add_(full)
                means.append(total[: canvas.height, : canvas.width].div_(cover[..., None]))  # (h, w, K)
            for top in range(0, height, step):
                rows = slice(top, min(top + step, height))
                scores = reduce(torch.add, (resized_rows(mean, rows, (height, width)) for mean in means)) / len(means)
                best.merge(rows, scores, first)
        return Ranking(best.indices, best.scores, 1 / best.denominator)


class _ViewLogits:
    """The head's logits of one view, for some labels at a time: the same numbers as for all of them at once."""

    def __init__(self, view: View, coarse: Tensor, chunks: Sequence[Tensor], head: CorrelationHead) -> None:
        self.view, self.coarse, self.block = view, coarse[None], head.block
        self.scale = head.scale(self.coarse)
        # What a bottleneck block must know of all labels, (1, 1, height/2, width/2), before each of its applications.
        self.maxima: list[Tensor] = []
        if self.block is not None and self.block.bottleneck:
            for _ in range(self.block.repeats):
                parts = (self.half(vectors).amax(dim=1, keepdim=True) for vectors in chunks)
                self.maxima.append(reduce(torch.maximum, parts))

    def half(self, vectors: Tensor) -> Tensor:
        """Logits of K labels before their last x2, (1, K, height/2, width/2), as far as the maxima are known."""
        logits = correlate(self.coarse, vectors, self.scale)
        return logits if self.block is None else self.block(logits, self.maxima)


class _Best:
    """The best labels so far and the softmax's denominator: the sum of exp(score - best score)."""

    def __init__(self, k: int, height: int, width: int, device: torch.device) -> None:
        self.indices = torch.zeros(k, height, width, dtype=torch.int32, device=device)
        self.scores = torch.full((k, height, width), float("-inf"), device=device)
        self.denominator = torch.zeros(height, width, device=device)

    def merge(self, rows: slice, scores: Tensor, first: int) -> None:
        """Take in the scores (rows, W, K) of labels ``first`` ...; of equal scores the earlier label is the better."""
        before = self.scores[0, rows].clone()
        if len(self.scores) == 1:
            best, label = strongest(scores)
            better = best > before
            self.scores[0, rows] = torch.where(better, best, before)
            self.indices[0, rows] = torch.where(better, (label + first).int(), self.indices[0, rows])
        else:
            values, labels = scores.sort(dim=-1, descending=True, stable=True)
            count = min(len(self.scores), scores.shape[-1])
            values, labels = (part[..., :count].movedim(-1, 0) for part in (values, (labels + first).int()))
            merged, order = torch.cat([self.scores[:, rows], values]).sort(dim=0, descending=True, stable=True)
            labels = torch.cat([self.indices[:, rows], labels]).gather(0, order)
            self.scores[:, rows], self.indices[:, rows] = merged[: len(self.scores)], labels[: len(self.scores)]
        after = self.scores[0, rows]
        fresh = (scores - after[..., None]).exp_().sum(dim=-1)
        self.denominator[rows] = self.denominator[rows] * (before - after).exp() + fresh
