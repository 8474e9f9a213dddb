"""The multi-scale, flipped, sliding-window test protocol of LSeg, over any function that segments square crops.

Legend: N labels; H x W the image; h x w the image at one scale; S the crop size; k the fraction of the scores' size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lseg_utils.errors import InputError
from lseg_utils.memory import advised, free_bytes, is_out_of_memory

TEST_SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
LARGEST_BATCH = {"cpu": 4}  # crops: a few keep all cores busy, more only take memory
LARGEST_BATCH_ELSEWHERE = 32


class MultiScaleEvaluator:
    """Sums the scores of an image over scales, windows and mirror images (the test protocol of the official LSeg code).

    For each scale the image is resized so that its long side is ``ceil(base_size * scale)``; windows of
    ``crop_size``, 2/3 of it apart, are cut from it (what lies beyond the image is black); each is segmented together
    with its mirror image, and the two are added; windows are averaged where they overlap; the result is resized to
    the image and summed over scales. No softmax anywhere: raw logits are summed, as the official code does.

    ``predict``: (B, 3, S, S) normalised images -> (B, N, S, S) scores, any floating dtype. It may stop early and return
    (B, N, S/k, S/k) for a whole k: they are upsampled (bilinear, corners aligned) here, after crop and mirror image
    have been added at the small size. That is the same, since this upsampling is linear and mirrors like the image.

    ``mean`` and ``std`` are those of the normalisation, to know what black is. ``window_batch``: how many crops (a
    mirror image is one more) go through ``predict`` at once: time and memory, not the result. None: as many as the
    free memory lets expect, and half as many whenever that was too many.
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
        window_batch: int | None = None,
    ) -> None:
        self.predict = predict
        self.num_classes = num_classes
        self.base_size = base_size
        self.crop_size = crop_size
        self.scales = tuple(scales)
        self.flip = flip
        self.window_batch = window_batch
        self._largest: int | None = None  # the automatic window_batch, once it is known
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
            if value is not None and value < least
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
        total: Tensor | None = None
        windows = self._windows(image)
        # Batches run on from one scale to the next, so that only the last one may be short.
        while batch := list(islice(windows, self.window_batch or self._fitting_batch(image.device))):
            for window, scores in zip(batch, self._predict([window.pixels() for window in batch])):
                window.canvas.add(window, scores)
                if window.canvas.complete:
                    scale = F.interpolate(
                        window.canvas.mean_scores(), image.shape[-2:], mode="bilinear", align_corners=True
                    )
                    total = scale if total is None else total.add_(scale)
        return total

    def _fitting_batch(self, device: torch.device) -> int:
        """How many crops at once, when nobody has said."""
        if self._largest is None:
            # Scores at half the size, twice, and what a large network holds beside them: 64 features a pixel.
            crop_bytes = 4 * self.crop_size**2 * (self.num_classes / 2 + 64)
            fitting = int(free_bytes(device) / 2 / crop_bytes)
            self._largest = max(1, min(LARGEST_BATCH.get(device.type, LARGEST_BATCH_ELSEWHERE), fitting))
        return self._largest

    def _windows(self, image: Tensor) -> Iterator[_Window]:
        """Every window of every scale, each followed by its mirror image; a scale is prepared when it is reached."""
        for scale in self.scales:
            size = scaled_size(image.shape[-2], image.shape[-1], math.ceil(self.base_size * scale))
            resized = F.interpolate(image.float(), size, mode="bilinear", align_corners=True)
            yield from _Canvas(resized, self.black, self.crop_size, self.num_classes, self.flip).windows()

    def _predict(self, crops: list[Tensor]) -> Iterable[Tensor]:
        """Scores (N, S/k, S/k) of each crop; without a fixed ``window_batch``, fewer at a time if memory runs out."""
        try:
            return self._checked(self.predict(torch.stack(crops)), len(crops))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if self.window_batch or len(crops) == 1:
                raise advised(error, f"give a smaller window_batch than {len(crops)}, or another device") from error
        # Here, where the failed attempt's tensors are gone.
        self._largest = len(crops) // 2
        return self._in_pieces(crops)

    def _in_pieces(self, crops: list[Tensor]) -> Iterator[Tensor]:
        while crops:
            piece, crops = crops[: self._largest], crops[self._largest :]
            yield from self._predict(piece)

    def _checked(self, scores: Tensor, crops: int) -> Tensor:
        size = scores.shape[-1] if scores.dim() else 0
        if tuple(scores.shape) != (crops, self.num_classes, size, size) or not size or self.crop_size % size:
            raise InputError(
                f"predict returned scores of shape {tuple(scores.shape)} for {crops} crops of {self.crop_size} pixels, "
                f"expected {(crops, self.num_classes, self.crop_size, self.crop_size)}: build the evaluator with "
                "num_classes = the number of labels of the network, and let predict return scores at the size of its "
                "input, or at a half, a third ... of it"
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

    def __init__(self, image: Tensor, black: Sequence[float], crop_size: int, num_classes: int, flip: bool) -> None:
        self.crop_size = crop_size
        self.size = image.shape[-2:]
        self.rows, self.columns = (window_starts(side, crop_size) for side in self.size)
        self.orientations = (False, True) if flip else (False,)
        self.waiting = len(self.rows) * len(self.columns) * len(self.orientations)
        # Padding once what the last windows overhang is the same as cutting them at the border and padding each.
        full = (self.rows[-1] + crop_size, self.columns[-1] + crop_size)
        self.image = image.new_tensor(black).view(3, 1, 1).repeat(1, *full)  # (3, h', w')
        self.image[:, : self.size[0], : self.size[1]] = image[0]
        # A pixel's scores side by side: resizing is several times faster so.
        layout = torch.channels_last
        self.scores = torch.empty(1, num_classes, *full, device=image.device, memory_format=layout).zero_()
        self.unmirrored: Tensor | None = None  # scores that wait for those of their mirror image

    def windows(self) -> Iterator[_Window]:
        for top in self.rows:
            for left in self.columns:
                for mirrored in self.orientations:
                    yield _Window(self, top, left, mirrored)

    def add(self, window: _Window, scores: Tensor) -> None:
        """Add the scores (N, S/k, S/k) of a window, in its own orientation; a mirror image comes after its original."""
        self.waiting -= 1
        if window.mirrored:
            scores = self.unmirrored + scores.flip(-1)
        elif len(self.orientations) > 1:
            self.unmirrored = scores
            return
        if scores.shape[-1] != self.crop_size:
            scores = F.interpolate(scores[None], (self.crop_size,) * 2, mode="bilinear", align_corners=True)[0]
        window.place(self.scores[0]).add_(scores)

    @property
    def complete(self) -> bool:
        return self.waiting == 0

    def mean_scores(self) -> Tensor:
        """(1, N, h, w): the sum over windows, divided by the number of windows over each pixel (mirrors are one).

        To be called once: the sum itself is divided.
        """
        height, width = self.size
        counts = self._cover(self.rows, height)[:, None] * self._cover(self.columns, width)[None, :]
        return self.scores[:, :, :height, :width].div_(counts)

    def _cover(self, starts: list[int], length: int) -> Tensor:
        """How many windows lie over each pixel of a side."""
        cover = self.scores.new_zeros(length)
        for start in starts:
            cover[start : start + self.crop_size] += 1
        return cover
