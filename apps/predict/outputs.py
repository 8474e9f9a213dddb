"""Where the results of a picture or video go, and in which form.

``<folder>/overlays|masks|labels|json/<name>.*``: every kind has a folder, in which the input's folders are repeated.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from apps.predict.journal import identity
from apps.predict.sources import Source
from lseg_utils.errors import InputError
from lseg_utils.pictures import MOST_LABELS_IN_8_BITS, overlay, save_palette_png, save_picture
from lseg_utils.results import write_json

KINDS = {"overlay": "overlays", "mask": "masks", "labels": "labels", "json": "json"}
PICTURE_FORMATS = ("jpg", "png")
MOST_LABELS = 65_535  # a 16-bit PNG's values, of which a mask keeps one for "unlabelled"
LONGEST_JPEG_SIDE = 65_500
WORK = ".unfinished_videos"


@dataclass(frozen=True)
class Outputs:
    """What to write.

    folder: holds everything. kinds: of ``KINDS``. labels, colours: (N,) names and uint8 (N, 3). opacity: of overlays.
    picture_format, video_format: suffixes of overlays (and of a video's mask). about: goes into every JSON.
    """

    folder: Path
    kinds: frozenset[str]
    labels: Sequence[str]
    colours: np.ndarray
    opacity: float
    picture_format: str
    video_format: str
    about: dict[str, Any]

    def path(self, kind: str, source: Source) -> Path:
        """The file (for the labels of a video: the folder) that ``kind`` is written to."""
        moving = source.kind != "picture"
        suffix = {
            "overlay": f".{self.video_format if moving else self.picture_format}",
            "mask": f".{self.video_format}" if moving else ".png",
            "labels": "" if moving else ".png",
            "json": ".json",
        }[kind]
        return self.folder / KINDS[kind] / (source.name + suffix)

    def work_folder(self, source: Source) -> Path:
        """Where results of an unfinished video are kept; another file of the same name gets another folder."""
        stamp = "_".join(map(str, identity(source.path) or ["camera"]))
        return self.folder / WORK / f"{source.name}.{stamp}"

    def complete(self, source: Source) -> bool:
        """Whether every file of ``source`` is there."""
        return all(self.path(kind, source).exists() for kind in self.kinds)

    def check_size(self, rgb: Tensor) -> None:
        """``InputError`` if a picture (3, H, W) has no overlay of the format that was asked for."""
        longest = max(rgb.shape[1:])
        if "overlay" in self.kinds and self.picture_format == "jpg" and longest > LONGEST_JPEG_SIDE:
            raise InputError(
                f"a side of {longest:,} pixels is too long for JPEG ({LONGEST_JPEG_SIDE:,}); give --overlay_format png"
            )

    def forget(self) -> None:
        """Delete all results, which may be of other labels, and the frames of videos that were not finished."""
        for name in (*KINDS.values(), WORK):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def write_picture(self, source: Source, pixels: np.ndarray, mask: np.ndarray) -> None:
        """All kinds of a picture (H, W, 3) and its label map (H, W)."""
        if "overlay" in self.kinds:
            save_picture(self.path("overlay", source), overlay(pixels, mask, self.colours, self.opacity))
        if "mask" in self.kinds:
            save_palette_png(self.path("mask", source), mask, self.colours)
        if "labels" in self.kinds:
            save_label_png(self.path("labels", source), mask, len(self.labels))
        if "json" in self.kinds:
            height, width = mask.shape
            self.write_facts(source, width=width, height=height, areas=self.describe(count(mask)))

    def write_facts(self, source: Source, **facts: Any) -> None:
        """The JSON of a source."""
        write_json(self.path("json", source), {"source": str(source.path), **self.about, **facts})

    def describe(self, areas: dict[int, int]) -> list[dict[str, Any]]:
        """Label number -> pixels, as JSON for people: the largest first, with names and shares of the whole."""
        total = max(sum(areas.values()), 1)
        return [
            {"number": number, "label": self.labels[number], "pixels": pixels, "share": pixels / total}
            for number, pixels in sorted(areas.items(), key=lambda item: -item[1])
        ]


def frame_name(number: int) -> str:
    """What results of a video's frame are called; the first is number 0."""
    return f"{number:06d}"


def count(mask: np.ndarray) -> dict[int, int]:
    """Label number -> pixels, of those that occur in a label map."""
    pixels = np.bincount(mask.ravel())
    return {int(number): int(pixels[number]) for number in np.flatnonzero(pixels)}


def save_label_png(path: Path, mask: np.ndarray, num_labels: int) -> None:
    """A grey PNG whose pixel value is the label's number, from 0: 8 bits, 16 if there are more than 255 labels."""
    dtype = np.uint8 if num_labels <= MOST_LABELS_IN_8_BITS else np.uint16
    save_picture(path, Image.fromarray(mask.astype(dtype)))


def read_label_png(path: Path) -> np.ndarray:
    """What ``save_label_png`` wrote: (H, W) int64."""
    with Image.open(path) as picture:
        return np.asarray(picture).astype(np.int64)
