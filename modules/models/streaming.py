"""Loss and strongest label of logits at half size, without ever making them at full size.

150 labels at 480x480 take 138 MB per image in float32, and a plain cross-entropy keeps them three times. Here the last
x2 and what follows are computed strip by strip, each small enough for a processor's cache.

Shapes: B images, N labels, h x w the logits' grid, half the image's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from .precision import full_precision
from .upsampling import source_rows, upsampled_rows

STRIP = {"cpu": 2**20}  # numbers in a strip: 4 MB, of the size of a processor's cache
STRIP_ELSEWHERE = 2**25  # few launches count there, not the cache
GROUP = 32  # neighbouring labels whose maximum is taken at once
MANY = 256  # with at least so many labels that is faster; measured on CPUs


def strips(logits: Tensor) -> Iterator[tuple[int, int]]:
    """(start, stop) of the rows of one image's upsampled (N, 2h, 2w) that are computed together."""
    labels, height, width = logits.shape[1:]
    step = max(STRIP.get(logits.device.type, STRIP_ELSEWHERE) // (labels * 2 * width), 2)
    for start in range(0, 2 * height, step):
        yield start, min(start + step, 2 * height)


class Unions:
    """Labels for which one or several neighbouring texts stand: a label's probability is the sum of its texts'.

    counts: how many texts each of the N labels has; M is their sum.
    """

    def __init__(self, counts: Sequence[int], device: torch.device | str = "cpu") -> None:
        firsts = torch.tensor([0, *accumulate(counts)][:-1], device=device)  # (N,)
        sizes, offsets = torch.tensor(counts, device=device), torch.arange(max(counts), device=device)
        self.label_of = torch.arange(len(counts), device=device).repeat_interleave(sizes)  # (M,)
        self.absent = offsets >= sizes[:, None]  # (N, K): labels have fewer texts than K, the most that any has
        self.texts = (firsts[:, None] + offsets).masked_fill(self.absent, 0)  # (N, K)
        self.united = (sizes > 1).nonzero().flatten()  # (U,)

    def cross_entropy(self, logits: Tensor, target: Tensor, ignore_index: int) -> Tensor:
        """``F.cross_entropy(..., reduction="sum")`` of labels: (pixels, M) logits of texts, (pixels,) target."""
        counted = target != ignore_index
        labels = torch.where(counted, target, 0)
        return _UnionCrossEntropy.apply(logits, self.texts[labels], self.absent[labels], counted)

    def strongest(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """The score and number of the best label: (..., M) logits of texts -> (...)."""
        score, text = strongest(logits)
        # No text has a higher score than its own label, so that texts and united labels may compete with each other.
        members = logits[..., self.texts[self.united].T].masked_fill(self.absent[self.united].T, float("-inf"))
        united, place = members.logsumexp(dim=-2).max(dim=-1)  # (..., K, U) -> (...)
        better = united > score
        return torch.where(better, united, score), torch.where(better, self.united[place], self.label_of[text])


class _UnionCrossEntropy(torch.autograd.Function):
    """One pass over all logits in each direction: the texts of a pixel's own label are looked at by themselves."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, texts: Tensor, absent: Tensor, counted: Tensor) -> Tensor:
        """(pixels, M) logits, (pixels, K) numbers of the texts of each pixel's label -> the sum over all pixels."""
        log_p = logits.log_softmax(dim=-1)
        members = log_p.gather(1, texts).masked_fill(absent, float("-inf"))
        of_label = members.logsumexp(dim=-1, keepdim=True)  # (pixels, 1)
        ctx.save_for_backward(log_p, texts, (members - of_label).exp(), counted)
        return -of_label[counted].sum()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor, None, None, None]:
        """Every text is pushed down by its probability, those of the label up by their shares of the label's."""
        log_p, texts, shares, counted = ctx.saved_tensors
        gradient = log_p.exp().scatter_add_(1, texts, -shares)
        return gradient.mul_((counted * factor)[:, None]), None, None, None


def upsampled_cross_entropy(logits: Tensor, target: Tensor, ignore_index: int, unions: Unions | None = None) -> Tensor:
    """``F.cross_entropy(upsample_x2(logits), target, reduction="sum")``, in float32 under autocast too.

    The gradient is computed strip by strip together with the value, and kept at the size of ``logits`` for the backward
    pass; it cannot be differentiated again.

    Args:
        logits: (B, N, h, w).
        target: (B, 2h, 2w) int64; pixels with ``ignore_index`` do not count.
        unions: what labels the N logits are the texts of; the target's numbers are those of the labels.
    """
    return _UpsampledCrossEntropy.apply(logits, target, ignore_index, unions)


class _UpsampledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, ignore_index: int, unions: Unions | None) -> Tensor:
        """The loss, strip by strip; each strip's gradient is taken at once, so that none is kept for the backward."""
        with full_precision(logits.device):
            maps = logits.float().permute(0, 2, 3, 1)  # (B, h, w, N): a pixel's labels side by side
            height, wanted = maps.shape[1], ctx.needs_input_grad[0]
            gradient = torch.zeros_like(maps, memory_format=torch.contiguous_format) if wanted else maps
            total = maps.new_zeros(())
            for image in range(len(maps)):
                for start, stop in strips(logits):
                    first, end = source_rows(height, start, stop)
                    part = maps[image : image + 1, first:end].detach()
                    with torch.set_grad_enabled(wanted):
                        part.requires_grad_(wanted)
                        rows = upsampled_rows(part, start, stop, height).flatten(0, 2)  # (pixels, N)
                        labels = target[image, start:stop].flatten()
                        if unions is None:
                            loss = F.cross_entropy(rows, labels, ignore_index=ignore_index, reduction="sum")
                        else:
                            loss = unions.cross_entropy(rows, labels, ignore_index)
                    total += loss.detach()
                    if wanted:
                        gradient[image, first:end] += torch.autograd.grad(loss, part)[0][0]
        if wanted:
            ctx.save_for_backward(gradient.permute(0, 3, 1, 2).to(logits.dtype))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * factor, None, None, None


