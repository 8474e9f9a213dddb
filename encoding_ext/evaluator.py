"""The multi-scale, flipped, sliding-window test protocol of LSeg, over any function that segments square crops.

Legend: N labels; H x W the image; h x w the image at one scale; S the crop size; scores come at 1/k of the crop's size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext.views import TEST_SCALES, Canvas, View, protocol_canvases
from lseg_utils.errors import InputError
from lseg_utils.memory import advised, free_bytes, is_out_of_memory

MAX_BATCH = {"cpu": 4}  # crops: a few keep all cores busy, more only take memory
MAX_BATCH_ELSEWHERE = 32


class MultiScaleEvaluator:
    """Sums the scores of an image over scales, windows and mirror images (the test protocol of the official LSeg code).

    For each scale the image is resized so that its long side is ``ceil(base_size * scale)``; windows of
    ``crop_size``, 2/3 of it apart, are cut from it (what lies beyond the image is black); each is segmented together
    with its mirror image, and the two are added; windows are averaged where they overlap; the result is resized to
    the image and summed over scales. There is no softmax: raw logits are summed, as in the official code.

    Args:
        predict: (B, 3, S, S) normalised images -> (B, N, S, S) scores, any floating dtype. It may stop early and
            return (B, N, S/k, S/k) for a whole number k. These scores are upsampled here (bilinear, aligned corners)
            after those of crop and mirror image have been added, which gives the same result: this upsampling is
            linear and commutes with mirroring.
        num_classes: N.
        base_size: long side in pixels at scale 1.
        crop_size: S.
        scales: positive numbers.
        flip: whether to add the scores of mirror images.
        mean, std: of the normalisation; they define what black is.
        window_batch: how many crops (a mirror image is one more) go through ``predict`` at once. This changes time and
            memory, not the result. None: as many as should fit into the free memory, and half as many whenever that
            was too many.

    Raises:
        InputError: an argument out of range, or ``predict`` returned scores of another shape.
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
        wrong = [
            f"{name} is {value}, but must be at least {least}"
            for name, value, least in (
                ("num_classes", self.num_classes, 1),
                ("base_size", self.base_size, 1),
                ("crop_size", self.crop_size, 2),
                ("window_batch", self.window_batch, 1),
            )
            if value is not None and value < least
        ]
        if not self.scales or any(not scale > 0 or math.isinf(scale) for scale in self.scales):
            wrong.append(f"scales are {self.scales}, but must be one or more positive numbers")
        if wrong:
            raise InputError("the multi-scale test cannot run: " + "; ".join(wrong))

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> Tensor:
        """(1, 3, H, W) normalised image -> (1, N, H, W) float32 sum of scores, on the image's device.

        ``InputError`` for any other shape.
        """
        if image.dim() != 4 or image.shape[0] != 1 or image.shape[1] != 3:
            raise InputError(f"the multi-scale test takes one image (1, 3, H, W) at a time, not {tuple(image.shape)}")
        height, width = image.shape[-2:]
        total: Tensor | None = None
        windows = self._windows(image)
        if not self.window_batch and self._largest is None:
            # Scores at half the size, twice, and what a large network keeps besides: 64 features per pixel.
            crop_bytes = 4 * self.crop_size**2 * (self.num_classes / 2 + 64)
            fitting = int(free_bytes(image.device) / 2 / crop_bytes)
            self._largest = max(1, min(MAX_BATCH.get(image.device.type, MAX_BATCH_ELSEWHERE), fitting))
        # Batches continue from one scale to the next, so that only the last one may be short.
        while batch := list(islice(windows, self.window_batch or self._largest)):
            for (gathered, view, _), scores in zip(batch, self._predict([crop for _, _, crop in batch])):
                gathered.add(view, scores, self.flip)
                if not gathered.waiting:
                    mean = gathered.mean(self.flip)
                    scale = F.interpolate(mean, (height, width), mode="bilinear", align_corners=True)
                    total = scale if total is None else total.add_(scale)
        assert total is not None  # there is at least one scale
        return total

    def _windows(self, image: Tensor) -> Iterator[tuple[_ScoreSum, View, Tensor]]:
        """Every window of every scale with its pixels (3, S, S); a scale is prepared when it is reached."""
        black = image.new_tensor(self.black, dtype=torch.float32).view(3, 1, 1)
        height, width = image.shape[-2:]
        for canvas in protocol_canvases(height, width, self.base_size, self.crop_size, self.scales, self.flip):
            gathered = _ScoreSum(canvas, self.num_classes, image.device)
            pixels = canvas.protocol_pixels(image[0].float(), black)
            for view in canvas.views:
                yield gathered, view, view.orient(view.place(pixels))

    def _predict(self, crops: list[Tensor]) -> Iterator[Tensor]:
        """Scores (N, S/k, S/k) of each crop; without a fixed ``window_batch``, fewer at a time if memory runs out."""
        scores: Tensor | None = None
        try:
            scores = self.predict(torch.stack(crops))
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if self.window_batch or len(crops) == 1:
                raise advised(error, f"give a smaller window_batch than {len(crops)}, or another device") from error
        if scores is None:  # here, where the failed attempt's tensors are gone
            self._largest = len(crops) // 2
            while crops:
                piece, crops = crops[: self._largest], crops[self._largest :]
                yield from self._predict(piece)
            return
        size = scores.shape[-1] if scores.dim() else 0
        if tuple(scores.shape) != (len(crops), self.num_classes, size, size) or not size or self.crop_size % size:
            raise InputError(
                f"predict returned scores of shape {tuple(scores.shape)} for {len(crops)} crops of {self.crop_size} "
                f"pixels, expected {(len(crops), self.num_classes, self.crop_size, self.crop_size)}: build the "
                "evaluator with num_classes = the number of labels of the network, and let predict return scores at "
                "the size of its input, or at a half, a third ... of it"
            )
        yield from scores.float()


class _ScoreSum:
    """The scores gathered on a canvas so far."""

    def __init__(self, canvas: Canvas, num_classes: int, device: torch.device) -> None:
        self.canvas, self.waiting = canvas, len(canvas.views)
        size = (1, num_classes, *canvas.full_size)
        # Channels last: resizing is several times faster with a pixel's scores next to each other.
        self.scores = torch.empty(size, device=device, memory_format=torch.channels_last).zero_()
        self.unmirrored: Tensor | None = None  # scores that wait for those of their mirror image

    def add(self, view: View, scores: Tensor, flip: bool) -> None:
        """Add a view's scores (N, S/k, S/k), in its own orientation; with ``flip``, its mirror image comes next."""
        self.waiting -= 1
        if view.mirrored:
            assert self.unmirrored is not None
            scores = self.unmirrored + scores.flip(-1)
        elif flip:
            self.unmirrored = scores
            return
        if scores.shape[-1] != view.width:
            scores = F.interpolate(scores[None], (view.height, view.width), mode="bilinear", align_corners=True)[0]
        view.place(self.scores[0]).add_(scores)

    def mean(self, flip: bool) -> Tensor:
        """(1, N, h, w): the sum over windows divided by the number of windows over each pixel.

        A window and its mirror image, if there is one, count as one. To be called once: the sum itself is divided.
        """
        windows = self.canvas.cover(self.scores.device) / (2 if flip else 1)
        return self.scores[..., : self.canvas.height, : self.canvas.width].div_(windows)
