"""What changes a network's speed and memory, and nothing else: precision, memory layout, compilation, checkpointing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, TypeVar

import torch
from torch import nn
from torch.amp.autocast_mode import is_autocast_available

Net = TypeVar("Net", bound=nn.Module)
PRODUCTS = (nn.Linear, nn.Conv2d, nn.ConvTranspose2d)  # what autocast computes in reduced precision
WIDE = 128  # decoder features from which on channels-last convolutions are the faster ones; measured on CPUs


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Plain float32 inside: no autocast, on devices that have such a thing, and no TF32 on GPUs that have that.

    What a graph made inside computes in its backward pass lies outside, and TF32 is used there if it is allowed.
    """
    no_autocast = torch.autocast(device.type, enabled=False) if is_autocast_available(device.type) else nullcontext()
    with no_autocast, no_tf32() if device.type == "cuda" else nullcontext():
        yield


@contextmanager
def no_tf32() -> Iterator[None]:
    """Matrix products and convolutions of float32 use no TF32 inside."""
    cuda: Any = torch.backends.cuda
    cudnn: Any = torch.backends.cudnn
    # PyTorch 2.9 has newer switches; they can be read whichever ones a caller has set, the older ones then raise.
    newer = hasattr(cudnn, "conv")
    name, off = ("fp32_precision", "ieee") if newer else ("allow_tf32", False)
    switches = cuda.matmul, cudnn.conv if newer else cudnn
    before = [getattr(switch, name) for switch in switches]
    try:
        for switch in switches:
            setattr(switch, name, off)
        yield
    finally:
        for switch, value in zip(switches, before, strict=True):
            setattr(switch, name, value)


def channels_last(net: Net, features: int) -> Net:
    """Lay the weights of convolutions out as (height, width, channels), unless the network is a narrow one."""
    return net.to(memory_format=torch.channels_last) if features >= WIDE else net


def cast_products(net: Any, dtype: torch.dtype | None) -> None:
    """Keep the weights of image encoder and decoder in ``dtype`` where autocast would cast them at every forward.

    For inference under autocast: the same numbers, half the memory. None (float32) changes nothing.
    """
    for part in (net.image_encoder, net.decoder) if dtype is not None else ():
        for module in part.modules():
            if isinstance(module, PRODUCTS):
                module.to(dtype)


def compile_parts(net: Any, **options: object) -> None:
    """``torch.compile``, with its ``options``, of image encoder and decoder in place; weights keep their names."""
    net.image_encoder.compile(**options)
    net.decoder.compile(**options)
