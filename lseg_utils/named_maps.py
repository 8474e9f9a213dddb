"""Names written into label maps and overlays, for pictures with more labels than the eye can tell apart by colour."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lseg_utils.pictures import INK, PAPER, Picture, as_pil, colourise, legend, letter_size, overlay, stack

MIN_NAMED_SHARE = 1 / 160  # share of the picture that a label must cover to be named
MIN_SIDE_WITH_LEGEND = 384
MAX_SEARCHED = 512  # rows or columns that are searched for a place; larger maps are thinned out


def named_map(
    labels: np.ndarray, colours: np.ndarray, names: Sequence[str], factor: int = 4, text_size: int = 13
) -> Image.Image:
    """A label map (H, W) in its ``colours`` (N, 3), enlarged ``factor`` times, with names: see :func:`write_names`.

    Negative values are unlabelled: black, without a name.
    """
    enlarged = Image.fromarray(colourise(labels, colours).repeat(factor, axis=0).repeat(factor, axis=1))
    return write_names(enlarged, labels, names, text_size)


def write_names(picture: Image.Image, labels: np.ndarray, names: Sequence[str], text_size: int = 13) -> Image.Image:
    """Write each label's name into ``picture``, an image of any size of what ``labels`` (H, W) shows; returns it.

    A name is written once, where the label's area is thickest, one word per line. Larger areas come first, and a name
    that would overlap an earlier one is left out; so is the name of a label that covers less than a 160th of the
    picture, because its letters would hide it.
    """
    step = max(1, max(labels.shape) // MAX_SEARCHED)
    labels = labels[::step, ::step]
    factor_x, factor_y = picture.width / labels.shape[1], picture.height / labels.shape[0]
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(text_size)
    style = {"font": font, "anchor": "mm", "align": "center", "spacing": 1, "stroke_width": max(2, text_size // 8)}
    found, areas = np.unique(labels[labels >= 0], return_counts=True)
    taken: list[tuple[float, float, float, float]] = []  # left, top, right, bottom
    for label in found[np.argsort(-areas, kind="stable")][: int((areas >= MIN_NAMED_SHARE * labels.size).sum())]:
        text = names[label].replace(" ", "\n")
        row, column = thickest_place(labels == label)
        place = ((column + 0.5) * factor_x, (row + 0.5) * factor_y)
        # Moved back inside where it would leave the picture.
        left, top, right, bottom = draw.multiline_textbbox(place, text, **style)
        right_by = max(1 - left, 0) - max(right - picture.width + 1, 0)
        down_by = max(1 - top, 0) - max(bottom - picture.height + 1, 0)
        place = (place[0] + right_by, place[1] + down_by)
        box = draw.multiline_textbbox(place, text, **style)
        apart = (box[0] >= b[2] or b[0] >= box[2] or box[1] >= b[3] or b[1] >= box[3] for b in taken)
        if all(apart):
            taken.append(box)
            draw.multiline_text(place, text, INK, stroke_fill=PAPER, **style)
    return picture


def overlay_with_legend(
    image: Picture, labels: np.ndarray, colours: np.ndarray, names: Sequence[str], alpha: float = 0.6
) -> Image.Image:
    """``overlay`` with names written into it, and a legend beneath of the labels that occur, the largest area first.

    Small images are enlarged so that the letters stay readable.
    """
    image, factor = as_pil(image), math.ceil(MIN_SIDE_WITH_LEGEND / max(labels.shape))
    image = image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
    labels = labels.repeat(factor, axis=0).repeat(factor, axis=1)
    top = overlay(image, labels, colours, alpha)
    if alpha > 0:
        write_names(top, labels, names, letter_size(top.width))
    found, areas = np.unique(labels[labels >= 0], return_counts=True)
    width = max(top.width, MIN_SIDE_WITH_LEGEND)
    key = legend(found[np.argsort(-areas, kind="stable")], names, colours, width, letter_size(width))
    return stack([top, key])


def thickest_place(region: np.ndarray) -> tuple[int, int]:
    """(row, column) of the pixel of ``region`` (H, W), bool, not empty, that is farthest from everything outside it.

    Beyond the picture everything is outside. Of equally far pixels, the one nearest to their mean.
    """
    import cv2

    distance = cv2.distanceTransform(np.pad(region, 1).astype(np.uint8), cv2.DIST_C, 3)[1:-1, 1:-1]
    places = np.argwhere(distance == distance.max())
    row, column = places[((places - places.mean(axis=0)) ** 2).sum(axis=1).argmin()]
    return int(row), int(column)
