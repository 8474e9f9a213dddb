"""The label sets of the figures: the scenes of ``figures.json``, or a user's own file. Does not import torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lseg_utils.errors import InputError

DATA: dict[str, Any] = json.loads(Path(__file__).with_name("figures.json").read_text(encoding="utf-8"))
SCENES = tuple(DATA["scenes"])
FORM = '[{"title": "my row", "sets": [["cat", "grass"], ["pet", "lawn"]]}, ...]'


@dataclass(frozen=True)
class FigureRow:
    """A row of the sheet: one picture under several label sets, from left to right."""

    title: str
    sets: tuple[tuple[str, ...], ...]


def rows_of_scene(scene: str) -> tuple[FigureRow, ...]:
    """The rows of one of ``SCENES``."""
    return _rows(DATA["scenes"][scene]["rows"])


def rows_of_file(path: Path) -> tuple[FigureRow, ...]:
    """The rows of a JSON file; ``InputError`` with the form that it must have."""
    try:
        rows = _rows(json.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(f"--label_sets: {path} cannot be read ({error.strerror}); name a JSON file") from error
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"--label_sets: {path} must be a JSON file of the form {FORM} ({error})") from error
    if not rows or not all(row.sets and all(row.sets) for row in rows):
        raise InputError(f"--label_sets: {path} has a row without labels; its form is {FORM}")
    return rows


def _rows(content: Any) -> tuple[FigureRow, ...]:
    rows = []
    for row in content:
        if not all(isinstance(labels, list) for labels in row["sets"]):
            raise ValueError("each set is a list of labels")
        texts = [row["title"], *(label for labels in row["sets"] for label in labels)]
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError("titles and labels are texts")
        rows.append(FigureRow(row["title"], tuple(tuple(labels) for labels in row["sets"])))
    return tuple(rows)
