"""Sheets like the paper's Figures 1, 5 and 6: one picture under many label sets, as PNG and as one HTML page.

From left to right, labels that are added are bold and red; labels that are removed are underlined where they last are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from encoding_ext.label_colours import label_colours
from lseg_utils.html_page import fact_list, heading, paragraph, picture, write_page
from lseg_utils.named_maps import write_names
from lseg_utils.pictures import GAP, HEADING_SIZE, INK, LINE, PAPER, TITLE_SIZE, overlay, save_picture
from modules.inference.segmentation import Segmentation
from paper.label_sets import FigureRow

WIDTH = 330  # of a panel, in pixels
MAX_HEIGHT = 420  # of its picture
TEXT_SIZE = 15
ADDED = (200, 30, 30)
NOTE = "Bold red: new in this panel. Underlined: removed in the panel to the right. Numbers: share of area."
PAGE_STYLE = """
main { max-width: 1500px; }
.row { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 14rem), 1fr)); gap: 1rem; }
figure img { width: 100%; } .chip { margin-right: .8rem; }
.chip i { display: inline-block; width: .8em; height: .8em; border-radius: 2px; margin-right: .35em; }
.added { font-weight: 700; color: #c81e1e; } .removed { text-decoration: underline; }
@media (prefers-color-scheme: dark) { .added { color: #ff9d9d; } }
"""


@dataclass(frozen=True)
class Word:
    """A label under a panel: its colour, its share of the picture (0..1), whether it is new, and whether it leaves."""

    text: str
    colour: tuple[int, int, int]
    share: float
    added: bool
    removed: bool


@dataclass(frozen=True)
class Panel:
    """A picture, segmented or not, and what is written under it."""

    picture: Image.Image
    words: tuple[Word, ...] = ()


def panels_of(image: np.ndarray, row: FigureRow, segment: Callable[[Sequence[str]], Segmentation]) -> list[Panel]:
    """The picture (H, W, 3) as it is, then under each label set of the row. The same label has the same colour."""
    names = list(dict.fromkeys(label for labels in row.sets for label in labels))
    colours = dict(zip(names, label_colours(names).tolist()))
    factor = min(WIDTH / image.shape[1], MAX_HEIGHT / image.shape[0])
    size = max(round(image.shape[1] * factor), 1), max(round(image.shape[0] * factor), 1)
    plain = Image.fromarray(image).resize(size, Image.Resampling.LANCZOS)
    panels = [Panel(plain)]
    for number, labels in enumerate(row.sets):
        result = segment(labels)
        mask = np.asarray(Image.fromarray(result.mask.astype(np.int32)).resize(size, Image.Resampling.NEAREST))
        shown = overlay(plain, mask, np.array([colours[label] for label in labels], np.uint8), alpha=0.55)
        write_names(shown, mask, labels, TEXT_SIZE)
        before, after = row.sets[number - 1] if number else labels, row.sets[min(number + 1, len(row.sets) - 1)]
        areas = result.areas()
        words = (
            Word(label, tuple(colours[label]), areas[label], label not in before, label not in after)
            for label in dict.fromkeys(labels)
        )
        panels.append(Panel(shown, tuple(words)))
    return panels


def draw_sheet(rows: Mapping[str, Sequence[Panel]], heading: str) -> Image.Image:
    """The rows by their titles, below each other, on white."""
    strips = [_text(heading, HEADING_SIZE), _text(NOTE, TEXT_SIZE)]
    for title, panels in rows.items():
        strips.append(_text(title, TITLE_SIZE, bold=True))
        cells = [_cell(panel) for panel in panels]
        strip = Image.new("RGB", (len(cells) * (WIDTH + GAP) + GAP, max(cell.height for cell in cells) + GAP), PAPER)
        for place, cell in enumerate(cells):
            strip.paste(cell, (GAP + place * (WIDTH + GAP), 0))
        strips.append(strip)
    sheet = Image.new("RGB", (max(s.width for s in strips), sum(s.height for s in strips) + GAP), PAPER)
    y = 0
    for strip in strips:
        sheet.paste(strip, (0, y))
        y += strip.height
    return sheet


def write_sheets(path: Path, sheets: Mapping[str, Mapping[str, Sequence[Panel]]], facts: Mapping[str, object]) -> None:
    """One HTML file with the sheets of all pictures, by their headings."""
    parts = [fact_list(facts), paragraph(NOTE)]
    for name, rows in sheets.items():
        parts.append(heading(name))
        for title, panels in rows.items():
            figures = "".join(_figure(title, panel) for panel in panels)
            parts.append(f'<h3>{escape(title)}</h3><div class="row">{figures}</div>')
    write_page(path, "One picture under many label sets", parts, PAGE_STYLE)


def make_figures(
    folder: Path,
    images: Mapping[str, np.ndarray],
    rows: Sequence[FigureRow],
    segment: Callable[[np.ndarray, Sequence[str]], Segmentation],
    facts: Mapping[str, object],
    warning: str = "",
) -> list[Path]:
    """Write a PNG for each picture (by its name, uint8 (H, W, 3)) and ``figures.html``, and return the files.

    ``warning``: goes into the title of each picture and onto the page.
    """
    title = "one picture under many label sets" + (f" ({warning})" if warning else "")
    facts = ({"warning": warning} if warning else {}) | dict(facts)
    sheets, files = {}, []
    for name, image in images.items():
        sheets[name] = {
            row.title: panels_of(image, row, lambda labels, image=image: segment(image, labels)) for row in rows
        }
        files.append(folder / f"{name}.png")
        save_picture(files[-1], draw_sheet(sheets[name], f"{name}: {title}"))
    files.append(folder / "figures.html")
    write_sheets(files[-1], sheets, facts)
    return files


def _cell(panel: Panel) -> Image.Image:
    """A panel with its words beneath, wrapped to its width."""
    font, line, chip = ImageFont.load_default(TEXT_SIZE), round(TEXT_SIZE * 1.55), TEXT_SIZE - 3
    places, x, y = [], 0, 0
    for word in panel.words:
        text = f"{word.text} {word.share:.0%}"
        length = chip + 5 + math.ceil(font.getlength(text)) + 14
        if x and x + length > WIDTH:
            x, y = 0, y + line
        places.append((x, y, text))
        x += length
    cell = Image.new("RGB", (WIDTH, panel.picture.height + (y + line + GAP if places else 0)), PAPER)
    left = (WIDTH - panel.picture.width) // 2
    cell.paste(panel.picture, (left, 0))
    draw = ImageDraw.Draw(cell)
    draw.rectangle((left, 0, left + panel.picture.width - 1, panel.picture.height - 1), outline=LINE)
    for word, (x, y, text) in zip(panel.words, places):
        middle = panel.picture.height + GAP // 2 + y + line // 2
        draw.rounded_rectangle((x, middle - chip // 2, x + chip, middle + chip // 2), 2, fill=word.colour, outline=LINE)
        ink, start = ADDED if word.added else INK, x + chip + 5
        draw.text((start, middle), text, ink, font, anchor="lm", stroke_width=0.5 if word.added else 0, stroke_fill=ink)
        if word.removed:
            below = middle + TEXT_SIZE // 2 + 2
            draw.line((start, below, start + font.getlength(word.text), below), fill=ink, width=2)
    return cell


def _text(text: str, size: int, bold: bool = False) -> Image.Image:
    font = ImageFont.load_default(size)
    strip = Image.new("RGB", (math.ceil(font.getlength(text)) + 3 * GAP, size + 2 * GAP), PAPER)
    place = (GAP, strip.height // 2 + 2)
    ImageDraw.Draw(strip).text(place, text, INK, font, anchor="lm", stroke_width=0.4 if bold else 0, stroke_fill=INK)
    return strip


def _figure(title: str, panel: Panel) -> str:
    words = []
    for word in panel.words:
        kinds = " ".join(kind for kind in ("added", "removed") if getattr(word, kind))
        chip = f'<i style="background:rgb{word.colour}"></i>'
        words.append(
            f'<span class="chip">{chip}<span class="{kinds}">{escape(word.text)}</span> {word.share:.0%}</span>'
        )
    caption = " ".join(words) or "the picture"
    return f"<figure>{picture(title, panel.picture, 'PNG')}<figcaption>{caption}</figcaption></figure>"
