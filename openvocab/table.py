"""The suite's results as one table: text, JSON, a page."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping, Sequence
from html import escape
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lseg_utils.files import write_aside
from lseg_utils.git import git_state
from lseg_utils.results import text_table, write_json
from modules.testing.report_page import write_page

COLUMNS = {
    "miou_present": "present",
    "miou_present_or_predicted": "present or predicted",
    "miou_all": "all",
    "fwiou": "fwIoU",
    "macc": "mAcc",
    "pacc": "pAcc",
    "boundary_iou": "boundary",
    "open_miou_present": "open",
}
NOTE = (
    "All figures in percent. mIoU: by the definition that the literature quotes for the benchmark. The next three\n"
    "columns are its mean over the classes present in the truth, present or predicted, and over all classes.\n"
    "boundary: boundary IoU. open: Open mIoU over the classes present, similarity by common words."
)
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "opencv-python", "clip-anytorch")


def versions() -> dict[str, str]:
    """Of Python and of the packages that a result depends on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def rows_of(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows, as ``text_table`` takes them."""
    rows = [
        [
            result["benchmark"],
            result["pictures"],
            len(result["labels"]),
            float(result["scores"][result["quoted_score"]]),
            *(float(result["scores"][name]) for name in COLUMNS),
        ]
        for result in results
    ]
    return ["benchmark", "pictures", "classes", "mIoU", *COLUMNS.values()], rows


def write_table(folder: Path, results: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> str:
    """results.json, table.txt and report.html; the table as text."""
    header, rows = rows_of(results)
    text = f"{text_table(header, rows)}\n\n{NOTE}"
    state = {"versions": versions(), "git": git_state(), "command": sys.argv}
    write_json(folder / "results.json", {"results": list(results), "missing": list(missing), **state})
    with write_aside(folder / "table.txt") as aside:
        aside.write_text(text + "\n", encoding="utf-8")
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = ""
    for row in rows:
        link = f'<a href="{escape(row[0])}/report.html">{escape(row[0])}</a>'
        cells = (f"{value:.2f}" if isinstance(value, float) else str(value) for value in row[1:])
        body += f"<tr><td>{link}</td>{''.join(f'<td class=number>{cell}</td>' for cell in cells)}</tr>"
    parts = [f"<h1>Open-vocabulary benchmarks</h1><table><tr>{head}</tr>{body}</table><p>{escape(NOTE)}</p>"]
    if missing:
        parts.append(f"<h2>Missing</h2><ul>{''.join(f'<li>{escape(text)}</li>' for text in missing)}</ul>")
    parts.append("<h2>What was tested</h2>")
    for result in results:
        facts = {name: value for name, value in result.items() if isinstance(value, str)}
        terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
        parts.append(f"<dl>{terms}</dl>")
    terms = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in state.items())
    write_page(folder / "report.html", "Open-vocabulary benchmarks", [*parts, f"<dl>{terms}</dl>"])
    return text
