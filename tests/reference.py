"""The weights, images and comparisons that the golden numbers in tests/golden were made with (see its README)."""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


def official_shapes(network: str) -> dict[str, tuple[tuple[int, ...], str]]:
    """Name -> (shape, dtype) of one of the seven official networks."""
    entries = json.loads((GOLDEN / "state_dicts.json").read_text())[network]
    return {name: (tuple(shape), dtype) for name, (shape, dtype) in entries.items()}


def golden_weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The deterministic weight that belongs to an official name."""
    noise = np.random.RandomState(zlib.crc32(name.encode()) & 0xFFFFFFFF).standard_normal(size=shape)
    noise = np.asarray(noise, dtype=np.float32)
    last = name.rsplit(".", 1)[-1]
    if last == "num_batches_tracked":
        return np.zeros(shape, dtype=np.int64)
    if last == "running_mean":
        return 0.1 * noise
    if last == "running_var":
        return 1 + 0.1 * np.abs(noise)
    if last == "logit_scale":
        return np.full(shape, math.log(1 / 0.07), dtype=np.float32)
    if len(shape) <= 1:
        return 1 + 0.05 * noise if last == "weight" else 0.02 * noise
    if any(part in name for part in ("embedding", "pos_embed", "cls_token")):
        return 0.05 * noise
    if last in ("proj", "text_projection"):
        return noise / math.sqrt(shape[0])
    return noise / math.sqrt(math.prod(shape[1:]))


def golden_state_dict(network: str, known: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The official state dict with golden weights, without CLIP's visual tower; ``known`` ones are not made again."""
    return {
        name: known[name]
        if name in known and known[name].shape == shape
        else torch.from_numpy(np.array(golden_weight(name, shape)))
        for name, (shape, _) in official_shapes(network).items()
        if ".visual." not in name
    }


def golden_image(height: int, width: int, seed: int, batch: int) -> Tensor:
    """(batch, 3, height, width) in -1..1, smooth noise."""
    small = (batch, 3, max(2, height // 16), max(2, width // 16))
    noise = np.random.RandomState(seed).uniform(-1, 1, small).astype(np.float32)
    image = F.interpolate(torch.from_numpy(noise), (height, width), mode="bicubic", align_corners=False)
    return image.clamp(-1, 1)


def assert_golden(result: Tensor, golden: np.lib.npyio.NpzFile, what: str = "", atol: float = 1e-3) -> None:
    """Shape, the stored values and the per-channel mean and deviation agree."""
    key = f"{what}." if what else ""
    values = result.detach().float().numpy()
    assert values.shape == tuple(golden[f"{key}shape"])
    picked = values[tuple(golden[f"{key}idx"].T)]
    np.testing.assert_allclose(picked, golden[f"{key}val"], atol=atol, rtol=0)
    axes = (0, 2, 3)
    np.testing.assert_allclose(values.mean(axis=axes), golden[f"{key}channel_mean"], atol=atol, rtol=0)
    np.testing.assert_allclose(values.std(axis=axes, ddof=1), golden[f"{key}channel_std"], atol=atol, rtol=0)
