"""Device and precision: what a forward pass runs on, and in which precision. No command line, no Lightning."""

from __future__ import annotations

import torch

from lseg_utils.errors import InputError

from .hardware import warn_if_slower


def allow_tf32(on_gpu: bool) -> None:
    """Let products of float32 matrices use TF32 on a GPU; similarity and loss do not (``full_precision``).

    The backward pass of a similarity does, like that of every other product: its context ended with the forward.
    """
    if on_gpu:
        torch.set_float32_matmul_precision("high")


def reduced_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """The reduced dtype of the forward passes, None for float32.

    auto: bfloat16 on GPUs that have it, float16 on other GPUs, float32 on the CPU and on Apple's GPUs. A precision
    that is slower than float32 on this CPU is used if it was asked for, with a warning that gives the factor.
    """
    if precision == "auto":
        if device.type != "cuda":
            return None
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    dtype = {"bf16": torch.bfloat16, "16": torch.float16}.get(precision.removesuffix("-mixed"))
    if dtype is not None:
        warn_if_slower(dtype, device)
    return dtype


def dtype_name(dtype: torch.dtype | None) -> str:
    """float32 (None), bfloat16 or float16: how results name what convolutions and matrix products are computed in."""
    return str(dtype or torch.float32).removeprefix("torch.")


def resolve_device(device: str) -> torch.device:
    """The device to use; auto takes CUDA, then MPS, then the CPU. ``InputError`` where there is none such."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        chosen = None
    if chosen is None or chosen.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"unknown device {device!r}; use auto, cpu, cuda, cuda:1 or mps")
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device!r}, but PyTorch sees no CUDA GPU here; use cpu")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device {device!r}, but there are {torch.cuda.device_count()} GPUs here")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps', but PyTorch sees no Apple GPU here; use cpu")
    return chosen
