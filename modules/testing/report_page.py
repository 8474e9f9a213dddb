"""A test's results as a single, self-contained HTML file: figures, bars, confusions, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from lseg_utils.html_page import bars, fact_list, heading, headlines, picture, table, write_page


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
    parts = [headlines({name: f"{percent:.2f} %" for name, percent in figures.items()})]
    parts += [heading("IoU by class, in percent"), bars(sorted(per_class, key=lambda row: -row[1]))]
    if confusions:
        rows = [
            (one.label, 100 * one.iou, ", ".join(f"{label} {share:.0%}" for label, share in one.went_to))
            for one in confusions
        ]
        title_of_table = "The weakest classes, and what their pixels were taken for"
        parts += [heading("Confusions"), table(("label", "IoU %", "taken for"), rows, title_of_table)]
    for title_of_picture, image in pictures:
        parts += [heading(title_of_picture), picture(title_of_picture, image)]
    write_page(path, title, [*parts, heading("What was tested"), fact_list(facts)])
