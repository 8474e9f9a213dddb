"""Pages of HTML that need no other file, all in one design: the reports of trainings, tests and runs.

They follow the reader's light or dark mode, fit a phone, print on paper, and can be read by a screen reader. Every text
is escaped here; parts of a page are HTML as these functions return it.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from lseg_utils.files import write_aside

STYLE = """
:root { color-scheme: light dark; --ink: #22252a; --paper: #fff; --line: #d6d9de; --soft: #5d6470; --bar: #2f6fb3;
        --link: #1d5f96; --line0: #2f6fb3; --line1: #b3491f; --line2: #2c7a3f; --line3: #7b4bb0; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #16181c; --line: #363b43; --soft: #a4acb8; --bar: #6ea8e0;
          --link: #8cc0ee; --line0: #6ea8e0; --line1: #ee9a6d; --line2: #79c98d; --line3: #bd9aea; }
}
* { box-sizing: border-box; }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0; }
main { max-width: 1100px; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.5rem; margin: 0 0 .8rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .7rem; } h3 { font-size: 1rem; }
a { color: var(--link); } p { max-width: 46rem; white-space: pre-line; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; margin: 1rem 0; }
.figures b { display: block; font-size: 1.8rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); }
dl { display: grid; grid-template-columns: minmax(6rem, max-content) minmax(0, 1fr); gap: .15rem 1rem; }
dt { color: var(--soft); overflow-wrap: anywhere; } dd { margin: 0; overflow-wrap: anywhere; }
.wide { overflow-x: auto; } .wide:focus-visible { outline: 2px solid var(--bar); }
table { border-collapse: collapse; } th { text-align: left; color: var(--soft); font-weight: 500; }
caption { text-align: left; color: var(--soft); padding-bottom: .3rem; }
td, th { padding: .16rem 1.1rem .16rem 0; vertical-align: top; border-bottom: 1px solid var(--line); }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.bars { columns: 2 24rem; list-style: none; margin: 0; padding: 0; }
.bars li { display: grid; grid-template-columns: minmax(5rem, 11rem) 1fr 3.2rem; gap: .6rem; break-inside: avoid;
           align-items: center; }
