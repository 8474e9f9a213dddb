"""What identifies a run: source, versions, device, checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lseg_utils.files import sha256_of
from lseg_utils.results import versions
from modules.hardware import processor_name

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "clip-anytorch", "numpy", "pillow")


def identity_of(checkpoint: Path) -> dict[str, Any]:
    """What the results of a test of ``checkpoint``, just ended on this machine, do not say, in plain types."""
    import torch

    from lseg_utils.git import git_state
    from modules.checkpoints import read_checkpoint
    from modules.models.fingerprint import fingerprint

    file = read_checkpoint(checkpoint)
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "git": git_state(),
        "versions": versions(PACKAGES),
        "device": ", ".join(gpus) or f"CPU: {processor_name()}",
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256_of(checkpoint),
        "tensors_sha256": fingerprint(file.weights),
    }
