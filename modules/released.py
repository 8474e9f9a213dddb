"""What the authors of LSeg released: the checkpoints, and the figures that they published for them."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lseg_utils.errors import InputError
from lseg_utils.results import text_table

DATA: dict[str, Any] = json.loads(Path(__file__).with_name("released.json").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Released:
    """One released checkpoint; None or "" where nothing reliable is known."""

    file: str
    backbone: str
    dataset: str | None  # None: the mixture of the demo model
    fold: int | None  # None: the benchmark has no folds
    miou: float | None  # as published, in percent
    note: str

    @property
    def name(self) -> str:
        return self.file.rsplit(".", 1)[0]

    @property
    def place(self) -> str:
        """What it was trained for, in words."""
        return "seven datasets" if self.dataset is None else place(self.dataset, self.fold)


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
    """The checkpoint released for a benchmark's fold, if there is one; ``fold`` is ignored for FSS-1000."""
    entries = (e for e in RELEASED if (e.dataset, e.backbone) == (dataset, backbone) and e.fold in (None, fold))
    return next(entries, None)


def released_file(dataset: str, backbone: str, fold: int) -> str:
    """Its file name; ``InputError`` if there is none."""
    if entry := released_for(dataset, backbone, fold):
        return entry.file
    known = sorted({f"{entry.dataset} with {entry.backbone}" for entry in RELEASED if entry.dataset})
    raise InputError(
        f"no checkpoint was released for {place(dataset, fold)} with {backbone}; give yours with --weights, or "
        f"choose one of {', '.join(known)} (folds 0 to 3; FSS-1000 has none)"
    )


def published(dataset: str, backbone: str) -> Published | None:
    """The published figures of a zero-shot benchmark; None if there are none for it or for the backbone."""
    for figures in DATA["benchmarks"]:
        if (figures["dataset"], figures["backbone"]) == (dataset, backbone):
            folds = sorted({entry.fold or 0 for entry in RELEASED if entry.dataset == dataset})
            by_fold = [
                entry.miou if entry else None for entry in (released_for(dataset, backbone, fold) for fold in folds)
            ]
            return Published(by_fold, figures["miou"], figures["fb_iou"])
    return None


def table() -> str:
    """The released checkpoints, their published figures, and what to know about them."""
    rows = [(e.file, e.backbone, e.place, "" if e.miou is None else f"{e.miou:.1f}") for e in RELEASED]
    notes = {entry.file: entry.note for entry in RELEASED if entry.note} | DATA["not_released"]
    lines = [text_table(("file", "backbone", "trained for", "published mIoU"), rows), ""]
    lines += [f"{file}: {note}" for file, note in notes.items()]
    end = f"The official checkpoints are linked in the model zoo of {DATA['repository']}"
    return "\n".join([*lines, f"beware: {DATA['readme_slip']}", end])


def named_after(path: Path) -> Released | None:
    """The released checkpoint whose name is part of the file's ('pascal_fold0 (1).ckpt'), if there is one."""
    return next((entry for entry in RELEASED if entry.name in path.stem.lower()), None)


def file_name_doubts(path: Path, dataset: str, fold: int, backbone: str | None) -> list[str]:
    """A sentence if the name of checkpoint ``path`` belongs to another test than that of ``dataset`` and ``fold``.

    backbone: the architecture that was asked for, None for any.
    """
    entry = named_after(path)
    if entry is None or dataset not in {known.dataset for known in RELEASED}:
        return []
    if entry.dataset == dataset and entry.fold in (None, fold) and backbone in (None, entry.backbone):
        return []
    wanted = released_for(dataset, backbone or entry.backbone, fold)
    doubt = f"{path.name} has the name of the released {entry.backbone} for {entry.place}, but this test is of "
    doubt += f"{backbone or 'any network'} on {place(dataset, wanted.fold if wanted else fold)}"
    slip = [DATA["readme_slip"]] if (dataset, entry.dataset) == ("coco", "pascal") else []
    return ["; ".join([doubt, *slip, *([f"the right file is {wanted.file}"] if wanted else [])])]


def test_command(entry: Released, path: Path) -> str:
    """The command that gives the published figure of a released checkpoint, where there is one."""
    test = "test_lseg.py --eval --dataset ade20k --data_path ../datasets"
    if entry.dataset:
        fold = "" if entry.fold is None else f" --fold {entry.fold}"
        test = f"test_lseg_zs.py --dataset {entry.dataset}{fold} --nshot 0"
    return f"python {test} --weights {shlex.quote(str(path))}"
