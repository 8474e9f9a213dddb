"""Warnings about what a caller passed: images that were not normalised, duplicate labels."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

RANGE = 10.0  # normalised images stay far within it
# Lines of the folder modules and of torch tell a caller nothing.
_INSIDE = tuple(f"{folder}{os.sep}" for folder in (Path(__file__).parents[1], Path(torch.__file__).parent))


def warn_caller(message: str) -> None:
    """Warn, naming the innermost line that is neither in this package nor in torch."""
    if torch.compiler.is_compiling():  # which cannot look at the stack
        warnings.warn(message, stacklevel=2)
        return
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_INSIDE):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def check_range(net: Any, images: Tensor) -> None:
    """Warn if the first images of ``net`` were not normalised, and set its ``check_range`` to False.

    net: ours or the official ``LSegNet``. images: (B, 3, H, W). Values beyond -10..10 cannot be normalised; a whole
    batch within 0..1 can (a white wall), but rarely is. Images of one colour are not judged.
    """
    if not net.check_range or type(images) is not Tensor or images.is_meta or torch.compiler.is_compiling():
        return
    net.check_range = False
    low, high = (float(value) for value in images.detach().aminmax())
    as_it_is = tuple(net.mean) == (0, 0, 0) and tuple(net.std) == (1, 1, 1)  # there are encoders for images within 0..1
    if not (-RANGE < low <= high < RANGE) or (low >= 0 and high <= 1 and high > low and not as_it_is):
        warn_caller(
            f"the images' values range from {low:g} to {high:g}, which does not look normalised: give (x - mean) / std "
            f"with x in 0..1, mean {net.mean} and std {net.std}, or use LSegPredictor, which does it "
            "(net.check_range = False silences this)"
        )
