"""Transforms that treat an image and its mask alike, as the official training and validation of LSeg do.

Images are PIL images of mode RGB, or arrays of their pixels, uint8 (h, w, 3). Masks are PIL images, or arrays (h, w),
whose value 0 means unlabelled and v >= 1 means label v - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from encoding_ext.views import scaled_size


@dataclass(frozen=True)
class Crop:
    """What was drawn for one picture: mirror it, resize the whole to ``size``, pad, cut a square out.

    ``size`` is (width, height); the square of ``side`` pixels starts at (``left``, ``top``) of the mirrored picture,
    which is padded on the right and at the bottom with 0 where it is smaller than that.
    """

    mirrored: bool
    size: tuple[int, int]
    left: int
    top: int
    side: int

    def of_image(self, pixels: np.ndarray) -> np.ndarray:
        """The square of an image, uint8 (side, side, 3), smoothly resized; ``pixels`` may be reduced already."""
        resized = _resize_smoothly(pixels, self.size)
        width, height = self._kept
        left = self.size[0] - width - self.left if self.mirrored else self.left
        part = resized[self.top : self.top + height, left : left + width]
        return self._padded(cv2.flip(part, 1) if self.mirrored else part)

    def of_mask(self, values: np.ndarray) -> np.ndarray:
        """The square of a mask, (side, side): nearest neighbours, so that no label is invented."""
        width, height = self._kept
        columns = _nearest(values.shape[1], self.size[0])[self.left : self.left + width]
        rows = _nearest(values.shape[0], self.size[1])[self.top : self.top + height]
        if self.mirrored:
            columns = values.shape[1] - 1 - columns
        return self._padded(values.take(rows, axis=0).take(columns, axis=1))

    @property
    def _kept(self) -> tuple[int, int]:
        """Width and height of what the square shows of the picture; the rest is padding."""
        return min(self.size[0], self.side), min(self.size[1], self.side)

    def _padded(self, part: np.ndarray) -> np.ndarray:
        height, width = part.shape[:2]
        if height == width == self.side:
            return part
        square = np.zeros((self.side, self.side, *part.shape[2:]), part.dtype)
        square[:height, :width] = part
        return square


def _resize_smoothly(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """What Pillow's BILINEAR gives, to one grey level; a fraction of its time, as PyTorch's is vectorised.

    For that reason the whole picture is resized: Pillow takes longer for the region that is cropped (its ``box``).
    """
    if pixels.shape[1::-1] == size:
        return pixels
    # (1, 3, H, W), in memory H, W, 3: PyTorch's fast case, recognised by the strides (pixels[None] has others).
    batch = torch.from_numpy(pixels)[None].permute(0, 3, 1, 2)
    resized = F.interpolate(batch, size[::-1], mode="bilinear", antialias=True)
    return resized[0].permute(1, 2, 0).numpy()


def _nearest(old: int, new: int) -> np.ndarray:
    """The places 0..old-1 that Pillow's NEAREST shows when ``old`` pixels become ``new``.

    Steps are added up, not multiplied, because Pillow does: rounding decides where a place falls between two pixels.
    """
    steps = np.full(new, old / new)
    steps[0] /= 2
    return steps.cumsum().astype(np.intp)


@dataclass(frozen=True)
class TrainTransform:
    """Random flip, random scale, random crop (LSeg's training on ADE20K).

    Flipped with probability 0.5; the long side drawn uniformly from the whole numbers of
    ``base_size * scale_range``, both ends included; padded on the right and at the bottom with black (mask:
    unlabelled) up to ``crop_size``; then a random square of ``crop_size`` pixels. Calling it returns the pair
    (image, mask), both ``crop_size`` square. Everything random comes from the generator that is handed in.

    :meth:`draw` does the random part alone: given the size, a reader can then decode no more than is needed.
    """

    base_size: int
    crop_size: int
    scale_range: tuple[float, float] = (0.5, 2.0)

    def __call__(
        self, image: Image.Image, mask: Image.Image, rng: np.random.Generator
    ) -> tuple[Image.Image, Image.Image]:
        crop = self.draw(image.size, rng)
        pixels, values = crop.of_image(np.array(image)), crop.of_mask(np.asarray(mask))
        return Image.fromarray(pixels), Image.fromarray(values)

    def draw(self, size: tuple[int, int], rng: np.random.Generator) -> Crop:
        """Choose flip, scale and crop for a picture of ``size`` (width, height)."""
        mirrored = bool(rng.random() < 0.5)
        shortest, longest = (int(self.base_size * factor) for factor in self.scale_range)
        long_side = int(rng.integers(shortest, longest, endpoint=True))
        height, width = scaled_size(size[1], size[0], long_side)
        left, top = (int(rng.integers(0, max(side - self.crop_size, 0), endpoint=True)) for side in (width, height))
        return Crop(mirrored, (width, height), left, top, self.crop_size)


@dataclass(frozen=True)
class ValTransform:
    """Short side to ``crop_size``, then the centre square: (image, mask) -> (image, mask), no randomness.

    Validation while training only; the test protocol is :class:`encoding_ext.MultiScaleEvaluator`.
    """

    crop_size: int

    def __call__(self, image: Image.Image, mask: Image.Image) -> tuple[Image.Image, Image.Image]:
        width, height = image.size
        short = min(width, height)
        # The long side is rounded down, not to nearest as in training: so did the official code.
        size = (int(1.0 * width * self.crop_size / short), int(1.0 * height * self.crop_size / short))
        left, top = (round((side - self.crop_size) / 2) for side in size)
        box = (left, top, left + self.crop_size, top + self.crop_size)
        image, mask = image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)
        return image.crop(box), mask.crop(box)


class ImageToTensor:
    """Turns an RGB image into a float32 tensor (3, H, W): values / 255, minus ``mean``, by ``std``."""

    def __init__(self, mean: Sequence[float], std: Sequence[float]) -> None:
        self._statistics = list(zip(mean, std, strict=True))

    def __call__(self, image: Image.Image | np.ndarray) -> Tensor:
        pixels = np.asarray(image)
        tensor = torch.empty(3, *pixels.shape[:2])
        # Channel by channel, because one channel fits into the processor's cache.
        for plane, channel, (mean, std) in zip(tensor, cv2.split(pixels), self._statistics, strict=True):
            plane.copy_(torch.from_numpy(channel)).div_(255).sub_(mean).div_(std)
        return tensor


image_to_tensor = ImageToTensor  # reads as a function where it is used


def tensor_to_pixels(mean: Sequence[float], std: Sequence[float]) -> Callable[[Tensor], np.ndarray]:
    """The way back: a function from a normalised image (3, H, W) on the CPU to its pixels, uint8 (H, W, 3)."""
    centre, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return lambda image: ((image * spread + centre) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def mask_to_tensor(mask: Image.Image | np.ndarray) -> Tensor:
    """A mask as an int64 tensor (H, W): value v becomes label v - 1, so that unlabelled (0) becomes -1."""
    return torch.from_numpy(np.array(mask, dtype=np.int32)).sub_(1).long()
