"""Reads and writes LSeg's weights: official files, plain state dicts and our own checkpoints.

On disk the names are the official ones, so that files can be exchanged in both directions. Our own files also contain,
under the key ``lseg``, what is needed to use them: architecture, labels, normalisation, sizes, git state, step, metric.
"""

from __future__ import annotations

import math
import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lseg_utils.errors import InputError
from lseg_utils.files import write_aside

from .models import BACKBONES, LSegNet, build_lseg
from .models.backbones import TEXT_TOWERS
from .models.precision import channels_last
from .models.pretrained import not_finite
from .models.text_encoder import check_labels
from .safe_load import read_torch_file
from .weight_names import OFFICIAL_PREFIX, from_official, to_official

__all__ = ["export_plain", "from_official", "load_lseg", "metadata_of", "read_checkpoint", "save_file", "to_official"]

METADATA_KEY = "lseg"
BLOCK_OPTIONS = ("arch_option", "block_depth", "activation")  # what shapes cannot tell
CLIP_PATCHES = "clip_pretrained.visual.conv1.weight"
MAX_FEATURES = 8192  # a decoder of this width has 10 billion weights
# In every official file, but unused in the forward pass: if a re-saved copy lacks them, zeros replace them.
DEAD = (
    *("image_encoder.vit.norm.", "image_encoder.vit.head."),
    *("decoder.fusions.3.skip_unit.", "text_encoder.logit_scale"),
)


@dataclass
class CheckpointFile:
    """A checkpoint as read: weights under our names, and its description of itself ({} for official files)."""

    path: Path
    weights: dict[str, Tensor]
    metadata: dict[str, Any]
    clip_patch: int | None = None
    """Patch size of CLIP's own image tower, which official files contain if CLIP is a ViT."""

    @property
    def has_block(self) -> bool:
        """Whether it contains weights of a spatial regularisation block."""
        return any(name.startswith("head.block.") for name in self.weights)


def read_checkpoint(path: str | Path, trust_checkpoint: bool = False, map_location: str = "cpu") -> CheckpointFile:
    """Read the weights of an official file, a plain state dict or one of ours, running no code from it.

    Raises:
        InputError: a missing, damaged or hostile file, one without weights, or one with a wrong description.
    """
    content = read_torch_file(path, trust=trust_checkpoint, map_location=map_location)
    state_dict = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state_dict, dict) or not any(isinstance(value, Tensor) for value in state_dict.values()):
        raise InputError(f"{path} contains no weights: it is neither a Lightning checkpoint nor a state dict")
    tensors = {name: value.detach() for name, value in state_dict.items() if isinstance(value, Tensor)}
    odd = [name for name, value in tensors.items() if not isinstance(name, str) or not _is_plain(value)]
    if odd:
        raise InputError(
            f"{path} is not an LSeg checkpoint: {len(odd)} of its {len(tensors)} tensors have no text as their name or "
            f"are not plain arrays of real numbers; the first is {str(odd[0])[:60]!r}"
        )
    metadata = checked_metadata(path, content.get(METADATA_KEY, {}))
    patches = [tensor.shape[-1] for name, tensor in tensors.items() if name.endswith(CLIP_PATCHES) and tensor.ndim == 4]
    return CheckpointFile(Path(path), from_official(tensors), metadata, patches[0] if patches else None)


def _is_plain(tensor: Tensor) -> bool:
    """Whether it can be a weight: dense, real, in memory."""
    return not (tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized or tensor.is_meta)


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
        and isinstance(value.get("activation", ""), str)
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
    **{key: ("a text or None", lambda value: isinstance(value, str | None)) for key in ("dataset", "data_path")},
    "metric": (
        "a dict of numbers",
        lambda value: isinstance(value, dict) and all(isinstance(one, int | float) for one in value.values()),
    ),
    "zero_shot": ("a dict with a fold", lambda value: isinstance(value, dict) and _is_whole(value.get("fold", 0))),
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
        raise InputError(f"load_lseg has no option {', '.join(sorted(unknown))}; there are {', '.join(BLOCK_OPTIONS)}")
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
    chosen = labels if labels is not None else file.metadata.get("labels")
    net.labels = None if chosen is None else check_labels(chosen)
    net.metadata = file.metadata
    if "sizes" in file.metadata:  # absent in older files, which were trained at the backbone's sizes
        net.base_size, net.crop_size = (file.metadata["sizes"][key] for key in ("base", "crop"))
    if "normalization" in file.metadata:
        net.mean, net.std = (tuple(file.metadata["normalization"][key]) for key in ("mean", "std"))
    return channels_last(net.to(map_location), net.architecture["features"]).eval()


def skeleton(path: str | Path, architecture: dict[str, Any]) -> LSegNet:
    """The network that the file at ``path`` belongs to, on the device "meta": its weights come from the file."""
    try:
        with torch.device("meta"):
            return build_lseg(labels=None, **architecture)
    except (TypeError, ValueError) as error:
        raise InputError(f"the network of {path} cannot be built by this version: {error}") from error


def architecture_of(file: CheckpointFile, given: dict[str, Any], backbone: str | None = None) -> dict[str, Any]:
    """The arguments of ``build_lseg``: from the file's metadata, else from its shapes, ``given`` and ``backbone``."""
    if "architecture" in file.metadata:
        return {**file.metadata["architecture"], **given}
    architecture = {
        "backbone": recognise_backbone(file, backbone),
        "features": file.weights["decoder.embedding.weight"].shape[1],
    }
    if not file.has_block:
        if given.get("arch_option"):
            raise InputError(
                f"{file.path} has no spatial regularisation block, but arch_option {given['arch_option']} asks for "
                "one; leave it out (on the command line --arch_option)"
            )
        return architecture
    missing = [name for name in BLOCK_OPTIONS if name not in given]
    if given.get("arch_option") not in (1, 2) or missing:
        raise InputError(
            f"{file.path} has a spatial regularisation block, and its shapes cannot tell which: give "
            "arch_option 1 (bottleneck) or 2 (depthwise), and the block_depth and activation (lrelu, tanh, relu) it "
            "was trained with (in Python arch_option=1, block_depth=..., on the command line --arch_option 1 "
            f"--block_depth ...); not given: {', '.join(missing) or 'a block, by arch_option 1 or 2'}"
        )
    return {**architecture, **given}


