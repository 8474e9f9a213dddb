"""Which network a checkpoint belongs to: from its metadata, else from the names and shapes of its weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from lseg_utils.errors import InputError

from .checkpoint_file import CheckpointFile
from .checkpoint_metadata import MAX_FEATURES
from .models import BACKBONES, LSegNet, build_lseg
from .models.backbones import OPEN_CLIP, TEXT_TOWERS, TIMM
from .models.fingerprint import DEAD

BLOCK_OPTIONS = ("arch_option", "block_depth", "activation")  # what shapes cannot tell
# Shapes do not tell which regularisation block a file has, and both kinds have the same.
ANY_BLOCK = {"arch_option": 1, "block_depth": 0, "activation": "lrelu"}


def skeleton(path: str | Path, architecture: dict[str, Any]) -> LSegNet:
    """The network that the file at ``path`` belongs to, on the device "meta": its weights come from the file.

    Networks of timm and open_clip have tables that no file contains, such as those of rotary positions and of causal
    attention, and are built with them.
    """
    own_tables = architecture["backbone"].startswith(TIMM) or architecture.get("text_tower", "").startswith(OPEN_CLIP)
    try:
        with torch.device("cpu" if own_tables else "meta"):
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
            f"{file.path} has a spatial regularisation block, and its shapes do not show which: give "
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
            f'Give the one that it was trained with, in Python backbone="{fitting[0]}", on the command line --backbone '
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
