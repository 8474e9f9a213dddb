"""One embedding per pixel, in the four forms that projects built on LSeg use.

Legend: H x W the size asked for; h x w the size at which the network looks; C embedding dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from numbers import Real
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from encoding_ext.views import TEST_SCALES, working_size
from lseg_utils.errors import InputError

from ..models.backbones import MULTIPLE
from ..models.head import LOGIT_SCALE
from ..models.precision import full_precision
from ..models.upsampling import resized_rows, upsample_x2
from .image_tower import ImageTower, check_positive

MAX_BYTES = 8e9  # of one result: more is more often a mistake than a wish
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
    """Every look that the network takes at an image of this size, see ``LSegPredictor.embed``."""
    check_positive(long_side=long_side)
    mirrors, scales = [False, True], multi_scale
    if multi_scale is False and variant != "summed":
        mirrors, scales = [False], [1.0]
    elif isinstance(multi_scale, bool):
        scales = TEST_SCALES
    given = list(scales) if isinstance(scales, Sequence) else []
    if not given or not all(isinstance(scale, Real) and 0 < float(scale) < math.inf for scale in given):
        raise InputError(f"multi_scale is {multi_scale!r}; give True, False or a list of positive scales")
    sizes = [working_size(height, width, math.ceil((long_side or base_size) * scale), MULTIPLE) for scale in given]
    return [(*size, mirrored) for size in sizes for mirrored in mirrors]


def target_size(size: str | tuple[int, int], height: int, width: int, channels: int) -> tuple[int, int]:
    """The (height, width) of embeddings that ``size`` asks for.

    ``InputError`` for anything but "input", "half" or two positive numbers, and for more than 8 GB.
    """
    named = {"input": (height, width), "half": (-(-height // 2), -(-width // 2))}
    target: tuple[Any, ...]
    target = named.get(size, ()) if isinstance(size, str) else tuple(size) if isinstance(size, Sequence) else ()
    if len(target) != 2 or not all(isinstance(side, int) and side > 0 for side in target):
        raise InputError(f'size is {size!r}; give "input", "half" or (height, width)')
    needed = 4 * channels * target[0] * target[1]
    if needed > MAX_BYTES:
        raise InputError(
            f"embeddings of {target[0]} x {target[1]} pixels take {needed / 1e9:.0f} GB; the limit is "
            f'{MAX_BYTES / 1e9:.0f} GB: ask for size="half" or a smaller (height, width)'
        )
    return target[0], target[1]


def pixel_embedding(
    tower: ImageTower, rgb: Tensor, views: Sequence[Look], size: tuple[int, int], variant: str, dtype: torch.dtype
) -> Tensor:
    """(H, W, C): the sum over ``views``, see ``LSegPredictor.embed`` for the variants. Differentiable."""
    # Embeddings are many: without gradients, work on strips of rows, and in place. With gradients, autograd would have
    # to remember each strip, so work on all rows together.
    grad = torch.is_grad_enabled()
    total = torch.zeros(*size, tower.net.text_encoder.embed_dim, device=tower.device)
    step = size[0] if grad else max(STRIP_NUMBERS // total[0].numel(), 1)
    strips = [slice(top, min(top + step, size[0])) for top in range(0, size[0], step)]
    for height, width, mirrored in views:
        pixels = tower.resized(rgb, (height, width))[None]
        coarse = tower.coarse(pixels.flip(-1) if mirrored else pixels)  # (1, C, h/4, w/4)
        with full_precision(coarse.device):
            half = upsample_x2(coarse.contiguous(memory_format=torch.channels_last))
            half = (half.flip(-1) if mirrored else half)[0].permute(1, 2, 0)  # (h/2, w/2, C)
            for rows in strips:
                part = resized_rows(half, rows, size)
                total[rows] += part if variant == "raw" else F.normalize(part, dim=-1)
    if variant in ("unit", "scaled"):
        length = LOGIT_SCALE if variant == "scaled" else 1.0
        with full_precision(total.device):
            if grad:
                return (F.normalize(total, dim=-1) * length).to(dtype)
            for rows in strips:
                total[rows] = F.normalize(total[rows], dim=-1) * length
    return finite_in(total, dtype)


def finite_in(embedding: Tensor, dtype: torch.dtype) -> Tensor:
    """The embedding in ``dtype``; ``InputError`` if it contains numbers too large for float16 (above 65,504)."""
    reduced = embedding.to(dtype)
    if dtype == torch.float16 and (~reduced.isfinite()).any():
        raise InputError("an embedding does not fit into float16; choose the variant unit, or float32 in Python")
    return reduced
