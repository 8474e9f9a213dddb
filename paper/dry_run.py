"""A walk through tables on stand-in data with tiny networks: every step of a real run, in seconds, on noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from data.episodes import splits_in
from modules.models.backbones import BACKBONES
from paper.entries import Entry, Row
from paper.running import Plan, RunScript, reproduce, train
from paper.stand_in import make_all

SIDE = "64"
TRAIN = (
    *("--num_features", "16", "--clip_weights", "random", "--backbone_weights", "random", "--crop_size", SIDE),
    *("--workers", "0", "--accelerator", "cpu", "--devices", "1", "--logger", "none"),
    *("--max_epochs", "1", "--batch_size", "4"),
)
TEST = ("--nworker", "0", "--device", "cpu")
WARNING = "dry run on noise with tiny networks: the figures below mean nothing"


def tiny(row: Row) -> Row:
    """The row with the smallest network of the same kind."""
    backbone = "tiny_resnet" if "resnet" in BACKBONES[row.backbone].encoder else "tiny_vit"
    return replace(row, options={**row.options, "backbone": backbone})


def walk(
    chosen: Sequence[tuple[Entry, Sequence[Row]]], folder: Path, plan: Plan, run: RunScript
) -> list[tuple[Entry, Plan]]:
    """Train and test every row, then test again what was trained, where a checkpoint was released.

    plan: folds and seeds. Returns the entries, each with the plan of its runs.
    """
    root, splits = make_all(folder / "stand_in")
    walked: list[tuple[Entry, Plan]] = []
    with splits_in(splits):
        for entry, rows in chosen:
            size = ("--base_size", SIDE) if entry.kind == "labels" else ()
            own = replace(plan, ade20k=root, fewshot=root, train_options=(*TRAIN, *size), test_options=TEST)
            own = replace(own, warning=WARNING)
            for row in map(tiny, rows):
                if row.trains:
                    reproduce(entry, row, own, run)
                else:
                    train(entry, row, own, own.row_folder(entry, row), 0, 0, run)
                if row.released:
                    runs = own.row_folder(entry, row) / "runs"
                    weights = str(runs / "seed0_fold%" / "version_0" / "checkpoints" / "last.ckpt")
                    reproduce(entry, row, replace(own, weights=weights), run)
            walked.append((entry, own))
    return walked
