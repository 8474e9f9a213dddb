"""Which dataset, in which sizes, loaded how: one object that checks itself before anything large is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data import get_dataset
from lseg_utils.errors import InputError

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

SIDE_MULTIPLE = 32  # what networks with a feature map at 1/32 take


@dataclass(frozen=True)
class DataChoice:
    """A dataset and how its images are prepared; the fields are those of ``data.get_dataset``, None: the default."""

    dataset: str
    data_path: Path | None = None
    label_src: str | None = None
    base_size: int | None = None
    crop_size: int | None = None
    on_bad_image: str = "stop"
    workers: int = 0
    """Processes that load images; 0: this one."""
    fold: int | None = None
    nshot: int | None = None
    held_out: int | None = None

    def __post_init__(self) -> None:
        problems = []
        if self.workers < 0:
            problems.append(f"--workers is {self.workers}; give 0 (load in this process) or more")
        if self.base_size is not None and self.base_size < 1:
            problems.append(f"--base_size is {self.base_size}, but must be positive")
        if self.crop_size is not None and (self.crop_size < 1 or self.crop_size % SIDE_MULTIPLE):
            fitting = max(-(-self.crop_size // SIDE_MULTIPLE), 1) * SIDE_MULTIPLE
            problems.append(
                f"--crop_size is {self.crop_size}, but must be a multiple of {SIDE_MULTIPLE}, such as {fitting}"
            )
        if problems:
            raise InputError("\n".join(problems))

    def load(
        self, split: str, mode: str | None = None, transform: Callable[[Image.Image], Tensor] | None = None
    ) -> Any:
        """The dataset of a split; ``mode`` and ``transform`` as in ``data.get_dataset``."""
        return get_dataset(
            self.dataset,
            root=self.data_path,
            split=split,
            mode=mode,
            transform=transform,
            base_size=self.base_size,
            crop_size=self.crop_size,
            label_src=self.label_src,
            on_bad_image=self.on_bad_image,
            fold=self.fold,
            nshot=self.nshot,
            held_out=self.held_out,
        )
