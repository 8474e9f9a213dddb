"""Heat maps for people: a matrix as coloured cells, with row and column names, drawn with PIL alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lseg_utils.pictures import INK, LINE, PAPER

# Colour at equal steps from the lowest to the highest value.
SEQUENTIAL = ((250, 250, 247), (199, 228, 225), (101, 180, 196), (33, 113, 161), (12, 44, 97))
DIVERGING = ((33, 80, 160), (120, 170, 215), (247, 247, 244), (232, 130, 92), (170, 20, 40))
NO_VALUE, MARK = (225, 225, 225), (240, 120, 0)
GAP, BAR_WIDTH = 8, 16
WRITTEN_DARK_ABOVE = 140  # luminance, 0..255, of a cell whose number is written in dark ink

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


@dataclass(frozen=True)
class HeatScale:
    """``low`` and ``high`` have the first and last of ``colours``, and so has what lies beyond them.

    ticks: values written next to the colour bar. form: how values and ticks are written.
    """

    low: float
    high: float
    colours: Sequence[tuple[int, int, int]] = SEQUENTIAL
    ticks: Sequence[float] = ()
    form: Callable[[float], str] = "{:g}".format


def heat_colours(values: np.ndarray, scale: HeatScale) -> np.ndarray:
    """The colour of each value: (...) -> uint8 (..., 3), straight lines between the scale's colours; NaN is grey."""
    steps = np.linspace(scale.low, scale.high, len(scale.colours))
    mixed = np.stack([np.interp(values, steps, channel) for channel in np.array(scale.colours, float).T], axis=-1)
    mixed[np.isnan(values)] = NO_VALUE
    return mixed.round().astype(np.uint8)


def heat_map(
    values: np.ndarray,
    row_names: Sequence[str],
    column_names: Sequence[str],
    scale: HeatScale,
    *,
    cell: int = 16,
    text_size: int = 12,
    marked: Collection[tuple[int, int]] = (),
    numbers: bool = False,
    lines_after: Collection[int] = (),
) -> Image.Image:
    """A matrix (R, C) of floats as coloured squares of ``cell`` pixels, with a colour bar to the right.

    Args:
        row_names, column_names: R and C names; column names that are wider than a cell are written upwards.
        marked: (row, column) of cells that get a frame.
        numbers: write each value into its cell, by ``scale.form``; NaN is a dash.
        lines_after: row and column numbers behind which a line separates groups.

    Raises ``ValueError`` unless there are R and C names.
    """
    if values.shape != (len(row_names), len(column_names)):
        raise ValueError(f"{values.shape} values need as many names, not {len(row_names)} and {len(column_names)}")
    font = ImageFont.load_default(text_size)
    long = _widest(column_names, font)
    upwards = long > cell - 2
    left, top = 2 * GAP + _widest(row_names, font), 2 * GAP + (long if upwards else text_size)
    height, width = values.shape[0] * cell, values.shape[1] * cell
    right = 4 * GAP + BAR_WIDTH + _widest([scale.form(tick) for tick in scale.ticks], font)
    picture = Image.new("RGB", (left + width + right, top + height + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(picture)
    colours = heat_colours(values, scale)
    picture.paste(Image.fromarray(colours.repeat(cell, axis=0).repeat(cell, axis=1)), (left, top))
    for after in lines_after:
        at = (after + 1) * cell
        draw.line((left, top + at, left + width - 1, top + at), fill=INK)
        draw.line((left + at, top, left + at, top + height - 1), fill=INK)
    if numbers:
        luminance = colours @ (0.299, 0.587, 0.114)
        for (row, column), value in np.ndenumerate(values):
            ink = INK if luminance[row, column] > WRITTEN_DARK_ABOVE else PAPER
            middle = (left + column * cell + cell // 2, top + row * cell + cell // 2)
            draw.text(middle, "-" if np.isnan(value) else scale.form(value), ink, font, anchor="mm")
    for row, column in marked:
        x, y = left + column * cell, top + row * cell
        draw.rectangle((x + 1, y + 1, x + cell - 2, y + cell - 2), outline=MARK, width=max(cell // 20, 2))
    draw.rectangle((left - 1, top - 1, left + width, top + height), outline=LINE)
    for row, name in enumerate(row_names):
        draw.text((left - GAP, top + row * cell + cell // 2), name, INK, font, anchor="rm")
    for column, name in enumerate(column_names):
        foot = left + column * cell + cell // 2, top - GAP // 2
        if upwards:
            _write_upwards(picture, foot, name, font, (long, round(1.5 * text_size)))
        else:
            draw.text(foot, name, INK, font, anchor="md")
    _draw_colour_bar(picture, (left + width + GAP, top), height, scale, font)
    return picture


def _widest(texts: Sequence[str], font: Font) -> int:
    return max((math.ceil(font.getlength(text)) for text in texts), default=0)


def _write_upwards(picture: Image.Image, foot: tuple[int, int], text: str, font: Font, size: tuple[int, int]) -> None:
    """A text that begins at ``foot`` (x, y). PIL only writes to the right: a strip of ``size`` is turned."""
    letters = Image.new("L", size)
    ImageDraw.Draw(letters).text((0, letters.height // 2), text, 255, font, anchor="lm")
    letters = letters.rotate(90, expand=True)
    picture.paste(INK, (foot[0] - letters.width // 2, foot[1] - letters.height), letters)


def _draw_colour_bar(picture: Image.Image, corner: tuple[int, int], height: int, scale: HeatScale, font: Font) -> None:
    """The scale's colours with its ticks, the highest value on top; corner: (x, y) of the upper left."""
    x, top = corner
    draw = ImageDraw.Draw(picture)
    bar = heat_colours(np.linspace(scale.high, scale.low, height)[:, None], scale).repeat(BAR_WIDTH, axis=1)
    picture.paste(Image.fromarray(bar), (x, top))
    draw.rectangle((x - 1, top - 1, x + BAR_WIDTH, top + height), outline=LINE)
    for tick in scale.ticks:
        at = top + round((scale.high - tick) / (scale.high - scale.low) * (height - 1))
        draw.line((x + BAR_WIDTH, at, x + BAR_WIDTH + GAP // 2, at), fill=INK)
        draw.text((x + BAR_WIDTH + GAP, at), scale.form(tick), INK, font, anchor="lm")
