"""What tests of the predictor share: pictures, and labels between which a random network is undecided."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from encoding_ext import image_to_tensor
from modules.models import LSegNet
from modules.predictor import LSegPredictor
from tiny import tiny_net


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """(height, width, 3) uint8 of coloured blocks and noise."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (-(-height // 8), -(-width // 8), 3)).repeat(8, 0).repeat(8, 1)[:height, :width]
    return (blocks + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def predictor(backbone: str = "tiny_resnet", **options) -> LSegPredictor:
    """On a tiny network without labels of its own."""
    return LSegPredictor(tiny_net(backbone, labels=None, **options), device="cpu")


def undecided(net: LSegNet, count: int = 5, seed: int = 0) -> Tensor:
    """(count, C) label embeddings that all win somewhere: what pixels of a picture differ by from their mean."""
    with torch.no_grad():
        pixels = net.embed(normalised(net, picture(64, 64, seed)))[0].flatten(1).T
    difference = torch.nn.functional.normalize(pixels, dim=1)
    difference = torch.nn.functional.normalize(difference - difference.mean(0), dim=1)
    return difference[torch.randperm(len(difference), generator=torch.Generator().manual_seed(seed))[:count]]


def normalised(net: LSegNet, image: np.ndarray) -> Tensor:
    """(1, 3, H, W) as the network takes it."""
    return image_to_tensor(net.mean, net.std)(image)[None]