def recognise_backbone(file: CheckpointFile, wanted: str | None = None) -> str:
    """The backbone whose image encoder and text tower have the names and shapes of the file's weights.

    If several fit, CLIP's image tower tells them apart, else ``wanted``; if none fits, the one that most of the image
    encoder's weights fit. ``InputError`` if nothing decides.
    """
    needed = ("text_encoder.text_projection", "decoder.embedding.weight", "decoder.projections.0.weight")
    absent = [name for name in needed if name not in file.weights]
    if absent:
        raise InputError(
            f"{file.path} is not an LSeg checkpoint: it lacks {', '.join(absent)}. Its first names are "
            f"{', '.join(list(file.weights)[:4])}"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in file.weights.items()}
    if len(shapes[needed[1]]) != 4 or not 1 <= shapes[needed[1]][1] <= MAX_FEATURES:
        raise InputError(
            f"{file.path} is not an LSeg checkpoint: {needed[1]} has the shape {shapes[needed[1]]} instead of "
            "(C, features, 1, 1)"
        )
    fitting: list[str] = []
    closest, share = "", 0.5  # what fits less than this is something else, not a damaged LSeg
    for name, spec in BACKBONES.items():
        tower = TEXT_TOWERS[spec.text]
        if shapes[needed[0]] != (tower.width, tower.embed_dim):
            continue
        if fitting:  # any other that fits differs in its text tower alone
            like = BACKBONES[fitting[0]]
            fitting += [name] if replace(spec, text=like.text) == like else []
            continue
        with torch.device("meta"):
            expected = build_lseg(name, None).image_encoder.state_dict(prefix="image_encoder.")
        alive = [shapes.get(key) == tuple(value.shape) for key, value in expected.items() if not key.startswith(DEAD)]
        if all(alive):
            fitting.append(name)
        elif sum(alive) / len(alive) > share:
            closest, share = name, sum(alive) / len(alive)
    if len(fitting) > 1 and file.clip_patch:
        towers = f"ViT-B/{file.clip_patch}"
        fitting = [name for name in fitting if BACKBONES[name].text == towers] or fitting
    if len(fitting) > 1 and wanted in fitting:
        return wanted
    if len(fitting) > 1:
        raise InputError(
            f"{file.path} can be {' or '.join(fitting)}: their shapes are the same, and only their text towers differ. "
            f'Name the one that it was trained as, in Python backbone="{fitting[0]}", on the command line --backbone '
            f"{fitting[0]}"
        )
    if fitting or closest:
        return fitting[0] if fitting else closest
    patch, image = shapes.get("image_encoder.vit.patch_embed.proj.weight"), "no ViT (a ResNet or something else)"
    if patch and len(patch) == 4:
        image = f"a ViT of width {patch[0]} with patches of {patch[2]}"
    raise InputError(
        f"{file.path} fits none of the known backbones ({', '.join(BACKBONES)}); it seems to contain {image}, and a "
        f"text tower of shape {shapes[needed[0]]}"
    )


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
            f"{next(iter(broken))} ({next(iter(broken.values()))} numbers). Its training diverged, or the file is "
            "damaged; use an earlier checkpoint"
        )
    expected = net.state_dict()
    # What the forward pass does not use may be absent.
    unused = {name: torch.zeros(expected[name].shape) for name in expected.keys() - file.weights.keys()}
    weights = {**file.weights, **unused}
    return {name: weights[name].to(tensor.dtype, copy=True) for name, tensor in expected.items()}


def misfits(file: CheckpointFile, net: LSegNet) -> dict[str, list[str]]:
    """Where the file's weights and ``net``'s differ: "missing", "unexpected" and "wrong shape" names, {} if nowhere."""
    expected, weights = net.state_dict(), file.weights
    found = {
        "missing": [name for name in expected if name not in weights and not name.startswith(DEAD)],
        "unexpected": [name for name in weights if name not in expected],
        "wrong shape": [
            f"{name} {tuple(weights[name].shape)} instead of {tuple(expected[name].shape)}"
            for name in expected
            if name in weights and weights[name].shape != expected[name].shape
        ],
    }
    return {kind: names for kind, names in found.items() if names}


def describe_misfits(found: dict[str, list[str]]) -> list[str]:
    """One line per kind of misfit: how many, and the first three."""
    return [
        f"  {kind}: {len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in found.items()
    ]


# ---------------------------------------------------------------------------------------------------- writing


def metadata_of(net: LSegNet, **progress: Any) -> dict[str, Any]:
    """What a checkpoint says about itself, in plain types. ``progress``: step, epoch, metric, dataset ..."""
    return {
        "format": 1,
        "architecture": dict(net.architecture),
        "labels": None if net.labels is None else list(net.labels),
        "normalization": {"mean": list(net.mean), "std": list(net.std)},
        "sizes": {"base": net.base_size, "crop": net.crop_size},
        "git": git_state(),
        **progress,
    }


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


def git_state() -> dict[str, Any]:
    """The commit and whether the tree was changed; {} without git, and for an installed package."""
    here = Path(__file__).resolve().parent

    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", here, *args], capture_output=True, text=True, check=True).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")) != here.parent:  # a package inside somebody else's repository
            return {}
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
