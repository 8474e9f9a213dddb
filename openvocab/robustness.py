"""What a label list does to a segmentation: every picture is seen once and compared with all lists.

Legend: N canonical labels; G classes of a change; H x W a picture.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from encoding_ext.label_colours import label_colours
from encoding_ext.metrics import scores_from_confusion
from lseg_utils.html_page import fact_list, heading, paragraph, picture, table
from lseg_utils.named_maps import named_map
from lseg_utils.pictures import sheet
from lseg_utils.results import text_table
from openvocab.changes import Change
from openvocab.look import Look
from openvocab.models import Segmenter
from openvocab.wording import Wording, word_similarity

HEADER = ["change", "labels", "renamed", "mIoU", "canonical", "open mIoU", "changed %"]
NOTE = (
    "mIoU: over the classes present; any name of a class counts as the class, a distractor counts as an error, and\n"
    "pixels of a removed label do not count. canonical: the canonical list under the same scoring. open mIoU:\n"
    "similarity by common words. changed: pixels whose class differs from the one under the canonical list."
)
PICTURED, SIDE = 8, 256  # changes whose worst picture is shown, and its size


class Prepared(NamedTuple):
    """A change with its texts as vectors (M, C); ``same_as``: the first change with the same texts and templates."""

    change: Change
    text: Tensor
    same_as: int


def prepare(model: Segmenter, changes: Sequence[Change]) -> list[Prepared]:
    """Encode the texts of all changes."""
    prepared: list[Prepared] = []
    for change in changes:
        texts = [(one.change.labels, one.change.templates) for one in prepared]
        this = (change.labels, change.templates)
        if this in texts:
            first = texts.index(this)
            prepared.append(Prepared(change, prepared[first].text, first))
        else:
            # A name may stand for two labels (a group, a synonym): then the first is predicted.
            distinct = list(dict.fromkeys(change.labels))
            vectors = model.encode_labels(distinct, Wording(change.templates).sentences)
            text = vectors[[distinct.index(label) for label in change.labels]]
            prepared.append(Prepared(change, text, len(prepared)))
    return prepared


def predictions(model: Segmenter, prepared: Sequence[Prepared], image: Tensor, look: Look) -> list[np.ndarray]:
    """What each change predicts: the numbers of its labels, (H, W); the picture is seen once."""
    seen, found = model.see(image, look), []
    for number, one in enumerate(prepared):
        known = one.same_as < number
        found.append(found[one.same_as] if known else model.best(seen, one.text).numpy())
    return found


def compare(prepared: Sequence[Prepared], found: Sequence[np.ndarray], truth: np.ndarray) -> dict[str, list]:
    """For each change: [truth, prediction, pixels], the same of the canonical list, and [changed, compared] pixels."""
    record: dict[str, list] = {"pairs": [], "canonical": [], "changed": []}
    for one, predicted in zip(prepared, found, strict=True):
        change, classes = one.change, len(one.change.classes)
        truth_of = np.array([*change.truth_of, -1])
        wanted, usual, now = truth_of[truth], truth_of[found[0]], np.array(change.class_of)[predicted]
        # Where the canonical list predicts a label that this change does not offer, there is nothing to compare.
        for name, prediction in (("pairs", now), ("canonical", np.where(usual < 0, classes, usual))):
            known = wanted >= 0
            pairs, pixels = np.unique(wanted[known] * (classes + 1) + prediction[known], return_counts=True)
            table = np.stack([pairs // (classes + 1), pairs % (classes + 1), pixels], axis=1)
            record[name].append(table.tolist())
        record["changed"].append([int(((now != usual) & (usual >= 0)).sum()), int((usual >= 0).sum())])
    return record


def summary(changes: Sequence[Change], records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row per change, in percent."""
    rows = []
    for number, change in enumerate(changes):
        classes = len(change.classes)
        confusions = {}
        for name in ("pairs", "canonical"):
            confusion = np.zeros((classes + 1, classes + 1), np.int64)  # the last: a label that is not offered
            for record in records:
                for truth, predicted, pixels in record[name][number]:
                    confusion[truth, predicted] += pixels
            confusions[name] = confusion
        alike = np.eye(classes + 1)
        alike[:classes, :classes] = word_similarity(change.classes)
        scores = scores_from_confusion(confusions["pairs"], alike)
        changed, compared = np.array([record["changed"][number] for record in records]).sum(axis=0)
        rows.append(
            {
                "change": change.name,
                "labels": len(change.labels),
                "renamed": change.renamed,
                "miou": scores["miou_present"],
                "canonical_miou": scores_from_confusion(confusions["canonical"])["miou_present"],
                "open_miou": scores["open_miou_present"],
                "changed_pixels": 100 * float(changed) / max(int(compared), 1),
            }
        )
    return rows


