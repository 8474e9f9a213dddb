"""The pictures at the end of the quickstart: predictions with several label lists, and label similarities.

``Segment`` is any function (image (3, H, W) normalised, N labels) -> int (H, W) of 0..N-1; ``ToPixels`` undoes the
normalisation, -> uint8 (H, W, 3).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from data import get_dataset
from encoding_ext import image_to_tensor
from encoding_ext.transforms import tensor_to_pixels
from lseg_utils.heatmaps import DIVERGING, HeatScale, heat_map
from lseg_utils.named_maps import named_map
from lseg_utils.pictures import PAPER, legend, save_picture, sheet
from miniature.drawing import COLOUR_RGB
from miniature.names import COLOURS, LABELS, SHAPES, SYNONYMS, TEXTURES, UNSEEN, with_synonyms
from miniature.results import composition_ious
from modules.checkpoints import load_lseg
from modules.models import LSegNet, build_lseg

Segment = Callable[[Tensor, Sequence[str]], np.ndarray]
ToPixels = Callable[[Tensor], np.ndarray]

FACTOR = 4  # 64 pixels become 256
WELL_VISIBLE = 100  # pixels; an object with fewer is half hidden behind another
STAR_NOTE = "* = unseen: this label is in no training mask"

# An object's colour on the map is its own, darker or paler depending on its shape; single words have their own colours.
_SHADE = dict(zip(SHAPES, (0.08, -0.30, 0.32, -0.46, 0.55, -0.14)))
_WORD_RGB = {
    **COLOUR_RGB,
    "white": (190, 190, 196),
    "grass": (78, 100, 48),
    "sand": (196, 170, 124),
    "water": (62, 118, 138),
    "brick": (128, 72, 58),
    "circle": (240, 130, 30),
    "square": (60, 130, 220),
    "triangle": (60, 175, 90),
    "star": (235, 205, 50),
    "cross": (200, 70, 160),
    "ring": (110, 80, 190),
}
_CANONICAL = {synonym: word for word, synonym in SYNONYMS.items()}


def label_colours(labels: Sequence[str]) -> np.ndarray:
    """A colour for each label, uint8 (N, 3), after what it means: a red shade for 'red circle' and 'crimson disc'."""
    colours = []
    for label in labels:
        words = [_CANONICAL.get(word, word) for word in label.split()]
        colour, shade = np.array(_WORD_RGB[words[0]], float), _SHADE[words[1]] if len(words) > 1 else 0.0
        colours.append(colour * (1 + shade) if shade < 0 else colour + shade * (255 - colour))
    return np.array(colours).round().astype(np.uint8)


def starred(labels: Sequence[str]) -> list[str]:
    """The labels with a ``*`` behind those that are unseen, in canonical words or in synonyms."""
    unseen = {*UNSEEN, *map(with_synonyms, UNSEEN)}
    return [f"{label}*" if label in unseen else label for label in labels]


# ------------------------------------------------------------------------------------------------- which images


def visible_areas(dataset: Any) -> np.ndarray:
    """How many pixels each of the 40 labels has in each image: int (images, 40)."""
    masks = (dataset[i][1] for i in range(len(dataset)))
    return np.array([np.bincount(mask[mask >= 0].numpy(), minlength=len(LABELS)) for mask in masks])


def choose_images(areas: np.ndarray) -> list[int]:
    """For each unseen composition, the first image that shows it well and was not taken yet: at most 6 images.

    Where there is none, as in a very small world, the first one left with any unseen composition, else the first left.
    """
    unseen = [LABELS.index(label) for label in UNSEEN]
    chosen: list[int] = []
    for label in unseen[: len(areas)]:
        left = np.setdiff1d(np.arange(len(areas)), chosen)
        shown = areas[left][:, unseen].max(axis=1) >= WELL_VISIBLE
        shown_well = areas[left, label] >= WELL_VISIBLE
        chosen.append(int(left[np.lexsort((left, ~shown, ~shown_well))[0]]))
    return chosen


def choose_rich_image(areas: np.ndarray) -> int:
    """The first of the images that show most labels well, among those with an unseen composition if there are any."""
    well = areas >= WELL_VISIBLE
    has_unseen = well[:, [LABELS.index(label) for label in UNSEEN]].any(axis=1)
    return int(np.lexsort((-well.sum(axis=1), ~has_unseen))[0])


# ------------------------------------------------------------------------------------------------------ pictures


def prediction_sheet(dataset: Any, chosen: Sequence[int], segment: Segment, to_pixels: ToPixels) -> Image.Image:
    """A column for each chosen image: the image, its truth, the prediction with labels, and with synonyms only."""
    synonyms = list(map(with_synonyms, LABELS))
    colours, names = label_colours(LABELS), starred(LABELS)
    columns, found = [], set()
    for index in chosen:
        image, mask = dataset[index]
        maps = [mask.numpy(), segment(image, LABELS), segment(image, synonyms)]
        found |= {int(label) for one in maps for label in np.unique(one) if label >= 0}
        named = [named_map(one, colours, text, FACTOR) for one, text in zip(maps, (names, names, starred(synonyms)))]
        columns.append([_enlarged(to_pixels(image)), *named])
    side = columns[0][0].width
    both = [f"{name} = {synonym}" for name, synonym in zip(names, synonyms)]
    width = len(columns) * (side + 10)
    return sheet(
        list(zip(*columns)),
        [Path(dataset.name_of(index)).name for index in chosen],
        ["image", "truth", "prediction", "prediction, synonyms only"],
        cell=(side, side),
        heading=f"LSeg in miniature: every pixel chooses among all {len(LABELS)} labels.  {STAR_NOTE}",
        footer=legend(sorted(found), both, colours, max(width, 700)),
    )


def relabel_sheet(image: Tensor, mask: np.ndarray, segment: Segment, to_pixels: ToPixels) -> Image.Image:
    """One image segmented again under other label lists, each with a legend of the labels that occur."""
    synonyms = list(map(with_synonyms, LABELS))
    single = _one_object(mask)
    lists = {
        f"all {len(LABELS)} labels": LABELS,
        f"all {len(LABELS)} synonyms": synonyms,
        "colours alone, and textures": COLOURS + TEXTURES,
        "shapes alone, and textures": SHAPES + TEXTURES,
        f"'{starred([single])[0]}' alone, and textures": (single, *TEXTURES),
        "textures alone": TEXTURES,
    }
    panels = [("image", _enlarged(to_pixels(image)), None), ("truth", *_panel(mask, LABELS))]
    panels += [(title, *_panel(segment(image, labels), labels)) for title, labels in lists.items()]
    side = panels[0][1].width
    lower = _panel_row(panels[4:], side)
    return _panel_row(panels[:4], side, f"One image, one network, other label lists.  {STAR_NOTE}", lower)


def iou_maps(labels: np.ndarray, synonyms: np.ndarray) -> Image.Image:
    """IoU in percent of all compositions, (6, 6) colours x shapes, with labels and with synonyms; unseen framed."""
    scale = HeatScale(0, 100, ticks=(0, 25, 50, 75, 100), form="{:.0f}".format)
    marked = [(COLOURS.index(colour), SHAPES.index(shape)) for colour, shape in map(str.split, UNSEEN)]
    words = [(COLOURS, SHAPES), tuple([SYNONYMS[word] for word in some] for some in (COLOURS, SHAPES))]
    maps = [
        heat_map(values, rows, columns, scale, cell=72, text_size=16, marked=marked, numbers=True)
        for values, (rows, columns) in zip((labels, synonyms), words)
    ]
    heading = "IoU % of every composition of colour and shape; framed: unseen in training"
    return _side_by_side(maps, ["tested with labels", "tested with synonyms only"], heading)


def cosine_maps(trained: np.ndarray, untrained: np.ndarray) -> Image.Image:
    """Cosines of the 40 labels' embeddings, (40, 40) in mask order each, of the trained and an untrained text tower."""
    shown = [f"{colour} {shape}" for colour in COLOURS for shape in SHAPES] + list(TEXTURES)
    order = [LABELS.index(label) for label in shown]
    names, groups = starred(shown), range(len(SHAPES) - 1, len(COLOURS) * len(SHAPES), len(SHAPES))
    scale = HeatScale(-1, 1, DIVERGING, ticks=(-1, -0.5, 0, 0.5, 1))
    maps = [
        heat_map(matrix[np.ix_(order, order)], names, names, scale, cell=16, text_size=13, lines_after=groups)
        for matrix in (trained, untrained)
    ]
    titles = ["text tower of the miniature's CLIP", "untrained text tower (random weights)"]
    return _side_by_side(maps, titles, f"Cosine similarity of all pairs of label embeddings.  {STAR_NOTE}")


