"""The multi-scale test with labels at call time, and the helpers for images that projects import from here.

Legend: N labels, C embedding dimensions; H x W the image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encoding_ext import MultiScaleEvaluator
from encoding_ext.views import TEST_SCALES, scaled_size

UP = {"mode": "bilinear", "align_corners": True}

__all__ = ["LSeg_MultiEvalModule", "crop_image", "flip_image", "pad_image", "resize_image"]


def resize_image(img: Tensor, h: int, w: int, **up_kwargs: Any) -> Tensor:
    """(B, C, H, W) -> (B, C, h, w); ``up_kwargs`` go to ``interpolate``, by default bilinear with aligned corners."""
    return F.interpolate(img, (h, w), **(up_kwargs or UP))


def pad_image(img: Tensor, mean: Sequence[float], std: Sequence[float], crop_size: int) -> Tensor:
    """A normalised image (B, 3, H, W) with black on the right and below, up to ``crop_size`` on each side."""
    height, width = (max(side, crop_size) for side in img.shape[2:])
    black = -img.new_tensor(mean) / img.new_tensor(std)
    padded = black.view(1, 3, 1, 1).repeat(len(img), 1, height, width)
    padded[:, :, : img.shape[2], : img.shape[3]] = img
    return padded


def crop_image(img: Tensor, h0: int, h1: int, w0: int, w1: int) -> Tensor:
    """Rows h0 to h1 and columns w0 to w1; not a copy."""
    return img[:, :, h0:h1, w0:w1]


def flip_image(img: Tensor) -> Tensor:
    """The mirror image."""
    return img.flip(3)


class Evaluator(nn.Module):
    """What both evaluators share.

    Args:
        module: an ``LSegModule`` or the like, with base_size, crop_size, mean, std, and what the evaluator calls. The
            images are moved to its device.
        flip: add the scores of mirror images.
        scales: of the test.
    """

    def __init__(self, module: nn.Module, flip: bool, scales: Sequence[float]) -> None:
        super().__init__()
        self.module: Any = module
        self.base_size, self.crop_size = self.module.base_size, self.module.crop_size
        self.flip, self.scales = flip, scales

    def parallel_forward(self, inputs: Sequence[Tensor] | Tensor, *args: Any, **kwargs: Any) -> list[Tensor]:
        """``forward`` for each image (3, H, W): a list of (1, N, H, W). It works on one device, image by image."""
        return [self(image.unsqueeze(0), *args, **kwargs) for image in inputs]

    def _on_device(self, image: Tensor) -> Tensor:
        return image.to(next(self.module.parameters()).device)

    def _scores(self, image: Tensor, count: int, predict: Callable[[Tensor], Tensor]) -> Tensor:
        evaluate = MultiScaleEvaluator(
            predict,
            count,
            self.base_size,
            self.crop_size,
            self.scales,
            self.flip,
            mean=self.module.mean,
            std=self.module.std,
        )
        return evaluate(self._on_device(image)).clone()  # a usual tensor, not one of inference mode


class LSeg_MultiEvalModule(Evaluator):
    """The published test with the labels of each call; ``device_ids`` are accepted, see ``parallel_forward``."""

    def __init__(
        self,
        module: nn.Module,
        device_ids: Sequence[int] | None = None,
        flip: bool = True,
        scales: Sequence[float] = TEST_SCALES,
    ) -> None:
        super().__init__(module, flip, scales)

    def forward(self, image: Tensor, label_set: Sequence[str] | str = "") -> Tensor:
        """(1, 3, H, W) normalised -> (1, N, H, W), the sum of scores; "" for the module's own labels.

        A module of the flavour "openscene" gives unit embeddings for "": (1, C, H, W), see ``_embeddings``.
        """
        if label_set:
            return self._scores(image, len(label_set), lambda crops: self.module.evaluate_random(crops, label_set))
        if getattr(self.module, "flavour", "") == "openscene":
            return self._embeddings(self._on_device(image))
        return self._scores(image, self.module.num_classes, lambda crops: self.module.evaluate_random(crops, ""))

    @torch.no_grad()
    def _embeddings(self, image: Tensor) -> Tensor:
        """As OpenScene: the image at twice its size in a square, whose embeddings at half the size fit the image."""
        height, width = image.shape[2:]
        long_side = math.ceil(self.base_size * self.scales[0])
        if long_side > self.crop_size or long_side != 2 * max(height, width):
            raise ValueError(
                f"OpenScene's embeddings need base_size and crop_size of twice the image's long side, "
                f"{2 * max(height, width)}, and scales [1]; they are {self.base_size}, {self.crop_size}, {self.scales}"
            )
        square = pad_image(
            resize_image(image, *scaled_size(height, width, long_side)),
            self.module.mean,
            self.module.std,
            self.crop_size,
        )
        found = self.module.evaluate_random(square, "")
        if self.flip:
            found = found + flip_image(self.module.evaluate_random(flip_image(square), ""))
        return crop_image(found, 0, height, 0, width).contiguous()
