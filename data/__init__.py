"""Datasets by name: how to get one, what its labels are, and what is wrong with it on disk.

Importing this package, and asking it for names, labels or problems, imports neither torch nor OpenCV.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data.description import Description, is_description, known_datasets, read_description
from data.episodes import test_episodes
from lseg_utils.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

    from data.described import DescribedDataset
    from data.fewshot import FewShotDataset

DEFAULT_ROOT = Path(__file__).resolve().parents[2] / "datasets"
FEWSHOT_ROOT = Path(__file__).resolve().parent / "Dataset_HSN"

PROBLEMS_SHOWN = 10

# The datasets of episodes: name -> (module, class, default root); imported at first use. All others are descriptions.
_EPISODIC = {
    "miniature_zs": ("miniature.dataset_zs", "MiniatureZS", DEFAULT_ROOT),
    "pascal": ("data.pascal", "Pascal", FEWSHOT_ROOT),
    "coco": ("data.coco", "Coco", FEWSHOT_ROOT),
    "fss": ("data.fss", "FSS", FEWSHOT_ROOT),
}

__all__ = [
    "DEFAULT_ROOT",
    "FEWSHOT_ROOT",
    "DescribedDataset",
    "FewShotDataset",
    "check_dataset",
    "get_available_datasets",
    "get_dataset",
    "get_labels",
    "name_of",
    "problems",
    "test_episodes",
]


def __getattr__(name: str) -> Any:
    """The two classes, imported at first use."""
    modules = {"DescribedDataset": "data.described", "FewShotDataset": "data.fewshot"}
    if name not in modules:
        raise AttributeError(f"module 'data' has no attribute {name!r}")
    return getattr(import_module(modules[name]), name)


def get_available_datasets() -> tuple[str, ...]:
    """The names that the functions of this package take; the path of a description is one too."""
    return (*known_datasets(), *_EPISODIC)


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
    *,
    fold: int | None = None,
    nshot: int | None = None,
    held_out: int | Sequence[int] | None = None,
) -> DescribedDataset | FewShotDataset:
    """Make dataset ``name``. None stands for the dataset's own default.

    name: one of :func:`get_available_datasets`, or the path of a YAML file that describes a dataset.
    root: the folder that contains the datasets; None: ``datasets`` next to the repository, for a description of your
    own the folder that it names, and the repository's ``data/Dataset_HSN`` for the zero-shot benchmarks ``pascal``,
    ``coco`` and ``fss``.
    split: ``train`` or ``val``, or another split of the description; ADE20K (images only) and the benchmarks also
    have ``test``, the benchmarks also ``finetune``.
    mode: what a sample is, see :class:`data.described.DescribedDataset`; None: the split's name.
    transform: RGB image -> float tensor (3, h, w); None: values to -1..1, as the ViT backbones expect.
    base_size, crop_size: pixels of the paired transforms; None: the dataset's own (ADE20K: 520 and 480). The
    benchmarks have no ``mode`` and no ``base_size``: their images are resized to ``crop_size`` (480) square.
    label_src: which label list; None: the dataset's default.
    on_bad_image: ``stop``, or ``skip`` (not in tests), which takes the next readable image instead.
    seed: an integer makes ``dataset[i]`` the same sample at every access; None: drawn anew each time.
    fold (0..3), nshot (0, 1, 5), held_out: of the benchmarks, see :class:`data.fewshot.FewShotDataset`; None: 0.

    Raises ``InputError`` for an unknown name, a choice that does not exist, and for missing folders or files.
    """
    sizes = {"base_size": base_size, "crop_size": crop_size}
    choices = {"mode": mode, "transform": transform, **sizes, "label_src": label_src, "seed": seed}
    choices |= {"fold": fold, "nshot": nshot, "held_out": held_out}
    found = _find(name)
    if isinstance(found, Description):
        from data.described import DescribedDataset, Samples

        samples = Samples(on_bad_image=on_bad_image, **_accepted(name, Samples, choices))
        return DescribedDataset(found, _root(name, found, root), split, samples)
    return found(_root(name, found, root), split, on_bad_image=on_bad_image, **_accepted(name, found, choices))


def get_labels(name: str, label_src: str | None = None, root: str | Path | None = None) -> list[str]:
    """The labels of dataset ``name`` in mask order (None: those of its test); needs no images."""
    found = _find(name)
    if isinstance(found, Description):
        return found.read_labels(label_src, testing=True)[0]
    return found.read_labels(label_src or found.default_label_src("val", "testval"), _root(name, found, root))


def name_of(name: str) -> str:
    """What the dataset is called in results and checkpoints: ``name`` itself, or the name in its description."""
    found = _find(name)
    return found.name if isinstance(found, Description) else name


def problems(
    name: str, root: str | Path | None = None, splits: Sequence[str] = ("train", "val"), **choices: Any
) -> list[str]:
    """Everything wrong with the dataset on disk that shows without decoding it; empty if all is well.

    Each text says what was looked for, what is there and how to fix it. Reads the header of every file (the first
    process shows a progress bar), which takes seconds for ADE20K. ``choices``: ``fold``, ``nshot``, ``held_out`` as in
    :func:`get_dataset`; only the files that they need are checked. Raises ``InputError`` for an impossible choice.
    """
    found = _find(name)
    if isinstance(found, Description):
        from data.described import problems as problems_of

        _accepted(name, problems_of, choices)
        return problems_of(found, _root(name, found, root), splits)
    return found.problems(_root(name, found, root), splits, **_accepted(name, found.problems, choices))


def check_dataset(
    name: str, root: str | Path | None = None, splits: Sequence[str] = ("train", "val"), **choices: Any
) -> None:
    """Raise one ``InputError`` with the first ten :func:`problems` and their number, if there are any."""
    found = problems(name, root, splits, **choices)
    if found:
        more = [f"... {len(found)} problems in total"] if len(found) > PROBLEMS_SHOWN else []
        raise InputError("\n".join(found[:PROBLEMS_SHOWN] + more))


def _accepted(name: str, function: Callable, choices: dict[str, Any]) -> dict[str, Any]:
    """The choices that are not None, if ``function`` of dataset ``name`` takes all of them."""
    given = {option: value for option, value in choices.items() if value is not None}
    strange = given.keys() - inspect.signature(function).parameters.keys()
    if names := ", ".join(sorted(strange)):
        raise InputError(f"dataset {name} does not take {names}; leave it out or choose another dataset")
    return given


def _find(name: str) -> Description | type[FewShotDataset]:
    if name in _EPISODIC:
        module, class_name, _ = _EPISODIC[name]
        return getattr(import_module(module), class_name)
    if is_description(name):
        return read_description(name)
    hint = did_you_mean(name, get_available_datasets())
    raise InputError(
        f"unknown dataset {name!r}{hint}; `python -m data list` lists the known ones, and for one of your own give the "
        f"YAML file that describes it (docs/extending.md)"
    )


def _root(name: str, found: Description | type[FewShotDataset], root: str | Path | None) -> Path:
    default = found.root or DEFAULT_ROOT if isinstance(found, Description) else _EPISODIC[name][2]
    return Path(os.path.abspath(root or default))  # messages show no ".."
