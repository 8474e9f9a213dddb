"""What the authors of LSeg released and published, read from released.json: files, figures, slips of their README."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lseg_utils.errors import InputError

DATA: dict[str, Any] = json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Released:
    """One released checkpoint; None or "" where nothing reliable is known."""

    file: str
    backbone: str
    dataset: str | None  # None: the mixture of the demo model
    fold: int | None  # None: the benchmark has no folds
    miou: float | None  # as published, in percent
    sha256: str | None
    link: str | None
    note: str

    @property
    def name(self) -> str:
        return self.file.rsplit(".", 1)[0]

    @property
    def place(self) -> str:
        """What it was trained for, in words."""
        return "seven datasets" if self.dataset is None else place(self.dataset, self.fold)

    @property
    def architecture(self) -> dict[str, Any]:
        """The arguments of ``build_lseg`` that its shapes must fit."""
        return {"backbone": self.backbone, **DATA["architecture"]}


@dataclass(frozen=True)
class Published:
    """Published figures of a zero-shot benchmark in percent; None where only a mean is known."""

    miou_by_fold: list[float | None]
    miou: float
    fb_iou: float | None


RELEASED = [Released(**entry) for entry in DATA["checkpoints"]]


def place(dataset: str, fold: int | None) -> str:
    """'pascal fold 0', or 'fss', which has no folds."""
    return dataset if fold is None else f"{dataset} fold {fold}"


def released_for(dataset: str, backbone: str, fold: int) -> Released | None:
    """The checkpoint released for a benchmark's fold, if there is one; without folds, ``fold`` is not looked at."""
    for entry in RELEASED:
        if (entry.dataset, entry.backbone) == (dataset, backbone) and entry.fold in (None, fold):
            return entry
    return None


def released_file(dataset: str, backbone: str, fold: int) -> str:
    """Its file name; ``InputError`` if there is none."""
    entry = released_for(dataset, backbone, fold)
    if entry is None:
        known = sorted({f"{entry.dataset} with {entry.backbone}" for entry in RELEASED if entry.dataset})
        raise InputError(
            f"no checkpoint was released for {place(dataset, fold)} with {backbone}; name yours with --weights, or "
            f"choose one of {', '.join(known)} (folds 0 to 3; FSS-1000 has none)"
        )
    return entry.file


def published(dataset: str, backbone: str) -> Published | None:
    """The published figures of a zero-shot benchmark, None for one (or a backbone) that has none."""
    for figures in DATA["benchmarks"]:
        if (figures["dataset"], figures["backbone"]) == (dataset, backbone):
            folds = sorted({entry.fold or 0 for entry in RELEASED if entry.dataset == dataset})
            entries = [released_for(dataset, backbone, fold) for fold in folds]
            by_fold = [entry.miou if entry else None for entry in entries]
            return Published(by_fold, figures["miou"], figures["fb_iou"])
    return None


def named_after(path: Path) -> Released | None:
    """The released checkpoint whose name is part of the file's ('pascal_fold0 (1).ckpt'), if there is one."""
    return next((entry for entry in RELEASED if entry.name in path.stem.lower()), None)


def file_name_doubts(path: Path, dataset: str, fold: int, backbone: str | None) -> list[str]:
    """Where a checkpoint's file name says that it is for another test than the one at hand.

    Args:
        path: the checkpoint.
        dataset, fold: what it is tested on.
        backbone: the architecture that was asked for, None if any will do.
    """
    entry = named_after(path)
    benchmarks = {known.dataset for known in RELEASED if known.dataset}
    if entry is None or dataset not in benchmarks:
        return []
    fits = entry.dataset == dataset and entry.fold in (None, fold) and backbone in (None, entry.backbone)
    if fits:
        return []
    wanted = released_for(dataset, backbone or entry.backbone, fold)
    doubt = f"{path.name} sounds like the released {entry.backbone} for {entry.place}, this test is of "
    doubt += f"{backbone or 'any network'} on {place(dataset, wanted.fold if wanted else fold)}"
    meant = [f"the file meant is {wanted.file}"] if wanted else []
    return ["; ".join([doubt, *slips(dataset, entry.dataset), *meant])]


def slips(test_on: str | None, files_of: str | None) -> list[str]:
    """What the official README gets wrong in its commands that test on one benchmark with the files of another."""
    return [slip["text"] for slip in DATA["readme_slips"] if (slip["test_on"], slip["files_of"]) == (test_on, files_of)]
