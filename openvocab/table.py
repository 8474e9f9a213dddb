"""The suite's results as one table: text, JSON, a page."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lseg_utils.files import write_aside
from lseg_utils.git import git_state
from lseg_utils.html_page import Link, fact_list, heading, paragraph, table, write_page
from lseg_utils.results import text_table, versions, write_json
from openvocab.mess import DOMAIN_HEADER, DOMAIN_NOTE, domain_rows

COLUMNS = {
    "miou_present": "present",
    "miou_present_or_predicted": "present or predicted",
    "miou_all": "all",
    "fwiou": "fwIoU",
    "macc": "mAcc",
    "pacc": "pAcc",
    "boundary_iou": "boundary",
    "open_miou_present": "open",
    "cp_iou": "CP-IoU",
}
NOTE = (
    "All figures in percent. mIoU: by the definition that the literature quotes for the benchmark. The next three\n"
    "columns are its mean over the classes present in the truth, present or predicted, and over all classes.\n"
    "boundary: boundary IoU. open: Open mIoU over the classes present, similarity by common words. CP-IoU (--cp_iou):\n"
    "IoU of the masks of thresholded probabilities, the mean over classes, pictures and thresholds."
)
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "opencv-python", "clip-anytorch")


def rows_of(results: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows, as ``text_table`` takes them; the column CP-IoU if it was computed anywhere."""
    computed = any("cp_iou" in result["scores"] for result in results)
    columns = {name: text for name, text in COLUMNS.items() if name != "cp_iou" or computed}
    rows = [
        [
            result["benchmark"],
            result["pictures"],
            len(result["labels"]),
            float(result["scores"][result["quoted_score"]]),
            *(float(result["scores"][name]) if name in result["scores"] else None for name in columns),
        ]
        for result in results
    ]
    return ["benchmark", "pictures", "classes", "mIoU", *columns.values()], rows


def write_table(folder: Path, results: Sequence[Mapping[str, Any]], missing: Sequence[str]) -> str:
    """results.json, table.txt and report.html; the table as text."""
    header, rows = rows_of(results)
    domains = domain_rows(results)
    shown = [["-" if cell is None else cell for cell in row] for row in rows]
    text = f"{text_table(header, shown)}\n\n{NOTE}"
    if domains:
        text += f"\n\n{text_table(DOMAIN_HEADER, domains)}\n\n{DOMAIN_NOTE}"
    state = {"versions": versions(PACKAGES), "git": git_state(), "command": sys.argv}
    by_domain = [dict(zip(DOMAIN_HEADER, row, strict=True)) for row in domains]
    found = {"results": list(results), "mess": by_domain, "missing": list(missing)}
    write_json(folder / "results.json", {**found, **state})
    with write_aside(folder / "table.txt") as aside:
        aside.write_text(text + "\n", encoding="utf-8")
    linked = [[Link(row[0], f"{row[0]}/report.html"), *row[1:]] for row in rows]
    parts = [table(header, linked, "All benchmarks, in percent", digits=2), paragraph(NOTE.replace("\n", " "))]
    if domains:
        parts += [table(DOMAIN_HEADER, domains, "MESS by domain, mIoU in percent", digits=2)]
        parts += [paragraph(DOMAIN_NOTE.replace("\n", " "))]
    if missing:
        parts += [heading("Missing"), *map(paragraph, missing)]
    for result in results:
        facts = {name: value for name, value in result.items() if isinstance(value, str)}
        parts += [heading(f"What was tested: {result['benchmark']}"), fact_list(facts)]
    write_page(folder / "report.html", "Open-vocabulary benchmarks", [*parts, heading("The run"), fact_list(state)])
    return text
