"""Scores of every pixel for every label, never all at once: streamed over chunks of labels and strips of rows.

Legend: N labels, K of them at a time; H x W the image; h x w a canvas; C embedding dimensions; k the best kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.head import RegularisationBlock, correlate, scale_of
from ..models.precision import full_precision
from ..models.streaming import strongest
from ..models.upsampling import upsample_x2
from .views import Canvas, EmbeddedImage, View

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
def rank(image: EmbeddedImage, text: Tensor, block: RegularisationBlock | None, k: int = 1) -> Ranking:
    """The best ``k`` of N labels for every pixel of an image, in memory that does not grow with N times H times W.

    A pixel's scores are what the network gives for each view, averaged where views overlap, resized to the image
    (bilinear, corners aligned) and averaged over canvases.

    Args:
        text: (N, C) unit vectors.
        block: the head's.
        k: at most N.
    """
    with full_precision(text.device):
        (height, width), canvases = image.size, image.canvases
        numbers = sum(h * w for h, w in (canvas.full_size for canvas in canvases))
        chunk = max(min(CANVAS_NUMBERS // numbers, len(text)), 1)
        step = max(STRIP_NUMBERS.get(text.device.type, STRIP_NUMBERS_ELSEWHERE) // (chunk * width), 1)
        chunks = text.split(chunk)
        sources = [[_ViewLogits(view, chunks, block) for view in canvas.views] for canvas in canvases]
        best = _Best(k, height, width, text.device)
        for number, vectors in enumerate(chunks):
            maps = [_canvas_scores(canvas, vectors, views) for canvas, views in zip(canvases, sources)]
            for top in range(0, height, step):
                rows = slice(top, min(top + step, height))
                scores = reduce(torch.add, (resized_rows(one, rows, (height, width)) for one in maps)) / len(maps)
                best.merge(rows, scores, number * chunk)
        return Ranking(best.indices, best.scores, 1 / best.denominator)


def _canvas_scores(canvas: Canvas, vectors: Tensor, views: Sequence[_ViewLogits]) -> Tensor:
    """Mean logits of K labels on a canvas, (h, w, K)."""
    totals = vectors.new_zeros(*canvas.full_size, len(vectors))
    counts = vectors.new_zeros(canvas.full_size)
    for source in views:
        logits = upsample_x2(source.half(vectors))[0]
        source.view.place(totals.permute(2, 0, 1)).add_(source.view.orient(logits))
        source.view.place(counts).add_(1)
    return totals.div_(counts[..., None])[: canvas.height, : canvas.width]


class _ViewLogits:
    """The head's logits of one view, for some labels at a time: the same numbers as for all of them at once."""

    def __init__(self, view: View, chunks: Sequence[Tensor], block: RegularisationBlock | None) -> None:
        self.view, self.block = view, block
        self.scale = scale_of(view.coarse[None])
        # What a bottleneck block has to know of all labels, (1, 1, height/2, width/2), before each of its applications.
        self.maxima: list[Tensor] = []
        if block is not None and block.bottleneck:
            for _ in range(block.repeats):
                parts = (self.half(vectors).amax(dim=1, keepdim=True) for vectors in chunks)
                self.maxima.append(reduce(torch.maximum, parts))

    def half(self, vectors: Tensor) -> Tensor:
        """Logits of K labels before their last x2, (1, K, height/2, width/2), as far as the maxima are known."""
        logits = correlate(self.view.coarse[None], vectors, self.scale)
        return logits if self.block is None else self.block(logits, self.maxima)


def resized_rows(maps: Tensor, rows: slice, size: tuple[int, int]) -> Tensor:
    """Some rows of maps (h, w, K) resized to ``size`` (H, W), bilinear with aligned corners: (rows, W, K)."""
    source, (height, width) = len(maps), size
    step = (source - 1) / (height - 1) if height > 1 else 0.0
    position = torch.arange(rows.start, rows.stop, device=maps.device, dtype=torch.float32) * step
    low = position.floor().clamp(max=source - 1).long()
    high = (low + 1).clamp(max=source - 1)
    mixed = torch.lerp(maps[low], maps[high], (position - low)[:, None, None])
    if maps.shape[1] == width:
        return mixed
    wide = F.interpolate(mixed.permute(2, 0, 1)[None], (len(low), width), mode="bilinear", align_corners=True)
    return wide[0].permute(1, 2, 0)


class _Best:
    """The best labels so far and, beside them, the softmax's denominator: the sum of exp(score - best score)."""

    def __init__(self, k: int, height: int, width: int, device: torch.device) -> None:
        self.indices = torch.zeros(k, height, width, dtype=torch.int32, device=device)
        self.scores = torch.full((k, height, width), float("-inf"), device=device)
        self.denominator = torch.zeros(height, width, device=device)

    def merge(self, rows: slice, scores: Tensor, first: int) -> None:
        """Take in the scores (rows, W, K) of labels ``first`` ...; of equal labels the earlier counts as better."""
        before = self.scores[0, rows].clone()
        if len(self.scores) == 1:
            best, label = strongest(scores)
            better = best > before
            self.scores[0, rows] = torch.where(better, best, before)
            self.indices[0, rows] = torch.where(better, (label + first).int(), self.indices[0, rows])
        else:
            self._merge_several(rows, scores, first)
        after = self.scores[0, rows]
        fresh = (scores - after[..., None]).exp_().sum(dim=-1)
        self.denominator[rows] = self.denominator[rows] * (before - after).exp() + fresh

    def _merge_several(self, rows: slice, scores: Tensor, first: int) -> None:
        values, labels = scores.sort(dim=-1, descending=True, stable=True)
        count = min(len(self.scores), scores.shape[-1])
        values, labels = (part[..., :count].movedim(-1, 0) for part in (values, (labels + first).int()))
        merged, order = torch.cat([self.scores[:, rows], values]).sort(dim=0, descending=True, stable=True)
        labels = torch.cat([self.indices[:, rows], labels]).gather(0, order)
        self.scores[:, rows], self.indices[:, rows] = merged[: len(self.scores)], labels[: len(self.scores)]
