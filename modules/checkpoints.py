"""Loads and writes LSeg's weights: official files, plain state dicts and our own checkpoints.

On disk the names are the official ones, so that files can be exchanged in both directions.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lseg_utils.errors import InputError, few
from lseg_utils.files import write_aside

from .architecture import BLOCK_OPTIONS, architecture_of, skeleton
from .checkpoint_file import CheckpointFile, read_checkpoint
from .checkpoint_metadata import metadata_of
from .models import LSegNet
from .models.fingerprint import DEAD
from .models.precision import channels_last
from .models.pretrained import not_finite
from .models.text_encoder import check_labels
from .passport import check_passport
from .weight_names import OFFICIAL_PREFIX, from_official, official_name, to_official

__all__ = ["export_plain", "from_official", "load_lseg", "metadata_of", "read_checkpoint", "save_file", "to_official"]


def load_lseg(
    path: str | Path,
    *,
    map_location: str = "cpu",
    labels: Sequence[str] | None = None,
    trust_checkpoint: bool = False,
    backbone: str | None = None,
    **what_shapes_cannot_tell: Any,
) -> LSegNet:
    """The network of an official or own checkpoint, in eval mode.

    Args:
        path: Lightning checkpoint (official 1.3/1.4 files too) or plain state dict.
        map_location: device of the result.
        labels: the network's label set; default: the file's own. Official files have none.
        trust_checkpoint: read with full pickle, which runs any code that the file contains.
        backbone: the backbone that the file must have; None: any. It decides where several have the same shapes.
        what_shapes_cannot_tell: ``arch_option`` (1 or 2), ``block_depth`` and ``activation`` for an official file
            with a spatial regularisation block. Our own files contain them.

    Returns:
        the network; its ``metadata`` is what the file says about itself, {} for official files.

    Raises:
        InputError: a missing, damaged, hostile or foreign file, weights that are NaN or infinite, or an option that is
            needed and was not given.
    """
    unknown = set(what_shapes_cannot_tell) - set(BLOCK_OPTIONS)
    if unknown:
        known = ", ".join(BLOCK_OPTIONS)
        raise InputError(f"load_lseg does not have the option {', '.join(sorted(unknown))}; its options are {known}")
    return network_of(
        read_checkpoint(path, trust_checkpoint), map_location, labels, backbone, **what_shapes_cannot_tell
    )


def network_of(
    file: CheckpointFile,
    map_location: str = "cpu",
    labels: Sequence[str] | None = None,
    backbone: str | None = None,
    **what_shapes_cannot_tell: Any,
) -> LSegNet:
    """``load_lseg`` of a file that has been read."""
    architecture = architecture_of(file, what_shapes_cannot_tell, backbone)
    found = architecture["backbone"]
    if backbone not in (None, found):
        advice = f"use --backbone {found}, or another checkpoint"
        raise InputError(f"--backbone is {backbone}, but {file.path} is a {found}; {advice}")
    net = skeleton(file.path, architecture)
    net.load_state_dict(fitted(file, net), assign=True)
    net.follow(file.metadata)
    if labels is not None:
        net.labels = check_labels(labels)
    net = channels_last(net.to(map_location), net.architecture["features"]).eval()
    check_passport(net, str(file.path))
    return net


def fitted(file: CheckpointFile, net: LSegNet) -> dict[str, Tensor]:
    """The file's weights as float32, complete; one ``InputError`` lists every kind of misfit, or what is not finite."""
    found = misfits(file, net)
    if found:
        first_line = f"{file.path} does not fit the architecture {net.architecture['backbone']}:"
        raise InputError("\n".join([first_line, *describe_misfits(found)]))
    broken = not_finite(file.weights)
    if broken:
        raise InputError(
            f"{file.path} cannot be used: {len(broken)} of its tensors contain NaN or infinite numbers, the first is "
            f"{official_name(next(iter(broken)))} ({next(iter(broken.values()))} numbers). Its training diverged, or "
            "the file is damaged; use an earlier checkpoint"
        )
    expected = net.state_dict()
    # What the forward pass does not use may be absent.
    unused = {name: torch.zeros(expected[name].shape) for name in expected.keys() - file.weights.keys()}
    weights = {**file.weights, **unused}
    return {name: weights[name].to(tensor.dtype, copy=True) for name, tensor in expected.items()}


def misfits(file: CheckpointFile, net: LSegNet) -> dict[str, list[str]]:
    """Where the file's weights and ``net``'s differ: "missing", "unexpected" and "wrong shape", {} if nowhere.

    Names are those in the file, without the prefix ``net.``.
    """
    expected, weights = net.state_dict(), file.weights
    found = {
        "missing": [official_name(name) for name in expected if name not in weights and not name.startswith(DEAD)],
        "unexpected": [official_name(name) for name in weights if name not in expected],
        "wrong shape": [
            f"{official_name(name)} {tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in expected
            if name in weights and weights[name].shape != expected[name].shape
        ],
    }
    return {kind: names for kind, names in found.items() if names}


def describe_misfits(found: dict[str, list[str]]) -> list[str]:
    """One line per kind of misfit: how many, and the first three."""
    return [f"  {kind}: {len(names)} ({few(names, 3)})" for kind, names in found.items()]


def export_plain(net: LSegNet, path: str | Path) -> Path:
    """Write the plain official state dict (no prefix, no CLIP visual tower), for the official code and others.

    ``InputError`` for a plain classifier: such a file has no place for the names of its classes.
    """
    if not net.head.cosine:
        raise InputError(
            f"{path} was not written: the network is a plain classifier, which the official code cannot read, and a "
            "plain state dict has no place for its classes; use the checkpoint itself"
        )
    plain = {name.removeprefix(OFFICIAL_PREFIX): tensor for name, tensor in to_official(net.state_dict()).items()}
    save_file(plain, path)
    return Path(path)


def save_file(content: Any, path: str | Path) -> None:
    """``torch.save`` to a temporary file, flush it to the disk, rename it: a kill or a full disk keeps the old file.

    Raises ``InputError`` if the folder cannot be written, or the disk is full.
    """
    try:
        with write_aside(path) as aside, open(aside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} could not be written ({error}); choose another folder") from error