# -------------------------------------------------------------------------------------------------------- parts


def _enlarged(pixels: np.ndarray) -> Image.Image:
    picture = Image.fromarray(pixels)
    return picture.resize((picture.width * FACTOR, picture.height * FACTOR), Image.Resampling.BICUBIC)


def _panel(labels: np.ndarray, names: Sequence[str]) -> tuple[Image.Image, Image.Image]:
    """A named map and the legend of the labels that occur in it, largest area first."""
    colours, names = label_colours(names), starred(names)
    picture = named_map(labels, colours, names, FACTOR)
    found, areas = np.unique(labels[labels >= 0], return_counts=True)
    return picture, legend(found[np.argsort(-areas, kind="stable")], names, colours, picture.width, text_size=15)


def _one_object(mask: np.ndarray) -> str:
    """The label with the largest true area: an unseen composition if there is one, else an object, else any label."""
    areas = np.bincount(mask[mask >= 0], minlength=len(LABELS))
    return LABELS[
        max(range(len(LABELS)), key=lambda i: (areas[i] > 0, LABELS[i] in UNSEEN, LABELS[i] not in TEXTURES, areas[i]))
    ]


def _panel_row(
    panels: Sequence[tuple[str, Image.Image, Image.Image | None]],
    side: int,
    heading: str = "",
    footer: Image.Image | None = None,
) -> Image.Image:
    """Panels of title, map and legend next to each other, all as tall as the longest legend needs."""
    height = side + max(key.height for *_, key in panels if key is not None)
    cells = []
    for _, picture, key in panels:
        cells.append(Image.new("RGB", (side, height), PAPER))
        cells[-1].paste(picture, (0, 0))
        if key is not None:
            cells[-1].paste(key, (0, side))
    return sheet([cells], [title for title, *_ in panels], cell=(side, height), heading=heading, footer=footer)


