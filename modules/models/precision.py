"""Where a network computes in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.amp.autocast_mode import is_autocast_available


def full_precision(device: torch.device) -> AbstractContextManager:
    """No autocast inside, on devices that have such a thing."""
    return torch.autocast(device.type, enabled=False) if is_autocast_available(device.type) else nullcontext()
