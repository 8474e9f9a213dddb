"""Where the results of a picture or video go, and in which form.

``<folder>/overlays|masks|labels|json/<name>.*``: each kind has a folder, which mirrors the folders of the inputs.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from apps.predict.options import KINDS, WriteOptions
from apps.predict.sources import FRAMES, Source
from encoding_ext.label_colours import label_colours
from lseg_utils.errors import InputError
from lseg_utils.pictures import legend, save_picture
from lseg_utils.results import write_json
from modules.inference.segmentation import Segmentation

MAX_LABELS = 65_535  # the values of a 16-bit PNG, of which a mask needs one for "unlabelled"
MAX_JPEG_SIDE = 65_500
MAX_LEGEND_LABELS = 500
UNFINISHED = ".unfinished_videos"


@dataclass(frozen=True)
class Outputs:
    """What is written, and where. labels: the N label names; about: facts that every JSON repeats."""

    folder: Path
    options: WriteOptions
    labels: Sequence[str]
    about: Mapping[str, Any]

    @cached_property
    def colours(self) -> np.ndarray:
        """(N, 3) uint8, the labels' colours."""
        return label_colours(self.labels, self.options.palette)

    def path(self, kind: str, source: Source) -> Path:
        """The file (for the labels of a video, the folder) of one kind of result."""
        moving = source.kind != "picture"
        suffix = {
            "overlay": f".{self.options.video_format if moving else self.options.picture_format}",
            "mask": f".{self.options.video_format}" if moving else ".png",
            "labels": FRAMES if moving else ".png",
            "json": ".json",
        }[kind]
        return self.folder / KINDS[kind] / (source.name + suffix)

    def frames_folder(self, source: Source) -> Path:
        """The folder of a video's label maps: a result, or kept until the video is finished, to resume from."""
        return self.path("labels", source) if "labels" in self.options.kinds else self.folder / UNFINISHED / source.name

    def complete(self, source: Source) -> bool:
        """Whether every file of ``source`` is there."""
        return all(self.path(kind, source).exists() for kind in self.options.kinds)

    def forget(self) -> None:
        """Delete all results: they may belong to other labels."""
        for name in (*KINDS.values(), UNFINISHED):
            shutil.rmtree(self.folder / name, ignore_errors=True)

    def forget_frames(self, source: Source) -> None:
        """Delete the label maps of a video's frames."""
        for folder in (self.path("labels", source), self.folder / UNFINISHED / source.name):
            shutil.rmtree(folder, ignore_errors=True)

    def forget_unfinished(self, source: Source) -> None:
        """Delete the label maps of a finished video unless they are a result."""
        if "labels" not in self.options.kinds:
            folder = self.frames_folder(source)
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # not empty: another video is unfinished
                for parent in folder.relative_to(self.folder).parents:
                    (self.folder / parent).rmdir()

    def describe_labels(self) -> None:
        """Write labels.json, and legend.png if there are at most 500 labels and something shows their colours."""
        if self.labels:
            write_json(self.folder / "labels.json", {"labels": list(self.labels)})
        if self.options.kinds and len(self.labels) <= MAX_LEGEND_LABELS:
            key = legend(range(len(self.labels)), self.labels, self.colours, 800)
            save_picture(self.folder / "legend.png", key)

    def check_size(self, height: int, width: int) -> None:
        """``InputError`` if a picture of this size cannot have an overlay of the format that was asked for."""
        longest = max(height, width)
        if "overlay" in self.options.kinds and self.options.picture_format == "jpg" and longest > MAX_JPEG_SIDE:
            raise InputError(
                f"a side of {longest:,} pixels is too long for JPEG (at most {MAX_JPEG_SIDE:,}); use "
                "--overlay_format png"
            )

    def write(self, source: Source, result: Segmentation) -> dict[int, int]:
        """Write all kinds of results of a picture; returns label number -> pixels."""
        kinds = self.options.kinds
        result.colours = self.colours
        if "overlay" in kinds:
            mixed = result.overlay(self.options.opacity, self.options.names)
            save_picture(self.path("overlay", source), Image.fromarray(mixed))
        if "mask" in kinds:
            save_picture(self.path("mask", source), result.mask_picture())
        if "labels" in kinds:
            save_picture(self.path("labels", source), result.label_picture())
        if "json" in kinds:
            self.write_facts(source, result.facts())
        return result.pixel_counts()

    def write_facts(self, source: Source, facts: Mapping[str, Any]) -> None:
        """Write the JSON of a source."""
        write_json(self.path("json", source), {"source": str(source.path), **self.about, **facts})
