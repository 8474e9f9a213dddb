"""The outcome of a run: how much was done, what could not be read, and the area of every label."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apps.predict.journal import Record
from lseg_utils.errors import InputError
from lseg_utils.results import text_table, write_json

MAX_TABLE_ROWS = 20


@dataclass
class Report:
    """The counts of a run.

    done, earlier: sources that this run and earlier runs processed. failures: (source, reason). areas: label number ->
    pixels in all sources. files: label number -> sources that contain it.
    """

    done: int = 0
    earlier: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    areas: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)

    def count(self, record: Record) -> None:
        """Add the record of one source."""
        areas = {int(number): pixels for number, pixels in record.get("areas", {}).items()}  # JSON's keys are strings
        self.areas.update(areas)
        self.files.update(areas.keys())
        if record.get("problem"):
            self.failures.append((record["source"], record["problem"]))

    def show(self, labels: Sequence[str], folder: Path) -> None:
        """Print the table and every failure, and write ``folder``/summary.json."""
        total = max(self.areas.total(), 1)
        rows = [
            (number, labels[number], 100 * pixels / total, self.files[number])
            for number, pixels in self.areas.most_common()
        ]
        if rows:
            print(text_table(("number", "label", "area %", "files"), rows[:MAX_TABLE_ROWS]))
        if len(rows) > MAX_TABLE_ROWS:
            print(f"... and {len(rows) - MAX_TABLE_ROWS} more labels, in summary.json")
        print(f"{self.done} done, {self.earlier} done before, {len(self.failures)} with problems; see {folder}")
        for source, problem in self.failures:
            print(f"problem: {problem if source in problem else f'{source}: {problem}'}", file=sys.stderr)
        content = {
            "done": self.done,
            "done_before": self.earlier,
            "problems": [{"source": source, "problem": problem} for source, problem in self.failures],
            "areas": [dict(zip(("number", "label", "percent", "files"), row)) for row in rows],
        }
        try:
            write_json(folder / "summary.json", content)
        except (InputError, OSError) as error:  # the disk whose lack of space ended the run is still full
            print(f"summary.json was not written ({error})", file=sys.stderr)
