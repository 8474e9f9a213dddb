"""The outcome of a run: how much was done, what could not be read, and the area of every label."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from apps.predict.journal import Record
from apps.predict.options import KINDS
from lseg_utils.errors import InputError
from lseg_utils.html_page import bars, fact_list, heading, headlines, picture, write_page
from lseg_utils.results import text_table, write_json

MAX_TABLE_ROWS = 20
MAX_PICTURES, PICTURE_SIZE = 6, (480, 480)  # that the page shows


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

    def show(self, labels: Sequence[str], folder: Path, about: Mapping[str, Any]) -> None:
        """Print the table and every failure, and write summary.json and report.html into ``folder``.

        about: facts of the run, for the page.
        """
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
            write_page(folder / "report.html", "Labelled pictures", self._page(rows, folder, about))
        except (InputError, OSError) as error:  # the disk whose lack of space ended the run is still full
            print(f"summary.json and report.html were not written ({error})", file=sys.stderr)

    def _page(self, rows: Sequence[tuple], folder: Path, about: Mapping[str, Any]) -> list[str]:
        """The parts of the page: counts, areas, the first overlays, problems, facts."""
        counts = {"done": self.done, "done before": self.earlier, "with problems": len(self.failures)}
        parts = [headlines({name: str(count) for name, count in counts.items()})]
        if rows:
            parts += [heading("Area of each label, in percent"), bars([(row[1], row[2]) for row in rows])]
        overlays = sorted(path for path in (folder / KINDS["overlay"]).rglob("*") if path.suffix in (".jpg", ".png"))
        if overlays:
            parts.append(heading(f"The first {len(overlays[:MAX_PICTURES])} of {len(overlays)} overlays"))
        for path in overlays[:MAX_PICTURES]:
            with Image.open(path) as overlay:
                name = path.relative_to(folder).as_posix()
                caption = f"<figcaption>{escape(name)}</figcaption>"
                overlay.thumbnail(PICTURE_SIZE)
                parts.append(f"<figure>{caption}{picture(name, overlay)}</figure>")
        if self.failures:
            parts += [heading("Problems"), fact_list(dict(self.failures))]
        return [*parts, heading("The run"), fact_list(about)]
