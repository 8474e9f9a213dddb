"""A run: its name, its folder, how it is logged and resumed. Importing this file does not import torch.

A run is kept in ``<checkpoint_dir>/<exp_name>/version_<n>/checkpoints/``: ``last.ckpt`` and the best three by
validation mIoU. Training a run that exists resumes its newest ``last.ckpt``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from lseg_utils.errors import raise_all
from lseg_utils.files import unwritable

from ..choices import Speed
from .optimization import OptimizationConfig
from .processes import Processes
from .start import NetworkChoice


@dataclass(frozen=True)
class Run:
    """Where a training is saved and how it proceeds; the fields are the options of the same names."""

    exp_name: str
    checkpoint_dir: Path
    no_resume: bool = False
    dry_run: bool = False
    seed: int = 0
    accumulate_grad_batches: int = 1
    grad_checkpointing: bool = False
    logger: str = "tensorboard"
    project_name: str = "lightseg"
    """The project of Weights & Biases."""
    logpath: Path | None = None
    """The folder of the logs; None: the run's own."""
    check_val_every_n_epoch: int = 1

    def __post_init__(self) -> None:
        problems = [
            f"--{name} is {getattr(self, name)}, but must be at least 1"
            for name in ("accumulate_grad_batches", "check_val_every_n_epoch")
            if getattr(self, name) < 1
        ]
        if text := unwritable(self.checkpoint_dir, "--checkpoint_dir"):
            problems.append(text)
        if self.logpath is not None and (text := unwritable(self.logpath, "--logpath")):
            problems.append(text)
        if self.logger == "wandb" and find_spec("wandb") is None:
            problems.append("--logger wandb needs the package wandb: pip install wandb")
        raise_all(problems)

    @property
    def folder(self) -> Path:
        """The folder of all versions of the run."""
        return self.checkpoint_dir / self.exp_name

    def version_folder(self, version: int) -> Path:
        """The folder of a version: its report, its log, its checkpoints."""
        return self.folder / f"version_{version}"

    def checkpoints(self, version: int) -> Path:
        """The folder of the checkpoints of a version."""
        return self.version_folder(version) / "checkpoints"

    def find_version(self) -> tuple[int, Path | None]:
        """(version, checkpoint to resume): the newest version with a checkpoint, else the next new version and None."""
        if self.dry_run:
            return 0, None
        matches = [re.fullmatch(r"version_(\d+)", path.name) for path in self.folder.glob("version_*")]
        versions = sorted(int(match[1]) for match in matches if match)
        if not self.no_resume:
            for version in reversed(versions):
                last = self.checkpoints(version) / "last.ckpt"
                if last.exists():
                    return version, last
        # No process creates the new folder before all have joined the group, so that all find the same number.
        return (versions[-1] + 1 if versions else 0), None


@dataclass(frozen=True)
class Training:
    """Everything that a training is told, except its data."""

    network: NetworkChoice
    optimization: OptimizationConfig
    run: Run
    processes: Processes
    speed: Speed
