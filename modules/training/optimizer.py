"""The optimiser: parameter groups with the rates of ``OptimizationConfig``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from lseg_utils.errors import InputError

from ..models import LSegNet
from .optimization import OptimizationConfig


def build_optimizer(net: LSegNet, config: OptimizationConfig) -> torch.optim.Optimizer:
    """The optimiser of everything trained: neither the text tower nor weights that no forward pass uses."""

    def trained(*modules: nn.Module) -> list[nn.Parameter]:
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    layers = encoder_layers(net) if config.layer_decay < 1 else {}
    layered = {id(p) for parameters in layers.values() for p in parameters}
    rest = [p for p in trained(net.image_encoder) if id(p) not in layered]
    # The encoder's group first, the decoder's second: these two are all there is without layer decay.
    groups: list[dict[str, Any]] = [{"params": rest, "scale": 1.0}, {"params": trained(net.decoder, net.head)}]
    for depth, parameters in sorted(layers.items()):  # 0 is the last block
        groups.append({"params": parameters, "scale": config.layer_decay**depth})
    for group in groups:
        group["lr"] = group["initial_lr"] = rate_of(group, config)
    # One kernel for all parameters instead of several for each: the same update, sooner.
    fused = net.decoder.embedding.weight.device.type in ("cpu", "cuda")
    common: dict[str, Any] = {"weight_decay": config.weight_decay, "fused": fused}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **common)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, betas=(0.9, 0.999), **common)


def encoder_layers(net: LSegNet) -> dict[int, list[nn.Parameter]]:
    """The trained parameters of the pretrained network by their depth, counted from its end.

    ``InputError`` for a network that timm does not know in layers.
    """
    from timm.models import group_parameters

    network = net.image_encoder.network
    if not hasattr(network, "group_matcher"):
        raise InputError("--layer_decay needs a vision transformer or another network of timm; leave it out")
    names = dict(network.named_parameters())
    trained = {name: p for name, p in names.items() if p.requires_grad}
    numbers = {
        name: int(number) for name, number in group_parameters(network, network.group_matcher(), reverse=True).items()
    }
    # Without the numbers that have no trained parameters, such as that of a classifier.
    order = sorted({numbers[name] for name in trained}, reverse=True)
    layers: dict[int, list[nn.Parameter]] = {}
    for name, parameter in trained.items():
        layers.setdefault(order.index(numbers[name]), []).append(parameter)
    return layers


def rate_of(group: dict[str, Any], config: OptimizationConfig) -> float:
    """The initial rate of a parameter group: the encoder's, scaled, or that of decoder and head."""
    return config.encoder_lr * group["scale"] if "scale" in group else config.scratch_lr


def apply_settings(optimizer: torch.optim.Optimizer, config: OptimizationConfig) -> None:
    """Apply the rates and decay of ``config``, not those in the optimiser state of a resumed run."""
    if not any("scale" in group for group in optimizer.param_groups):
        optimizer.param_groups[0]["scale"] = 1.0  # a run of an earlier version, or of the official code
    for group in optimizer.param_groups:
        group["initial_lr"] = rate_of(group, config)
        group["weight_decay"] = config.weight_decay
        if "momentum" in group:
            group["momentum"] = config.momentum
