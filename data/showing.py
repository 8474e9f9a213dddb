"""A sheet that shows a dataset: images, their masks in colours, and how much of the masks each label covers."""

from __future__ import annotations

import numpy as np
from PIL import Image

from data.described import DescribedDataset
from encoding_ext.palettes import palette
from lseg_utils.pictures import colourise, legend, overlay, sheet

PICTURES = 6
LABELS_SHOWN = 60


def dataset_sheet(dataset: DescribedDataset) -> Image.Image:
    """Evenly spread pictures of a split with their masks; the legend gives each label's share of those masks."""
    rows, names, counts = [], [], np.zeros(len(dataset.labels) + 1, np.int64)
    for index in np.unique(np.linspace(0, len(dataset) - 1, PICTURES).round().astype(int)):
        image, target = dataset.image(int(index)), dataset.target(int(index))
        counts += np.bincount(target.ravel() + 1, minlength=len(counts))
        rows.append((image, target))
        names.append(dataset.files[int(index)][0].name)
    # Only the labels that occur need colours, the most frequent first.
    found = [int(label) for label in np.argsort(-counts[1:], kind="stable") if counts[label + 1]]
    place = np.full(len(counts), -1)
    place[np.array(found, int) + 1] = np.arange(len(found))
    colours = palette(len(found))
    cells = []
    for image, target in rows:
        labels = place[target + 1]
        cells.append((image, colourise(labels, colours), overlay(image, labels, colours)))
    share = 100 * counts / max(counts.sum(), 1)
    texts = [f"{dataset.labels[label]}  {share[label + 1]:.1f} %" for label in found]
    heading = f"{dataset.name}, split {dataset.split}: {len(dataset):,} images, {len(dataset.labels)} labels; "
    heading += f"unlabelled (black) {share[0]:.1f} %"
    key = legend(range(min(len(found), LABELS_SHOWN)), texts, colours, 1000)
    return sheet(cells, ["image", "mask", "both"], names, heading=heading, footer=key)
