"""Labels as people type them, on a command line or in a text field."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable


def split_labels(text: str) -> list[str]:
    """The labels between commas or on separate lines, with single spaces inside and none around them; maybe none."""
    parts = (" ".join(part.split()) for part in re.split(r"[\n,]", text))
    return [part for part in parts if part]


def word_list(text: str) -> list[str]:
    """The type of an option that needs at least one label."""
    labels = split_labels(text)
    if not labels:
        raise argparse.ArgumentTypeError(f"{text!r} contains no word; give words such as 'cat, grass, other'")
    return labels


def duplicates(labels: Iterable[str]) -> dict[str, list[int]]:
    """{label: its positions, counted from 0} of the labels that occur more than once; only the first can be predicted.

    CLIP reads neither case nor the number of spaces: "Cat" and "cat" are the same label.
    """
    places: dict[str, list[int]] = {}
    written: dict[str, str] = {}
    for position, label in enumerate(labels):
        first = written.setdefault(" ".join(label.lower().split()), label)
        places.setdefault(first, []).append(position)
    return {label: positions for label, positions in places.items() if len(positions) > 1}
