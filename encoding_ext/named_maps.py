"""Label maps whose regions carry their names, for pictures with more labels than eyes can tell colours apart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from encoding_ext.pictures import INK, PAPER, colourise

SMALLEST_NAMED = 1 / 160  # share of the picture that a label must cover to be named


def named_map(
    labels: np.ndarray, colours: np.ndarray, names: Sequence[str], factor: int = 4, text_size: int = 13
) -> Image.Image:
    """A label map (H, W) in its ``colours`` (N, 3), ``factor`` times enlarged, each label's name written inside it.

    The name stands once, where the label's area is thickest, its words one below the other. Labels that cover less
    than a 160th of the picture get none: their letters would hide them. Negative = unlabelled, black and nameless.
    """
    enlarged = Image.fromarray(colourise(labels, colours).repeat(factor, axis=0).repeat(factor, axis=1))
    draw, font = ImageDraw.Draw(enlarged), ImageFont.load_default(text_size)
    for label in np.unique(labels[labels >= 0]):
        region = labels == label
        if region.sum() < SMALLEST_NAMED * labels.size:
            continue
        text = names[label].replace(" ", "\n")
        row, column = thickest_place(region)
        centre = ((column + 0.5) * factor, (row + 0.5) * factor)
        box = draw.multiline_textbbox(centre, text, font, anchor="mm", stroke_width=2, align="center", spacing=1)
        # Back into the picture, where a region at the border would push its name out of it.
        shifts = [max(1 - low, 0) - max(high - side + 1, 0) for low, high, side in zip(box, box[2:], enlarged.size)]
        place = (centre[0] + shifts[0], centre[1] + shifts[1])
        draw.multiline_text(place, text, INK, font, anchor="mm", align="center", spacing=1, stroke_width=2, stroke_fill=PAPER)
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


def _eroded(region: np.ndarray) -> np.ndarray:
    """The pixels all of whose eight neighbours, too, belong to the region."""
    padded = np.pad(region, 1)
    rows = padded[:-2] & padded[1:-1] & padded[2:]
    return rows[:, :-2] & rows[:, 1:-1] & rows[:, 2:]
