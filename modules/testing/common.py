"""What both tests do with the network: forward passes in the precision of the test, and the control experiment."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ..choices import Speed
from ..device import allow_tf32, reduced_dtype
from ..models import LSegNet
from ..models.precision import cast_products, compile_parts


def prepare_forward(net: LSegNet, speed: Speed, device: torch.device) -> Callable[[Tensor, Tensor], Tensor]:
    """Cast the weights of ``net`` (on ``device``) and compile it as ``speed`` asks; returns the forward pass.

    It takes images (B, 3, h, w) and the labels' embeddings (N, C), or (B, N, C) with labels per image, and gives
    float32 logits at half size (B, N, h/2, w/2).
    """
    dtype = reduced_dtype(speed.precision, device)
    cast_products(net, dtype)
    allow_tf32(device.type == "cuda")
    if speed.compile:
        compile_parts(net)

    def forward(images: Tensor, text: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
            return net.half_logits(images, text)

    return forward


def precision_name(speed: Speed, device: torch.device) -> str:
    """float32, bfloat16 or float16: what convolutions and matrix products are computed in."""
    return str(reduced_dtype(speed.precision, device) or torch.float32).removeprefix("torch.")


def derangement(count: int, seed: int) -> list[int]:
    """A random cyclic order of 0..count-1 in which none keeps its place (a single label has no other place)."""
    order = np.random.default_rng(seed).permutation(count)
    target = np.empty(count, dtype=int)
    target[order] = np.roll(order, 1)
    return target.tolist()
