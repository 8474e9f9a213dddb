"""Label maps whose regions carry their names, for pictures with more labels than eyes can tell colours apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lseg_utils.pictures import INK, PAPER, colourise

Box = tuple[float, float, float, float]  # left, top, right, bottom

SMALLEST_NAMED = 1 / 160  # share of the picture that a label must cover to be named


def named_map(
    labels: np.ndarray, colours: np.ndarray, names: Sequence[str], factor: int = 4, text_size: int = 13
) -> Image.Image:
    """A label map (H, W) in its ``colours`` (N, 3), ``factor`` times enlarged, each label's name written inside it.

    The name stands once, where the label's area is thickest, its words one below the other; larger areas come first,
    and a name that would run into one before it is left out. So is that of a label which covers less than a 160th of
    the picture: its letters would hide it. Negative = unlabelled, black and nameless.
    """
    enlarged = Image.fromarray(colourise(labels, colours).repeat(factor, axis=0).repeat(factor, axis=1))
    draw = ImageDraw.Draw(enlarged)
    font = ImageFont.load_default(text_size)
    style = {"font": font, "anchor": "mm", "align": "center", "spacing": 1, "stroke_width": 2}
    found, areas = np.unique(labels[labels >= 0], return_counts=True)
    taken: list[Box] = []
    for label in found[np.argsort(-areas, kind="stable")][: int((areas >= SMALLEST_NAMED * labels.size).sum())]:
        text = names[label].replace(" ", "\n")
        row, column = thickest_place(labels == label)
        place = ((column + 0.5) * factor, (row + 0.5) * factor)
        shift = _back_inside(draw.multiline_textbbox(place, text, **style), enlarged.size)
        place = (place[0] + shift[0], place[1] + shift[1])
        box = draw.multiline_textbbox(place, text, **style)
        if not any(_overlap(box, other) for other in taken):
            taken.append(box)
            draw.multiline_text(place, text, INK, stroke_fill=PAPER, **style)
    return enlarged


def thickest_place(region: np.ndarray) -> tuple[int, int]:
    """(row, column) of a pixel of ``region`` (H, W), bool, not empty, that is farthest from all that is not region.

    What lies beyond the picture counts as not region. Of equally far pixels, the one nearest to their mean.
    """
    inner = region
    while (smaller := _eroded(inner)).any():
        inner = smaller
    places = np.argwhere(inner)
    return tuple(int(i) for i in places[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()])


def _back_inside(box: Box, size: tuple[int, int]) -> tuple[float, float]:
    """How far to move a box right and down so that it lies within a picture of ``size``."""
    return tuple(max(1 - low, 0) - max(high - side + 1, 0) for low, high, side in zip(box, box[2:], size))


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _eroded(region: np.ndarray) -> np.ndarray:
    """The pixels all of whose eight neighbours, too, belong to the region."""
    padded = np.pad(region, 1)
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    return rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
