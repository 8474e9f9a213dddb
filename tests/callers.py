"""How projects built on LSeg make their pixel embeddings, written anew from descriptions: what ours must equal.

``raw``: normalised images (B, 3, S, S) -> (B, C, S/2, S/2), the head's output. Pictures are uint8 arrays (H, W, 3).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Raw = Callable[[Tensor], Tensor]


def resized(x: Tensor, *size: int) -> Tensor:
    return F.interpolate(x, size, mode="bilinear", align_corners=True)


def twice(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


def normalised(picture: np.ndarray) -> Tensor:
    return torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 127.5 - 1


def black_to(x: Tensor, side: int) -> Tensor:
    return F.pad(x, (0, max(side - x.shape[3], 0), 0, max(side - x.shape[2], 0)), value=-1.0)


def windows(image: Tensor, look: Raw, long_side: int, crop: int) -> Tensor:
    """The image at one size, in windows two thirds of ``crop`` apart, cut at the border, padded, averaged."""
    height, width = image.shape[2:]
    if height > width:
        size = long_side, int(width * long_side / height + 0.5)
    else:
        size = int(height * long_side / width + 0.5), long_side
    image = black_to(resized(image, *size), crop)
    rows, columns = image.shape[2:]
    stride = int(crop * 2 / 3)
    total: Tensor | int = 0
    count = torch.zeros(1, 1, rows, columns)
    for i in range(math.ceil((rows - crop) / stride) + 1):
        for j in range(math.ceil((columns - crop) / stride) + 1):
            here = (..., slice(i * stride, i * stride + crop), slice(j * stride, j * stride + crop))
            piece = image[here]
            found = look(black_to(piece, crop))[..., : piece.shape[2], : piece.shape[3]]
            total = torch.zeros(1, found.shape[1], rows, columns) if isinstance(total, int) else total
            total[here] += found
            count[here] += 1
    return (total / count)[..., : size[0], : size[1]]


def vlmaps(raw: Raw, picture: np.ndarray, base: int = 520, crop: int = 480) -> Tensor:
    return windows(normalised(picture), lambda x: twice(F.normalize(raw(x), dim=1) / 0.07), base, crop)


def over_scales(image: Tensor, look: Raw, base: int, crop: int) -> Tensor:
    def both(x: Tensor) -> Tensor:
        return (look(x) + look(x.flip(3)).flip(3)) / 2

    scales = (0.75, 1.0, 1.25, 1.75)
    sizes = [math.ceil(base * scale) for scale in scales]
    return sum(resized(windows(image, both, size, crop), *image.shape[2:]) for size in sizes)


def not_wider(picture: np.ndarray) -> Tensor:
    image = normalised(picture)
    return resized(image, 360, 480) if image.shape[3] > 480 else image


def dff(raw: Raw, picture: np.ndarray, base: int = 520, crop: int = 480) -> Tensor:
    total = over_scales(not_wider(picture), lambda x: F.normalize(twice(raw(x)), dim=1), base, crop)
    return F.normalize(F.interpolate(total, (360, 480), mode="bilinear", align_corners=False), dim=1)


def feature_3dgs(raw: Raw, picture: np.ndarray, base: int = 520, crop: int = 480) -> Tensor:
    return over_scales(not_wider(picture), lambda x: twice(raw(x)), base, crop)


def openscene(raw: Raw, picture: np.ndarray) -> Tensor:
    height, width = picture.shape[:2]
    side = 2 * max(height, width)
    image = black_to(resized(normalised(picture), 2 * height, 2 * width), side)
    found = F.normalize(raw(image), dim=1) + F.normalize(raw(image.flip(3)), dim=1).flip(3)
    return found[..., :height, :width]


def conceptfusion(raw: Raw, picture: np.ndarray) -> Tensor:
    return raw(torch.from_numpy(cv2.resize(picture, (640, 480))).permute(2, 0, 1)[None].float() / 255)
