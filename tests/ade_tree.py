"""A few tiny pictures in ADE20K's layout."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

PARTS = {"train": "training", "val": "validation"}


def image_path(root: Path, split: str, name: str) -> Path:
    return root / "ADEChallengeData2016" / "images" / PARTS[split] / f"{name}.jpg"


def mask_path(root: Path, split: str, name: str) -> Path:
    return root / "ADEChallengeData2016" / "annotations" / PARTS[split] / f"{name}.png"


def write_pair(root: Path, split: str, name: str, size: tuple[int, int] = (40, 30), seed: int = 0) -> None:
    """A noisy photo of ``size`` = (width, height), its left half unlabelled (0) and its right half label 7."""
    noise = np.random.RandomState(seed).randint(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    mask = np.zeros((size[1], size[0]), dtype=np.uint8)
    mask[:, size[0] // 2 :] = 8
    for path, values in ((image_path(root, split, name), noise), (mask_path(root, split, name), mask)):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)


def make_tree(root: Path, train: int = 4, val: int = 3) -> Path:
    """Images ``a0``, ``a1``, ... in both splits; returns ``root``."""
    for split, count in (("train", train), ("val", val)):
        for number in range(count):
            write_pair(root, split, f"a{number}", seed=number)
    return root


def truncate(path: Path, keep: float = 0.5) -> None:
    """Cut the file off after this part of its length."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
