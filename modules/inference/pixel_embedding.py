"""One embedding per pixel, in the four forms that projects built on LSeg use.

Legend: H x W the size asked for; h x w the size at which the network looks; C embedding dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from numbers import Real

import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext.evaluator import TEST_SCALES
from lseg_utils.errors import InputError

from ..models.head import LOGIT_SCALE
from ..models.precision import full_precision
from ..models.upsampling import upsample_x2
from .image_tower import ImageTower, check_positive
from .scores import resized_rows
from .views import resized, working_size

LARGEST = 8e9  # bytes of one result: more is a mistake more often than a wish
STRIP_NUMBERS = 2**24


Look = tuple[int, int, bool]  # height, width, mirrored


def looks(
    height: int,
    width: int,
    base_size: int,
    long_side: int | None,
    multi_scale: bool | Sequence[float] = False,
    variant: str = "unit",
) -> list[Look]:
    """Every look that the network takes at an image, see ``LSegPredictor.embed``."""
    if variant == "summed" and multi_scale is False:
        multi_scale = True
    if long_side is not None:
        check_positive(long_side=long_side)
    if multi_scale is False:
        side = long_side or min(max(height, width), 2 * base_size)
        return [(*working_size(height, width, side), False)]
    scales = TEST_SCALES if multi_scale is True else multi_scale
    if not isinstance(scales, Sequence) or not scales or not all(map(_is_scale, scales)):
        raise InputError(f"multi_scale is {multi_scale!r}; give True, False or a list of positive scales")
    sides = [math.ceil((long_side or base_size) * scale) for scale in scales]
    return [(*working_size(height, width, side), mirrored) for side in sides for mirrored in (False, True)]


def _is_scale(scale: object) -> bool:
    return isinstance(scale, Real) and 0 < scale < math.inf


def target_size(size: str | tuple[int, int], height: int, width: int, channels: int) -> tuple[int, int]:
    """The (height, width) of embeddings that ``size`` asks for; ``InputError`` for nonsense and for more than 8 GB."""
    named = {"input": (height, width), "half": (-(-height // 2), -(-width // 2))}
    target = named.get(size, ()) if isinstance(size, str) else tuple(size) if isinstance(size, Sequence) else ()
    if len(target) != 2 or not all(isinstance(side, int) and side > 0 for side in target):
        raise InputError(f'size is {size!r}; give "input", "half" or (height, width)')
    needed = 4 * channels * target[0] * target[1]
    if needed > LARGEST:
        raise InputError(
            f"embeddings of {target[0]} x {target[1]} pixels take {needed / 1e9:.0f} GB, and {LARGEST / 1e9:.0f} are "
            'the limit; ask for size="half" or a smaller (height, width)'
        )
    return target


def pixel_embedding(
    tower: ImageTower, rgb: Tensor, views: Sequence[Look], size: tuple[int, int], variant: str, dtype: torch.dtype
) -> Tensor:
    """(H, W, C): the sum over ``views``, see ``LSegPredictor.embed`` for the variants. Differentiable."""
    total: Tensor | None = None
    for height, width, mirrored in views:
        pixels = resized(rgb, (height, width), tower.normalise)[None]
        coarse = tower.coarse(pixels.flip(-1) if mirrored else pixels)
        with full_precision(coarse.device):
            half = upsample_x2(coarse.contiguous(memory_format=torch.channels_last))
            half = (half.flip(-1) if mirrored else half)[0].permute(1, 2, 0)  # (h/2, w/2, C)
            if total is None:
                total = half.new_zeros(*size, half.shape[2])
            for rows in _strips(total):
                part = resized_rows(half, rows, size)
                total[rows] += part if variant == "raw" else F.normalize(part, dim=-1)
    if variant in ("unit", "scaled"):
        with full_precision(total.device):
            total = _unit(total, LOGIT_SCALE if variant == "scaled" else 1.0)
    return total.to(dtype)


def _unit(vectors: Tensor, length: float) -> Tensor:
    """(H, W, C) -> vectors of the given length; in place where no gradient is wanted, since they are many."""
    if torch.is_grad_enabled():
        return F.normalize(vectors, dim=-1) * length
    for rows in _strips(vectors):
        vectors[rows] = F.normalize(vectors[rows], dim=-1) * length
    return vectors


def _strips(vectors: Tensor) -> Iterator[slice]:
    """Rows of (H, W, C) to work on together: some, or all where autograd would have to remember each strip."""
    height, width, channels = vectors.shape
    step = height if torch.is_grad_enabled() else max(STRIP_NUMBERS // (width * channels), 1)
    for top in range(0, height, step):
        yield slice(top, min(top + step, height))
