"""Plans sizes and windows: which parts of an image a network sees, and how large the image is there.

The multi-scale test and ``LSegPredictor`` both use it. Legend: H x W the image; h x w a canvas, the image at one size;
h' x w' the area that the canvas's views cover.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor

TEST_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of the published test


@dataclass(frozen=True)
class View:
    """A rectangle of a canvas that goes through the network once, mirrored or not."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False

    def place(self, maps: Tensor) -> Tensor:
        """The part of (..., h', w') under this view, not mirrored; not a copy."""
        return maps[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def orient(self, maps: Tensor) -> Tensor:
        """Mirror (..., height, width), or mirror it back, if this view is mirrored."""
        return maps.flip(-1) if self.mirrored else maps


@dataclass(frozen=True)
class Canvas:
    """The image at one size, and the views, all of equal size, that cover it.

    Views of the published protocol may reach beyond the image: the network sees black there.
    """

    height: int
    width: int
    views: Sequence[View]
    protocol: bool = False

    @cached_property
    def full_size(self) -> tuple[int, int]:
        """(h', w')"""
        return max(v.top + v.height for v in self.views), max(v.left + v.width for v in self.views)

    def cover(self, device: torch.device) -> Tensor:
        """(h, w) float32: how many views lie over each pixel of the image."""
        counts = torch.zeros(self.full_size, device=device)
        for view in self.views:
            view.place(counts).add_(1)
        return counts[: self.height, : self.width]

    def protocol_pixels(self, image: Tensor, black: Tensor) -> Tensor:
        """A normalised image (3, H, W) as the published test sees it, (3, h', w').

        The image is resized without smoothing; ``black`` (3, 1, 1), a normalised pixel of zeros, surrounds it.
        """
        size = (self.height, self.width)
        pixels = black.repeat(1, *self.full_size)
        # Padding once what the last windows overhang is the same as cutting them at the border and padding each.
        pixels[:, : size[0], : size[1]] = F.interpolate(image[None], size, mode="bilinear", align_corners=True)[0]
        return pixels


def scaled_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """(height, width) with the given long side; the other is rounded to the nearest number, and at least one pixel."""
    if height > width:
        return long_side, max(int(1.0 * width * long_side / height + 0.5), 1)
    return max(int(1.0 * height * long_side / width + 0.5), 1), long_side


def working_size(height: int, width: int, long_side: int, multiple: int) -> tuple[int, int]:
    """``scaled_size`` with both sides rounded to the nearest multiple of ``multiple``, so that nothing is padded.

    Rounding changes a side by at most half of ``multiple``, but no side is shorter than ``multiple``.
    """
    rows, columns = scaled_size(height, width, long_side)
    return max(round(rows / multiple), 1) * multiple, max(round(columns / multiple), 1) * multiple


def window_starts(length: int, crop_size: int) -> list[int]:
    """Where windows begin along a side: 0, stride, 2 * stride ... until the side is covered; stride = 2/3 crop."""
    stride = crop_size * 2 // 3
    return [i * stride for i in range(math.ceil(max(length - crop_size, 0) / stride) + 1)]


def whole_canvas(height: int, width: int, long_side: int, multiple: int) -> Canvas:
    """The whole image in one view."""
    rows, columns = working_size(height, width, long_side, multiple)
    return Canvas(rows, columns, [View(0, 0, rows, columns)])


def window_canvas(height: int, width: int, long_side: int, crop_size: int, multiple: int) -> Canvas:
    """Windows of at most ``crop_size`` squared, 2/3 of it apart; the last ones end at the border."""
    rows, columns = working_size(height, width, long_side, multiple)
    high, wide = min(rows, crop_size), min(columns, crop_size)
    tops = [min(start, rows - high) for start in window_starts(rows, high)]
    lefts = [min(start, columns - wide) for start in window_starts(columns, wide)]
    return Canvas(rows, columns, [View(top, left, high, wide) for top in tops for left in lefts])


def protocol_canvases(
    height: int, width: int, base_size: int, crop_size: int, scales: Sequence[float] = TEST_SCALES, flip: bool = True
) -> list[Canvas]:
    """The published test: one canvas per scale, square windows that may overhang, each followed by its mirror image."""
    canvases = []
    for scale in scales:
        rows, columns = scaled_size(height, width, math.ceil(base_size * scale))
        views = [
            View(top, left, crop_size, crop_size, mirrored)
            for top in window_starts(rows, crop_size)
            for left in window_starts(columns, crop_size)
            for mirrored in ((False, True) if flip else (False,))
        ]
        canvases.append(Canvas(rows, columns, views, protocol=True))
    return canvases