def _side_by_side(maps: Sequence[Image.Image], titles: Sequence[str], heading: str) -> Image.Image:
    cell = (max(one.width for one in maps), max(one.height for one in maps))
    return sheet([maps], titles, cell=cell, heading=heading)


def write_pictures(
    folder: Path, checkpoint: Path, datasets: Path, seed: int, results: Mapping[str, Mapping[str, Any]]
) -> None:
    """Write all pictures of the report: predictions on images chosen by a fixed rule, and maps of numbers."""
    net = load_lseg(checkpoint)
    dataset = get_dataset(
        "miniature", datasets, split="val", mode="testval", transform=image_to_tensor(net.mean, net.std)
    )

    @torch.inference_mode()
    def segment(image: Tensor, labels: Sequence[str]) -> np.ndarray:
        return net(image[None], labels=list(labels))[0].argmax(dim=0).numpy()

    areas, to_pixels = visible_areas(dataset), tensor_to_pixels(net.mean, net.std)
    picture = prediction_sheet(dataset, choose_images(areas), segment, to_pixels)
    save_picture(folder / "sheet.png", picture)
    image, mask = dataset[choose_rich_image(areas)]
    save_picture(folder / "relabel.png", relabel_sheet(image, mask.numpy(), segment, to_pixels))
    ious = [composition_ious(results[name]) for name in ("labels", "synonyms")]
    save_picture(folder / "iou_map.png", iou_maps(*ious))
    save_picture(folder / "cosine.png", cosine_maps(cosines(net), cosines(untrained_like(net, seed))))


def cosines(net: LSegNet) -> np.ndarray:
    """(40, 40): cosine similarity of the text embeddings of the miniature's labels, -1..1."""
    text = net.encode_labels(LABELS)
    return (text @ text.T).numpy()


def untrained_like(net: LSegNet, seed: int) -> LSegNet:
    """A network of the same architecture with random weights, in the text tower too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_lseg(labels=None, **net.architecture).eval()
