"""Datasets by name: how to get one, what its labels are, and what is wrong with it on disk."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from PIL import Image
from torch import Tensor

from data.base import PROBLEMS_SHOWN, FolderSegmentationDataset
from encoding_ext.errors import InputError

DEFAULT_ROOT = Path(__file__).resolve().parents[2] / "datasets"

# name -> (module, class); imported at first use
_DATASETS = {"ade20k": ("data.ade20k", "ADE20K"), "miniature": ("data.miniature", "Miniature")}


def get_available_datasets() -> tuple[str, ...]:
    """The names that the functions of this package take."""
    return tuple(_DATASETS)


def get_dataset(
    name: str,
    root: str | Path | None = None,
    split: str = "train",
    mode: str | None = None,
    transform: Callable[[Image.Image], Tensor] | None = None,
    base_size: int | None = None,
    crop_size: int | None = None,
    label_src: str | None = None,
    on_bad_image: str = "stop",
    seed: int | None = None,
) -> FolderSegmentationDataset:
    """Make dataset ``name``.

    root: the folder that holds the datasets; None: ``datasets`` beside the repository.
    split: ``train`` or ``val``, for ADE20K also ``test`` (images only).
    mode: what a sample is, see :class:`data.base.FolderSegmentationDataset`; None: the split's name.
    transform: RGB image -> float tensor (3, h, w); None: values to -1..1, as the ViT backbones expect.
    base_size, crop_size: pixels of the paired transforms; None: the dataset's own (ADE20K: 520 and 480).
    label_src: which label list; None: the dataset's default.
    on_bad_image: ``stop``, or in training ``skip``, which takes the next readable image instead.
    seed: an integer makes ``dataset[i]`` the same sample at every access; None: drawn anew each time.

    Raises ``InputError`` for an unknown name, a choice that does not exist, and for missing folders or files.
    """
    return _dataset_class(name)(
        root=_root(root),
        split=split,
        mode=mode,
        transform=transform,
        base_size=base_size,
        crop_size=crop_size,
        label_src=label_src,
        on_bad_image=on_bad_image,
        seed=seed,
    )


def get_labels(name: str, label_src: str | None = None, root: str | Path | None = None) -> list[str]:
    """The labels of dataset ``name`` in mask order (None: those of its test); needs no images."""
    dataset = _dataset_class(name)
    return dataset.read_labels(label_src or dataset.default_label_src("val", "testval"), _root(root))


def problems(name: str, root: str | Path | None = None, splits: Sequence[str] = ("train", "val")) -> list[str]:
    """Everything wrong with the dataset on disk that can be seen without decoding it; empty if all is well.

    Each text says what was looked for, what is there and the command that mends it. Reads every header (a progress
    bar runs on the first process), so it takes seconds for ADE20K.
    """
    return _dataset_class(name).problems(_root(root), splits)


def check_dataset(name: str, root: str | Path | None = None, splits: Sequence[str] = ("train", "val")) -> None:
    """Raise one ``InputError`` with the first ten :func:`problems` and their number, if there are any."""
    found = problems(name, root, splits)
    if found:
        more = [f"... {len(found)} problems in all"] if len(found) > PROBLEMS_SHOWN else []
        raise InputError("\n".join(found[:PROBLEMS_SHOWN] + more))


def _dataset_class(name: str) -> type[FolderSegmentationDataset]:
    if name not in _DATASETS:
        raise InputError(f"unknown dataset {name!r}; choose one of {', '.join(_DATASETS)}")
    module, class_name = _DATASETS[name]
    return getattr(import_module(module), class_name)


def _root(root: str | Path | None) -> Path:
    return DEFAULT_ROOT if root is None else Path(root)
