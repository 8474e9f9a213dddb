"""A few tiny pictures in the folders, names and file formats of any description."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from data.description import Description, Files

SIZE = (32, 24)  # width, height
PALETTES = ("voc2012", "voc2012_aug", "mapillary_vistas65", "camvid")  # their masks are palette pictures
SPARE = "000000 000001 000002".split()


def make_stand_in(description: Description, root: Path, count: int = 2) -> None:
    """``count`` pictures in every split, or as many as the description lists by name.

    The left third of each mask is the first label, the middle the last label, the right ignored if anything is.
    """
    for parts in description.splits.values():
        for part in parts:
            _make_part(description, root, part, count)


def numbers_of(description: Description) -> np.ndarray:
    """(h, w): what a mask contains."""
    numbers = {index: number for number, index in description.masks.table.items()}  # the last of each label
    third = numbers.get(-1, 0 if description.masks.others == -1 else numbers[0])
    columns = np.repeat([numbers[0], numbers[len(description.labels) - 1], third], (SIZE[0] // 3, SIZE[0] // 3, 12))
    return columns[None].repeat(SIZE[1], axis=0).astype(np.int64)


def _make_part(description: Description, root: Path, part: Files, count: int) -> None:
    names, segments = description.names, []
    listed = part.names if isinstance(part.names, tuple) else SPARE[:count]
    for number, key in enumerate(listed):
        image = _path(root / part.images, names.get("image_prefix", ""), key, names.get("image_suffix", ""), ".jpg")
        noise = np.random.default_rng(number).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8)
        image.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).save(image)
        if part.masks:
            extension = {"polygons": ".json", "mat": ".mat"}.get(description.masks.coding, ".png")
            affixes = names.get("mask_prefix", ""), key, names.get("mask_suffix", "")
            segments += _write_mask(description, _path(root / part.masks, *affixes, extension))
    if isinstance(part.names, str):
        lines = ["s"] if "*" in part.images else listed  # a folder, or names
        (root / part.names).parent.mkdir(parents=True, exist_ok=True)
        (root / part.names).write_text("\n".join(lines) + "\n")
    if part.segments:
        (root / part.segments).write_text(json.dumps({"annotations": segments}))


def _path(place: Path, prefix: str, key: str, suffix: str, extension: str) -> Path:
    """A file in a folder, or of a glob, whose wildcard folders become "s"."""
    parts = place.parts
    if "*" in parts[-1]:
        extension = Path(parts[-1]).suffix
        parts = parts[:-1]
    folder = Path(*("s" if part in ("*", "**") else part for part in parts))
    name = f"{prefix}{key}{suffix}"
    return folder / (name if Path(suffix).suffix else name + extension)


def _write_mask(description: Description, path: Path) -> list[dict]:
    """Write a mask in the description's coding; the entry of a panoptic JSON file."""
    coding, numbers = description.masks.coding, numbers_of(description)
    path.parent.mkdir(parents=True, exist_ok=True)
    if coding == "mat":
        from scipy.io import savemat

        savemat(path, {description.masks.variable: numbers.astype(np.uint16)})
    elif coding == "polygons":
        texts = {number: text for text, number in description.masks.texts.items()}
        shapes = []
        for x in (0, 10, 20):
            corners = [[x, 0], [x + 9, 0], [x + 9, SIZE[1] - 1], [x, SIZE[1] - 1]]
            shapes.append({"label": texts[int(numbers[0, x])], "polygon": corners})
        path.write_text(json.dumps({"imgWidth": SIZE[0], "imgHeight": SIZE[1], "objects": shapes}))
    elif coding == "values":
        picture = Image.fromarray(numbers.astype(np.uint8 if numbers.max() < 256 else np.uint16))
        if description.name in PALETTES:
            picture.putpalette([value for value in range(256) for _ in range(3)])
        picture.save(path)
    else:
        if coding == "ade_full":
            channels = [numbers // 256 * 10, numbers % 256, 0 * numbers]
        elif coding == "colours":
            channels = [numbers >> 16, numbers >> 8 & 255, numbers & 255]
        else:  # panoptic: the segment's number, red first, is unlike its category; 0 is no segment
            channels = [np.where(numbers, numbers % 7 + 1, 0), np.where(numbers, numbers % 11, 0), 0 * numbers]
        Image.fromarray(np.stack(channels, axis=2).astype(np.uint8)).save(path)
    if coding != "panoptic":
        return []
    found = [int(number) for number in np.unique(numbers) if number]
    info = [{"id": number % 7 + 1 + 256 * (number % 11), "category_id": number} for number in found]
    return [{"file_name": path.name, "segments_info": info}]
