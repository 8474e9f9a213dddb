"""What command lines may choose from, as plain data: read by ``--help`` without importing torch."""

from __future__ import annotations

import argparse
import shutil
from dataclasses import dataclass
from typing import Any

from lseg_utils.errors import InputError

PRECISIONS = ("auto", "32", "bf16", "16", "bf16-mixed", "16-mixed", "32-true")
# What benchmarks/bench_int8.py measured with ViT-B/32 on a CPU with AVX2; the figures of each way are in docs/speed.md.
INT8 = (
    "int8 is not offered: at most 86 % of the pixels of a golden picture keep their label (99 % are needed), and it is "
    "at most 1.4 times as fast; choose 32, or bf16 where python -m modules.hardware shows that it is faster"
)
MODES = ("whole", "windows", "multi_scale")
VARIANTS = ("unit", "raw", "scaled", "summed")
CALLERS = ("vlmaps", "dff", "feature_3dgs", "openscene", "conceptfusion")  # projects whose embeddings are made exactly
LAYOUTS = ("hwc", "chw")  # of the axes of pixel embeddings in files
OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("poly", "cosine")
USE_PRETRAINED = ("True", "False", "clip", "clip_fixed")


def precision(text: str) -> str:
    """The text, for argparse, which compares it with ``PRECISIONS``; int8 is refused with the reason."""
    if text == "int8":
        raise argparse.ArgumentTypeError(INT8)
    return text


def block_options(holder: object) -> dict[str, Any]:
    """The options of the spatial regularisation block that are given (not None) as attributes of ``holder``."""
    names = ("arch_option", "block_depth", "activation")
    return {name: value for name in names if (value := getattr(holder, name)) is not None}


@dataclass(frozen=True)
class Speed:
    """What changes the time that a training or a test takes: one of ``PRECISIONS``, and ``torch.compile`` or not."""

    precision: str = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        if self.compile and not any(map(shutil.which, ("g++", "c++", "clang++"))):
            raise InputError(
                "--compile needs a C++ compiler; install one (apt-get install g++), or leave out --compile"
            )
