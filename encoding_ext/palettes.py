"""Colours for label maps: ADE20K's official ones, more where they do not suffice, and masks saved with them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from encoding_ext.files import write_aside

ADE20K_CSV = Path(__file__).with_name("ade20k_palette.csv")

# A palette PNG has 256 entries, of which entry 0 is "unlabelled".
MOST_LABELS_IN_8_BITS = 255


@lru_cache
def ade20k_palette() -> np.ndarray:
    """The official colours of ADE20K's 150 labels in label order: uint8 (150, 3), RGB."""
    colours = np.loadtxt(ADE20K_CSV, delimiter=",", dtype=np.uint8)
    colours.setflags(write=False)
    return colours


@lru_cache
def palette(num_labels: int) -> np.ndarray:
    """``num_labels`` colours, uint8 (N, 3), RGB: those of ADE20K first, then ever the one farthest from all so far.

    The same for every call; a shorter palette is the beginning of a longer one. Black stays free for "unlabelled".
    Raises ``ValueError`` beyond 4,000 labels, where colours could no longer be told apart.
    """
    if not 0 <= num_labels <= 4000:
        raise ValueError(f"cannot make {num_labels} distinct colours: between 0 and 4000 are possible")
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


def save_palette_png(path: str | Path, labels: np.ndarray, colours: np.ndarray) -> None:
    """Write a label map (H, W) as a PNG whose pixel value is label + 1, so that 0 (black) is unlabelled.

    ``labels``: integers -1..N-1; ``colours``: uint8 (N, 3). Up to 255 labels the file is an 8-bit palette PNG that
    viewers show in these colours; with more it is a 16-bit grey PNG of the same values, without colours. The file
    appears under its name only when it is complete. Raises ``ValueError`` for labels outside -1..N-1.
    """
    check_labels(labels, colours)
    if len(colours) <= MOST_LABELS_IN_8_BITS:
        picture = Image.fromarray((labels + 1).astype(np.uint8))
        picture.putpalette([0, 0, 0, *np.asarray(colours, dtype=np.uint8).ravel().tolist()])
    else:
        picture = Image.fromarray((labels + 1).astype(np.uint16))
    save_picture(path, picture)


def save_picture(path: str | Path, picture: Image.Image) -> None:
    """Save in the format of the file's extension; a kill leaves nothing half-written, missing folders are made."""
    with write_aside(path) as aside:
        picture.save(aside)


def check_labels(labels: np.ndarray, colours: np.ndarray) -> None:
    """``ValueError`` unless ``labels`` is an integer map (H, W) of -1..N-1 for N ``colours``."""
    if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f"a label map is an integer array (H, W), not {labels.dtype} {labels.shape}")
    if labels.size and not -1 <= labels.min() <= labels.max() < len(colours):
        raise ValueError(
            f"labels {labels.min()}..{labels.max()} do not fit {len(colours)} colours (-1..{len(colours) - 1}): "
            f"make a palette of as many colours as there are labels"
        )
