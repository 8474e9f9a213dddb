"""Which dataset, in which sizes, loaded how: one object that checks itself before anything large is imported."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data import get_dataset, name_of
from data.description import SUFFIXES
from data.description_parts import SIDE_MULTIPLE
from lseg_utils.errors import raise_all


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
        raise_all(problems)

    @property
    def name(self) -> str:
        """What results and checkpoints call the dataset."""
        return name_of(self.dataset)

    @property
    def file(self) -> Path | None:
        """The YAML file of the user's own that describes the dataset; None for a known name."""
        return Path(self.dataset).expanduser() if self.dataset.endswith(SUFFIXES) else None

    def load(self, split: str, mode: str | None = None, transform: Callable[..., Any] | None = None) -> Any:
        """The dataset of a split; ``mode`` and ``transform`` as in ``data.get_dataset``."""
        options = asdict(self)
        del options["workers"]
        return get_dataset(options.pop("dataset"), options.pop("data_path"), split, mode, transform, **options)

    def for_validation(self) -> DataChoice:
        """The same without support images, which are only for training."""
        return replace(self, nshot=self.nshot and 0)
