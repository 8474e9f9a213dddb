"""What identifies a run: source, label list, versions, device, checkpoint."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path
from typing import Any

from data import get_labels
from lseg_utils.files import sha256_of
from lseg_utils.results import versions
from paper.entries import Entry

PACKAGES = ("torch", "torchvision", "timm", "pytorch-lightning", "clip-anytorch", "numpy", "pillow")


def identity_of(entry: Entry, data_path: Path | None, checkpoint: Path) -> dict[str, Any]:
    """All of it, in plain types, for a test of ``checkpoint`` that has just ended on this machine."""
    import torch

    from lseg_utils.git import git_state
    from modules.checkpoints import read_checkpoint
    from modules.models.fingerprint import fingerprint

    file = read_checkpoint(checkpoint)
    # With a fixed label set, a checkpoint of the same dataset is tested with its own list.
    own = file.metadata.get("labels") if file.metadata.get("dataset") == entry.dataset else None
    labels = own if own and entry.kind == "labels" else get_labels(str(entry.dataset), None, data_path)
    gpus = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
    return {
        "git": git_state(),
        "labels_sha256": hashlib.sha256("\n".join(labels).encode()).hexdigest(),
        "versions": versions(PACKAGES),
        "device": ", ".join(gpus) or f"CPU: {_processor()}",
        "checkpoint": str(checkpoint),
        "checkpoint_sha256": sha256_of(checkpoint),
        "tensors_sha256": fingerprint(file.weights),
    }


def _processor() -> str:
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