.bars span { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.bars i { height: .7rem; background: var(--bar); border-radius: 2px; min-width: 1px; }
.bars b { font-weight: 500; text-align: right; font-variant-numeric: tabular-nums; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem 2rem; }
figure { margin: 0; break-inside: avoid; } figcaption { margin-bottom: .2rem; }
figcaption b { margin-right: .8rem; } figcaption span { white-space: nowrap; margin-right: .8rem; }
svg { display: block; width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--line); } svg .curve { fill: none; stroke-width: 2; stroke-linejoin: round; }
img { max-width: 100%; border: 1px solid var(--line); border-radius: 4px; background: #fff; }
details { margin-top: 1rem; } summary { cursor: pointer; margin-bottom: .5rem; }
@media print {
  :root { --ink: #000; --paper: #fff; --line: #ccc; --soft: #444; --bar: #2f6fb3; --link: #000; }
  body { font-size: 11px; } main { max-width: none; padding: 0; } h2 { break-after: avoid; }
  .wide { overflow: visible; } img, tr { break-inside: avoid; } .bars i { print-color-adjust: exact; }
}
"""

WIDTH, HEIGHT = 560, 220  # of a chart
LEFT, BOTTOM, TOP, RIGHT = 56, 26, 10, 14  # its margins
TICKS = 5  # on an axis, about
MARKED = 40  # points that are few enough to be marked
DASHES = ("", "7 4", "2 3", "9 3 2 3")  # tell the lines of a chart apart without their colours


class Link(NamedTuple):
    """A cell of a table that leads to another file."""

    text: str
    address: str


class Line(NamedTuple):
    """A line of a chart: (x, y) in the order of x, all finite."""

    name: str
    points: Sequence[tuple[float, float]]


def write_page(path: Path, title: str, parts: Sequence[str], style: str = "") -> None:
    """Write a page that begins with its title, aside and renamed. style: rules besides those of the design."""
    head = (
        '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}{style}</style>"
    )
    body = "\n".join([f"<h1>{escape(title)}</h1>", *parts])
    with write_aside(path) as aside:
        page = f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n{body}\n</main></body></html>\n'
        aside.write_text(page, encoding="utf-8")


def heading(text: str) -> str:
    """The heading of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph, whose line breaks are kept."""
    return f"<p>{escape(text)}</p>"


def headlines(figures: Mapping[str, str]) -> str:
    """The figures that a page is about, large, each above its name."""
    boxes = [f"<div><b>{escape(value)}</b><span>{escape(name)}</span></div>" for name, value in figures.items()]
    return f'<div class="figures">{"".join(boxes)}</div>'


def fact_list(facts: Mapping[str, object]) -> str:
    """Names and values, one below the other; the parts of a list or dict are joined with commas."""

    def text(value: object) -> str:
        """A value in words."""
        if isinstance(value, Mapping):
            return ", ".join(f"{name} {part}" for name, part in value.items())
        return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)

    terms = [f"<dt>{escape(name)}</dt><dd>{escape(text(value))}</dd>" for name, value in facts.items()]
    return f"<dl>{''.join(terms)}</dl>"


def table(header: Sequence[str], rows: Sequence[Sequence[object]], caption: str, digits: int = 1) -> str:
    """A table that scrolls by itself on a narrow screen.

    rows: texts, ``Link``s and numbers; numbers are aligned to the right, floats with ``digits`` decimals, None is an
    empty cell. caption: what the table shows, also for screen readers.
    """
    numeric = [
        any(isinstance(row[i], int | float) for row in rows)
        and all(row[i] is None or isinstance(row[i], int | float) for row in rows)
        for i in range(len(header))
    ]

    def cell(value: object, tag: str, right: bool) -> str:
        """A cell with its text: a link, a number, or anything else as text."""
        if isinstance(value, Link):
            text = f'<a href="{escape(value.address)}">{escape(value.text)}</a>'
        else:
            shown = "" if value is None else f"{value:.{digits}f}" if isinstance(value, float) else str(value)
            text = escape(shown)
        return f"<{tag}{' class=number' if right else ''}>{text}</{tag.split()[0]}>"

    head = "".join(cell(name, "th scope=col", right) for name, right in zip(header, numeric))
    body = "".join(f"<tr>{''.join(cell(*pair) for pair in _tagged(row, numeric))}</tr>" for row in rows)
    content = f"<caption>{escape(caption)}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide" tabindex="0" role="region" aria-label="{escape(caption)}"><table>{content}</table></div>'


def bars(rows: Sequence[tuple[str, float]]) -> str:
    """A bar for each (name, percent), in the order given."""
    parts = [
        f'<li><span title="{escape(name)}">{escape(name)}</span><i style="width:{min(percent, 100):.1f}%"></i>'
        f"<b>{percent:.1f}</b></li>"
        for name, percent in rows
    ]
    return f'<ul class="bars">{"".join(parts)}</ul>'


def picture(alt: str, image: Image.Image, kind: str = "JPEG") -> str:
    """A picture that the page contains. kind: JPEG, or PNG where borders must stay sharp."""
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, kind, **({"quality": 88} if kind == "JPEG" else {}))
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(alt)}" src="data:image/{kind.lower()};base64,{data}">'


def chart(title: str, lines: Sequence[Line]) -> str:
    """Curves over the same x, drawn as SVG: each line has a colour and dashes of its own, named above the chart."""
    lines = [line for line in lines if line.points]
    xs, ys = ([point[axis] for line in lines for point in line.points] for axis in (0, 1))
    x_ticks, y_ticks = ticks(min(xs), max(xs), whole=True), ticks(min(ys), max(ys))
    low_x, high_x = min(xs), max(max(xs), min(xs) + 1)
    low_y, high_y = y_ticks[0], y_ticks[-1]

    def at(x: float, y: float) -> tuple[float, float]:
        """Where a value is drawn."""
        right = LEFT + (x - low_x) / (high_x - low_x) * (WIDTH - LEFT - RIGHT)
        return right, TOP + (high_y - y) / (high_y - low_y) * (HEIGHT - TOP - BOTTOM)

    parts, names = [], []
    for y in y_ticks:
        _, height = at(low_x, y)
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{y:.6g}</text>')
    for x in x_ticks:
        parts.append(f'<text x="{at(x, low_y)[0]:.1f}" y="{HEIGHT - 6}" text-anchor="middle">{x:.6g}</text>')
    for number, line in enumerate(lines):
        colour, dashes = f"var(--line{number % 4})", DASHES[number % 4]
        places = [at(*point) for point in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline class="curve" style="stroke:{colour}" stroke-dasharray="{dashes}" points="{path}"/>')
        if len(places) <= MARKED:
            marks = (f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" style="fill:{colour}"/>' for x, y in places)
            parts.extend(marks)
        sample = (
            f'<line x1="0" x2="26" y1="5" y2="5" style="stroke:{colour};stroke-width:3" stroke-dasharray="{dashes}"/>'
        )
        key = f'<svg style="display:inline;width:26px" viewBox="0 0 26 10" aria-hidden="true">{sample}</svg>'
        names.append(f"<span>{key} {escape(line.name)}</span>")
    words = "; ".join(f"{line.name} from {line.points[0][1]:.4g} to {line.points[-1][1]:.4g}" for line in lines)
    label = escape(f"{title}: {words}")
    drawing = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>'
    return f"<figure><figcaption><b>{escape(title)}</b>{''.join(names)}</figcaption>{drawing}</figure>"


def ticks(low: float, high: float, whole: bool = False) -> list[float]:
    """About five round numbers, equally far apart; they enclose low..high, or lie within it if ``whole`` numbers."""
    spread = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(spread / TICKS))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power * TICKS >= spread * 0.999)
    if whole:
        step = max(round(step), 1)
        return [float(x) for x in range(math.ceil(low), math.floor(high) + 1) if x % step == 0 or high - low < step]
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [step * number for number in range(first, max(last, first + 1) + 1)]


def _tagged(row: Sequence[object], numeric: Sequence[bool]) -> list[tuple[object, str, bool]]:
    """The cells of a row; the first names the row, unless it is a number."""
    return [
        (value, "th scope=row" if i == 0 and not right else "td", right)
        for i, (value, right) in enumerate(zip(row, numeric))
    ]
