"""The one door through which LSeg's weights enter and leave: official files, plain state dicts and our own.

On disk the names are the official ones, so that files go both ways; a file of ours also holds, under the key
``lseg``, all that is needed to use it: architecture, labels, normalisation, git state, step and metric.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lseg_utils.errors import InputError
from lseg_utils.files import write_aside

from .models import BACKBONES, LSegNet, build_lseg
from .models.backbones import TEXT_TOWERS
from .models.precision import channels_last
from .models.text_encoder import check_labels
from .safe_load import read_torch_file
from .weight_names import OFFICIAL_PREFIX, from_official, to_official

__all__ = ["export_plain", "from_official", "load_lseg", "metadata_of", "read_checkpoint", "save_file", "to_official"]

METADATA_KEY = "lseg"
BLOCK_OPTIONS = ("arch_option", "block_depth", "activation")  # what shapes cannot tell
# In every official file, in no forward: where a re-saved copy lacks them, zeros do.
DEAD = (
    *("image_encoder.vit.norm.", "image_encoder.vit.head."),
    *("decoder.fusions.3.skip_unit.", "text_encoder.logit_scale"),
)


@dataclass
class CheckpointFile:
    """A checkpoint as read: weights under our names, and what it says of itself (empty for official files)."""

    path: Path
    weights: dict[str, Tensor]
    metadata: dict[str, Any]

    @property
    def has_block(self) -> bool:
        """Whether there are weights of a spatial regularisation block."""
        return any(name.startswith("head.block.") for name in self.weights)


def read_checkpoint(path: str | Path, trust_checkpoint: bool = False, map_location: str = "cpu") -> CheckpointFile:
    """Read the weights of an official file, a plain state dict or one of ours, running no code from it."""
    content = read_torch_file(path, trust=trust_checkpoint, map_location=map_location)
    state_dict = content.get("state_dict", content) if isinstance(content, dict) else None
    if not isinstance(state_dict, dict) or not any(isinstance(value, Tensor) for value in state_dict.values()):
        raise InputError(f"{path} holds no weights: neither a Lightning checkpoint nor a state dict")
    tensors = {name: value for name, value in state_dict.items() if isinstance(value, Tensor)}
    metadata = content.get(METADATA_KEY)
    return CheckpointFile(Path(path), from_official(tensors), metadata if isinstance(metadata, dict) else {})


def load_lseg(
    path: str | Path,
    *,
    map_location: str = "cpu",
    labels: Sequence[str] | None = None,
    trust_checkpoint: bool = False,
    **what_shapes_cannot_tell: Any,
) -> LSegNet:
    """The network of an official or own checkpoint, in eval mode.

    Args:
        path: Lightning checkpoint (official 1.3/1.4 files too) or plain state dict.
        map_location: device of the result.
        labels: the network's label set; default: the file's own, none for official files, which carry none.
        trust_checkpoint: read with full pickle, which runs any code that the file contains.
        what_shapes_cannot_tell: ``arch_option`` (1 or 2), ``block_depth`` and ``activation`` for an official file
            with a spatial regularisation block. Files of ours carry them.

    Raises:
        InputError: missing, damaged, hostile or foreign file, or an option that is needed and was not given.
    """
    unknown = set(what_shapes_cannot_tell) - set(BLOCK_OPTIONS)
    if unknown:
        raise InputError(f"load_lseg does not know {', '.join(sorted(unknown))}; it takes {', '.join(BLOCK_OPTIONS)}")
    file = read_checkpoint(path, trust_checkpoint)
    architecture = architecture_of(file, what_shapes_cannot_tell)
    net = skeleton(path, architecture)
    net.load_state_dict(_fitted(file, net), assign=True)
    chosen = labels if labels is not None else file.metadata.get("labels")
    net.labels = None if chosen is None else check_labels(chosen)
    net.metadata = file.metadata
    if "sizes" in file.metadata:  # absent in older files, which were trained at the backbone's sizes
        net.base_size, net.crop_size = (file.metadata["sizes"][key] for key in ("base", "crop"))
    if "normalization" in file.metadata:
        net.mean, net.std = (tuple(file.metadata["normalization"][key]) for key in ("mean", "std"))
    return channels_last(net.to(map_location), net.architecture["features"]).eval()


def skeleton(path: str | Path, architecture: dict[str, Any]) -> LSegNet:
    """The network that the file at ``path`` is for, without memory or random numbers: weights come from the file."""
    try:
        with torch.device("meta"):
            return build_lseg(labels=None, **architecture)
    except (TypeError, ValueError) as error:
        raise InputError(f"the network of {path} cannot be built by this version: {error}") from error


def architecture_of(file: CheckpointFile, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of ``build_lseg``: from the file's own words, else from its shapes and ``given``."""
    if "architecture" in file.metadata:
        return {**file.metadata["architecture"], **given}
    architecture = {"backbone": recognise_backbone(file), "features": file.weights["decoder.embedding.weight"].shape[1]}
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


