"""The image half of a predictor: views of images become coarse embeddings, in batches, in the precision asked for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor

from encoding_ext.evaluator import scaled_size
from lseg_utils.errors import InputError
from lseg_utils.image_input import to_pixels
from lseg_utils.memory import memory_advice

from ..choices import MODES, PRECISIONS
from ..device import reduced_dtype
from ..models import LSegNet
from .views import (
    Canvas,
    EmbeddedImage,
    Normalise,
    View,
    draw,
    protocol_canvases,
    resized,
    whole_canvas,
    window_canvas,
)

LESS_MEMORY = "choose a smaller batch_size (images or windows at a time) or a shorter long_side, or another device"
MOST_KEPT = 3e9  # bytes of the coarse embeddings of one image


class Levels(NamedTuple):
    """Four maps each, finest (stride 4) first, float32: (1, channels, h / stride, w / stride)."""

    encoder: list[Tensor]
    decoder: list[Tensor]


class ImageTower:
    """A network's image half. ``base_size``: long side at scale 1; ``crop_size``: side of windows."""

    def __init__(self, net: LSegNet, device: torch.device, precision: str, base_size: int, crop_size: int) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision {precision!r} is unknown; choose one of {', '.join(PRECISIONS)}")
        check_positive(base_size=base_size, crop_size=crop_size)
        self.net, self.device = net, device
        self.dtype = reduced_dtype(precision, device)
        self.base_size, self.crop_size = base_size, crop_size
        self.normalise = Normalise(net.mean, net.std, device)

    def canvases(self, height: int, width: int, mode: str, long_side: int | None) -> list[Canvas]:
        """What the network is going to see of an image; ``LSegPredictor.segment`` describes the modes."""
        if mode not in MODES:
            raise InputError(f"mode {mode!r} is unknown; choose one of {', '.join(MODES)}")
        if long_side is not None:
            check_positive(long_side=long_side)
        side = long_side or self.base_size * (2 if mode == "windows" else 1)
        self.check_kept(math.prod(scaled_size(height, width, side)), side)  # before views are counted out
        if mode == "multi_scale":
            canvases = protocol_canvases(height, width, side, self.crop_size)
        elif mode == "windows":
            canvases = [window_canvas(height, width, side, self.crop_size)]
        else:
            canvases = [whole_canvas(height, width, side)]
        self.check_kept(sum(view.height * view.width for canvas in canvases for view in canvas.views), side)
        return canvases

    def check_kept(self, seen: int, long_side: int) -> None:
        """``InputError`` if the embeddings of as many pixels are too much to keep for one image."""
        kept = 4 * self.net.text_encoder.embed_dim * seen / 16
        if kept > MOST_KEPT:
            raise InputError(
                f"long_side {long_side} needs {kept / 1e9:.1f} GB or more for the embeddings of one image; "
                f"{MOST_KEPT / 1e9:.0f} GB are the limit: choose a shorter side, or cut the image into pieces"
            )

    @torch.no_grad()
    def encode(self, batch: Sequence[Tensor], mode: str, long_side: int | None, batch_size: int) -> list[EmbeddedImage]:
        """Send every view of every image through the network, ``batch_size`` views of equal size together."""
        check_positive(batch_size=batch_size)
        encoded = [EmbeddedImage(to_pixels(rgb), self.canvases(*rgb.shape[1:], mode, long_side)) for rgb in batch]
        waiting: dict[tuple[int, int], list[tuple[View, Tensor]]] = {}
        for rgb, image in zip(batch, encoded):
            for canvas in image.canvases:
                pixels = draw(canvas, rgb, self.normalise)
                for view in canvas.views:
                    group = waiting.setdefault((view.height, view.width), [])
                    group.append((view, view.orient(view.place(pixels))))
                    if len(group) == batch_size:
                        self._look(group)
        for group in waiting.values():
            self._look(group)
        return encoded

    def _look(self, group: list[tuple[View, Tensor]]) -> None:
        """One forward; the views get their embeddings, and the group is emptied."""
        if group:
            for (view, _), coarse in zip(group, self.coarse(torch.stack([pixels for _, pixels in group]))):
                view.coarse = coarse
            group.clear()

    def coarse(self, images: Tensor) -> Tensor:
        """(B, 3, h, w) normalised -> (B, C, h/4, w/4) float32."""
        with self._forward():
            return self.net.coarse_embedding(images).float()

    def levels(self, rgb: Tensor, size: tuple[int, int]) -> Levels:
        """The maps inside the network when it looks at an image resized to ``size``."""
        pixels = resized(rgb, size, self.normalise)[None]
        with self._forward():
            encoder = self.net.image_encoder(pixels)
            decoder = self.net.decoder.paths(encoder)
        return Levels([level.float() for level in encoder], [level.float() for level in decoder])

    @contextmanager
    def _forward(self) -> Iterator[None]:
        """In the precision asked for; running out of memory becomes an ``InputError``."""
        with memory_advice(LESS_MEMORY), torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not None):
            yield


def check_positive(**values: int) -> None:
    """``InputError`` that names the value which is not a whole number of at least 1."""
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise InputError(f"{name} is {value!r}; give a whole number of at least 1")
