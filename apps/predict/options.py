"""What a run of predict_lseg.py was asked to do: values that check themselves. Imports neither torch nor OpenCV."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from apps.predict.sources import Source
from encoding_ext.label_colours import SCHEMES
from lseg_utils.errors import InputError, raise_all
from lseg_utils.feature_store import CODES
from modules.choices import CALLERS, LAYOUTS, MODES, VARIANTS

KINDS = {"overlay": "overlays", "mask": "masks", "labels": "labels", "json": "json"}  # kind -> folder
PICTURE_FORMATS, VIDEO_FORMATS, STORES = ("jpg", "png"), ("mp4", "gif"), ("npy", "pt", "h5", "store")
OPACITY = 0.6
MIN_COMPONENTS = 3  # a colour is made of three


@dataclass(frozen=True)
class LookOptions:
    """How pictures and frames go through the network: see ``LSegPredictor.segment``.

    max_frames: of each video or camera; None for all.
    """

    mode: str = "whole"
    long_side: int | None = None
    batch_size: int = 4
    max_frames: int | None = None

    def __post_init__(self) -> None:
        problems = [] if self.mode in MODES else [f"--mode {self.mode!r} is unknown; choose one of {', '.join(MODES)}"]
        for name in ("long_side", "batch_size", "max_frames"):
            value = getattr(self, name)
            if value is not None and value < 1:
                problems.append(f"--{name} is {value}; it must be at least 1")
        raise_all(problems)


@dataclass(frozen=True)
class WriteOptions:
    """What is written of each picture and video.

    kinds: keys of ``KINDS``; empty for embeddings alone. opacity: of the colours in overlays, 0 (the picture alone) to
    1 (the colours alone). palette: one of ``encoding_ext.label_colours.SCHEMES``. names: write the labels' names into
    overlays of pictures. picture_format, video_format: file types of overlays (and of a video's mask).
    """

    kinds: frozenset[str] = frozenset(KINDS)
    opacity: float = OPACITY
    palette: str = "natural"
    names: bool = True
    picture_format: str = "jpg"
    video_format: str = "mp4"

    def __post_init__(self) -> None:
        problems = unknown_kinds(self.kinds)
        if self.palette not in SCHEMES:
            problems.append(f"--palette {self.palette!r} is unknown; choose one of {', '.join(SCHEMES)}")
        if not 0 <= self.opacity <= 1:
            problems.append(f"--opacity is {self.opacity}; it must be from 0 (the picture alone) to 1")
        raise_all(problems)


@dataclass(frozen=True)
class EmbeddingOptions:
    """Which pixel embeddings are written; size, variant, multi_scale and long_side as in ``LSegPredictor.embed``.

    store: one of ``STORES``, or None to write PCA previews alone. size: the text "480x640" becomes (480, 640). pca: the
    number of principal components; None keeps all dimensions. variant: also one of ``CALLERS``, for embeddings exactly
    as that project makes them. layout: of the files' axes, one of ``LAYOUTS``. suffix: of their names, before the
    extension. codes: the numbers in a "store", one of ``CODES``; a store contains the network's own grid: size,
    variant, multi_scale, layout and suffix do not apply.
    """

    store: str | None = None
    size: str | tuple[int, int] = "half"
    variant: str = "unit"
    multi_scale: bool = False
    pca: int | None = None
    long_side: int | None = None
    layout: str = "hwc"
    suffix: str = ""
    codes: str = CODES[0]

    def __post_init__(self) -> None:
        problems = []
        try:
            if isinstance(self.size, str):
                object.__setattr__(self, "size", parse_size(self.size))
        except InputError as error:
            problems.append(str(error))
        known = (*VARIANTS, *CALLERS)
        if self.variant not in known:
            problems.append(f"--embedding_variant {self.variant!r} is unknown; choose one of {', '.join(known)}")
        if self.variant in CALLERS and (self.size != "half" or self.multi_scale):
            problems.append(
                f"--embedding_variant {self.variant} decides on sizes and scales: leave out --embedding_size and "
                "--embedding_multi_scale"
            )
        if self.layout not in LAYOUTS:
            problems.append(f"--embedding_layout {self.layout!r} is unknown; choose one of {', '.join(LAYOUTS)}")
        if self.store == "h5" and self.layout != "hwc":
            problems.append("--embedding_layout chw is for npy and pt files; leave it out for h5")
        if "/" in self.suffix:
            problems.append(f"--embedding_suffix {self.suffix!r} contains a /; it is the end of a file's name")
        changed = (self.size, self.variant, self.multi_scale, self.layout, self.suffix)
        if self.store == "store" and changed != ("half", "unit", False, "hwc", ""):
            problems.append(
                "--embeddings store contains the network's own grid, which can be read at any size: leave out "
                "--embedding_size, --embedding_variant, --embedding_multi_scale, --embedding_layout and "
                "--embedding_suffix"
            )
        if self.store != "store" and self.codes != CODES[0]:
            problems.append(f"--store_codes {self.codes} needs --embeddings store")
        if self.pca is not None and self.pca < MIN_COMPONENTS:
            problems.append(f"--pca is {self.pca}; it must be at least {MIN_COMPONENTS}")
        if self.store == "h5" and find_spec("h5py") is None:
            problems.append("--embeddings h5 needs h5py: pip install h5py (or choose npy or pt)")
        raise_all(problems)


@dataclass(frozen=True)
class Request:
    """A whole run.

    Args:
        weights: the checkpoint; trust: whether code in the file may run.
        backbone: the backbone that the checkpoint must have; None for any.
        block: those of arch_option, block_depth and activation that were given.
        device, precision: as in ``LSegPredictor``.
        labels: those of ``--labels``, or None for the checkpoint's own; templates: as in ``encode_text``.
        folder: where results go; overwrite: delete the results of an earlier run there first.
    """

    sources: tuple[Source, ...]
    weights: Path
    trust: bool
    backbone: str | None
    block: Mapping[str, int | str]
    device: str
    precision: str
    labels: tuple[str, ...] | None
    templates: str | None
    look: LookOptions
    write: WriteOptions
    embedding: EmbeddingOptions | None
    folder: Path
    overwrite: bool


def unknown_kinds(kinds: Set[str]) -> list[str]:
    """A message for each name that is not a kind of output."""
    return [
        f"--write: unknown kind {kind!r}; choose from {', '.join(KINDS)}, or none"
        for kind in sorted(kinds - KINDS.keys())
    ]


def parse_kinds(text: str) -> frozenset[str]:
    """The kinds that ``--write`` lists, none for "none"; ``InputError`` for unknown kinds, or "none" next to others."""
    kinds = {part.strip() for part in text.split(",")} - {""}
    if "none" in kinds and len(kinds) > 1:
        raise InputError(f"--write is {text!r}; none cannot be combined with other kinds")
    raise_all(unknown_kinds(kinds - {"none"}))
    return frozenset(kinds - {"none"})


def parse_size(text: str, flag: str = "--embedding_size") -> str | tuple[int, int]:
    """ "input", "half", or "480x640" as (height, width); ``InputError`` for anything else."""
    if text in ("input", "half"):
        return text
    found = re.fullmatch(r"([1-9]\d*)x([1-9]\d*)", text)
    if not found:
        raise InputError(f"{flag} is {text!r}; use input, half, or HEIGHTxWIDTH such as 480x640")
    return int(found[1]), int(found[2])