def upsampled_max(logits: Tensor, unions: Unions | None = None) -> tuple[Tensor, Tensor]:
    """``upsample_x2(logits).max(1)``: scores (B, 2h, 2w) float32 and label numbers (B, 2h, 2w) int64.

    ``unions``: the N logits are those of texts, and the numbers those of labels.
    """
    with full_precision(logits.device):
        maps = logits.detach().float().permute(0, 2, 3, 1)
        batch, height, width = maps.shape[:3]
        scores = maps.new_empty(batch, 2 * height, 2 * width)
        labels = torch.empty_like(scores, dtype=torch.int64)
        for image in range(batch):
            for start, stop in strips(logits):
                first, end = source_rows(height, start, stop)
                rows = upsampled_rows(maps[image : image + 1, first:end], start, stop, height)[0]
                here = (slice(image, image + 1), slice(start, stop))
                scores[here], labels[here] = strongest(rows) if unions is None else unions.strongest(rows)
    return scores, labels


def strongest(scores: Tensor) -> tuple[Tensor, Tensor]:
    """``scores.max(dim=-1)`` over (..., N), the first of equal ones; several times faster for many labels on a CPU.

    PyTorch's maximum with an index compares the numbers one by one, the one without an index many at a time. Hence:
    the maxima of groups of neighbours, the first best group, and the index within that group alone.
    """
    count = scores.shape[-1]
    if scores.device.type != "cpu" or count < MANY:
        return scores.max(dim=-1)
    shape, scores = scores.shape[:-1], scores.flatten(0, -2)
    whole = count // GROUP * GROUP
    groups = [scores[:, :whole].unflatten(-1, (-1, GROUP)).amax(dim=-1)]
    if whole < count:
        groups.append(scores[:, whole:].amax(dim=-1, keepdim=True))
    best, group = torch.cat(groups, dim=-1).max(dim=-1)
    start = (group * GROUP).clamp_(max=count - GROUP)  # the last group is completed with its predecessors
    members = scores.unfold(-1, GROUP, 1)[torch.arange(len(scores)), start]  # (pixels, GROUP)
    return best.view(shape), (start + members.argmax(dim=-1)).view(shape)
