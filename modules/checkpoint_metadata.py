"""What our checkpoints say about themselves under the key ``lseg``: what is written, and what is accepted.

This is what is needed to use them: architecture, labels, normalisation, sizes, git state, step and metric.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lseg_utils.errors import InputError
from lseg_utils.git import git_state

from .models import LSegNet
from .passport import is_passport, passport_of

METADATA_KEY = "lseg"
MAX_FEATURES = 8192  # a decoder of this width has 10 billion weights


def metadata_of(net: LSegNet, **progress: Any) -> dict[str, Any]:
    """What a checkpoint says about itself, in plain types. ``progress``: step, epoch, metric, dataset ..."""
    return {
        **net.describe(),
        "passport": passport_of(net),
        "git": git_state(),
        **progress,
    }


def _is_whole(value: Any, low: int = 0, high: float = math.inf) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _are_numbers(values: Any, above: float = -math.inf) -> bool:
    return isinstance(values, list | tuple) and all(
        isinstance(value, int | float) and above < value < math.inf for value in values
    )


def _are_labels(value: Any) -> bool:
    """A list of texts that are not blank, or None."""
    return value is None or (
        isinstance(value, list) and value != [] and all(isinstance(one, str) and one.strip() for one in value)
    )


def _is_architecture(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("backbone"), str)
        and all(isinstance(value.get(name, ""), str) for name in ("activation", "text_tower"))
        and all(_is_whole(value.get(name, 0)) for name in ("arch_option", "block_depth"))
        and _is_whole(value.get("features", 256), 1, MAX_FEATURES)
        and _are_labels(value.get("classes"))
    )


# What a file of ours says about itself: key -> (what it must be, whether it is). No key has to be there.
DESCRIPTION: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "architecture": (
        f"a dict with a backbone, a number of features up to {MAX_FEATURES} and the options of a block",
        _is_architecture,
    ),
    "labels": ("a list of texts or None", _are_labels),
    "normalization": (
        "a dict of mean and std, three numbers each",
        lambda value: (
            isinstance(value, dict)
            and all(_are_numbers(value.get(key)) and len(value[key]) == 3 for key in ("mean", "std"))
            and _are_numbers(value["std"], above=0)
        ),
    ),
    "sizes": (
        "a dict of base and crop, pixels",
        lambda value: isinstance(value, dict) and all(_is_whole(value.get(key), 1) for key in ("base", "crop")),
    ),
    **{
        key: ("a text or None", lambda value: isinstance(value, str | None))
        for key in ("dataset", "data_path", "dataset_file")
    },
    "metric": (
        "a dict of numbers",
        lambda value: isinstance(value, dict) and all(isinstance(one, int | float) for one in value.values()),
    ),
    "label_sets": (
        "a dict of lists of texts",
        lambda value: isinstance(value, dict) and all(labels and _are_labels(labels) for labels in value.values()),
    ),
    "zero_shot": ("a dict with a fold", lambda value: isinstance(value, dict) and _is_whole(value.get("fold", 0))),
    "passport": ("a dict of lists of numbers, image and text", is_passport),
    "epoch": ("a whole number", _is_whole),
    "step": ("a whole number", _is_whole),
}


def checked_metadata(path: str | Path, metadata: Any) -> dict[str, Any]:
    """A file's metadata, or one ``InputError`` with everything in it that is not as ``DESCRIPTION`` has it."""
    if not isinstance(metadata, dict):
        raise InputError(f"the metadata of {path} (key {METADATA_KEY!r}) must be a dict, not {repr(metadata)[:60]}")
    wrong = [
        f"{key} must be {what}, not {repr(metadata[key])[:60]}"
        for key, (what, fits) in DESCRIPTION.items()
        if key in metadata and not fits(metadata[key])
    ]
    if wrong:
        raise InputError(
            f"the metadata of {path} (key {METADATA_KEY!r}) cannot be used: {'; '.join(wrong)}. The file is damaged or "
            "was changed by another program"
        )
    return metadata
