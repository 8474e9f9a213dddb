"""Scores of every pixel for every label, never all at once: streamed over chunks of labels and strips of rows.

Legend: N labels, K of them at a time; H x W the image; h x w a canvas; C embedding dimensions; k the best kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.models.decoder import upsample_x2
from modules.models.head import LOGIT_SCALE, TINY_NORM_SQ, CorrelationHead, RegularisationBlock, upsampled_norm_sq
from modules.views import Canvas, View

CANVAS_FLOATS = 32_000_000  # of a chunk of labels on all canvases
STRIP_FLOATS = 8_000_000  # of a chunk of labels on a strip of the image


class Ranking(NamedTuple):
    """The best k labels of every pixel.

    indices: (k, H, W) int32, best first. scores: (k, H, W) float32, mean logits. log_sum: (H, W) float32, the logarithm
    of the sum over all labels of exp(score): ``exp(scores - log_sum)`` are probabilities.
    """

    indices: Tensor
    scores: Tensor
    log_sum: Tensor


@torch.no_grad()
def rank(canvases: list[Canvas], size: tuple[int, int], text: Tensor, head: CorrelationHead, k: int = 1) -> Ranking:
    """The best ``k`` of N labels for every pixel of an image of ``size`` (H, W), in memory that does not grow with N.

    Scores are what the network gives for each view, averaged where views overlap, resized to the image (bilinear,
    corners aligned) and averaged over canvases.

    Args:
        canvases: with the coarse embeddings of their views.
        text: (N, C) unit vectors.
        k: at most N.
    """
    height, width = size
    sources = [_CanvasScores(canvas, text, head) for canvas in canvases]
    chunk = max(min(CANVAS_FLOATS // sum(source.floats for source in sources), len(text)), 1)
    rows = max(STRIP_FLOATS // (chunk * width), 1)
    device = text.device
    indices = torch.zeros(k, height, width, dtype=torch.int32, device=device)
    scores = torch.full((k, height, width), float("-inf"), device=device)
    log_sum = torch.full((height, width), float("-inf"), device=device)
    for first in range(0, len(text), chunk):
        maps = [source.chunk(first, first + chunk) for source in sources]
        for top in range(0, height, rows):
            strip = slice(top, min(top + rows, height))
            here = sum(resized_rows(one, strip, size) for one in maps) / len(maps)  # (K, rows, W)
            log_sum[strip] = torch.logaddexp(log_sum[strip], here.logsumexp(dim=0))
            _keep_best(indices[:, strip], scores[:, strip], here, first)
    return Ranking(indices, scores, log_sum)


def _keep_best(indices: Tensor, scores: Tensor, here: Tensor, first: int) -> None:
    """Merge the scores (K, rows, W) of labels ``first`` ... into the best so far, in place; the earlier of equals wins."""
    k = len(scores)
    if k == 1:
        best, label = here.max(dim=0)
        better = best > scores[0]
        scores[0] = torch.where(better, best, scores[0])
        indices[0] = torch.where(better, (label + first).int(), indices[0])
        return
    best, label = here.topk(min(k, len(here)), dim=0)
    merged, order = torch.cat([scores, best]).sort(dim=0, descending=True, stable=True)
    scores.copy_(merged[:k])
    indices.copy_(torch.cat([indices, (label + first).int()]).gather(0, order[:k]))


def resized_rows(maps: Tensor, rows: slice, size: tuple[int, int]) -> Tensor:
    """Some rows of (K, h, w) resized to ``size`` (H, W), bilinear with aligned corners: (K, rows, W)."""
    source, (height, width) = maps.shape[1], size
    step = (source - 1) / (height - 1) if height > 1 else 0.0
    position = torch.arange(rows.start, rows.stop, device=maps.device, dtype=torch.float32) * step
    low = position.floor().clamp(max=max(source - 1, 0)).long()
    high = (low + 1).clamp(max=source - 1)
    mixed = torch.lerp(maps[:, low], maps[:, high], (position - low)[:, None])
    if maps.shape[2] == width:
        return mixed
    return F.interpolate(mixed[None], (len(position), width), mode="bilinear", align_corners=True)[0]


class _CanvasScores:
    """Mean scores on one canvas, for any chunk of the labels."""

    def __init__(self, canvas: Canvas, text: Tensor, head: CorrelationHead) -> None:
        self.canvas = canvas
        self.views = [_ViewScores(view, text, head) for view in canvas.views]
        height, width = canvas.full_size
        self.floats = height * width
        self.counts = torch.zeros(height, width, device=text.device)
        for view in canvas.views:
            view.place(self.counts).add_(1)

    def chunk(self, first: int, last: int) -> Tensor:
        """(K, h, w)"""
        if len(self.views) == 1:
            return self.views[0].logits(first, last)
        total: Tensor | None = None
        for scores in self.views:
            logits = scores.logits(first, last)
            if total is None:
                total = logits.new_zeros(len(logits), *self.counts.shape)
            scores.view.place(total).add_(scores.view.orient(logits))
        return (total / self.counts)[:, : self.canvas.height, : self.canvas.width]


class _ViewScores:
    """The head's logits of one view for any chunk of the labels: the same as for all of them at once."""

    def __init__(self, view: View, text: Tensor, head: CorrelationHead) -> None:
        self.view, self.text, self.block = view, text, head.block
        self.coarse = view.coarse
        norm_sq = upsampled_norm_sq(self.coarse[None])[0].clamp_min(TINY_NORM_SQ)
        self.scale = LOGIT_SCALE * norm_sq.rsqrt()  # (2h, 2w)
        self.strongest: list[Tensor] = []
        if self.block is not None and self.block.bottleneck:
            for _ in range(self.block.repeats):
                self.strongest.append(self._strongest())

    def logits(self, first: int, last: int) -> Tensor:
        """(K, 4h, 4w)"""
        half = self._correlation(first, last)
        if self.block is not None:
            half = regularise(self.block, half, self.strongest, self.block.repeats)
        return upsample_x2(half[None])[0]

    def _correlation(self, first: int, last: int) -> Tensor:
        products = (self.text[first:last] @ self.coarse.flatten(1)).unflatten(1, self.coarse.shape[1:])
        return upsample_x2(products[None])[0] * self.scale

    def _strongest(self) -> Tensor:
        """The maximum over all labels after as many applications as maxima are known: what the next one adds."""
        chunk = max(CANVAS_FLOATS // self.scale.numel(), 1)
        done = len(self.strongest)
        return torch.stack(
            [
                regularise(self.block, self._correlation(start, start + chunk), self.strongest, done).amax(dim=0)
                for start in range(0, len(self.text), chunk)
            ]
        ).amax(dim=0)


def regularise(block: RegularisationBlock, logits: Tensor, strongest: list[Tensor], repeats: int) -> Tensor:
    """The first ``repeats`` applications of the block to some labels' maps (K, h, w), their maxima being known."""
    for repeat in range(repeats):
        logits = block.conv(logits[:, None])[:, 0] + (strongest[repeat] if block.bottleneck else 0)
        if repeat < block.repeats - 1:
            logits = block.activation(logits)
    return logits
