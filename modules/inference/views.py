"""Which parts of an image the network looks at, and at which size: the three modes of ``LSegPredictor.segment``.

Legend: H x W the image; h x w a canvas, the image at one size; C embedding dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from encoding_ext.evaluator import TEST_SCALES, scaled_size, window_starts

from ..models.backbones import MULTIPLE


@dataclass
class View:
    """A rectangle of a canvas that goes through the network once, mirrored or not."""

    top: int
    left: int
    height: int
    width: int
    mirrored: bool = False
    coarse: Tensor | None = field(default=None, repr=False)  # (C, height/4, width/4) once it went through

    def place(self, maps: Tensor) -> Tensor:
        """The part of (..., h, w) under this view, not mirrored."""
        return maps[..., self.top : self.top + self.height, self.left : self.left + self.width]

    def orient(self, maps: Tensor) -> Tensor:
        """Mirrored, or back, if this view is."""
        return maps.flip(-1) if self.mirrored else maps


@dataclass
class Canvas:
    """The image at one size, and the views that cover it. Those of the protocol may reach beyond it, onto black."""

    height: int
    width: int
    views: list[View]
    protocol: bool = False  # resized as the published test does it: without smoothing

    @property
    def full_size(self) -> tuple[int, int]:
        """(h, w) of everything that views reach."""
        return max(v.top + v.height for v in self.views), max(v.left + v.width for v in self.views)


@dataclass
class EmbeddedImage:
    """An image that has been through the network: all that is needed to compare it with any labels.

    pixels: (H, W, 3) uint8. canvases: their views hold the coarse embeddings.
    """

    pixels: np.ndarray
    canvases: list[Canvas]

    @property
    def size(self) -> tuple[int, int]:
        """(H, W)"""
        return self.pixels.shape[:2]


def working_size(height: int, width: int, long_side: int) -> tuple[int, int]:
    """``height`` x ``width`` scaled to ``long_side``, then both sides rounded to multiples of 32: nothing is padded.

    Rounding changes a side by at most 16 pixels, but none is shorter than 32.
    """
    return tuple(max(round(side / MULTIPLE), 1) * MULTIPLE for side in scaled_size(height, width, long_side))


def whole_canvas(height: int, width: int, long_side: int) -> Canvas:
    """One view of all."""
    size = working_size(height, width, long_side)
    return Canvas(*size, [View(0, 0, *size)])


def window_canvas(height: int, width: int, long_side: int, crop: int) -> Canvas:
    """Windows of at most ``crop`` x ``crop``, 2/3 of it apart, the last ones flush with the border."""
    size = working_size(height, width, long_side)
    window = tuple(min(side, crop) for side in size)
    rows, columns = (
        [min(start, side - part) for start in window_starts(side, part)] for side, part in zip(size, window)
    )
    return Canvas(*size, [View(top, left, *window) for top in rows for left in columns])


def protocol_canvases(
    height: int, width: int, base_size: int, crop: int, scales: Sequence[float] = TEST_SCALES
) -> list[Canvas]:
    """The published protocol (``encoding_ext.MultiScaleEvaluator``): a canvas a scale, each window mirrored too."""
    canvases = []
    for scale in scales:
        size = scaled_size(height, width, math.ceil(base_size * scale))
        rows, columns = (window_starts(side, crop) for side in size)
        views = [View(y, x, crop, crop, mirrored) for y in rows for x in columns for mirrored in (False, True)]
        canvases.append(Canvas(*size, views, protocol=True))
    return canvases


class Normalise:
    """uint8 or 0..1 (3, H, W) -> float32, minus the network's mean, by its deviation, on its device."""

    def __init__(self, mean: Sequence[float], std: Sequence[float], device: torch.device) -> None:
        self.mean, self.std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (mean, std))
        self.black = -self.mean / self.std

    def __call__(self, rgb: Tensor) -> Tensor:
        rgb = rgb.to(self.mean.device)
        values = rgb.float() if rgb.is_floating_point() else rgb.float() / 255
        return (values - self.mean) / self.std


def resized(rgb: Tensor, size: tuple[int, int], normalise: Normalise) -> Tensor:
    """The image at another size, normalised, (3, h, w); smoothed where it shrinks, as in training."""
    return normalise(tv.resize(rgb, list(size), antialias=True))


def draw(canvas: Canvas, rgb: Tensor, normalise: Normalise) -> Tensor:
    """The canvas's pixels (3, h, w), normalised."""
    size = (canvas.height, canvas.width)
    if not canvas.protocol:
        return resized(rgb, size, normalise)
    image = F.interpolate(normalise(rgb)[None], size, mode="bilinear", align_corners=True)[0]
    pixels = normalise.black.repeat(1, *canvas.full_size)
    pixels[:, : size[0], : size[1]] = image
    return pixels
