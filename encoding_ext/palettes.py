"""Colours for label maps: ADE20K's official ones, and more where those do not suffice."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

ADE20K_CSV = Path(__file__).with_name("ade20k_palette.csv")
MAX_COLOURS = 4000  # beyond that, colours can no longer be told apart


@lru_cache
def ade20k_palette() -> np.ndarray:
    """The official colours of ADE20K's 150 labels in label order: uint8 (150, 3), RGB."""
    colours = np.loadtxt(ADE20K_CSV, delimiter=",", dtype=np.uint8)
    colours.setflags(write=False)
    return colours


@lru_cache
def palette(num_labels: int) -> np.ndarray:
    """``num_labels`` colours, uint8 (N, 3), RGB: those of ADE20K first, then always the one farthest from all so far.

    The same for every call; a shorter palette is the beginning of a longer one. Black is reserved for "unlabelled".
    Raises ``ValueError`` beyond ``MAX_COLOURS`` labels.
    """
    if not 0 <= num_labels <= MAX_COLOURS:
        raise ValueError(f"cannot make {num_labels} distinct colours; ask for 0 to {MAX_COLOURS}")
    official = ade20k_palette()
    colours = np.concatenate([official, _farthest_colours(num_labels - len(official))])[:num_labels]
    colours.setflags(write=False)
    return colours


def _farthest_colours(number: int) -> np.ndarray:
    """``number`` colours out of a 17-step grid, each the farthest from black, ADE20K's and those before it."""
    levels = np.arange(0, 256, 15)
    grid = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    distance = np.full(len(grid), np.inf)
    for taken in [np.zeros(3), *ade20k_palette().astype(float)]:
        distance = np.minimum(distance, ((grid - taken) ** 2).sum(axis=1))
    chosen: list[np.ndarray] = []
    for _ in range(number):
        chosen.append(grid[distance.argmax()])
        distance = np.minimum(distance, ((grid - chosen[-1]) ** 2).sum(axis=1))
    return np.array(chosen, dtype=np.uint8).reshape(-1, 3)
