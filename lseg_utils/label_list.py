"""Labels as people type them, on a command line or in a text field."""

from __future__ import annotations

import re
from collections.abc import Iterable


def split_labels(text: str) -> list[str]:
    """The labels between commas or on separate lines, with single spaces inside and none around them; maybe none."""
    parts = (" ".join(part.split()) for part in re.split(r"[\n,]", text))
    return [part for part in parts if part]


def duplicates(labels: Iterable[str]) -> dict[str, list[int]]:
    """{label: its positions, counted from 1} of the labels that occur more than once; only the first can win."""
    places: dict[str, list[int]] = {}
    for position, label in enumerate(labels, 1):
        places.setdefault(label, []).append(position)
    return {label: positions for label, positions in places.items() if len(positions) > 1}
