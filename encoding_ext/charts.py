"""Two pictures of numbers: matrices as coloured squares, and label maps with the names written on their regions."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from encoding_ext.pictures import INK, LINE, PAPER, colourise

# Colours from the least to the greatest value. Both read in print and with any colour vision.
SEQUENTIAL = np.array([(247, 251, 255), (158, 202, 225), (49, 130, 189), (8, 48, 107)], dtype=float)
DIVERGING = np.array([(33, 102, 172), (146, 197, 222), (247, 247, 247), (244, 165, 130), (178, 24, 43)], dtype=float)
MARK = (214, 39, 40)
GAP = 10


def in_colour(values: np.ndarray, low: float, high: float, scale: np.ndarray = SEQUENTIAL) -> np.ndarray:
    """Each value's colour on ``scale``, uint8 (..., 3); beyond ``low`` and ``high`` the colour stays, NaN is grey."""
    place = np.clip((np.asarray(values, dtype=float) - low) / (high - low), 0, 1)
    stops = np.linspace(0, 1, len(scale))
    colours = np.stack([np.interp(place, stops, channel) for channel in scale.T], axis=-1)
    return np.where(np.isnan(place)[..., None], 200, colours).round().astype(np.uint8)


def heat_map(
    values: np.ndarray,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    *,
    low: float,
    high: float,
    scale: np.ndarray = SEQUENTIAL,
    cell: int = 64,
    text_size: int = 15,
    numbers: bool = True,
    marked: Collection[tuple[int, int]] = (),
) -> Image.Image:
    """A matrix (R, C) as squares of ``cell`` pixels with its rows and columns named, the columns' names upright.

    numbers: write each value, rounded to a whole number, into its square. marked: (row, column) of squares to frame.
    """
    values = np.asarray(values, dtype=float)
    font, title_font = ImageFont.load_default(text_size), ImageFont.load_default(text_size + 4)
    left = GAP + max(round(font.getlength(name)) for name in rows) + GAP
    top = 4 * GAP + max(round(font.getlength(name)) for name in columns) + GAP
    width = max(left + len(columns) * cell, round(title_font.getlength(title)) + GAP) + GAP
    picture = Image.new("RGB", (width, top + len(rows) * cell + GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    draw.text((GAP, 2 * GAP), title, INK, title_font, anchor="lm")
    for row, name in enumerate(rows):
        draw.text((left - GAP, top + row * cell + cell // 2), name, INK, font, anchor="rm")
    for column, name in enumerate(columns):
        _upright(picture, name, font, (left + column * cell + cell // 2, top - GAP // 2))
    for (row, column), colour in zip(np.ndindex(values.shape), in_colour(values, low, high, scale).reshape(-1, 3)):
        x, y = left + column * cell, top + row * cell
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), fill=tuple(colour.tolist()))
        if numbers:
            ink = INK if colour @ (0.3, 0.59, 0.11) > 140 else PAPER
            text = "-" if np.isnan(values[row, column]) else f"{values[row, column]:.0f}"
            draw.text((x + cell // 2, y + cell // 2), text, ink, font, anchor="mm")
    for row, column in marked:
        x, y = left + column * cell, top + row * cell
        draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=MARK, width=max(2, cell // 16))
    return picture


def named_regions(labels: np.ndarray, names: Sequence[str], colours: np.ndarray, factor: int,
                  text_size: int = 13, smallest: int = 12) -> Image.Image:
    """A label map (H, W) enlarged by a whole ``factor``, each label's name written at the middle of its pixels.

    Labels that cover fewer than ``smallest`` pixels stay without a name, and so do unlabelled pixels (-1).
    """
    picture = Image.fromarray(colourise(labels, colours))
    picture = picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)
    draw, font = ImageDraw.Draw(picture), ImageFont.load_default(text_size)
    found, areas = np.unique(labels[labels >= 0], return_counts=True)
    for label in found[areas >= smallest]:
        y, x = (factor * (place.mean() + 0.5) for place in np.nonzero(labels == label))
        half = font.getlength(names[label]) / 2 + 3
        x = min(max(x, half), max(picture.width - half, half))
        draw.text((x, y), names[label], PAPER, font, anchor="mm", stroke_width=2, stroke_fill=INK)
    return picture


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures next to each other on white, a hairline between them, aligned at the bottom."""
    width, height = sum(p.width for p in pictures) + 2 * GAP * (len(pictures) - 1), max(p.height for p in pictures)
    whole = Image.new("RGB", (width, height), PAPER)
    x = 0
    for number, picture in enumerate(pictures):
        if number:
            ImageDraw.Draw(whole).line((x - GAP, GAP, x - GAP, height - GAP), fill=LINE)
        whole.paste(picture, (x, height - picture.height))
        x += picture.width + 2 * GAP
    return whole


def _upright(picture: Image.Image, text: str, font: ImageFont.FreeTypeFont, foot: tuple[int, int]) -> None:
    """Write ``text`` turned to read from bottom to top, its beginning at ``foot``."""
    length, height = round(font.getlength(text)) + 2, round(font.size * 1.4)
    strip = Image.new("RGB", (length, height), PAPER)
    ImageDraw.Draw(strip).text((1, height // 2), text, INK, font, anchor="lm")
    strip = strip.transpose(Image.Transpose.ROTATE_90)
    picture.paste(strip, (foot[0] - height // 2, foot[1] - length))
