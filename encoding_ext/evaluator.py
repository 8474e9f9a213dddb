"""The multi-scale, flipped, sliding-window test protocol of LSeg, over any function that segments square crops.

Legend: N labels; H x W the image; h x w the image at one scale; S the crop size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext.errors import InputError

TEST_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


class MultiScaleEvaluator:
    """Sums the scores of an image over scales, windows and mirror images (the test protocol of the official LSeg code).

    For each scale the image is resized so that its long side is ``ceil(base_size * scale)``; windows of
    ``crop_size``, 2/3 of it apart, are cut from it (what lies beyond the image is black); each is segmented together
    with its mirror image, and the two are added; windows are averaged where they overlap; the result is resized to
    the image and summed over scales. No softmax anywhere: raw logits are summed, as the official code does.

    ``predict``: (B, 3, S, S) normalised images -> (B, N, S, S) scores, any floating dtype. ``mean`` and ``std`` are
    those of the normalisation, to know what black is. ``window_batch``: how many crops (a mirror image is one more)
    go through ``predict`` at once: time and memory, not the result.
    """

    def __init__(
        self,
        predict: Callable[[Tensor], Tensor],
        num_classes: int,
        base_size: int = 520,
        crop_size: int = 480,
        scales: Sequence[float] = TEST_SCALES,
        flip: bool = True,
        *,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
        std: Sequence[float] = (0.5, 0.5, 0.5),
        window_batch: int = 1,
    ) -> None:
        self.predict = predict
        self.num_classes = num_classes
        self.base_size = base_size
        self.crop_size = crop_size
        self.scales = tuple(scales)
        self.flip = flip
        self.window_batch = window_batch
        self.black = tuple(-m / s for m, s in zip(mean, std, strict=True))
        self._check()

    def _check(self) -> None:
        wrong = [
            f"{name} is {value}, but has to be at least {least}"
            for name, value, least in (
                ("num_classes", self.num_classes, 1),
                ("base_size", self.base_size, 1),
                ("crop_size", self.crop_size, 2),
                ("window_batch", self.window_batch, 1),
            )
            if value < least
        ]
        if not self.scales or any(not scale > 0 or math.isinf(scale) for scale in self.scales):
            wrong.append(f"scales are {self.scales}, but have to be one or more positive numbers")
        if wrong:
            raise InputError("the multi-scale test cannot run: " + "; ".join(wrong))

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) normalised image -> (1, N, H, W) float32 sum of scores, on the image's device."""
        if image.dim() != 4 or image.shape[0] != 1 or image.shape[1] != 3:
            raise InputError(f"the multi-scale test takes one image (1, 3, H, W) at a time, not {tuple(image.shape)}")
        height, width = image.shape[-2:]
        total = torch.zeros(1, self.num_classes, height, width, device=image.device)
        windows = self._windows(image)
        # Batches run on from one scale to the next, so that only the last one may be short.
        while batch := list(islice(windows, self.window_batch)):
            for window, scores in zip(batch, self._predict([window.pixels() for window in batch])):
                window.canvas.add(window, scores)
                if window.canvas.complete:
                    total += F.interpolate(
                        window.canvas.mean_scores(), (height, width), mode="bilinear", align_corners=True
                    )
        return total

    def _windows(self, image: Tensor) -> Iterator[_Window]:
        """Every window of every scale, each followed by its mirror image; a scale is prepared when it is reached."""
        for scale in self.scales:
            size = scaled_size(image.shape[-2], image.shape[-1], math.ceil(self.base_size * scale))
            resized = F.interpolate(image.float(), size, mode="bilinear", align_corners=True)
            yield from _Canvas(resized, self.black, self.crop_size, self.num_classes, self.flip).windows()

    def _predict(self, crops: list[Tensor]) -> Tensor:
        scores = self.predict(torch.stack(crops))
        expected = (len(crops), self.num_classes, self.crop_size, self.crop_size)
        if tuple(scores.shape) != expected:
            raise InputError(
                f"predict returned scores of shape {tuple(scores.shape)} for {len(crops)} crops of {self.crop_size} "
                f"pixels, expected {expected}: build the evaluator with num_classes = the number of labels of the "
                f"network, and let predict return scores at the size of its input"
            )
        return scores.float()


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """(height, width) with the given long side; the other is rounded to nearest, and at least one pixel."""
    if height > width:
        return long_side, max(int(1.0 * width * long_side / height + 0.5), 1)
    return max(int(1.0 * height * long_side / width + 0.5), 1), long_side


def window_starts(length: int, crop_size: int) -> list[int]:
    """Where windows begin along a side: 0, stride, 2 * stride ... until the side is covered; stride = 2/3 crop."""
    stride = crop_size * 2 // 3
    return [i * stride for i in range(math.ceil(max(length - crop_size, 0) / stride) + 1)]


class _Window(NamedTuple):
    """One forward: a square of a canvas, as it is or mirrored."""

    canvas: _Canvas
    top: int
    left: int
    mirrored: bool

    def pixels(self) -> Tensor:
        """(3, S, S)"""
        return self.orient(self.place(self.canvas.image))

    def place(self, maps: Tensor) -> Tensor:
        """The part of (C, h', w') under this window, as a view."""
        size = self.canvas.crop_size
        return maps[:, self.top : self.top + size, self.left : self.left + size]

    def orient(self, maps: Tensor) -> Tensor:
        return maps.flip(-1) if self.mirrored else maps


class _Canvas:
    """The image at one scale, black where windows reach beyond it, and the scores gathered on it so far."""

    def __init__(
        self, image: Tensor, black: Sequence[float], crop_size: int, num_classes: int, flip: bool
    ) -> None:
        self.crop_size = crop_size
        self.size = image.shape[-2:]
        self.rows, self.columns = (window_starts(side, crop_size) for side in self.size)
        self.orientations = (False, True) if flip else (False,)
        self.waiting = len(self.rows) * len(self.columns) * len(self.orientations)
        # Padding once what the last windows overhang is the same as cutting them at the border and padding each.
        full = (self.rows[-1] + crop_size, self.columns[-1] + crop_size)
        self.image = image.new_tensor(black).view(3, 1, 1).repeat(1, *full)  # (3, h', w')
        self.image[:, : self.size[0], : self.size[1]] = image[0]
        self.scores = image.new_zeros(num_classes, *full)  # (N, h', w')

    def windows(self) -> Iterator[_Window]:
        for top in self.rows:
            for left in self.columns:
                for mirrored in self.orientations:
                    yield _Window(self, top, left, mirrored)

    def add(self, window: _Window, scores: Tensor) -> None:
        """Add the scores (N, S, S) of a window, in its own orientation."""
        window.place(self.scores).add_(window.orient(scores))
        self.waiting -= 1

    @property
    def complete(self) -> bool:
        return self.waiting == 0

    def mean_scores(self) -> Tensor:
        """(1, N, h, w): the sum over windows, divided by the number of windows over each pixel (mirrors are one)."""
        height, width = self.size
        counts = self._cover(self.rows, height)[:, None] * self._cover(self.columns, width)[None, :]
        return (self.scores[:, :height, :width] / counts)[None]

    def _cover(self, starts: list[int], length: int) -> Tensor:
        """How many windows lie over each pixel of a side."""
        cover = self.scores.new_zeros(length)
        for start in starts:
            cover[start : start + self.crop_size] += 1
        return cover