def recognise_backbone(file: CheckpointFile) -> str:
    """The backbone whose image encoder and text tower have the names and shapes of the file's weights."""
    needed = ("text_encoder.text_projection", "decoder.embedding.weight", "decoder.projections.0.weight")
    absent = [name for name in needed if name not in file.weights]
    if absent:
        raise InputError(
            f"{file.path} is no LSeg checkpoint: it lacks {', '.join(absent)}. Its first names are "
            f"{', '.join(list(file.weights)[:4])}"
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in file.weights.items()}
    for name, spec in BACKBONES.items():
        tower = TEXT_TOWERS[spec.text]
        if shapes[needed[0]] != (tower.width, tower.embed_dim):
            continue
        with torch.device("meta"):
            expected = build_lseg(name, None).image_encoder.state_dict(prefix="image_encoder.")
        alive = {key: value for key, value in expected.items() if not key.startswith(DEAD)}
        if all(shapes.get(key) == tuple(value.shape) for key, value in alive.items()):
            return name
    raise InputError(
        f"{file.path} fits none of the known backbones ({', '.join(BACKBONES)}); {_describe_shapes(shapes)}"
    )


def _describe_shapes(shapes: dict[str, tuple[int, ...]]) -> str:
    patch = shapes.get("image_encoder.vit.patch_embed.proj.weight")
    image = f"a ViT of width {patch[0]} with patches of {patch[2]}" if patch else "no ViT (a ResNet or something else)"
    return f"it seems to hold {image}, and a text tower of shape {shapes['text_encoder.text_projection']}"


def _fitted(file: CheckpointFile, net: LSegNet) -> dict[str, Tensor]:
    """The file's weights as float32, complete; one ``InputError`` lists every kind of misfit."""
    found = misfits(file, net)
    if found:
        first_line = f"{file.path} does not fit the architecture {net.architecture['backbone']}:"
        raise InputError("\n".join([first_line, *describe_misfits(found)]))
    expected = net.state_dict()
    absent = {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype, device="cpu")
        for name, tensor in expected.items()
        if name not in file.weights  # only what is in no forward
    }
    weights = {**file.weights, **absent}
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
    """A line for each kind of misfit: how many, and the first three."""
    return [
        f"  {kind}: {len(names)} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})"
        for kind, names in found.items()
    ]


# ---------------------------------------------------------------------------------------------------- writing


def metadata_of(net: LSegNet, **progress: Any) -> dict[str, Any]:
    """What a checkpoint says of itself, in plain types. ``progress``: step, epoch, metric, dataset ..."""
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
    """Write the plain official state dict (no prefix, no CLIP visual tower), for the official code and others."""
    path = Path(path)
    plain = {name.removeprefix(OFFICIAL_PREFIX): tensor for name, tensor in to_official(net.state_dict()).items()}
    save_file(plain, path)
    return path


def save_file(content: Any, path: str | Path) -> None:
    """``torch.save`` aside, flush to the disk, rename: a kill or a full disk leaves the file that was there before.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    try:
        with write_aside(path) as aside, open(aside, "wb") as file:
            torch.save(content, file)
            file.flush()
            os.fsync(file.fileno())
    except (OSError, RuntimeError) as error:
        raise InputError(f"{path} could not be written ({error}); choose another folder") from error


def git_state() -> dict[str, Any]:
    """Commit and whether the tree was changed, {} where there is no git."""
    here = Path(__file__).parent

    def git(*args: str) -> str:
        return subprocess.run(["git", "-C", here, *args], capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "changed": bool(git("status", "--porcelain", "-uno"))}
    except (OSError, subprocess.CalledProcessError):
        return {}
