"""Tiny datasets with label sets of their own, to be trained together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = ("red", "green", "blue")
SHAPES = ("red disc", "green disc", "blue disc", "sky")


def make_set(
    folder: Path, name: str, labels: Sequence[str], train: int = 6, val: int = 2, side: int = 64, gaps: bool = True
) -> Path:
    """The YAML file of a dataset of noise; its masks are squares of all labels, with ``gaps`` also of none."""
    for split, count in (("train", train), ("val", val)):
        for kind in ("images", "masks"):
            (folder / name / split / kind).mkdir(parents=True)
        for number in range(count):
            rng = np.random.default_rng([len(labels), count, number])
            squares = rng.integers(0 if gaps else 1, len(labels) + 1, (side // 8, side // 8), dtype=np.uint8)
            noise = rng.integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(noise).save(folder / name / split / "images" / f"{number}.png")
            Image.fromarray(squares.repeat(8, 0).repeat(8, 1)).save(folder / name / split / "masks" / f"{number}.png")
    text = f"name: {name}\nsplits:\n"
    for split in ("train", "val"):
        text += f"  {split}: {{images: {name}/{split}/images, masks: {name}/{split}/masks}}\n"
    text += f"labels: [{', '.join(labels)}]\nmask: {{first: 1, ignore: [0]}}\nsizes: {{base: 64, crop: 64}}\n"
    (folder / f"{name}.yaml").write_text(text)
    return folder / f"{name}.yaml"


def make_two(folder: Path, **options: object) -> str:
    """``--dataset`` of two sets, the second with twice the weight."""
    first, second = (
        make_set(folder, "colours", COLOURS, **options),
        make_set(folder, "shapes", SHAPES, train=4, **options),
    )
    return f"{first},{second}:2"
