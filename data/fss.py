"""FSS-1000: a thousand classes of ten images; 520 to train, 240 to validate, 240 to test, the same in every fold."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from data.episodes import Pair, fss_number
from data.fewshot import FewShotDataset
from data.reading import open_picture
from lseg_utils.errors import InputError

FOREGROUND_FROM = 128
MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")  # their grey values are 0..255


class FSS(FewShotDataset):
    """``FSS-1000/<category>/{1..10}.{jpg,png}``; the masks are black and white, some of them grey at the edges.

    With one shot, image 1 of a test or validation class is its support, and only the others are segmented; with five,
    all ten are segmented, each with supports from the other nine.
    """

    name = "fss"
    num_labels = 1000
    source = (
        "How to fix it: download FSS-1000 (the README of HSNet, github.com/juhongm999/hsnet, links to it) and unpack "
        "it so that {root}/FSS-1000 contains its 1,000 categories, ten .jpg and ten .png in each; or give another "
        "folder with --datapath"
    )

    @classmethod
    def support_pairs(cls, root: Path, fold: int, role: str, nshot: int) -> list[Pair]:
        """With one shot, image 1 of each class; else all."""
        return [(c, image) for c, image in cls.role_pairs(root, fold, role) if nshot != 1 or fss_number(image) == 1]

    @classmethod
    def files_of(cls, root: Path, image: str) -> tuple[Path, Path]:
        """``image``: category and number, such as ``bus/1.jpg``."""
        path = root / "FSS-1000" / image
        return path, path.with_suffix(".png")

    @classmethod
    def read_target(cls, path: Path, class_id: int) -> np.ndarray:
        """1 where the grey value is at least 128, else 0; the object may be empty."""
        return read_black_and_white(path)


def read_black_and_white(path: Path) -> np.ndarray:
    """A black-and-white mask of any kind as int8 (h, w): 1 where its grey value is at least 128, else 0.

    Raises ``InputError`` for a mask with more than 8 bits.
    """
    with open_picture(path) as picture:
        if picture.mode not in MODES:
            kind = f"{path} is an image of mode {picture.mode}"
            raise InputError(f"{kind}; a mask is black and white, 8 bits; download it again")
        grey = np.asarray(picture.convert("L"))
    return (grey >= FOREGROUND_FROM).astype(np.int8)
