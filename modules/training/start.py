"""The network that a training starts with: from a checkpoint, from CLIP and ImageNet files, or downloaded."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from lseg_utils.errors import InputError

from ..checkpoints import load_lseg
from ..models import LSegNet, build_lseg
from ..models.backbones import RANDOM
from ..models.pretrained import load_pretrained
from ..options import block_options
from ..safe_load import read_torch_file, read_torchscript_weights


def start_problems(options: argparse.Namespace) -> list[str]:
    """Files that are not there, and options that exclude one another."""
    problems = []
    for name in ("finetune_weights", "clip_weights", "backbone_weights"):
        path = getattr(options, name)
        if path and str(path) != RANDOM and not Path(path).is_file():
            problems.append(f"--{name}: there is no file {path}")
    if options.finetune_weights and (options.clip_weights or options.backbone_weights):
        problems.append("--finetune_weights replaces --clip_weights and --backbone_weights; give only one kind")
    if options.finetune_weights and options.dropout:
        problems.append("--dropout has no effect on the network of --finetune_weights; leave one of them out")
    return problems


def build_network(options: argparse.Namespace, labels: list[str], resuming: bool) -> LSegNet:
    """The network to train; nothing is downloaded where a checkpoint overwrites it anyway, nor by a dry run."""
    try:
        # Also where the run's own checkpoint will replace the weights: the architecture is that of the file.
        if options.finetune_weights:
            net = load_lseg(
                options.finetune_weights,
                labels=labels,
                trust_checkpoint=options.trust_checkpoint,
                **block_options(options),
            )
            check_backbone(net, options.backbone, options.finetune_weights)
        else:
            net = build_lseg(
                options.backbone,
                labels,
                features=options.num_features,
                dropout=options.dropout,
                **block_options(options),
            )
        check_label_lengths(net, labels)
        if not (options.finetune_weights or resuming):
            sources = (options.clip_weights, options.backbone_weights)
            if options.dry_run and None in sources:
                print("dry run: random weights stand in for what a training would download")
                sources = tuple(source or RANDOM for source in sources)
            load_pretrained(net, *sources, read=read_weights)
    except ValueError as error:
        raise InputError(str(error)) from error
    return net.train()


def check_backbone(net: LSegNet, backbone: str | None, path: Path) -> None:
    """``InputError`` if ``backbone`` is given and ``net``, loaded from ``path``, has another one."""
    found = net.architecture["backbone"]
    if backbone not in (None, found):
        raise InputError(
            f"backbone {backbone} was asked for, but {path} is a {found}; ask for {found}, or give another checkpoint"
        )


def check_label_lengths(net: LSegNet, labels: Sequence[str]) -> None:
    """``InputError`` for a label with more tokens than the text tower reads."""
    try:
        net.text_encoder.tokenize(labels)
    except ValueError as error:
        raise InputError(f"{error} (in the file of --label_src, or name another one)") from error


def read_weights(path: Path) -> dict[str, Any]:
    """A CLIP or ImageNet file: safetensors, a TorchScript archive, a state dict, or a dict that holds one."""
    if path.suffix == ".safetensors":
        return load_file(path)
    weights = read_torchscript_weights(path)
    weights = read_torch_file(path) if weights is None else weights
    return weights.get("state_dict", weights)
