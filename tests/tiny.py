"""Tiny random networks for tests, of the same classes of modules as the large ones."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import clip.model
import torch
from torch import Tensor, nn

from modules.models import TEXT_TOWERS, LSegNet, build_lseg

TOWER = TEXT_TOWERS["tiny"]
LABELS = ["dog", "grass", "a red car"]
TINY = ("tiny_vit", "tiny_resnet")


def tiny_net(backbone: str = "tiny_resnet", labels: Sequence[str] | None = LABELS, seed: int = 0, **options) -> LSegNet:
    """A tiny network in eval mode; ``seed`` decides its weights, statistics of batch norm included."""
    arguments = {"features": 16, **options}
    options = tuple((name, tuple(value) if isinstance(value, list) else value) for name, value in arguments.items())
    net, state = _built(backbone, labels if labels is None else tuple(labels), seed, options)
    torch.set_rng_state(state)
    return copy.deepcopy(net)


@lru_cache(maxsize=32)
def _built(
    backbone: str, labels: tuple[str, ...] | None, seed: int, options: tuple[tuple[str, Any], ...]
) -> tuple[LSegNet, Tensor]:
    """The network that copies are made of, and the state of the random numbers after it was built."""
    torch.manual_seed(seed)
    net = build_lseg(backbone, labels if labels is None else list(labels), **dict(options))
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.8, 1.2)
    return net.eval(), torch.get_rng_state()


def pictures(batch: int, height: int, width: int, seed: int = 1) -> Tensor:
    """(batch, 3, height, width) of noise."""
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(seed))


def tiny_clip(seed: int = 0, width: int = TOWER.width) -> clip.model.CLIP:
    """A CLIP whose text half has the tiny networks' sizes, with no weight left at a special value."""
    torch.manual_seed(seed)
    model = clip.model.CLIP(
        embed_dim=TOWER.embed_dim,
        image_resolution=32,
        vision_layers=1,
        vision_width=64,
        vision_patch_size=16,
        context_length=TOWER.context_length,
        vocab_size=49408,
        transformer_width=width,
        transformer_heads=width // 64,
        transformer_layers=TOWER.layers,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    return model.eval()
