"""Labels as people type them, on a command line or in a text field."""

from __future__ import annotations

import re


def split_labels(text: str) -> list[str]:
    """The labels between commas or on lines of their own, without blanks around them or twice inside; maybe none."""
    parts = (" ".join(part.split()) for part in re.split(r"[\n,]", text))
    return [part for part in parts if part]
