"""The optimiser: two parameter groups with the rates of ``OptimizationConfig``."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..models import LSegNet
from .optimization import OptimizationConfig


def build_optimizer(net: LSegNet, config: OptimizationConfig) -> torch.optim.Optimizer:
    """The optimiser of everything trained: neither the text tower nor weights that no forward pass uses."""

    def trained(*modules: nn.Module) -> list[nn.Parameter]:
        return [p for module in modules for p in module.parameters() if p.requires_grad]

    groups = [
        {"params": trained(net.image_encoder), "lr": config.encoder_lr, "initial_lr": config.encoder_lr},
        {"params": trained(net.decoder, net.head), "lr": config.scratch_lr, "initial_lr": config.scratch_lr},
    ]
    # One kernel for all parameters instead of several for each: the same update, sooner.
    fused = net.decoder.embedding.weight.device.type in ("cpu", "cuda")
    common: dict[str, Any] = {"weight_decay": config.weight_decay, "fused": fused}
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, **common)
    kind = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, betas=(0.9, 0.999), **common)


def apply_settings(optimizer: torch.optim.Optimizer, config: OptimizationConfig) -> None:
    """Apply the rates and decay of ``config``, not those in the optimiser state of a resumed run."""
    for group, rate in zip(optimizer.param_groups, (config.encoder_lr, config.scratch_lr), strict=True):
        group["initial_lr"] = rate
        group["weight_decay"] = config.weight_decay
        if "momentum" in group:
            group["momentum"] = config.momentum
