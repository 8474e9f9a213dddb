"""The zero-shot table of one benchmark: each fold's mIoU and FB-IoU, next to the published figures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import isfinite
from pathlib import Path
from statistics import mean
from typing import Any

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script
from lseg_utils.results import text_table, write_json
from modules.released import published

SELECTION = {
    "held_out": "epoch and learning rate chosen on seen classes kept from training",
    "official": "epoch and learning rate chosen on the test classes, as published",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Gather the folds' results.json, print the table, write table.json next to them."""
    parser = Parser(__doc__)
    parser.add_argument("--dataset", required=True, help="report on this benchmark")
    parser.add_argument("--backbone", required=True, help="report on this image encoder")
    places = "read fold<f>/results.json and fold<f>_shuffled/results.json in this folder"
    parser.add_argument("--folder", type=Path, required=True, help=places)
    options = parser.parse(argv)
    folds = read_folds(options.folder)
    shuffled = read_folds(options.folder, "_shuffled", required=False)
    known = published(options.dataset, options.backbone)
    per_fold = dict(enumerate(known.miou_by_fold if known else ()))
    rows = [
        row(str(fold), result["miou"], result["fb_iou"], per_fold.get(fold), shuffled.get(fold))
        for fold, result in folds.items()
    ]
    averages = [mean(result[key] for result in folds.values()) for key in ("miou", "fb_iou")]
    # The published mean is over all folds, so it compares with nothing less.
    rows.append(row("mean", *averages, known.miou if known and len(folds) == len(per_fold) else None, None))
    header = ["fold", "mIoU", "FB-IoU", "published", "difference", "shuffled control"]
    filled = [column for column in range(len(header)) if any(cells[column] for cells in rows)]
    header, rows = [header[column] for column in filled], [[cells[column] for column in filled] for cells in rows]
    print(text_table(header, rows))
    if known and known.fb_iou is not None:
        print(f"published mean FB-IoU {known.fb_iou}")
    print(how_selected(folds))
    table = {"dataset": options.dataset, "backbone": options.backbone, "header": header, "rows": rows}
    write_json(options.folder / "table.json", {**table, "selection": how_selected(folds)})
    print(f"wrote {options.folder / 'table.json'}")


def read_folds(folder: Path, suffix: str = "", required: bool = True) -> dict[int, dict[str, Any]]:
    """The results of each fold; ``InputError`` if there are none although they are ``required``."""
    paths = {fold: folder / f"fold{fold}{suffix}" / "results.json" for fold in range(4)}
    found = {fold: read_result(path) for fold, path in paths.items() if path.is_file()}
    if required and not found:
        raise InputError(f"no fold has results under {folder}; run train_zs.sh or test_zs.sh first")
    return found


def read_result(path: Path) -> dict[str, Any]:
    """One results.json of ``test_lseg_zs.py``; ``InputError`` for any other file."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        fits = isfinite(result["miou"]) and isfinite(result["fb_iou"]) and isinstance(result["trained"], dict)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        fits = False
    if not fits:
        raise InputError(f"{path} is not the result of a zero-shot test, or is damaged; delete it and test again")
    return result


def row(name: str, miou: float, fb_iou: float, published: float | None, control: dict[str, Any] | None) -> list[str]:
    """The cells of a row, as text."""
    compared = ["", ""] if published is None else [f"{published:.1f}", f"{miou - published:+.1f}"]
    return [name, f"{miou:.1f}", f"{fb_iou:.1f}", *compared, "" if control is None else f"{control['miou']:.1f}"]


def how_selected(folds: dict[int, dict[str, Any]]) -> str:
    """Which classes chose the checkpoints, and whether these are few-shot."""
    ways = {result["trained"].get("select") for result in folds.values()}
    texts = [SELECTION.get(way, "the checkpoints do not record how they were chosen") for way in sorted(ways, key=str)]
    few_shot = {result.get("setting", "zero-shot") for result in folds.values()} - {"zero-shot"}
    return "; ".join([*sorted(few_shot), *texts])


if __name__ == "__main__":
    run_script(main)
