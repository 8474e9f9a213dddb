"""Reads a checkpoint: its weights under our names, and what it says about itself; no code in it is run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lseg_utils.errors import InputError

from .checkpoint_metadata import METADATA_KEY, checked_metadata
from .models.hub import read_folder
from .safe_load import read_torch_file
from .weight_names import OFFICIAL_PREFIX, from_official
from .weights_file import check_weights_file

CLIP_PATCHES = "clip_pretrained.visual.conv1.weight"


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


def read_checkpoint(path: str | Path, trust_checkpoint: bool = False) -> CheckpointFile:
    """Read the weights of an official file, a plain state dict or one of ours, running no code from it.

    path: also a folder of the hub's kind, or its ``model.safetensors``, which ``config.json`` next to it describes.

    Raises:
        InputError: a missing, damaged or hostile file, one without weights, or one with a wrong description.
    """
    content = read_content(path, trust_checkpoint)
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


def read_content(path: str | Path, trust: bool) -> Any:
    """What ``read_torch_file`` reads; a folder of the hub's kind in the layout of our own files."""
    path = check_weights_file(path)
    if path.suffix != ".safetensors":
        return read_torch_file(path, trust=trust)
    try:
        weights, config = read_folder(path.parent)
    except ValueError as error:
        raise InputError(str(error)) from error
    tensors = {OFFICIAL_PREFIX + name: tensor for name, tensor in weights.items()}
    return {"state_dict": tensors, METADATA_KEY: config}


def _is_plain(tensor: Tensor) -> bool:
    """Whether it can be a weight: dense, real, in memory."""
    return not (tensor.layout != torch.strided or tensor.is_complex() or tensor.is_quantized or tensor.is_meta)
