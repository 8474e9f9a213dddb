"""Bilinear x2 with aligned corners, the only upsampling of LSeg's decoder and head: whole, or some rows of it.

Shapes: B images, K channels (features or labels), h x w the small grid.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def upsample_x2(x: Tensor) -> Tensor:
    """(B, K, h, w) -> (B, K, 2h, 2w)."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)


@lru_cache(maxsize=32)
def upsampling_matrix(size: int, device: torch.device) -> Tensor:
    """(2 * size, size) float32: what ``upsample_x2`` does along one axis. Two neighbours a row, weights sum to one."""
    with torch.inference_mode(False):  # kept, and one day part of a graph
        position = torch.arange(2 * size, dtype=torch.float64) * ((size - 1) / (2 * size - 1))
        low = position.floor().clamp(max=max(size - 2, 0)).long()
        weight = position - low
        matrix = torch.zeros(2 * size, size, dtype=torch.float64)
        rows = torch.arange(2 * size)
        matrix[rows, low] += 1 - weight
        matrix[rows, (low + 1).clamp(max=size - 1)] += weight
        return matrix.float().to(device)


def source_rows(size: int, start: int, stop: int) -> tuple[int, int]:
    """Which rows (first, end) of a grid of ``size`` rows are mixed into rows ``start`` to ``stop`` of its x2."""
    reach = 2 * size - 1
    return start * (size - 1) // reach, min((stop - 1) * (size - 1) // reach + 2, size)


def upsampled_rows(x: Tensor, start: int, stop: int, height: int) -> Tensor:
    """Rows ``start`` to ``stop`` of the x2 of a grid, from those rows of it that count.

    Args:
        x: (B, first to end, w, K) with (first, end) = ``source_rows(height, start, stop)``; channels last.
        height: rows of the whole grid.

    Returns:
        (B, stop - start, 2w, K)
    """
    first, end = source_rows(height, start, stop)
    rows = upsampling_matrix(height, x.device)[start:stop, first:end] @ x.flatten(2)  # (B, stop - start, w * K)
    rows = rows.unflatten(2, x.shape[2:]).permute(0, 3, 1, 2)
    wide = F.interpolate(rows, (stop - start, 2 * x.shape[2]), mode="bilinear", align_corners=True)
    return wide.permute(0, 2, 3, 1)


def resized_rows(maps: Tensor, rows: slice, size: tuple[int, int]) -> Tensor:
    """Some rows of maps (h, w, K) resized to ``size`` (H, W), bilinear with aligned corners: (rows, W, K)."""
    source, (height, width) = len(maps), size
    step = (source - 1) / (height - 1) if height > 1 else 0.0
    position = torch.arange(rows.start, rows.stop, device=maps.device, dtype=torch.float32) * step
    low = position.floor().clamp(max=source - 1).long()
    high = (low + 1).clamp(max=source - 1)
    mixed = torch.lerp(maps[low], maps[high], (position - low)[:, None, None])
    if maps.shape[1] == width:
        return mixed
    wide = F.interpolate(mixed.permute(2, 0, 1)[None], (len(low), width), mode="bilinear", align_corners=True)
    return wide[0].permute(1, 2, 0)
