"""What came of a run: how much was done, what could not be read, and the area of every label."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from apps.predict.journal import Record
from lseg_utils.errors import InputError
from lseg_utils.results import text_table, write_json

MOST_IN_TABLE = 20


@dataclass
class Report:
    """done, earlier: how many sources were done now, and before; failures: (source, why); areas: label number ->
    pixels over all; files: label number -> sources in which it occurs.
    """

    done: int = 0
    earlier: int = 0
    failures: list[tuple[str, str]] = field(default_factory=list)
    areas: Counter[int] = field(default_factory=Counter)
    files: Counter[int] = field(default_factory=Counter)

    def count(self, record: Record) -> None:
        """Add what the journal notes of one source."""
        areas = {int(number): pixels for number, pixels in record.get("areas", {}).items()}  # JSON's keys are text
        self.areas.update(areas)
        self.files.update(areas.keys())
        if record.get("problem"):
            self.failures.append((record["source"], record["problem"]))

    def show(self, labels: Sequence[str], folder: Path) -> None:
        """The table on the screen, ``folder``/summary.json, and every failure by name."""
        total = max(self.areas.total(), 1)
        rows = [
            (number, labels[number], 100 * pixels / total, self.files[number])
            for number, pixels in self.areas.most_common()
        ]
        if rows:
            print(text_table(("number", "label", "area %", "files"), rows[:MOST_IN_TABLE]))
        if len(rows) > MOST_IN_TABLE:
            print(f"... and {len(rows) - MOST_IN_TABLE} more labels, in summary.json")
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
        except (InputError, OSError) as error:  # the disk that ended the run is still full
            print(f"summary.json was not written ({error})", file=sys.stderr)
