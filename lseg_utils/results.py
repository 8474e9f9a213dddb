"""Results of a test: a table for people, JSON and CSV for programs, a line in a log."""

from __future__ import annotations

import csv
import json
import platform
from collections.abc import Iterable, Sequence
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lseg_utils.errors import few
from lseg_utils.files import write_aside


def text_table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A plain table: text to the left, numbers to the right with one decimal."""

    def cell(value: Any) -> str:
        return f"{value:.1f}" if isinstance(value, float) else str(value)

    texts = [[cell(value) for value in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in texts) for i in range(len(header))]
    numeric = [bool(rows) and all(isinstance(row[i], int | float) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(text.rjust(width) if right else text.ljust(width) for text, width, right in zip(row, widths, numeric))
        for row in texts
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Of Python and of the packages that a result depends on, by name; "not installed" for a missing one."""
    found = {"python": platform.python_version()}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def counted_by_reason(notes: Iterable[str]) -> list[str]:
    """Notes of the form "REASON: FILE", each counted once: a line for each reason, with its first files."""
    files: dict[str, list[str]] = {}
    for note in sorted(set(notes)):
        reason, file = note.split(": ", 1)
        files.setdefault(reason, []).append(file)
    return [f"{reason} in {len(found)} files: {few(found)}" for reason, found in files.items()]


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON aside and rename it, so that a reader never finds half a file."""
    with write_aside(path) as aside:
        aside.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Write a table as CSV, aside, and rename it."""
    with write_aside(path) as aside, aside.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([header, *rows])


def append_log(path: Path, line: str) -> None:
    """Add one dated line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as log:
        log.write(f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M:%S}Z {line}\n")
