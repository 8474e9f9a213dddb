"""The image half of a predictor: images become coarse embeddings, in batches, in the requested precision.

Legend: H x W the image; h x w the size at which the network looks at it; C embedding dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from encoding_ext.views import Canvas, protocol_canvases, scaled_size, whole_canvas, window_canvas
from lseg_utils.errors import InputError
from lseg_utils.image_input import to_pixels

from ..choices import INT8, MODES, PRECISIONS
from ..device import reduced_dtype
from ..models import LSegNet
from ..models.backbones import MULTIPLE

MAX_KEPT = 3e9  # bytes of the coarse embeddings of one image


class Levels(NamedTuple):
    """Four maps each, finest (stride 4) first, float32: (1, channels, h / stride, w / stride)."""

    encoder: list[Tensor]
    decoder: list[Tensor]


@dataclass
class EmbeddedImage:
    """An image that has been through the network: everything needed to compare it with any labels.

    pixels: (H, W, 3) uint8. looks: each canvas with the coarse embeddings (C, h/4, w/4) of its views.
    """

    pixels: np.ndarray
    looks: list[tuple[Canvas, list[Tensor]]]


class ImageTower:
    """A network's image half. ``base_size``: long side at scale 1; ``crop_size``: side of windows."""

    def __init__(self, net: LSegNet, device: torch.device, precision: str, base_size: int, crop_size: int) -> None:
        if precision not in PRECISIONS:
            unknown = f"unknown precision {precision!r}; choose one of {', '.join(PRECISIONS)}"
            raise InputError(INT8 if precision == "int8" else unknown)
        check_positive(base_size=base_size, crop_size=crop_size)
        self.net, self.device = net, device
        self.dtype = reduced_dtype(precision, device)
        self.base_size, self.crop_size = base_size, crop_size
        self.mean, self.std = (torch.tensor(values, device=device).view(3, 1, 1) for values in (net.mean, net.std))

    def normalised(self, rgb: Tensor) -> Tensor:
        """uint8 or 0..1 (3, H, W) -> (x - mean) / std, float32, on the network's device."""
        rgb = rgb.to(self.device)
        return ((rgb if rgb.is_floating_point() else rgb.float() / 255).float() - self.mean) / self.std

    def resized(self, rgb: Tensor, size: tuple[int, int]) -> Tensor:
        """The image at ``size`` (h, w), normalised, (3, h, w); smoothed where it shrinks, as in training."""
        return self.normalised(tv.resize(rgb, list(size), antialias=True))

    def encode(
        self, images: Sequence[Tensor | EmbeddedImage], mode: str, long_side: int | None, batch_size: int
    ) -> list[EmbeddedImage]:
        """Send images (3, H, W) through the network, ``batch_size`` views of equal size together.

        Those that have been through it stay as they are. ``LSegPredictor.segment`` describes mode and long_side.
        """
        new = [image for image in images if isinstance(image, Tensor)]
        looked_at = iter(self.look(new, [self._plan(rgb, mode, long_side) for rgb in new], batch_size))
        return [next(looked_at) if isinstance(image, Tensor) else image for image in images]

    @torch.no_grad()
    def look(self, images: Sequence[Tensor], plans: Sequence[Sequence[Canvas]], batch_size: int) -> list[EmbeddedImage]:
        """``encode`` for given canvases."""
        encoded: list[EmbeddedImage] = []
        waiting: dict[tuple[int, int], list[tuple[Tensor, list[Tensor]]]] = {}  # pixels of a view, place of its result

        def look(group: list[tuple[Tensor, list[Tensor]]]) -> None:
            for coarse, (_, found) in zip(self.coarse(torch.stack([pixels for pixels, _ in group])), group):
                found.append(coarse)
            group.clear()

        for rgb, canvases in zip(images, plans, strict=True):
            image = EmbeddedImage(to_pixels(rgb), [(canvas, []) for canvas in canvases])
            encoded.append(image)
            for canvas, found in image.looks:
                if canvas.protocol:
                    pixels = canvas.protocol_pixels(self.normalised(rgb), -self.mean / self.std)
                else:
                    pixels = self.resized(rgb, (canvas.height, canvas.width))
                for view in canvas.views:
                    group = waiting.setdefault((view.height, view.width), [])
                    group.append((view.orient(view.place(pixels)), found))
                    if len(group) == batch_size:
                        look(group)
        for group in waiting.values():
            if group:
                look(group)
        return encoded

    def _plan(self, rgb: Tensor, mode: str, long_side: int | None) -> list[Canvas]:
        """What the network is going to see of an image (3, H, W)."""
        height, width = rgb.shape[1:]
        side = long_side or self.base_size * (2 if mode == "windows" else 1)
        self.check_kept(math.prod(scaled_size(height, width, side)), side)  # before views are counted out
        if mode == "whole":
            return [whole_canvas(height, width, side, MULTIPLE)]
        if mode == "windows":
            canvases = [window_canvas(height, width, side, self.crop_size, MULTIPLE)]
        elif mode == "multi_scale":
            canvases = protocol_canvases(height, width, side, self.crop_size)
        else:
            raise InputError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
        self.check_kept(sum(view.height * view.width for canvas in canvases for view in canvas.views), side)
        return canvases

    def check_kept(self, seen: int, long_side: int) -> None:
        """``InputError`` if the embeddings of ``seen`` pixels are too large to keep for one image."""
        kept = 4 * self.net.text_encoder.embed_dim * seen / 16
        if kept > MAX_KEPT:
            raise InputError(
                f"long_side {long_side} needs {kept / 1e9:.1f} GB or more for the embeddings of one image; "
                f"{MAX_KEPT / 1e9:.0f} GB is the limit: choose a shorter side, or cut the image into pieces"
            )

    def coarse(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, C, h/4, w/4) float32; ``InputError`` if a number is NaN or infinite."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            coarse = self.net.coarse_embedding(images).float()
        if (~coarse.isfinite()).any():  # every pixel would get the first label
            what = "its weights are broken" if self.dtype is None else "use precision='32' (--precision 32)"
            raise InputError(f"the network's embeddings are NaN or infinite in {self.dtype or torch.float32}: {what}")
        return coarse

    def levels(self, rgb: Tensor, size: tuple[int, int]) -> Levels:
        """The maps inside the network when it looks at an image resized to ``size``."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            encoder = self.net.image_encoder(self.resized(rgb, size)[None])
            decoder = self.net.decoder.paths(encoder)
        return Levels([level.float() for level in encoder], [level.float() for level in decoder])


def check_positive(**values: int | None) -> None:
    """``InputError`` that names a value which is neither None nor a whole number of at least 1."""
    for name, value in values.items():
        if value is not None and (not isinstance(value, int) or value < 1):
            raise InputError(f"{name} must be a whole number of at least 1, got {value!r}")
