"""Checkpoints become files of tensors, or folders for the Hugging Face hub, and the other way round."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from lseg_utils.errors import InputError

from .architecture import ANY_BLOCK, architecture_of, skeleton
from .checkpoint_file import CheckpointFile, read_checkpoint, read_content
from .checkpoint_metadata import METADATA_KEY
from .checkpoints import describe_misfits, misfits, save_file
from .models import LSegNet
from .models.fingerprint import fingerprint
from .models.hub import config_of, write_folder
from .models.model_card import model_card
from .weight_names import OFFICIAL_PREFIX, from_official, to_official


def convert(
    source: Path,
    target: Path,
    layout: str = "plain",
    trust_checkpoint: bool = False,
    results: Sequence[Path] = (),
    published: str = "",
) -> int:
    """Write the tensors of a checkpoint alone, so that they are read without unpickling classes.

    All its weights are kept, under their official names and in their precision, CLIP's image tower too.

    Args:
        source: a checkpoint, or ``model.safetensors`` in a folder of the hub's kind.
        layout: "plain": a state dict without the prefix ``net.``; "lightning": with it, under the key ``state_dict``,
            and what a file of this project says about itself; "hub": a folder for ``LSegNet.from_pretrained``.
        results: ``results.json`` files of the test scripts, for the model card of the layout "hub".
        published: a sentence for that card about a file that says nothing about itself, such as an official one.

    Returns:
        how many tensors were written.

    Raises:
        InputError: a file that cannot be read, that is not a complete LSeg network, or that is ``target`` itself.
    """
    if target.exists() and (target.samefile(source) or target.samefile(source.parent)):
        raise InputError(f"{target} is what is to be converted; give another name to write to")
    if layout == "hub" and target.is_file():
        raise InputError(f"{target} is a file, and --layout hub writes a folder; give another name")
    file = read_checkpoint(source, trust_checkpoint)
    unknown_block = file.has_block and not file.metadata
    if unknown_block and layout == "hub":
        raise InputError(
            f"{source} has a spatial regularisation block, and its shapes cannot tell which; in Python: "
            "LSegNet.of(load_lseg(FILE, arch_option=..., block_depth=..., activation=...)).save_pretrained(FOLDER)"
        )
    net = skeleton(source, architecture_of(file, ANY_BLOCK if unknown_block else {}))
    if found := misfits(file, net):
        raise InputError("\n".join([f"{source} is not a complete LSeg network:", *describe_misfits(found)]))
    content = read_content(source, trust_checkpoint)
    weights = {
        name.removeprefix(OFFICIAL_PREFIX): tensor.detach().contiguous()
        for name, tensor in content.get("state_dict", content).items()
        if isinstance(tensor, Tensor)
    }
    if layout == "hub":
        return _write_hub(file, net, weights, target, results, [] if file.metadata or not published else [published])
    prefixed = {OFFICIAL_PREFIX + name: tensor for name, tensor in weights.items()}
    described = {METADATA_KEY: file.metadata} if file.metadata else {}
    save_file(weights if layout == "plain" else {"state_dict": prefixed, **described}, target)
    return len(weights)


def _write_hub(
    file: CheckpointFile,
    net: LSegNet,
    weights: dict[str, Tensor],
    target: Path,
    results: Sequence[Path],
    notes: Sequence[str],
) -> int:
    """The layout "hub". net: the file's network on the device "meta". weights: under official names."""
    for name, tensor in to_official(net.state_dict()).items():  # what the forward pass does not use may be absent
        weights.setdefault(name.removeprefix(OFFICIAL_PREFIX), torch.zeros(tensor.shape, dtype=tensor.dtype))
    net.follow(file.metadata)
    config = config_of(net, fingerprint(from_official(weights)))
    try:
        measured = [json.loads(path.read_text(encoding="utf-8")) for path in results]
        card = model_card(target.name, config, measured, notes)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"--results {', '.join(map(str, results))} cannot be used: {error}") from error
    write_folder(target, weights, config, card)
    return len(weights)
