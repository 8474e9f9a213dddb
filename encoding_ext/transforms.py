"""Transforms that treat an image and its mask alike, as the official training and validation of LSeg do.

Images are PIL images of mode RGB; masks are PIL images whose value 0 means unlabelled and v >= 1 means label v - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torchvision import transforms as tv


def _resize_pair(image: Image.Image, mask: Image.Image, size: tuple[int, int]) -> tuple[Image.Image, Image.Image]:
    """Resize both to ``size`` = (width, height): the image smoothly, the mask without inventing labels."""
    return image.resize(size, Image.Resampling.BILINEAR), mask.resize(size, Image.Resampling.NEAREST)


def _crop_pair(
    image: Image.Image, mask: Image.Image, left: int, top: int, size: int
) -> tuple[Image.Image, Image.Image]:
    box = (left, top, left + size, top + size)
    return image.crop(box), mask.crop(box)


@dataclass(frozen=True)
class TrainTransform:
    """Random flip, random scale, random crop (LSeg's training on ADE20K).

    Flipped with probability 0.5; the long side drawn uniformly from the whole numbers of
    ``base_size * scale_range``, both ends included; padded on the right and at the bottom with black (mask:
    unlabelled) up to ``crop_size``; then a random square of ``crop_size`` pixels. Calling it returns the pair
    (image, mask), both ``crop_size`` square. Everything random comes from the generator that is handed in.
    """

    base_size: int
    crop_size: int
    scale_range: tuple[float, float] = (0.5, 2.0)

    def __call__(
        self, image: Image.Image, mask: Image.Image, rng: np.random.Generator
    ) -> tuple[Image.Image, Image.Image]:
        if rng.random() < 0.5:
            image, mask = ImageOps.mirror(image), ImageOps.mirror(mask)
        shortest, longest = (int(self.base_size * factor) for factor in self.scale_range)
        long_side = int(rng.integers(shortest, longest, endpoint=True))
        image, mask = _resize_pair(image, mask, _size_with_long_side(image.size, long_side))
        image, mask = (self._pad(picture) for picture in (image, mask))
        left, top = (int(rng.integers(0, side - self.crop_size, endpoint=True)) for side in image.size)
        return _crop_pair(image, mask, left, top, self.crop_size)

    def _pad(self, picture: Image.Image) -> Image.Image:
        right, bottom = (max(self.crop_size - side, 0) for side in picture.size)
        return ImageOps.expand(picture, border=(0, 0, right, bottom), fill=0)


def _size_with_long_side(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """``size`` (width, height) scaled to the given long side; the other is rounded to nearest, at least 1 pixel."""
    width, height = size
    if height > width:
        return max(int(1.0 * width * long_side / height + 0.5), 1), long_side
    return long_side, max(int(1.0 * height * long_side / width + 0.5), 1)


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
        image, mask = _resize_pair(image, mask, size)
        left, top = (round((side - self.crop_size) / 2) for side in size)
        return _crop_pair(image, mask, left, top, self.crop_size)


def image_to_tensor(mean: Sequence[float], std: Sequence[float]) -> Callable[[Image.Image], Tensor]:
    """A function from an RGB image to a float32 tensor (3, H, W): values / 255, minus ``mean``, by ``std``."""
    return tv.Compose([tv.ToTensor(), tv.Normalize(list(mean), list(std))])


def tensor_to_pixels(mean: Sequence[float], std: Sequence[float]) -> Callable[[Tensor], np.ndarray]:
    """The way back: a function from a normalised image (3, H, W) on the CPU to its pixels, uint8 (H, W, 3)."""
    centre, spread = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))
    return lambda image: ((image * spread + centre) * 255).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()


def mask_to_tensor(mask: Image.Image) -> Tensor:
    """A mask as an int64 tensor (H, W): value v becomes label v - 1, so that unlabelled (0) becomes -1."""
    return torch.from_numpy(np.array(mask, dtype=np.int64)) - 1
