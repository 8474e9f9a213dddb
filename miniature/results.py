"""What the miniature's tests measured: read from their results.json files, as a table and as a map of compositions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lseg_utils.errors import InputError
from miniature.names import COLOURS, LABELS, SHAPES

# Folder of a test's results -> its row in the table. The first two always are there, the others with --controls.
NEEDED = {"labels": "labels", "synonyms": "synonyms only"}
CONTROLS = {
    "shuffled": "control: label embeddings shuffled",
    "untrained_labels": "control: text tower untrained",
    "untrained_synonyms": "control: text tower untrained, synonyms only",
}
TABLE_NOTE = (
    "Every pixel chooses among all 40 labels. Seen: 30 compositions of colour and shape, and 4 textures.\n"
    "Unseen: 6 compositions that are in no training mask."
)
COLUMNS = {"seen": "seen mIoU %", "unseen": "unseen mIoU %", "all": "all mIoU %"}


def read_results(folder: Path) -> tuple[dict[str, dict[str, Any]], list[str]]:
    """The results.json of each test in ``folder``, by the test's name, and a list of problems.

    A missing control is nothing wrong; a missing or damaged file of another kind is.
    """
    results, problems = {}, []
    for name in (*NEEDED, *CONTROLS):
        path = folder / name / "results.json"
        if name in CONTROLS and not path.exists():
            continue
        try:
            results[name] = read_result(path)
        except InputError as error:
            problems.append(str(error))
    return results, problems


def read_result(path: Path) -> dict[str, Any]:
    """One results.json of ``test_lseg.py --eval --dataset miniature``; ``InputError`` for any other file."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}, the result of a test, cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); delete it") from error
    try:
        groups = [result["groups"][name] for name in ("seen", "unseen")]
        measured = [result["miou"], *groups, *result["per_class_iou"].values()]
        fits = np.isfinite(measured).all() and len(result["per_class_iou"]) == len(LABELS)
        fits = fits and np.shape(result["confusion"]) == (len(LABELS), len(LABELS))
    except (AttributeError, KeyError, TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(f"{path} is not the result of a test of the miniature's {len(LABELS)} labels; delete it")
    return result


def table_rows(results: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per test, in the table's order: ``test``, ``name``, and mIoU in percent: ``seen``, ``unseen``, ``all``."""
    return [
        {
            "test": test,
            "name": name,
            **{group: float(results[test]["groups"][group]) for group in ("seen", "unseen")},
            "all": float(results[test]["miou"]),
        }
        for test, name in {**NEEDED, **CONTROLS}.items()
        if test in results
    ]


def table_cells(rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[Any]]]:
    """Header and rows of the table, as ``lseg_utils.results.text_table`` takes them."""
    return ["tested with", *COLUMNS.values()], [[row["name"], *(row[column] for column in COLUMNS)] for row in rows]


def composition_ious(result: Mapping[str, Any]) -> np.ndarray:
    """IoU in percent of every composition: float (6, 6), colours down, shapes across; NaN: in no validation image."""
    ious = np.array(list(result["per_class_iou"].values()), dtype=float)
    ious[np.sum(result["confusion"], axis=1) == 0] = np.nan  # the label does not occur
    return np.array([[ious[LABELS.index(f"{colour} {shape}")] for shape in SHAPES] for colour in COLOURS])
