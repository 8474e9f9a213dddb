"""A test's results as a single, self-contained HTML file: figures, bars, confusions, pictures."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lseg_utils.files import write_aside

STYLE = """
:root { color-scheme: light dark; --ink: #22252a; --paper: #fff; --line: #d6d9de; --soft: #6b7280; --bar: #2f6fb3; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --paper: #16181c; --line: #363b43; --soft: #9aa3af; --bar: #6ea8e0; }
}
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 1100px;
       margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.figures { display: flex; flex-wrap: wrap; gap: 1rem 2.5rem; }
.figures b { display: block; font-size: 1.8rem; font-variant-numeric: tabular-nums; }
.figures span { color: var(--soft); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1rem; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; } th { text-align: left; color: var(--soft); font-weight: 500; }
td, th { padding: .12rem .8rem .12rem 0; vertical-align: top; } td.number { text-align: right;
       font-variant-numeric: tabular-nums; }
.bars { columns: 2 26rem; } .bar { display: grid; grid-template-columns: 11rem 1fr 3.2rem; gap: .6rem;
       break-inside: avoid; align-items: center; } .bar span { overflow: hidden; text-overflow: ellipsis;
       white-space: nowrap; } .bar i { height: .7rem; background: var(--bar); border-radius: 2px; min-width: 1px; }
.bar b { font-weight: 500; text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; border: 1px solid var(--line); border-radius: 4px; background: #fff; }
"""


class Confusion(NamedTuple):
    """Where the pixels of a class went: its label and IoU, and (label, share of the pixels) of the greatest parts."""

    label: str
    iou: float
    went_to: list[tuple[str, float]]


def worst_confusions(confusion: np.ndarray, labels: Sequence[str], count: int = 10, parts: int = 4) -> list[Confusion]:
    """The ``count`` classes with the lowest IoU of those in the truth, and what their pixels were taken for.

    ``confusion``: whole numbers (N, N), pixels by [truth, prediction]. Shares and IoU are 0..1.
    """
    pixels, hits = confusion.sum(axis=1), confusion.diagonal()
    union = confusion.sum(axis=0) + pixels - hits
    iou = hits / np.maximum(union, 1)
    occurring = [index for index in np.argsort(iou, kind="stable") if pixels[index]]
    found = []
    for truth in occurring[:count]:
        order = [index for index in np.argsort(-confusion[truth], kind="stable") if confusion[truth, index]]
        shares = [(labels[index], float(confusion[truth, index] / pixels[truth])) for index in order[:parts]]
        found.append(Confusion(labels[truth], float(iou[truth]), shares))
    return found


def write_report(
    path: Path,
    title: str,
    figures: Mapping[str, float],
    facts: Mapping[str, object],
    per_class: Sequence[tuple[str, float]],
    confusions: Sequence[Confusion] = (),
    pictures: Sequence[tuple[str, Image.Image]] = (),
) -> None:
    """Write the page, aside and renamed.

    ``figures``: the headline numbers, in percent. ``facts``: what was tested, and how. ``per_class``: (label, IoU in
    percent), shown as bars, best first. ``pictures``: (heading, picture), put into the file.
    """
    boxes = [f"<div><b>{percent:.2f} %</b><span>{escape(name)}</span></div>" for name, percent in figures.items()]
    terms = [f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in facts.items()]
    bars = [_bar(*row) for row in sorted(per_class, key=lambda row: -row[1])]
    parts = [
        f'<h1>{escape(title)}</h1>\n<div class="figures">{"".join(boxes)}</div>',
        f"<h2>What was tested</h2>\n<dl>{''.join(terms)}</dl>",
        f'<h2>IoU by class</h2>\n<div class="bars">{"".join(bars)}</div>',
    ]
    if confusions:
        rows = [
            f'<tr><td>{escape(one.label)}</td><td class="number">{100 * one.iou:.1f}</td>'
            f"<td>{', '.join(f'{escape(label)} {share:.0%}' for label, share in one.went_to)}</td></tr>"
            for one in confusions
        ]
        header = "<tr><th>label</th><th>IoU %</th><th>its pixels were taken for</th></tr>"
        parts.append("<h2>The weakest classes, and what their pixels were taken for</h2>")
        parts.append(f"<table>{header}{''.join(rows)}</table>")
    for heading, picture in pictures:
        parts += [f"<h2>{escape(heading)}</h2>", embedded(heading, picture)]
    write_page(path, title, parts)


def write_page(path: Path, title: str, parts: Sequence[str]) -> None:
    """Write a self-contained page of HTML ``parts`` in this style, aside and renamed."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    page = f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n'
    with write_aside(path) as aside:
        aside.write_text(page + "\n".join(parts) + "\n</body></html>\n", encoding="utf-8")


def _bar(label: str, percent: float) -> str:
    name = f'<span title="{escape(label)}">{escape(label)}</span>'
    return f'<div class="bar">{name}<i style="width:{percent:.1f}%"></i><b>{percent:.1f}</b></div>'


def embedded(heading: str, picture: Image.Image) -> str:
    """A picture as an <img> that contains it."""
    buffer = io.BytesIO()
    picture.convert("RGB").save(buffer, "JPEG", quality=88)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{escape(heading)}" src="data:image/jpeg;base64,{data}">'