def as_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table for people."""
    return f"{text_table(HEADER, [list(row.values()) for row in rows])}\n\n{NOTE}"


def order_matters(rows: Sequence[Mapping[str, Any]]) -> str:
    """The sentence about the check that the order of the labels does not matter."""
    changed = next(row["changed_pixels"] for row in rows if row["change"] == "order permuted")
    if changed == 0:
        return "Check passed: with the labels in another order, every pixel gets the same label."
    return f"Check FAILED: with the labels in another order, {changed:.4f} % of the pixels get a different label."


def worst_pictures(rows: Sequence[Mapping[str, Any]], records: Sequence[Mapping[str, Any]]) -> list[tuple[int, int]]:
    """(change, index of the picture in which it changes the largest share), for the changes that change most."""
    shares = np.array([[changed / max(all_, 1) for changed, all_ in record["changed"]] for record in records])
    order = sorted(range(len(rows)), key=lambda number: -rows[number]["changed_pixels"])
    return [(number, int(shares[:, number].argmax())) for number in order[:PICTURED] if shares[:, number].any()]


def worst_sheet(
    model: Segmenter, prepared: Sequence[Prepared], dataset: Any, worst: Sequence[tuple[int, int]], look: Look
) -> Image.Image:
    """A row per change: the picture, its truth, the canonical prediction, and the prediction under the change."""
    canonical, grid, titles = prepared[0].change, [], []
    for number, index in worst:
        image, mask = dataset[index]
        change = prepared[number].change
        found = predictions(model, [prepared[0], prepared[number]._replace(same_as=1)], image, look)
        factor = max(SIDE // max(mask.shape), 1)
        step = max(max(mask.shape) // SIDE, 1)
        lists = [(mask.numpy(), canonical.labels), (found[0], canonical.labels), (found[1], change.labels)]
        drawn = [
            named_map(labels[::step, ::step], label_colours(names), [unaccented(name) for name in names], factor)
            for labels, names in lists
        ]
        grid.append([Image.fromarray(image.permute(1, 2, 0).numpy()), *drawn])
        titles.append(f"{change.name}: {Path(dataset.name_of(index)).name}")
    return sheet(grid, ["picture", "truth", "canonical labels", "changed labels"], titles, cell=(SIDE, SIDE))


def unaccented(text: str) -> str:
    """The text in the letters that the pictures' font has."""
    spelt_out = text.translate(str.maketrans({"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"}))
    return unicodedata.normalize("NFKD", spelt_out).encode("ascii", "ignore").decode()


def page_parts(rows: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], worst: Image.Image | None) -> list[str]:
    """The report as parts of a page. worst: the sheet of ``worst_sheet``."""
    parts = [
        paragraph(order_matters(rows)),
        table(HEADER, [list(row.values()) for row in rows], "Label lists, in percent"),
    ]
    parts.append(paragraph(NOTE.replace("\n", " ")))
    if worst is not None:
        title = "The pictures in which the labels changed most"
        parts += [heading(title), picture(title, worst)]
    return [*parts, heading("What was tested"), fact_list(facts)]
