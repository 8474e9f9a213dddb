"""Checkpoint files as others write them: the official Lightning 1.3/1.4 layout, and hostile ones."""

from __future__ import annotations

import os
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from modules.checkpoint_metadata import METADATA_KEY, metadata_of
from modules.checkpoints import to_official
from modules.models import LSegNet, build_lseg
from tiny import pictures

CALLBACK_CLASS = b"pytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint"


def official_weights(net: LSegNet) -> dict[str, Tensor]:
    """``net``'s weights as official files hold them: prefix, CLIP in half precision with its visual tower.

    The text tower of ``net`` is rounded to half precision too, so that it stays the network of the file.
    """
    text = net.text_encoder.state_dict()
    net.text_encoder.load_state_dict({name: value.half().float() for name, value in text.items()})
    weights = OrderedDict(
        (name, value.half() if name.startswith("net.clip_pretrained.") else value.clone())
        for name, value in to_official(net.state_dict()).items()
    )
    weights["net.clip_pretrained.visual.proj"] = torch.randn(8, 4).half()
    weights["net.clip_pretrained.visual.conv1.weight"] = torch.randn(8, 3, 4, 4).half()
    return weights


def official_content(net: LSegNet, weights: dict[str, Tensor] | None = None) -> dict[str, Any]:
    """What pytorch-lightning 1.3 saved; the callbacks are keyed by a class."""
    trained = [p for p in net.parameters() if p.requires_grad][:3]
    optimizer = torch.optim.SGD([{"params": trained, "lr": 0.1}], momentum=0.9)
    for parameter in trained:
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 1 - epoch / 10)
    return {
        "epoch": 3,
        "global_step": 123,
        "pytorch-lightning_version": "1.3.5",
        "state_dict": official_weights(net) if weights is None else weights,
        "callbacks": {ModelCheckpoint: {"monitor": "val_acc_epoch", "best_model_score": torch.tensor(0.5)}},
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [scheduler.state_dict()],
    }


def official_training(net: LSegNet, epoch: int, step: int, epochs: int) -> dict[str, Any]:
    """``last.ckpt`` of an official run of ``epochs`` epochs with the rates of train.sh, about to run ``epoch``.

    The momentum of the weight ``name`` is ``momentum_of(name)`` everywhere.
    """
    content = official_content(net)
    shuffled = sorted(content["state_dict"].items(), key=lambda item: item[0][::-1])  # the file's order decides
    content["state_dict"] = OrderedDict(shuffled)
    groups, state, number = [], {}, 0
    for part, rate in (("net.pretrained.", 0.00025), ("net.scratch.", 0.0025)):
        names = [
            name for name, _ in shuffled if name.startswith(part) and not name.endswith(("mean", "var", "tracked"))
        ]
        for place, name in enumerate(names, number):
            if not any(unused in name for unused in (".norm.", ".head.", "refinenet4.resConfUnit1.")):
                momentum = torch.full_like(content["state_dict"][name], momentum_of(name))
                state[place] = {"momentum_buffer": momentum}
        group = {"lr": rate, "initial_lr": rate, "momentum": 0.9, "dampening": 0, "weight_decay": 1e-4}
        groups.append({**group, "nesterov": False, "params": list(range(number, number + len(names)))})
        number += len(names)
    rates = [group["initial_lr"] * (1 - epoch / epochs) ** 0.9 for group in groups]
    content["lr_schedulers"] = [{"base_lrs": [0.00025, 0.0025], "last_epoch": epoch, "_last_lr": rates}]
    content["optimizer_states"] = [{"state": state, "param_groups": groups}]
    return content | {"epoch": epoch, "global_step": step}


def momentum_of(name: str) -> float:
    """A number of its own for each official name, with the prefix ``net.``."""
    return 1 + zlib.crc32(name.encode()) / 2**32


def official_file(net: LSegNet, path: Path, weights: dict[str, Tensor] | None = None) -> Path:
    """Write that to ``path``."""
    torch.save(official_content(net, weights), path)
    return path


def own_file(net: LSegNet, path: Path) -> Path:
    """Write what the training scripts here save of ``net``, as far as it is needed to use it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": to_official(net.state_dict()), METADATA_KEY: metadata_of(net)}, path)
    return path


class Attack:
    """Pickled, it asks the reader to call ``function(*arguments)``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def attack(marker: Path) -> Attack:
    """The classic: a shell command; ``marker`` exists if it was run."""
    return Attack(os.system, f"touch '{marker}'")


def tiny_checkpoint(path: Path) -> Path:
    """A checkpoint of ours of a tiny random network, written to ``path``; returns it."""
    net = build_lseg("tiny_vit", None, features=16)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"state_dict": to_official(net.state_dict()), METADATA_KEY: metadata_of(net)}, path)
    return path


def assert_same_function(net, loaded) -> None:
    """Both networks give the same scores for the same pictures."""
    images = pictures(2, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images, ["sky", "dog"]), net(images, ["sky", "dog"]), atol=1e-5, rtol=0)
