"""Pictures for people: label maps in colour, laid over the photo, with a legend, and sheets that compare them.

A picture is a PIL image or a uint8 array (H, W, 3); label maps are integers (H, W), negative = unlabelled; colours are
uint8 (N, 3). Letters are PIL's own font, which has the unaccented Latin letters and shows a box for all others.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from lseg_utils.files import write_aside

Picture = Image.Image | np.ndarray

# A palette PNG has 256 entries, of which entry 0 is "unlabelled".
MAX_LABELS_IN_8_BITS = 255

PAPER, INK, LINE = (255, 255, 255), (34, 37, 42), (214, 217, 222)
# A picture with no more colours than this is taken for a label map and enlarged in hard-edged blocks.
MAX_LABEL_COLOURS = 64
MIN_SIDE_WITH_LINES = 256
ROWS_AT_A_TIME = 256
TITLE_SIZE, HEADING_SIZE, GAP = 17, 24, 10
MAX_ROW_TITLE = 190


def palette_picture(labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """A label map (H, W) as a picture whose pixel value is label + 1, so that 0 (black) means unlabelled.

    Args:
        labels: integers -1..N-1.
        colours: uint8 (N, 3). Up to 255 labels give an 8-bit palette picture that viewers show in these colours; more
            labels give a 16-bit grey picture with the same values and no colours.

    Raises:
        ValueError: labels outside -1..N-1.
    """
    check_labels(labels, colours)
    if len(colours) > MAX_LABELS_IN_8_BITS:
        return Image.fromarray((labels + 1).astype(np.uint16))
    picture = Image.fromarray((labels + 1).astype(np.uint8))
    picture.putpalette([0, 0, 0, *np.asarray(colours, dtype=np.uint8).ravel().tolist()])
    return picture


def label_picture(labels: np.ndarray, num_labels: int) -> Image.Image:
    """A label map (H, W) as a grey picture whose pixel value is the label's number, counted from 0.

    8 bits per pixel for up to 255 labels, 16 bits for more.
    """
    return Image.fromarray(labels.astype(np.uint8 if num_labels <= MAX_LABELS_IN_8_BITS else np.uint16))


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


def colourise(labels: np.ndarray, colours: np.ndarray) -> np.ndarray:
    """A label map in its colours: uint8 (H, W, 3); unlabelled pixels are black."""
    check_labels(labels, colours)
    return np.concatenate([np.zeros((1, 3), np.uint8), np.asarray(colours, np.uint8)])[labels + 1]


def overlay(image: Picture, labels: np.ndarray, colours: np.ndarray, alpha: float = 0.6) -> Image.Image:
    """The image with the labels' colours laid over it: ``alpha`` 0 shows the image alone, 1 the colours alone.

    Where two labels meet, a line one pixel wide in almost the full colour (not in small pictures, where it would be
    a bar); unlabelled pixels show the image. Image and labels are of the same size, otherwise ``ValueError``.
    """
    pixels = np.asarray(as_pil(image))
    if pixels.shape[:2] != labels.shape:
        raise ValueError(f"the image is {pixels.shape[:2]}, its labels are {labels.shape}: resize one of them first")
    share = np.full(labels.shape, alpha, np.float32)
    if alpha > 0 and max(labels.shape) >= MIN_SIDE_WITH_LINES:
        # A border is where the label changes towards the pixel below or to the right.
        share[:-1][labels[:-1] != labels[1:]] = max(alpha, 0.9)
        share[:, :-1][labels[:, :-1] != labels[:, 1:]] = max(alpha, 0.9)
    share *= labels >= 0
    mixed = np.empty_like(pixels)
    for top in range(0, len(pixels), ROWS_AT_A_TIME):  # a large photo in floating point would fill the memory
        rows = slice(top, top + ROWS_AT_A_TIME)
        part = pixels[rows].astype(np.float32)
        part += (colourise(labels[rows], colours) - part) * share[rows, :, None]
        mixed[rows] = part.round()
    return Image.fromarray(mixed)


def legend(
    labels_present: Iterable[int],
    names: Sequence[str],
    colours: np.ndarray,
    width: int | None = None,
    text_size: int = 16,
) -> Image.Image:
    """A key of colours: one chip and name for each of ``labels_present``, in that order, down columns.

    As many columns as fit into ``width`` pixels (None: a single column as wide as its names).
    """
    entries = list(labels_present)
    font, chip, pad = _font(text_size), text_size, text_size // 2
    longest = max((math.ceil(font.getlength(names[label])) for label in entries), default=0)
    column = chip + pad + longest + 2 * pad
    width = column + 2 * pad if width is None else max(width, chip + 8 * pad)
    columns = max(min((width - 2 * pad) // column, len(entries)), 1)
    rows = math.ceil(len(entries) / columns)
    line = round(text_size * 1.6)
    picture = Image.new("RGB", (width, rows * line + 2 * pad), PAPER)
    draw = ImageDraw.Draw(picture)
    for place, label in enumerate(entries):
        left, middle = pad + place // rows * column, pad + place % rows * line + line // 2
        box = (left, middle - chip // 2, left + chip, middle + chip // 2)
        draw.rounded_rectangle(box, radius=chip // 5, fill=tuple(int(c) for c in colours[label]), outline=LINE)
        name = _shortened(names[label], font, width - left - chip - 2 * pad)
        draw.text((left + chip + pad, middle), name, INK, font, anchor="lm")
    return picture


def letter_size(width: int) -> int:
    """The size of letters that suit a picture of this width, in pixels."""
    return min(max(width // 42, 15), 36)


def sheet(
    rows: Sequence[Sequence[Picture | None]],
    titles: Sequence[str],
    row_titles: Sequence[str] | None = None,
    cell: tuple[int, int] = (256, 192),
    heading: str = "",
    footer: Image.Image | None = None,
) -> Image.Image:
    """A grid of pictures on white: a title above each column and optionally next to each row, a heading, a footer.

    Each picture is fitted into ``cell`` = (width, height) with its proportions kept; None leaves a cell empty;
    ``footer``, such as a :func:`legend`, goes beneath. Raises ``ValueError`` if the titles do not match the grid.
    """
    if any(len(row) != len(titles) for row in rows) or (row_titles is not None and len(row_titles) != len(rows)):
        raise ValueError("a sheet needs one title for each column, and one row title for each row (or none at all)")
    font = _font(TITLE_SIZE)
    beside = [_wrapped(text, font, MAX_ROW_TITLE) for text in row_titles or [""] * len(rows)]
    above = [_wrapped(text, font, cell[0]) for text in titles]
    gutter = max((math.ceil(font.getlength(line)) for text in beside for line in text.splitlines()), default=0)
    measure = ImageDraw.Draw(Image.new("RGB", (1, 1)))
    height = max((math.ceil(measure.multiline_textbbox((0, 0), text, font)[3]) for text in above), default=0)
    left, top = GAP + gutter + (GAP if gutter else 0), GAP + height + GAP // 2
    size = (left + len(titles) * (cell[0] + GAP), top + len(rows) * (cell[1] + GAP))
    grid = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(grid)
    for column, text in enumerate(above):
        middle = left + column * (cell[0] + GAP) + cell[0] // 2
        draw.multiline_text((middle, top - GAP // 2), text, INK, font, anchor="md", align="center")
    for number, (row, text) in enumerate(zip(rows, beside)):
        y = top + number * (cell[1] + GAP)
        draw.multiline_text((GAP + gutter, y + cell[1] // 2), text, INK, font, anchor="rm", align="right")
        for column, picture in enumerate(row):
            if picture is not None:
                fitted = fit(picture, cell)
                x = left + column * (cell[0] + GAP) + (cell[0] - fitted.width) // 2
                over = y + (cell[1] - fitted.height) // 2
                grid.paste(fitted, (x, over))
                draw.rectangle((x - 1, over - 1, x + fitted.width, over + fitted.height), outline=LINE)
    parts = [grid] if footer is None else [grid, footer]
    if heading:
        font = _font(HEADING_SIZE)
        line = Image.new("RGB", (math.ceil(font.getlength(heading)) + 2 * GAP, HEADING_SIZE + 2 * GAP), PAPER)
        ImageDraw.Draw(line).text((GAP, line.height // 2 + GAP // 2), heading, INK, font, anchor="lm")
        parts.insert(0, line)
    return stack(parts)


def fit(picture: Picture, cell: tuple[int, int]) -> Image.Image:
    """The picture as large as ``cell`` = (width, height) allows; photos smoothly, label maps without new colours."""
    picture = as_pil(picture)
    factor = min(cell[0] / picture.width, cell[1] / picture.height)
    size = (max(round(picture.width * factor), 1), max(round(picture.height * factor), 1))
    is_label_map = picture.getcolors(MAX_LABEL_COLOURS) is not None
    return picture.resize(size, Image.Resampling.NEAREST if is_label_map else Image.Resampling.LANCZOS)


def stack(pictures: Sequence[Image.Image]) -> Image.Image:
    """The pictures below each other, aligned left, on white."""
    whole = Image.new("RGB", (max(p.width for p in pictures), sum(p.height for p in pictures)), PAPER)
    y = 0
    for picture in pictures:
        whole.paste(picture, (0, y))
        y += picture.height
    return whole


def as_pil(picture: Picture) -> Image.Image:
    return (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).convert("RGB")


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """Broken at spaces into lines of at most ``width`` pixels; a longer word is shortened."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(_shortened(word, font, width))
    return "\n".join(lines)


def _shortened(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text.rstrip() + "…"
