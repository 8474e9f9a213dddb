"""Print the checkpoint with the best validation mIoU of several runs, to choose the learning rate of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite, nan
from pathlib import Path

from lseg_utils.cli import Parser
from lseg_utils.errors import InputError, run_script


def main(argv: Sequence[str] | None = None) -> None:
    """Look through ``<run>/version_*/checkpoints/result-*.ckpt`` of every run."""
    parser = Parser(__doc__)
    parser.add_argument(
        "runs", type=Path, nargs="+", help="compare the runs in these folders: <checkpoint_dir>/<exp_name>"
    )
    options = parser.parse(argv)
    print(best_checkpoint(options.runs))


def best_checkpoint(runs: Sequence[Path]) -> Path:
    """The checkpoint with the best validation mIoU in these folders of runs; ``InputError`` if there is none."""
    found = [path for run in runs for path in sorted(run.glob("version_*/checkpoints/result-*.ckpt"))]
    if not found:
        raise InputError(f"no result-*.ckpt under {', '.join(map(str, runs))}; train there first")
    return max(found, key=validation_miou)


def validation_miou(path: Path) -> float:
    """The validation mIoU, 0..1, that one of our checkpoints contains."""
    from modules.checkpoints import read_checkpoint  # torch, which --help does not need

    metric = read_checkpoint(path).metadata.get("metric", {})
    if not isfinite(metric.get("val_miou_epoch", nan)):
        raise InputError(f"{path} contains no validation mIoU; only checkpoints written by this code can be compared")
    return metric["val_miou_epoch"]


if __name__ == "__main__":
    run_script(main)
