"""What a description says about a dataset, as objects: its files, sizes, protocols, labels and mask values."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from data.labels import resolve_labels

SIDE_MULTIPLE = 32  # what networks with a feature map at 1/32 take
UNLABELLED = -1
CODINGS = ("values", "colours", "ade_full", "panoptic", "polygons", "mat")


@dataclass(frozen=True)
class Files:
    """A part of a split, as the description states it: folders or globs below the root, perhaps a list of names.

    masks: None where the split has images only. names: the file that lists the images that count, or their names.
    segments: the JSON of a panoptic mask folder.
    """

    images: str
    masks: str | None = None
    names: str | tuple[str, ...] | None = None
    segments: str | None = None


@dataclass(frozen=True)
class Sizes:
    """Pixels of the transforms. ``scales``: long side in training, in multiples of ``base``.

    max_short_side: a picture with a longer short side is reduced to it, with its mask, except for training crops.
    """

    base: int = 520
    crop: int = 480
    scales: tuple[float, float] = (0.5, 2.0)
    max_short_side: int | None = None


@dataclass(frozen=True)
class TestProtocol:
    """How a published figure was measured: sizes in pixels, scales of the long side, mirror images."""

    __test__ = False  # its name must not make pytest collect it

    base: int
    crop: int
    scales: tuple[float, ...] = (1.0,)
    flip: bool = False


@dataclass(frozen=True)
class Masks:
    """What the numbers in a mask mean.

    coding: how a file becomes numbers, one of ``CODINGS``. table: number -> label index, or ``UNLABELLED``; the texts
    of ``polygons`` are numbered by ``texts``. others: what any other number is; None: an error. variable: of ``mat``.
    """

    coding: str
    table: dict[int, int]
    others: int | None = None
    texts: dict[str, int] = field(default_factory=dict)
    variable: str = "LabelMap"


@dataclass(frozen=True)
class Description:
    """A dataset. ``labels``: the names of its label indices; the other fields are the keys of the file."""

    path: Path
    name: str
    labels: tuple[str, ...]
    masks: Masks
    root: Path | None = None  # None: the folder of all datasets
    about: str = ""
    source: str = ""
    licence: str = ""
    splits: dict[str, tuple[Files, ...]] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    label_lists: dict[str, tuple[str, ...]] = field(default_factory=dict)
    unseen: tuple[int, ...] = ()
    sizes: Sizes = Sizes()
    protocols: dict[str, TestProtocol] = field(default_factory=dict)
    fetch: str = ""
    archives: tuple[str, ...] = ()
    known: bool = False

    @cached_property
    def seen(self) -> tuple[int, ...]:
        """The label indices that training may use."""
        return tuple(index for index in range(len(self.labels)) if index not in self.unseen)

    def read_labels(self, label_src: str | None, testing: bool) -> tuple[list[str], tuple[int, ...]]:
        """The labels that ``label_src`` stands for, and the label index of each.

        ``default`` or ``all``: those of the description; ``seen``: without the unseen ones; one of ``lists``; or a
        file with a name for each label. None: ``seen`` for training, ``default`` for a test. Raises ``InputError``.
        """
        every = tuple(range(len(self.labels)))
        label_src = label_src or ("default" if testing or not self.unseen else "seen")
        if label_src in ("default", "all"):
            return list(self.labels), every
        if label_src == "seen" and self.unseen:
            return [self.labels[index] for index in self.seen], self.seen
        if label_src in self.label_lists:
            return list(self.label_lists[label_src]), every
        lists = ["default", *(["seen"] if self.unseen else []), *self.label_lists]
        return resolve_labels(self.name, label_src, lists, len(self.labels)), every
